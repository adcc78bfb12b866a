/**
 * The inner loops of a superstep: pulling what neighbours have sent out of their arrays, and scattering what is sent into an array per receiver.
 *
 * Invariant: plain loops over typed arrays in shared memory that allocate nothing and know nothing of shards: one peer's edges, one
 * array of its values. What stands for nothing is an identity of the combiner (`nothingOf`), so no loop that pulls asks whether a vertex
 * has sent.
 */
import type { PeerEdges } from "./csr.ts";
import { type Combiner, combined, nothingOf } from "./vertex-program.ts";

/** What a value becomes along an edge. */
export type Way = "value" | "plus-one" | "plus-weight" | "times-weight";

/** Combines into `into[row]` what the row's neighbours have in `values`, for rows in `[from, to)`. */
export function pull(
  rule: Combiner,
  way: Way,
  into: Float64Array,
  { offsets, targets, weights }: PeerEdges,
  values: Float64Array,
  from: number,
  to: number,
): void {
  if (rule === "sum" && way === "value") pullSum(into, offsets, targets, values, from, to);
  else if (rule === "min" && way === "value") pullMin(into, offsets, targets, values, from, to, 0);
  else if (rule === "min" && way === "plus-one") pullMin(into, offsets, targets, values, from, to, 1);
  else pullAny(rule, way, into, offsets, targets, weights, values, from, to);
}

function pullSum(
  into: Float64Array,
  offsets: Uint32Array,
  targets: Uint32Array,
  values: Float64Array,
  from: number,
  to: number,
): void {
  let at = offsets[from] as number;
  for (let row = from; row < to; row++) {
    const end = offsets[row + 1] as number;
    let sum = into[row] as number;
    for (; at < end; at++) sum += values[targets[at] as number] as number;
    into[row] = sum;
  }
}

function pullMin(
  into: Float64Array,
  offsets: Uint32Array,
  targets: Uint32Array,
  values: Float64Array,
  from: number,
  to: number,
  plus: number,
): void {
  let at = offsets[from] as number;
  for (let row = from; row < to; row++) {
    const end = offsets[row + 1] as number;
    let least = into[row] as number;
    for (; at < end; at++) {
      const value = (values[targets[at] as number] as number) + plus;
      if (value < least) least = value;
    }
    into[row] = least;
  }
}

/** For searches by breadth: rows that have a level are left out, and the first neighbour at the frontier says all. */
export function pullFirst(
  into: Float64Array,
  levels: Float64Array,
  { offsets, targets }: PeerEdges,
  values: Float64Array,
  from: number,
  to: number,
): void {
  for (let row = from; row < to; row++) {
    if (levels[row] !== Number.POSITIVE_INFINITY || into[row] !== Number.POSITIVE_INFINITY) continue;
    const end = offsets[row + 1] as number;
    for (let at = offsets[row] as number; at < end; at++) {
      const value = values[targets[at] as number] as number;
      if (value === Number.POSITIVE_INFINITY) continue;
      into[row] = value + 1;
      break;
    }
  }
}

function pullAny(
  rule: Combiner,
  way: Way,
  into: Float64Array,
  offsets: Uint32Array,
  targets: Uint32Array,
  weights: Float64Array | undefined,
  values: Float64Array,
  from: number,
  to: number,
): void {
  const nothing = nothingOf(rule);
  for (let row = from; row < to; row++) {
    const end = offsets[row + 1] as number;
    let value = into[row] as number;
    for (let at = offsets[row] as number; at < end; at++) {
      const sent = values[targets[at] as number] as number;
      if (!Object.is(sent, nothing))
        value = combined(rule, value, along(way, sent, weights === undefined ? 1 : (weights[at] as number)));
    }
    into[row] = value;
  }
}

/** Combines into `into[target]` what rows in `[from, to)` have in `values`. */
export function scatter(
  rule: Combiner,
  way: Way,
  into: Float64Array,
  { offsets, targets, weights }: PeerEdges,
  values: Float64Array,
  from: number,
  to: number,
): void {
  if (rule === "sum" && way === "value") scatterSum(into, offsets, targets, values, from, to);
  else if (rule === "min" && way === "value") scatterMin(into, offsets, targets, values, from, to, 0);
  else if (rule === "min" && way === "plus-one") scatterMin(into, offsets, targets, values, from, to, 1);
  else scatterAny(rule, way, into, offsets, targets, weights, values, from, to);
}

