/**
 * What every copy of every vshard holds, read from the memory of simulated nodes.
 *
 * Invariant: nothing is asked and nothing is changed: rows and records are read as a one-sided reader reads them, between two events, when no
 * writer is in any of them. The hash of a copy depends on ids, versions, components and metadata of its rows, not on where they lie.
 */
import { Arena } from "../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, USER0, USER1, USER2, USER3 } from "../../native-bridge/cell-layout.ts";
import { RegionTable } from "../../native-bridge/region-table.ts";
import {
  CHUNK_ENTRY_WORDS,
  chunkOfRow,
  firstRowOf,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  RECORD_PAYLOAD_BYTES,
  ROOT_BASE_SHIFT,
  ROOT_BYTES,
  ROOT_COLLECTION,
  ROOT_DIMENSIONS,
  ROOT_DOUBLINGS,
  ROOT_DROPPED,
  ROOT_MAGIC,
  ROOT_MAGIC_WORD,
  ROOT_ROW_TABLE,
  ROOT_ROWS_USED,
  ROOT_STRIDE,
} from "../store/collection-layout.ts";
import { idLengthOf } from "../store/id-codec.ts";

/** One copy of a collection's vshard. */
export interface CopyContent {
  /** What is copied. */
  readonly of: string;
  /** Where this copy is. */
  readonly at: string;
  readonly hash: number;
}

/** A shard whose memory is read. */
export interface ShardMemory {
  /** For people: "n0/w1". */
  readonly name: string;
  readonly shard: number;
  readonly memory: WebAssembly.Memory;
}

/** Everything that a shard holds a copy of, empty copies left out. */
export function contentsOf({ name, shard, memory }: ShardMemory): CopyContent[] {
  const arena = new Arena(memory);
  const hashes = new Map<string, number>();
  for (const { ref, cellStrideBytes } of new RegionTable(arena, shard, () => 0).list(shard)) {
    if (cellStrideBytes === ROOT_BYTES && ref.length === ROOT_BYTES) addCollection(arena, ref.address, hashes);
  }
  return [...hashes].map(([of, hash]) => ({ of, at: name, hash: hash >>> 0 }));
}

/** Adds the hashes of a collection's rows to those of their vshards: a sum, so that the order of rows does not count. */
function addCollection({ u32, bytes }: Arena, root: number, hashes: Map<string, number>): void {
  const word = (root + CELL_HEADER_BYTES) >>> 2;
  const get = (at: number): number => u32[word + at] as number;
  if (get(ROOT_MAGIC_WORD) !== ROOT_MAGIC || get(ROOT_DROPPED) !== 0) return;
  const geometry = { stride: get(ROOT_STRIDE), baseShift: get(ROOT_BASE_SHIFT), doublings: get(ROOT_DOUBLINGS) };
  const vectorBytes = get(ROOT_DIMENSIONS) * 4;
  for (let row = 0; row < get(ROOT_ROWS_USED); row++) {
    const chunk = chunkOfRow(geometry, row);
    const first = get(ROOT_ROW_TABLE + chunk * CHUNK_ENTRY_WORDS);
    if (first === 0) continue;
    const cell = first + (row - firstRowOf(geometry, chunk)) * geometry.stride;
    const record = u32[(cell >>> 2) + USER0] as number;
    if (record === 0) continue;
    const recordWord = record >>> 2;
    const idWord = u32[recordWord + RECORD_ID_WORD] as number;
    const recordEnd =
      record + RECORD_HEADER_BYTES + idLengthOf(idWord) + (u32[recordWord + RECORD_PAYLOAD_BYTES] as number);
    const version = Math.imul(u32[(cell >>> 2) + USER1] as number, 31) + (u32[(cell >>> 2) + USER2] as number);
    let hash = hashOf(bytes, record + RECORD_HEADER_BYTES, recordEnd, idWord ^ version);
    hash = hashOf(bytes, cell + CELL_HEADER_BYTES, cell + CELL_HEADER_BYTES + vectorBytes, hash);
    const of = `vshard ${u32[(cell >>> 2) + USER3]} of collection ${get(ROOT_COLLECTION)}`;
    hashes.set(of, ((hashes.get(of) ?? 0) + hash) | 0);
  }
}

/** FNV-1a. */
function hashOf(bytes: Uint8Array, from: number, to: number, seed: number): number {
  let hash = seed ^ 0x811c9dc5;
  for (let at = from; at < to; at++) hash = Math.imul(hash ^ (bytes[at] as number), 0x01000193);
  return hash;
}

/**
 * The first thing that its copies do not agree on, in words; undefined when all are equal.
 *
 * Copies whose primary is not among the shards are not compared: nobody levels them any more, as none is promoted yet.
 *
 * @param copiesOf Shards that hold a copy of a vshard, its primary first.
 */
export function firstDifference(
  shards: readonly ShardMemory[],
  copiesOf: (vshard: number) => ArrayLike<number>,
): string | undefined {
  const byShard = new Map(
    shards.map((memory) => [memory.shard, new Map(contentsOf(memory).map(({ of, hash }) => [of, hash]))]),
  );
  const names = new Map(shards.map(({ shard, name }) => [shard, name]));
  for (const of of new Set([...byShard.values()].flatMap((held) => [...held.keys()]))) {
    const vshard = Number(/^vshard (\d+)/.exec(of)?.[1]);
    const copies = Array.from(copiesOf(vshard));
    if (!byShard.has(copies[0] as number)) continue;
    const present = copies.filter((shard) => byShard.has(shard));
    const hashes = present.map((shard) => byShard.get(shard)?.get(of));
    if (new Set(hashes).size <= 1) continue;
    const held = present.map((shard, at) => `${names.get(shard)} ${hashes[at] === undefined ? "nothing" : hashes[at]}`);
    return `copies of ${of} differ: ${held.join(", ")}`;
  }
  return undefined;
}
