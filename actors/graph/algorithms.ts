/**
 * The algorithms of LDBC Graphalytics, one shard's part: PageRank, weakly connected components, breadth-first search, shortest paths,
 * community detection by label propagation, local clustering coefficient.
 *
 * Invariant: what they give does not depend on the sharding; PageRank's sums up to rounding, the others bit for bit.
 * Source: Iosup et al., The LDBC Graphalytics Benchmark Specification, §2.3.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { RunView, ShardAlgorithm } from "./algorithm.ts";
import { clusteringOf } from "./clustering.ts";
import type { VertexKey } from "./vertex-key.ts";
import { hashOfKey, ownerOfHash } from "./vertex-key.ts";
import { nothingOf } from "./vertex-program.ts";

/** Places in the reductions of PageRank: mass of all ranks, mass of those without edges, change since the last superstep. */
export const PAGE_RANK_SUMS = { mass: 0, dangling: 1, delta: 2 } as const;

/** Labels of text are hashes, of 32 bits, times this: more places than vertices have one hash, and every label is a safe integer. */
const PLACES = 2 ** 21;

export const ALGORITHM_NAMES = ["pageRank", "wcc", "bfs", "sssp", "cdlp", "lcc"] as const;
export type AlgorithmName = (typeof ALGORITHM_NAMES)[number];

/** A built-in algorithm with its parameters. */
export function algorithmOf(name: AlgorithmName, params: Readonly<Record<string, unknown>>): ShardAlgorithm {
  switch (name) {
    case "pageRank":
      return pageRank(params["damping"] as number, params["sources"] as readonly VertexKey[] | undefined);
    case "wcc":
      return distances("both", "value", (view, row) => labelOf(view, row));
    case "bfs":
      return { ...fromSource("plus-one", params["source"] as VertexKey), firstOnly: true };
    case "sssp":
      return shortestPaths(params["source"] as VertexKey);
    case "cdlp":
      return communities();
    case "lcc":
      return clustering();
  }
}

/** @param sources Where walks begin, and go on from vertices without edges; undefined: anywhere. */
function pageRank(damping: number, sources: readonly VertexKey[] | undefined): ShardAlgorithm {
  let targets: Float64Array | undefined;
  return {
    fields: 1,
    results: 1,
    kind: "combined",
    combine: "sum",
    way: "value",
    direction: "out",
    aggregates: ["sum", "sum", "sum"],
    check: (view) => void (sources === undefined || sharesOf(view, sources)),
    compute(view, from, to) {
      const { vertices, before, sums, superstep, incoming } = view;
      const jump = superstep === 0 ? 1 : 1 - damping + damping * (before[PAGE_RANK_SUMS.dangling] as number);
      const [ranks] = view.fields as [Float64Array];
      if (sources !== undefined) {
        targets ??= sharesOf(view, sources);
        rankTo(ranks, superstep === 0 ? undefined : incoming, sums, damping, jump, targets, from, to);
      } else if (superstep === 0) ranks.fill(1 / vertices, from, to);
      else rank(ranks, incoming, sums, damping, jump / vertices, from, to);
      share(ranks, view.outbox, view.degrees, sums, from, to);
      view.active += to - from;
    },
  };
}

/** The share of all jumps that goes to each vertex of this shard. */
function sharesOf(view: RunView, sources: readonly VertexKey[]): Float64Array {
  const shares = new Float64Array(view.rows);
  for (const source of sources) {
    const row = sourceOn(view, source);
    if (row >= 0) shares[row] = (shares[row] as number) + 1 / sources.length;
  }
  return shares;
}

function rank(
  ranks: Float64Array,
  incoming: Float64Array,
  sums: Float64Array,
  damping: number,
  shared: number,
  from: number,
  to: number,
): void {
  let delta = 0;
  for (let row = from; row < to; row++) {
    const value = shared + damping * (incoming[row] as number);
    delta += Math.abs(value - (ranks[row] as number));
    ranks[row] = value;
  }
  sums[PAGE_RANK_SUMS.delta] = (sums[PAGE_RANK_SUMS.delta] as number) + delta;
}