function scatterSum(
  into: Float64Array,
  offsets: Uint32Array,
  targets: Uint32Array,
  values: Float64Array,
  from: number,
  to: number,
): void {
  for (let row = from; row < to; row++) {
    const value = values[row] as number;
    if (Object.is(value, -0)) continue;
    const end = offsets[row + 1] as number;
    for (let at = offsets[row] as number; at < end; at++) {
      const target = targets[at] as number;
      into[target] = (into[target] as number) + value;
    }
  }
}

function scatterMin(
  into: Float64Array,
  offsets: Uint32Array,
  targets: Uint32Array,
  values: Float64Array,
  from: number,
  to: number,
  plus: number,
): void {
  for (let row = from; row < to; row++) {
    const value = (values[row] as number) + plus;
    if (value === Number.POSITIVE_INFINITY) continue;
    const end = offsets[row + 1] as number;
    for (let at = offsets[row] as number; at < end; at++) {
      const target = targets[at] as number;
      if (value < (into[target] as number)) into[target] = value;
    }
  }
}

function scatterAny(
  rule: Combiner,
  way: Way,
  into: Float64Array,
  offsets: Uint32Array,
  targets: Uint32Array,
  weights: Float64Array | undefined,
  values: Float64Array,
  from: number,
  to: number,
): void {
  const nothing = nothingOf(rule);
  for (let row = nextSent(values, nothing, from, to); row < to; row = nextSent(values, nothing, row + 1, to)) {
    const value = values[row] as number;
    const end = offsets[row + 1] as number;
    for (let at = offsets[row] as number; at < end; at++) {
      const target = targets[at] as number;
      const sent = along(way, value, weights === undefined ? 1 : (weights[at] as number));
      into[target] = combined(rule, into[target] as number, sent);
    }
  }
}

/** The first row from one on that has sent something. A loop for sums, so that others need not tell -0 from 0. */
function nextSent(values: Float64Array, nothing: number, from: number, to: number): number {
  let row = from;
  if (nothing === 0) while (row < to && Object.is(values[row], -0)) row++;
  else while (row < to && values[row] === nothing) row++;
  return row;
}

function along(way: Way, value: number, weight: number): number {
  switch (way) {
    case "value":
      return value;
    case "plus-one":
      return value + 1;
    case "plus-weight":
      return value + weight;
    case "times-weight":
      return value * weight + 0; // never -0, which stands for nothing
  }
}

/** Combines received values into `into` by vertex. @returns false when a vertex is not one */
export function accept(
  rule: Combiner,
  into: Float64Array,
  f64: Float64Array,
  valueAt: number,
  u32: Uint32Array | Int32Array,
  vertexAt: number,
  count: number,
): boolean {
  for (let at = 0; at < count; at++) {
    const vertex = u32[vertexAt + at] as number;
    if (!(vertex >= 0 && vertex < into.length)) return false;
    into[vertex] = combined(rule, into[vertex] as number, f64[valueAt + at] as number);
  }
  return true;
}

/** Writes received values into `into` by vertex. @returns false when a vertex is not one */
export function store(
  into: Float64Array,
  f64: Float64Array,
  valueAt: number,
  words: Uint32Array | Int32Array,
  vertexAt: number,
  count: number,
): boolean {
  for (let at = 0; at < count; at++) {
    const vertex = words[vertexAt + at] as number;
    if (!(vertex >= 0 && vertex < into.length)) return false;
    into[vertex] = f64[valueAt + at] as number;
  }
  return true;
}

/**
 * Moves what is not `nothing` from `dense[from, …)` to the front of `values` and `vertices`, as far as they have room, and clears it.
 *
 * @returns where it stopped and how many there are, in `result`
 */
export function gather(
  dense: Float64Array,
  nothing: number,
  from: number,
  values: Float64Array,
  vertices: Uint32Array,
  result: { next: number; count: number },
): void {
  const room = values.length;
  let count = 0;
  let at = nextSent(dense, nothing, from, dense.length);
  for (; at < dense.length && count < room; at = nextSent(dense, nothing, at + 1, dense.length)) {
    values[count] = dense[at] as number;
    vertices[count] = at;
    count++;
    dense[at] = nothing;
  }
  result.next = at;
  result.count = count;
}
