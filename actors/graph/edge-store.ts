/**
 * The edges of one shard: those that leave its vertices. New ones wait in blocks until the next run builds them into the adjacency.
 *
 * A waiting edge is three words, `row | peer | target`, and two more for each number that it carries: its weight, its properties.
 *
 * Invariant: an acknowledged edge is in the adjacency or waits, never both. An adjacency names the generation of waiting edges that it has
 * taken in; a successor that finds that generation still waiting knows that its predecessor died before it could forget them.
 */
import { ShardloomError } from "../../src/errors.ts";
import { allocateCsr, type Csr, type EdgeList, type EdgeShape, fillPeer, openCsr, type PeerEdges } from "./csr.ts";
import {
  ALL,
  type Decay,
  type Edit,
  type Keeps,
  keeper,
  placesOf,
  type Rebuild,
  type Removals,
  type ResolvedEdges,
} from "./edge-changes.ts";
import { type Block, type GraphRoot, MAX_STAGE_BLOCKS, ROOT_WORD } from "./graph-root.ts";

/** Edges of the first block; each further one has twice as many, up to the limit. */
const FIRST_EDGES = 1024;
const MOST_EDGES = 256 * 1024;
const SLICE = 65_536;

export class EdgeStore {
  readonly shape: EdgeShape;
  readonly #root: GraphRoot;
  readonly #peers: number;
  readonly #words: number;
  #csr: Csr | undefined;
  #lastDecay = { number: 0, pruned: 0 };
  /** Removals that the adjacency knows of; of a predecessor's nothing is known. */
  stamp = 0;

