/**
 * R-MAT graphs, seeded: the same scale, factor and seed give the same graph on every machine, edge by edge.
 *
 * Every edge is placed by choosing one of four quadrants of the adjacency matrix, once a bit of the vertex number, with the chances
 * 0.57, 0.19, 0.19, 0.05 of Graph500. The numbers of the vertices are then shuffled, so that a number says nothing about a degree.
 * Source: Chakrabarti, Zhan, Faloutsos, "R-MAT: A Recursive Model for Graph Mining", SDM 2004. **Divergence** from Graph500: no noise on
 * the chances; loops and parallel edges are left out unless asked for, as LDBC's graphs have none.
 */
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";

export interface RmatOptions {
  /** The graph has `2 ** scale` vertices, `0..2 ** scale - 1`; `1..26`. */
  readonly scale: number;
  /** Edges drawn a vertex. @default 16 */
  readonly edgeFactor?: number;
  readonly seed: number;
  /** Keeps loops and parallel edges. @default false */
  readonly multigraph?: boolean;
  /** Gives each edge a weight in (0, 1] with 32 random bits. @default false */
  readonly weighted?: boolean;
}

/** A directed graph as columns. Edge `i` leads from `sources[i]` to `targets[i]`. */
export interface EdgeColumns {
  readonly vertices: number;
  readonly sources: Uint32Array;
  readonly targets: Uint32Array;
  readonly weights: Float64Array | undefined;
}

/** Adjacency by source: the targets of `v` are `targets[offsets[v], offsets[v + 1])`, in the order of the edges. */
export interface Csr {
  readonly vertices: number;
  readonly offsets: Uint32Array;
  readonly targets: Uint32Array;
}

const MAX_SCALE = 26;
const A = 0.57;
const B = 0.19;
const C = 0.19;
const BELOW_A = Math.floor(A * 2 ** 32);
const BELOW_B = Math.floor((A + B) * 2 ** 32);
const BELOW_C = Math.floor((A + B + C) * 2 ** 32);

/** Draws a graph. Cost: about 10 ns a bit and edge, and 16 bytes an edge while parallel ones are looked for. */
export function createRmat(options: RmatOptions): EdgeColumns {
  const { scale, edgeFactor = 16, seed, multigraph = false, weighted = false } = options;
  if (!Number.isInteger(scale) || scale < 1 || scale > MAX_SCALE)
    throw new Error(`scale must be in 1..${MAX_SCALE}: ${scale}`);
  const random = createSeededRandom(seed);
  const vertices = 2 ** scale;
  const names = shuffled(vertices, random);
  // Source and target in one number, below 2^52: sorting these is how parallel edges are found.
  let edges = new Float64Array(Math.round(vertices * edgeFactor));
  for (let edge = 0; edge < edges.length; edge++) edges[edge] = drawEdge(scale, vertices, names, random);
  if (!multigraph) edges = shuffle(withoutRepeats(edges, vertices), random);
  const sources = new Uint32Array(edges.length);
  const targets = new Uint32Array(edges.length);
  for (let edge = 0; edge < edges.length; edge++) {
    const both = edges[edge] as number;
    sources[edge] = Math.floor(both / vertices);
    targets[edge] = both % vertices;
  }
  const weights = weighted ? Float64Array.from(sources, () => 1 - random.float()) : undefined;
  return { vertices, sources, targets, weights };
}

/** Cost: two passes over the edges. */
export function toCsr({ vertices, sources, targets }: EdgeColumns): Csr {
  const offsets = new Uint32Array(vertices + 1);
  for (const source of sources) offsets[source + 1] = (offsets[source + 1] as number) + 1;
  for (let vertex = 0; vertex < vertices; vertex++) {
    offsets[vertex + 1] = (offsets[vertex + 1] as number) + (offsets[vertex] as number);
  }
  const next = offsets.slice(0, vertices);
  const sorted = new Uint32Array(targets.length);
  for (let edge = 0; edge < targets.length; edge++) {
    const source = sources[edge] as number;
    const at = next[source] as number;
    sorted[at] = targets[edge] as number;
    next[source] = at + 1;
  }
  return { vertices, offsets, targets: sorted };
}

function drawEdge(scale: number, vertices: number, names: Uint32Array, random: Random): number {
  let source = 0;
  let target = 0;
  for (let bit = 0; bit < scale; bit++) {
    const draw = random.u32();
    source = (source << 1) | (draw >= BELOW_B ? 1 : 0);
    target = (target << 1) | ((draw >= BELOW_A && draw < BELOW_B) || draw >= BELOW_C ? 1 : 0);
  }
  return (names[source] as number) * vertices + (names[target] as number);
}

function withoutRepeats(edges: Float64Array, vertices: number): Float64Array<ArrayBuffer> {
  const sorted = Float64Array.from(edges).sort();
  let kept = 0;
  for (let index = 0; index < sorted.length; index++) {
    const edge = sorted[index] as number;
    if (index > 0 && edge === sorted[kept - 1] && kept > 0) continue;
    if (Math.floor(edge / vertices) === edge % vertices) continue;
    sorted[kept++] = edge;
  }
  return sorted.slice(0, kept);
}

function shuffled(count: number, random: Random): Uint32Array {
  const values = Uint32Array.from({ length: count }, (_, index) => index);
  return shuffle(values, random);
}

/** Fisher and Yates, in place. */
function shuffle<T extends Float64Array<ArrayBuffer> | Uint32Array<ArrayBuffer>>(values: T, random: Random): T {
  for (let last = values.length - 1; last > 0; last--) {
    const other = Math.floor(random.float() * (last + 1));
    const held = values[last] as number;
    values[last] = values[other] as number;
    values[other] = held;
  }
  return values;
}