function rankTo(
  ranks: Float64Array,
  incoming: Float64Array | undefined,
  sums: Float64Array,
  damping: number,
  jump: number,
  shares: Float64Array,
  from: number,
  to: number,
): void {
  let delta = 0;
  for (let row = from; row < to; row++) {
    const come = incoming === undefined ? 0 : (incoming[row] as number);
    const value = jump * (shares[row] as number) + damping * come;
    delta += Math.abs(value - (ranks[row] as number));
    ranks[row] = value;
  }
  sums[PAGE_RANK_SUMS.delta] = (sums[PAGE_RANK_SUMS.delta] as number) + delta;
}

function share(
  ranks: Float64Array,
  outbox: Float64Array,
  degrees: Uint32Array,
  sums: Float64Array,
  from: number,
  to: number,
): void {
  const nothing = nothingOf("sum");
  let mass = 0;
  let dangling = 0;
  for (let row = from; row < to; row++) {
    const value = ranks[row] as number;
    const degree = degrees[row] as number;
    mass += value;
    if (degree === 0) dangling += value;
    outbox[row] = degree === 0 || value === 0 ? nothing : value / degree;
  }
  sums[PAGE_RANK_SUMS.mass] = (sums[PAGE_RANK_SUMS.mass] as number) + mass;
  sums[PAGE_RANK_SUMS.dangling] = (sums[PAGE_RANK_SUMS.dangling] as number) + dangling;
}

/** The least value that comes along any path: who gets a smaller one passes it on. */
function distances(
  direction: "out" | "both",
  way: ShardAlgorithm["way"],
  first: (view: RunView, row: number) => number,
): ShardAlgorithm {
  return {
    fields: 1,
    results: 1,
    kind: "combined",
    combine: "min",
    way,
    direction,
    aggregates: [],
    compute(view, from, to) {
      const [values] = view.fields as [Float64Array];
      const { outbox, degrees } = view;
      if (view.superstep > 0) {
        lessen(view, values, from, to);
        return;
      }
      for (let row = from; row < to; row++) {
        const value = first(view, row);
        values[row] = value;
        outbox[row] = value;
        if (value === Number.POSITIVE_INFINITY) continue;
        view.active++;
        view.activeEdges += degrees[row] as number;
      }
    },
  };
}

function lessen(view: RunView, values: Float64Array, from: number, to: number): void {
  const { incoming, outbox, degrees } = view;
  let active = 0;
  let edges = 0;
  for (let row = from; row < to; row++) {
    const value = incoming[row] as number;
    if (value < (values[row] as number)) {
      values[row] = value;
      outbox[row] = value;
      active++;
      edges += degrees[row] as number;
    } else outbox[row] = Number.POSITIVE_INFINITY;
  }
  view.active += active;
  view.activeEdges += edges;
}

function fromSource(way: ShardAlgorithm["way"], source: VertexKey): ShardAlgorithm {
  let local: number | undefined;
  const algorithm = distances("out", way, (view, row) => {
    local ??= sourceOn(view, source);
    return row === local ? 0 : Number.POSITIVE_INFINITY;
  });
  return { ...algorithm, check: (view) => void sourceOn(view, source) };
}

/** @returns -1 when the vertex is another shard's */
function sourceOn(view: RunView, source: VertexKey): number {
  const hash = hashOfKey(source);
  if (ownerOfHash(hash, view.rowsOf.length) !== view.shard) return -1;
  const local = view.table.find(source, hash);
  if (local >= 0) return local;
  throw new ShardloomError(
    "ERR_UNKNOWN_VERTEX",
    `Cannot search as the source must be a vertex of the graph: current value is ${JSON.stringify(source)}`,
    { details: { vertex: source } },
  );
}

