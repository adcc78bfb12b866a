/**
 * What faults do to shared memory: a cell that its writer died in, a damaged word in a ring.
 *
 * Invariant: only what production promises to survive. A torn cell is one that a writer could have been in: a free row (its
 * record address still 0), a row whose change is announced whole in the shadow, or a root between two valid states; so no
 * acknowledged write is lost. A damaged ring word is one of a record's framing, which the consumer checks before it follows it;
 * payloads have no checksum in shared memory, and are left alone.
 * Source: `src/store/shadow.ts` and `collection-root.ts` for what a death may leave; `native-bridge/ring-layout.ts`.
 */
import { Arena } from "../../native-bridge/arena.ts";
import { openBridge } from "../../native-bridge/bridge-layout.ts";
import { bumpIncarnation, tryBeginWrite } from "../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES, USER0, USER1, USER2, USER3, USER4 } from "../../native-bridge/cell-layout.ts";
import { RegionTable } from "../../native-bridge/region-table.ts";
import { HEAD_OFFSET, RING_HEADER_BYTES } from "../../native-bridge/ring-layout.ts";
import {
  CHUNK_ENTRY_WORDS,
  chunkOfRow,
  firstRowOf,
  ROOT_BASE_SHIFT,
  ROOT_BYTES,
  ROOT_DIMENSIONS,
  ROOT_DOUBLINGS,
  ROOT_DROPPED,
  ROOT_MAGIC,
  ROOT_MAGIC_WORD,
  ROOT_ROW_CHUNKS,
  ROOT_ROW_TABLE,
  ROOT_ROWS_USED,
  ROOT_STRIDE,
  type RowGeometry,
  rowsInChunk,
} from "../store/collection-layout.ts";
import { Shadow } from "../store/shadow.ts";

/** One torn cell in so many is a root's. */
const ROOT_SHARE = 8;
const TWO_32 = 2 ** 32;
/** Written over what a dead writer may have left in any state; as a float it is no number. */
const SCRIBBLE = 0x7fc0_dead;

/**
 * Leaves a cell of a dead worker's collections as its death in the middle of a write would.
 *
 * Call it when the worker runs no more and its successor has not begun to adopt its regions.
 *
 * @param owner Owner of the regions: the shard that the worker served.
 * @param size Which cell, in `[0, 1)`.
 * @returns What was torn, for the trace; undefined when the worker had no collection to be in.
 */
export function tearRegion(memory: WebAssembly.Memory, owner: number, size: number): string | undefined {
  const arena = new Arena(memory);
  const roots = new RegionTable(arena, owner, () => 0)
    .list(owner)
    .filter(({ ref, cellStrideBytes }) => cellStrideBytes === ROOT_BYTES && ref.length === ROOT_BYTES)
    .map(({ ref }) => new TornCollection(arena, ref.address))
    .filter((collection) => collection.isLive);
  const [index, within] = split(size, roots.length);
  const [root, inRoot] = split(within, ROOT_SHARE);
  return root === 0 ? roots[index]?.tearRoot() : roots[index]?.tearRow(inRoot);
}

/** Draws one of `count` and leaves the rest of the fraction for the next draw. */
function split(fraction: number, count: number): readonly [number, number] {
  const index = Math.floor(fraction * count);
  return [index, fraction * count - index];
}

class TornCollection {
  readonly #arena: Arena;
  readonly #root: number;

  constructor(arena: Arena, root: number) {
    this.#arena = arena;
    this.#root = root;
  }

  get isLive(): boolean {
    return this.#get(ROOT_MAGIC_WORD) === ROOT_MAGIC && this.#get(ROOT_DROPPED) === 0;
  }