  constructor(root: GraphRoot, peers: number, shape: EdgeShape) {
    this.#root = root;
    this.#peers = peers;
    this.shape = shape;
    this.#words = 3 + 2 * shape.columns;
    const out = root.block(ROOT_WORD.out);
    if (out === undefined) return;
    this.#csr = openCsr(root.arena, out.address);
    if (this.#csr.generation === root.get(ROOT_WORD.generation)) this.#forgetWaiting();
  }

  get count(): number {
    return (this.#csr?.edges ?? 0) + this.#root.get(ROOT_WORD.staged);
  }

  /** The last decay that was done. */
  get decays(): number {
    return this.#csr?.decays ?? 0;
  }

  /** Bytes of the waiting edges and of the adjacency. */
  get byteLength(): number {
    let bytes = this.#root.block(ROOT_WORD.out)?.byteLength ?? 0;
    for (let at = 0; at < MAX_STAGE_BLOCKS; at++) bytes += this.#stage(at)?.byteLength ?? 0;
    return bytes;
  }

  /** Appends edges, all or none. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`. */
  add(edges: ResolvedEdges): void {
    const root = this.#root;
    const { u32, f64 } = root.arena;
    const staged = root.get(ROOT_WORD.staged);
    this.#reserve(staged + edges.count);
    let { block, first, size } = blockOf(staged);
    let base = (this.#stage(block) as Block).address >>> 2;
    for (let at = 0; at < edges.count; at++) {
      if (staged + at - first === size) {
        ({ block, first, size } = blockOf(staged + at));
        base = (this.#stage(block) as Block).address >>> 2;
      }
      const within = staged + at - first;
      const word = base + within * 3;
      u32[word] = edges.rows[at] as number;
      u32[word + 1] = edges.peers[at] as number;
      u32[word + 2] = edges.targets[at] as number;
      // What edges carry lies behind the words of their block, column by column.
      for (let column = 0; column < this.shape.columns; column++) {
        const value = edges.columns === undefined ? this.#valueOfNone(column) : edges.columns[column]?.[at];
        f64[((base + size * 3) >>> 1) + column * size + within] = value as number;
      }
    }
    root.set(ROOT_WORD.staged, staged + edges.count); // publishes
    root.set(ROOT_WORD.structure, root.get(ROOT_WORD.structure) + 1);
  }

  /** The adjacency, when it has every edge of this many rows. */
  built(rows: number): Csr | undefined {
    const csr = this.#csr;
    const whole = this.#root.get(ROOT_WORD.staged) === 0;
    return csr !== undefined && csr.rows === rows && whole ? csr : undefined;
  }

  /** The block of the adjacency that {@link built} gives. */
  get block(): Block | undefined {
    return this.#root.block(ROOT_WORD.out);
  }

  /**
   * Builds what waits into the adjacency, and leaves out what removed vertices have left. Nothing may be added meanwhile.
   *
   * @param rows Vertices of this shard.
   * @param targetRows A number above all targets.
   */
  *build(rows: number, targetRows: readonly number[], removals: Removals): Generator<boolean> {
    if (removals.stamp === this.stamp && this.built(rows) !== undefined) return;
    yield* this.#rebuild(rows, targetRows, removals, { keeps: this.#present(removals) });
  }

  /**
   * Makes all weights smaller, and leaves out edges whose weight has become too small. Everything must be built.
   *
   * @returns how many edges were left out
   */
  *decay(targetRows: readonly number[], removals: Removals, decay: Decay): Generator<boolean, number> {
    const csr = this.#csr as Csr;
    if (decay.number <= csr.decays) return decay.number === this.#lastDecay.number ? this.#lastDecay.pruned : 0;
    const present = this.#present(removals);
    const stays: Keeps = (row, peer, target, at) => {
      const weight = (csr.peers[peer] as PeerEdges).weights?.[at] as number;
      return Math.abs(weight * decay.factor) >= decay.below && present(row, peer, target, at);
    };
    const edit: Edit = ([weights], at) => {
      if (weights !== undefined) weights[at] = (weights[at] as number) * decay.factor;
    };
    yield* this.#rebuild(csr.rows, targetRows, removals, { keeps: stays, edit, decays: decay.number });
    this.#touch();
    const pruned = csr.edges - (this.#csr as Csr).edges;
    this.#lastDecay = { number: decay.number, pruned };
    return pruned;
  }

  /**
   * Gives all edges between pairs of vertices other numbers; NaN leaves what is there. Everything must be built.
   *
   * @returns how many edges there were
   */
  *set(targetRows: readonly number[], removals: Removals, edges: ResolvedEdges): Generator<boolean, number> {
    const csr = this.#csr as Csr;
    const places = csr.peers.map(() => new Map<number, number>());
    for (let at = 0; at < edges.count; at++)
      for (const place of placesOf(csr, edges, at)) places[edges.peers[at] as number]?.set(place, at);
    const count = places.reduce((sum, { size }) => sum + size, 0);
    if (count === 0) return 0;
    const edit: Edit = (columns, filled, peer, place) => {
      const at = places[peer]?.get(place);
      if (at === undefined) return;
      for (let column = 0; column < columns.length; column++) {
        const value = edges.columns?.[column]?.[at] ?? Number.NaN;
        if (!Number.isNaN(value)) (columns[column] as Float64Array)[filled] = value;
      }
    };
    yield* this.#rebuild(csr.rows, targetRows, removals, { keeps: this.#present(removals), edit });
    this.#touch();
    return count;
  }

  #touch(): void {
    this.#root.set(ROOT_WORD.structure, this.#root.get(ROOT_WORD.structure) + 1);
  }

  /** One block for another: what it does is done when the root names the new one. */
  *#rebuild(
    rows: number,
    targetRows: readonly number[],
    removals: Removals,
    { keeps, edit, decays = this.decays }: Rebuild,
  ): Generator<boolean> {
    const root = this.#root;
    const counts = yield* this.#countPeers(keeps);
    const block = allocateCsr(root, rows, counts, this.shape, root.get(ROOT_WORD.generation), decays);
    try {
      const csr = openCsr(root.arena, block.address);
      for (let peer = 0; peer < this.#peers; peer++) {
        const list = yield* this.#collect(peer, counts[peer] as number, keeps, edit);
        yield* fillPeer(csr.peers[peer] as never, list, targetRows[peer] as number);
      }
      // In one turn from here on.
      const old = root.name(ROOT_WORD.out, block);
      this.#forgetWaiting();
      this.#csr = csr;
      this.stamp = removals.stamp;
      if (old !== undefined) root.release(old);
    } catch (error) {
      root.release(block);
      throw error;
    }
  }

  /**
   * Removes all edges between pairs of vertices. Everything must be built.
   *
   * @returns how many edges there were
   */
  *remove(targetRows: readonly number[], removals: Removals, edges: ResolvedEdges): Generator<boolean, number> {
    const csr = this.#csr as Csr;
    const places = csr.peers.map(() => new Set<number>());
    for (let at = 0; at < edges.count; at++)
      for (const place of placesOf(csr, edges, at)) places[edges.peers[at] as number]?.add(place);
    const count = places.reduce((sum, { size }) => sum + size, 0);
    if (count === 0) return 0;
    const present = this.#present(removals);
    const keeps: Keeps = (row, peer, target, at) => places[peer]?.has(at) !== true && present(row, peer, target, at);
    yield* this.#rebuild(csr.rows, targetRows, removals, { keeps });
    this.#touch();
    return count;
  }

  /** What stays of edges whose ends may have been removed. */
  #present(removals: Removals): Keeps {
    return removals.stamp === this.stamp ? ALL : keeper(removals);
  }

  /** Generations begin at 1, as an adjacency that was never written has 0. */
  #forgetWaiting(): void {
    const root = this.#root;
    root.set(ROOT_WORD.staged, 0);
    root.set(ROOT_WORD.generation, root.get(ROOT_WORD.generation) + 1);
    for (let at = 0; at < MAX_STAGE_BLOCKS; at++) {
      const stage = root.name(ROOT_WORD.stage + 2 * at, undefined);
      if (stage !== undefined) root.release(stage);
    }
  }

  #stage(at: number): Block | undefined {
    return this.#root.block(ROOT_WORD.stage + 2 * at);
  }