/** Labels are keys; where some are text, hashes of keys, each with its place among those that have the same: neither depends on the sharding. */
function labelOf({ params, table }: RunView, row: number): number {
  if (params["numeric"] === true) return table.keys[row] as number;
  const key = table.keyOf(row);
  const hash = hashOfKey(key);
  return hash * PLACES + table.placeOf(row, key, hash);
}

function shortestPaths(source: VertexKey): ShardAlgorithm {
  const algorithm = fromSource("plus-weight", source);
  return {
    ...algorithm,
    check(view) {
      algorithm.check?.(view);
      refuseNegative(view);
    },
  };
}

function refuseNegative(view: RunView): void {
  for (const { peers } of view.ways.slice(0, 1)) {
    for (const { weights, offsets } of peers) {
      const at = weights === undefined ? -1 : weights.findIndex((weight) => weight < 0);
      if (at < 0) continue;
      let row = 0;
      while ((offsets[row + 1] as number) <= at) row++;
      const vertex = view.table.keyOf(row);
      const weight = weights?.[at];
      throw new ShardloomError(
        "ERR_INVALID_ARGUMENT",
        `Cannot run shortest paths as every weight must be at least 0: current value is ${weight} of an edge of vertex ${JSON.stringify(vertex)}`,
        { details: { vertex, weight } },
      );
    }
  }
}

function communities(): ShardAlgorithm {
  let scratch = new Float64Array(64);
  return {
    fields: 1,
    results: 1,
    kind: "labels",
    slice: 2048,
    combine: "min",
    way: "value",
    direction: "both",
    aggregates: ["sum"],
    check(view) {
      if (view.params["numeric"] !== true)
        throw invalidArgument("run communities", "keys", "numbers, as the least label wins", "text");
    },
    compute(view, from, to) {
      const [labels] = view.fields as [Float64Array];
      const { outbox } = view;
      let changed = 0;
      for (let row = from; row < to; row++) {
        let label = view.superstep === 0 ? (view.table.keys[row] as number) : (labels[row] as number);
        if (view.superstep > 0) {
          const degree = degreeOf(view, row);
          if (degree > scratch.length) scratch = new Float64Array(2 * degree);
          collectLabels(view, row, scratch);
          if (degree > 0) label = mostFrequent(scratch.subarray(0, degree).sort());
          if (label !== labels[row]) changed++;
        }
        labels[row] = label;
        outbox[row] = label;
      }
      view.active += to - from;
      view.sums[0] = (view.sums[0] as number) + changed;
    },
  };
}

function degreeOf(view: RunView, row: number): number {
  let degree = 0;
  for (const { peers } of view.origins)
    for (const { offsets } of peers) degree += (offsets[row + 1] as number) - (offsets[row] as number);
  return degree;
}

function collectLabels(view: RunView, row: number, into: Float64Array): void {
  let filled = 0;
  for (const { peers } of view.origins) {
    for (let peer = 0; peer < peers.length; peer++) {
      const { offsets, targets } = peers[peer] as (typeof peers)[number];
      const source = view.sources[peer] as Float64Array;
      for (let at = offsets[row] as number; at < (offsets[row + 1] as number); at++)
        into[filled++] = source[targets[at] as number] as number;
    }
  }
}

/** Of ascending labels; the least of those that are as frequent. */
function mostFrequent(labels: Float64Array): number {
  let best = 0;
  let bestCount = 0;
  for (let at = 0; at < labels.length; ) {
    let end = at + 1;
    while (end < labels.length && labels[end] === labels[at]) end++;
    if (end - at > bestCount) {
      bestCount = end - at;
      best = labels[at] as number;
    }
    at = end;
  }
  return best;
}

function clustering(): ShardAlgorithm {
  return {
    fields: 1,
    results: 1,
    kind: "neighbourhoods",
    slice: 16,
    combine: "sum",
    way: "value",
    direction: "both",
    aggregates: [],
    compute(view, from, to) {
      clusteringOf(view, view.fields[0] as Float64Array, from, to);
      view.outbox.fill(0, from, to);
    },
  };
}