  /** Before a change of the tables: everything in them is as it was. */
  tearRoot(): string | undefined {
    return tryBeginWrite(this.#arena.i32, this.#root) ? `root at ${this.#root}` : undefined;
  }

  tearRow(fraction: number): string | undefined {
    const chunks = this.#get(ROOT_ROW_CHUNKS);
    if (chunks === 0) return this.tearRoot();
    const geometry = this.#geometry();
    const capacity = firstRowOf(geometry, chunks - 1) + rowsInChunk(geometry, chunks - 1);
    const used = Math.min(this.#get(ROOT_ROWS_USED), capacity);
    const [row] = split(fraction, Math.min(used + 1, capacity)); // the row behind the last is the next to be written
    const cell = this.#cellOf(geometry, row);
    return this.#arena.u32[(cell >>> 2) + USER0] === 0 ? this.#tearFree(row, cell) : this.#tearUsed(row, cell);
  }

  /** A new row of which the record address, which makes it one, was not written yet. */
  #tearFree(row: number, cell: number): string | undefined {
    const { i32 } = this.#arena;
    if (!tryBeginWrite(i32, cell)) return undefined;
    if (row >= this.#get(ROOT_ROWS_USED)) Atomics.store(i32, this.#word(ROOT_ROWS_USED), row + 1);
    bumpIncarnation(i32, cell);
    this.#scribble(cell, USER1);
    return `free row ${row} at ${cell}`;
  }

  /** A row that was being written again, as it is: the change is announced, and the cell in any state. */
  #tearUsed(row: number, cell: number): string | undefined {
    const { i32, u32, f32, bytes } = this.#arena;
    const shadow = new Shadow({ arena: this.#arena, shadow: this.#root + ROOT_BYTES }, this.#get(ROOT_DIMENSIONS));
    if (shadow.announcedRow() >= 0 || !tryBeginWrite(i32, cell)) return undefined;
    const word = cell >>> 2;
    const version = (u32[word + USER2] as number) * TWO_32 + (u32[word + USER1] as number);
    const from = cell + CELL_HEADER_BYTES;
    bytes.copyWithin(shadow.vectorOffset, from, from + this.#get(ROOT_DIMENSIONS) * 4);
    shadow.announceUpdate(
      row,
      u32[word + USER0] as number,
      version,
      i32[word + USER3] as number,
      f32[word + USER4] as number,
    );
    this.#scribble(cell, USER0);
    return `row ${row} at ${cell}`;
  }

  /** @param user First word of the header that the writer may have been in. */
  #scribble(cell: number, user: number): void {
    const end = cell + this.#get(ROOT_STRIDE);
    this.#arena.i32.fill(SCRIBBLE, (cell >>> 2) + user, end >>> 2);
  }

  #geometry(): RowGeometry {
    return {
      stride: this.#get(ROOT_STRIDE),
      baseShift: this.#get(ROOT_BASE_SHIFT),
      doublings: this.#get(ROOT_DOUBLINGS),
    };
  }

  #cellOf(geometry: RowGeometry, row: number): number {
    const chunk = chunkOfRow(geometry, row);
    return (
      this.#get(ROOT_ROW_TABLE + chunk * CHUNK_ENTRY_WORDS) + (row - firstRowOf(geometry, chunk)) * geometry.stride
    );
  }

  #get(index: number): number {
    return this.#arena.u32[this.#word(index)] as number;
  }

  #word(index: number): number {
    return ((this.#root + CELL_HEADER_BYTES) >>> 2) + index;
  }
}

/** One ring, where its consumer is. */
interface RingPlace {
  readonly i32: Int32Array;
  readonly name: string;
  /** Word of the size of the next record. */
  readonly word: number;
  readonly hasRecord: boolean;
}

/**
 * Damages the framing of an unread record in one of a worker's rings: its size word is lost or wrong, or its type word is.
 *
 * Where nothing is unread the damage is a size word where no record is yet; a record that is written there later heals it.
 *
 * @param bridges All bridges of the worker, of clients and peers, in an order that repeats.
 * @param size Which ring and which damage, in `[0, 1)`.
 * @returns What was damaged, for the trace; undefined when there is no bridge.
 */
export function corruptRing(bridges: readonly SharedArrayBuffer[], size: number): string | undefined {
  const rings = bridges.flatMap((bridge, index) => ringsOf(bridge, index));
  const unread = rings.filter(({ hasRecord }) => hasRecord);
  const candidates = unread.length > 0 ? unread : rings;
  const [index, within] = split(size, candidates.length);
  const ring = candidates[index];
  if (ring === undefined) return undefined;
  const { i32, word, name } = ring;
  const [damage, which] = split(within, ring.hasRecord ? 3 : 1);
  const bits = 1 << Math.floor(which * 31);
  if (damage === 0) Atomics.xor(i32, word, bits);
  else if (damage === 1) Atomics.store(i32, word, 0);
  else Atomics.xor(i32, word + 1, bits);
  return `${["size", "lost size", "type"][damage]} of ${name}`;
}

function ringsOf(bridge: SharedArrayBuffer, index: number): RingPlace[] {
  const { requestRingOffset, requestCapacityBytes, replyRingOffset, replyCapacityBytes } = openBridge(bridge);
  const i32 = new Int32Array(bridge);
  const place = (name: string, offset: number, capacity: number): RingPlace => {
    const head = Atomics.load(i32, (offset + HEAD_OFFSET) >>> 2);
    const word = (offset + RING_HEADER_BYTES + (head & (capacity - 1))) >>> 2;
    return { i32, name: `${name} of bridge ${index}`, word, hasRecord: Atomics.load(i32, word) !== 0 };
  };
  return [
    place("requests", requestRingOffset, requestCapacityBytes),
    place("replies", replyRingOffset, replyCapacityBytes),
  ];
}