  #reserve(edges: number): void {
    if (edges === 0) return;
    const last = blockOf(edges - 1).block;
    if (last >= MAX_STAGE_BLOCKS) {
      throw new ShardloomError(
        "ERR_OVERLOADED",
        `Cannot add edges as ${edges} would wait on one shard: run something first`,
        {
          details: { edges },
        },
      );
    }
    for (let at = 0; at <= last; at++) {
      if (this.#stage(at) !== undefined) continue;
      this.#root.name(ROOT_WORD.stage + 2 * at, this.#root.allocate(sizeOf(at) * this.#words * 4));
    }
  }

  *#countPeers(keeps: Keeps): Generator<boolean, number[]> {
    const counts = Array.from({ length: this.#peers }, (_, peer) => this.#countKept(peer, keeps));
    yield true;
    for (const { words, size } of this.#waiting()) {
      for (let at = 0; at < size; at++) {
        const peer = words[at * 3 + 1] as number;
        if (keeps(words[at * 3] as number, peer, words[at * 3 + 2] as number, -1))
          counts[peer] = (counts[peer] as number) + 1;
      }
      yield true;
    }
    return counts;
  }

  *#collect(peer: number, count: number, keeps: Keeps, edit: Edit | undefined): Generator<boolean, EdgeList> {
    const rows = new Uint32Array(count);
    const targets = new Uint32Array(count);
    const columns = Array.from({ length: this.shape.columns }, () => new Float64Array(count));
    const kept = this.#csr?.peers[peer];
    let filled = 0;
    this.#eachKept(peer, keeps, (row, at) => {
      rows[filled] = row;
      targets[filled] = kept?.targets[at] as number;
      for (let column = 0; column < columns.length; column++)
        (columns[column] as Float64Array)[filled] = kept?.columns[column]?.[at] as number;
      edit?.(columns, filled, peer, at);
      filled++;
    });
    yield true;
    for (const { words, values, size } of this.#waiting()) {
      for (let at = 0; at < size; at++) {
        const row = words[at * 3] as number;
        const target = words[at * 3 + 2] as number;
        if (words[at * 3 + 1] !== peer || !keeps(row, peer, target, -1)) continue;
        rows[filled] = row;
        targets[filled] = target;
        for (let column = 0; column < columns.length; column++)
          (columns[column] as Float64Array)[filled] = values[column]?.[at] as number;
        filled++;
      }
      yield true;
    }
    return { rows, targets, columns };
  }

  #countKept(peer: number, keeps: Keeps): number {
    if (keeps === ALL) return this.#csr?.peers[peer]?.edges ?? 0;
    let count = 0;
    this.#eachKept(peer, keeps, () => count++);
    return count;
  }

  /** Edges of the adjacency that stay. */
  #eachKept(peer: number, keeps: Keeps, take: (row: number, at: number) => void): void {
    const kept = this.#csr?.peers[peer];
    if (kept === undefined) return;
    for (let row = 0; row + 1 < kept.offsets.length; row++) {
      for (let at = kept.offsets[row] as number; at < (kept.offsets[row + 1] as number); at++) {
        if (!keeps(row, peer, kept.targets[at] as number, at)) continue;
        take(row, at);
      }
    }
  }

  #valueOfNone(column: number): number {
    return column === 0 && this.shape.weighted ? 1 : Number.NaN;
  }

  *#waiting(): Generator<{ words: Uint32Array; values: readonly Float64Array[]; size: number }> {
    const staged = this.#root.get(ROOT_WORD.staged);
    const { buffer } = this.#root.arena;
    for (let from = 0; from < staged; ) {
      const { block, first, size } = blockOf(from);
      const { address } = this.#stage(block) as Block;
      const used = Math.min(size, staged - first);
      for (let at = from - first; at < used; at += SLICE) {
        const count = Math.min(SLICE, used - at);
        const words = new Uint32Array(buffer, address + at * 12, count * 3);
        const values = Array.from(
          { length: this.shape.columns },
          (_, column) => new Float64Array(buffer, address + size * 12 + (column * size + at) * 8, count),
        );
        yield { words, values, size: count };
      }
      from = first + size;
    }
  }
}

function sizeOf(block: number): number {
  return Math.min(MOST_EDGES, FIRST_EDGES * 2 ** Math.min(block, 30));
}

/** Blocks that grow: 1024, 2048, … up to the limit, then all of that size. */
function blockOf(edge: number): { block: number; first: number; size: number } {
  const growing = Math.log2(MOST_EDGES / FIRST_EDGES);
  const before = FIRST_EDGES * (2 ** growing - 1);
  if (edge >= before) {
    const block = growing + Math.floor((edge - before) / MOST_EDGES);
    return { block, first: before + (block - growing) * MOST_EDGES, size: MOST_EDGES };
  }
  const block = Math.floor(Math.log2(edge / FIRST_EDGES + 1));
  return { block, first: FIRST_EDGES * (2 ** block - 1), size: sizeOf(block) };
}
