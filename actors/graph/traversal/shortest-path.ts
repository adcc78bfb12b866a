/**
 * A shortest path between two vertices: fewest edges, searched from both ends; or least weight.
 *
 * Invariant: without `truncated` the path is a shortest one, and no path means that there is none. With it, a path is one, and there may
 * be a shorter. Same graph, same answer: of several shortest paths the one that is found first.
 * Source: Pohl, "Bi-directional Search", 1971, for edges; a label-correcting search that expands the nearest vertices first, a batch at a
 * time, for weights. **Divergence** from Dijkstra: a vertex may be expanded again when a batch was too hasty; a batch of 1 is Dijkstra.
 */
import { ShardloomError } from "../../../src/errors.ts";
import { type HeapNode, IndexedHeap } from "../../../src/routing/indexed-heap.ts";
import type { VertexKey } from "../vertex-key.ts";
import {
  type Adjacency,
  batches,
  type Direction,
  NeighbourReader,
  type TraversalOptions,
  type Truncation,
} from "./adjacency.ts";

export interface ShortestPathOptions extends TraversalOptions {
  /** @default "out" */
  readonly direction?: Direction | undefined;
  /** Least sum of weights rather than fewest edges. Weights must be ≥ 0. @default false */
  readonly weighted?: boolean | undefined;
}

export interface ShortestPath {
  /** From one to the other, both included; undefined: none was found. */
  readonly path: readonly VertexKey[] | undefined;
  /** Edges, or sum of weights, of the path; infinite without one. */
  readonly distance: number;
  /** Neighbours read. */
  readonly edges: number;
  /** Set when a bound ended the search. */
  readonly truncated: Truncation | undefined;
}

const OPPOSITE: Readonly<Record<Direction, Direction>> = { out: "in", in: "out", both: "both" };

/**
 * Finds a shortest path.
 *
 * @throws {ShardloomError} `ERR_UNKNOWN_VERTEX` for an end that is not in the graph; `ERR_INVALID_ARGUMENT` for a bad option, and for a
 *   weight below 0 or NaN (`details.vertex`: where its edge leaves); `ERR_ABORTED`
 */
export async function shortestPath(
  adjacency: Adjacency,
  from: VertexKey,
  to: VertexKey,
  options: ShortestPathOptions = {},
): Promise<ShortestPath> {
  const reader = new NeighbourReader(adjacency, options);
  const { direction = "out", weighted = false } = options;
  await reader.assertThere("from", [from], direction);
  await reader.assertThere("to", [to], direction);
  const { path, distance } =
    from === to
      ? { path: [from], distance: 0 }
      : weighted
        ? await leastWeight(reader, from, to, direction)
        : await fewestEdges(reader, from, to, direction);
  return { path, distance, edges: reader.edges, truncated: reader.truncated };
}

interface Found {
  readonly path: readonly VertexKey[] | undefined;
  readonly distance: number;
}

const NOTHING: Found = { path: undefined, distance: Number.POSITIVE_INFINITY };

/** What was reached from one end. */
interface Side {
  readonly direction: Direction;
  readonly depths: Map<VertexKey, number>;
  /** The vertex before, on the way from this end. */
  readonly parents: Map<VertexKey, VertexKey>;
  frontier: VertexKey[];
}

async function fewestEdges(
  reader: NeighbourReader,
  from: VertexKey,
  to: VertexKey,
  direction: Direction,
): Promise<Found> {
  const forward = sideOf(from, direction);
  const backward = sideOf(to, OPPOSITE[direction]);
  while (forward.frontier.length > 0 && backward.frontier.length > 0) {
    const isForward = forward.frontier.length <= backward.frontier.length;
    const [side, other] = isForward ? [forward, backward] : [backward, forward];
    const meeting = await expand(reader, side, other);
    if (meeting !== undefined) {
      const path = [...wayTo(forward.parents, meeting).reverse(), ...wayTo(backward.parents, meeting).slice(1)];
      return { path, distance: path.length - 1 };
    }
    if (reader.truncated !== undefined) break;
  }
  return NOTHING;
}

