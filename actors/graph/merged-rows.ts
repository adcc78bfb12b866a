/**
 * The edges that values come along, of all peers in one list a row, for runs that sum values up by pulling.
 *
 * A list for each peer costs the end of a loop, which no processor foresees, for each row and peer: with two peers nearly half as much again as the
 * same edges in one list, with four twice as much. So the lists are laid out as one, and before each superstep what the peers' vertices have
 * sent is copied into one array, vertex after vertex and peer after peer.
 *
 * ```
 *  bytes   f64 values[vertices of all peers], u32 offsets[rows + 1], u32 targets[edges]
 * ```
 * Invariant: edges of a row are in the order in which the lists have them, so that sums are the same to the bit.
 */
import type { Kernels } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { Csr, PeerEdges } from "./csr.ts";
import type { Block, GraphRoot } from "./graph-root.ts";

const ROWS_A_SLICE = 32_768;
const VALUES_A_SLICE = 262_144;

/** A list, and the place of its peer's first vertex among all values. */
interface Part {
  readonly edges: PeerEdges;
  readonly first: number;
}

export class MergedRows {
  readonly block: Block;
  readonly #values: Float64Array;
  readonly #firsts: readonly number[];
  readonly #offsets: Uint32Array;
  readonly #targets: Uint32Array;

  private constructor(block: Block, { arena }: GraphRoot, rows: number, edges: number, rowsOf: readonly number[]) {
    let vertices = 0;
    this.#firsts = rowsOf.map((count) => {
      vertices += count;
      return vertices - count;
    });
    this.block = block;
    this.#values = new Float64Array(arena.buffer, block.address, vertices);
    this.#offsets = new Uint32Array(arena.buffer, block.address + vertices * 8, rows + 1);
    this.#targets = new Uint32Array(arena.buffer, block.address + vertices * 8 + (rows + 1) * 4, edges);
  }

  /**
   * @param origins Adjacency of one shard against the messages.
   * @param rowsOf Vertices of each shard.
   * @returns undefined where there is no room for it: lists of peers give the same, and take longer
   */
  static *of(
    root: GraphRoot,
    origins: readonly Csr[],
    rowsOf: readonly number[],
  ): Generator<boolean, MergedRows | undefined> {
    const rows = origins[0]?.rows ?? 0;
    const edges = origins.reduce((sum, csr) => sum + csr.edges, 0);
    const vertices = rowsOf.reduce((sum, count) => sum + count, 0);
    const block = allocated(root, vertices * 8 + (rows + 1 + edges) * 4);
    if (block === undefined) return undefined;
    let isWhole = false;
    try {
      const merged = new MergedRows(block, root, rows, edges, rowsOf);
      yield* merged.#fill(origins);
      isWhole = true;
      return merged;
    } finally {
      if (!isWhole) root.release(block); // also when nobody waits any more
    }
  }

  /** Copies what each peer's vertices have sent. */
  *take(sources: readonly Float64Array[]): Generator<boolean> {
    for (const [peer, source] of sources.entries()) {
      const first = this.#firsts[peer] as number;
      for (let from = 0; from < source.length; from += VALUES_A_SLICE) {
        this.#values.set(source.subarray(from, from + VALUES_A_SLICE), first + from);
        yield true;
      }
    }
  }

  /** Adds to rows in `[from, to)` what the other ends of their edges have sent. */
  pullSum(kernels: Kernels, into: Float64Array, from: number, to: number): void {
    const [offsets, targets, values] = [this.#offsets, this.#targets, this.#values];
    kernels.pullSum(into.byteOffset, offsets.byteOffset, targets.byteOffset, values.byteOffset, from, to);
  }

  *#fill(origins: readonly Csr[]): Generator<boolean> {
    const parts: Part[] = origins.flatMap(({ peers }) =>
      peers.map((edges, peer): Part => ({ edges, first: this.#firsts[peer] as number })),
    );
    const rows = this.#offsets.length - 1;
    this.#offsets[0] = 0;
    for (let from = 0; from < rows; from += ROWS_A_SLICE) {
      mergeRows(this.#offsets, this.#targets, parts, from, Math.min(rows, from + ROWS_A_SLICE));
      yield true;
    }
  }
}

function mergeRows(into: Uint32Array, merged: Uint32Array, parts: readonly Part[], from: number, to: number): void {
  let filled = into[from] as number;
  for (let row = from; row < to; row++) {
    for (let part = 0; part < parts.length; part++) {
      const { edges, first } = parts[part] as Part;
      const { offsets, targets } = edges;
      const end = offsets[row + 1] as number;
      for (let at = offsets[row] as number; at < end; at++) merged[filled++] = first + (targets[at] as number);
    }
    into[row + 1] = filled;
  }
}

function allocated(root: GraphRoot, byteLength: number): Block | undefined {
  try {
    return root.allocate(byteLength);
  } catch (error) {
    if (ShardloomError.from(error).code !== "ERR_OUT_OF_MEMORY") throw error;
    return undefined;
  }
}