function sideOf(start: VertexKey, direction: Direction): Side {
  return { direction, depths: new Map([[start, 0]]), parents: new Map(), frontier: [start] };
}

/** Goes one edge further on one side. @returns Where it met the other side, at the least depth there. */
async function expand(reader: NeighbourReader, side: Side, other: Side): Promise<VertexKey | undefined> {
  const next: VertexKey[] = [];
  const depth = (side.depths.get(side.frontier[0] as VertexKey) as number) + 1;
  let meeting: VertexKey | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const batch of batches(side.frontier, reader.batchSize)) {
    const lists = await reader.read(batch, side.direction);
    if (lists === undefined) break;
    for (const [index, { keys }] of lists.entries()) {
      for (const key of keys) {
        if (side.depths.has(key)) continue;
        side.depths.set(key, depth);
        side.parents.set(key, batch[index] as VertexKey);
        next.push(key);
        const beyond = other.depths.get(key) ?? Number.POSITIVE_INFINITY;
        if (beyond >= least) continue;
        least = beyond;
        meeting = key;
      }
    }
  }
  side.frontier = next;
  return meeting;
}

/** From a vertex back to the start of its side. */
function wayTo(parents: ReadonlyMap<VertexKey, VertexKey>, end: VertexKey): VertexKey[] {
  const way = [end];
  for (let key = parents.get(end); key !== undefined; key = parents.get(key)) way.push(key);
  return way;
}

interface Label extends HeapNode {
  readonly key: VertexKey;
  distance: number;
  parent: Label | undefined;
  /** Order of discovery: ties go to what was found first. */
  readonly order: number;
}

async function leastWeight(
  reader: NeighbourReader,
  from: VertexKey,
  to: VertexKey,
  direction: Direction,
): Promise<Found> {
  const labels = new Map<VertexKey, Label>();
  const heap = new IndexedHeap<Label>((a, b) =>
    a.distance === b.distance ? a.order < b.order : a.distance < b.distance,
  );
  const best = (): number => labels.get(to)?.distance ?? Number.POSITIVE_INFINITY;
  const improve = (key: VertexKey, distance: number, parent: Label | undefined): void => {
    let label = labels.get(key);
    if (label !== undefined && distance >= label.distance) return;
    if (label === undefined) {
      label = { key, distance, parent, order: labels.size, place: -1 };
      labels.set(key, label);
    }
    label.distance = distance;
    label.parent = parent;
    if (label.place < 0) heap.push(label);
    else heap.moved(label);
  };
  improve(from, 0, undefined);
  while (heap.size > 0) {
    const batch: Label[] = [];
    while (batch.length < reader.batchSize && heap.first !== undefined && heap.first.distance < best()) {
      batch.push(heap.first);
      heap.remove(heap.first);
    }
    if (batch.length === 0) break;
    const lists = await reader.read(
      batch.map(({ key }) => key),
      direction,
    );
    if (lists === undefined) break;
    for (const [index, { keys, weights }] of lists.entries()) {
      const label = batch[index] as Label;
      for (const [edge, key] of keys.entries()) {
        const weight = weights === undefined ? 1 : (weights[edge] as number);
        if (!(weight >= 0)) throw badWeight(label.key, key, weight);
        improve(key, label.distance + weight, label);
      }
    }
  }
  const end = labels.get(to);
  if (end === undefined) return NOTHING;
  const path: VertexKey[] = [];
  for (let label: Label | undefined = end; label !== undefined; label = label.parent) path.push(label.key);
  return { path: path.reverse(), distance: end.distance };
}

function badWeight(vertex: VertexKey, target: VertexKey, weight: number): ShardloomError {
  const message = `Cannot search graph as the weight of edge ${vertex} ${target} must be at least 0: current value is ${weight}`;
  return new ShardloomError("ERR_INVALID_ARGUMENT", message, { details: { vertex, target, value: weight } });
}
