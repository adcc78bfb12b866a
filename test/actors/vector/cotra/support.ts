/** Random cases for the collaborative search, and what its result must be whatever the schedule. */
import { expect } from "vitest";
import { type CotraSettings, resolveSettings } from "../../../../actors/vector/cotra/cotra-options.ts";
import type { CotraOutcome, CotraQuery } from "../../../../actors/vector/cotra/cotra-origin.ts";
import { createSeededRandom, type Random } from "../../../../src/runtime/random.ts";
import { type GraphTrace, l2, type MemoryGraph, MemoryView, randomGraph } from "./memory-graph.ts";

export const BASE: number = Number(process.env["SEED"] ?? 1);
/** How many times more cases a long run tries. */
export const SCALE: number = process.env["SHARDLOOM_LONG"] === "1" ? 10 : 1;

/** A graph, a query and settings, all drawn from one seed. */
export interface Case {
  readonly seed: number;
  readonly shards: number;
  readonly graph: MemoryGraph;
  readonly query: CotraQuery;
  readonly trace: GraphTrace;
  readonly views: MemoryView[];
  readonly random: Random;
}

export interface CaseOptions {
  readonly shards?: number;
  readonly count?: number;
  readonly ef?: number;
  readonly exposed?: (partition: number) => boolean;
  readonly garbage?: number;
  readonly settings?: CotraSettings;
  readonly entries?: number;
  readonly timeoutMs?: number;
}

export function randomCase(seed: number, options: CaseOptions = {}): Case {
  const random = createSeededRandom(seed);
  const int = (below: number): number => Math.floor(random.float() * below);
  const shards = options.shards ?? 1 + int(6);
  const graph = randomGraph(random, {
    count: options.count ?? 1 + int(60),
    shards,
    degree: 3 + int(8),
    clustered: int(3) > 0,
    garbage: options.garbage ?? (int(4) === 0 ? 0.2 : 0),
  });
  const exposed = options.exposed ?? [() => true, () => false, (partition: number) => partition % 2 === 0][int(3)]!;
  const trace: GraphTrace = { computed: new Map(), expanded: new Set() };
  const views = Array.from({ length: shards }, (_, self) => new MemoryView(graph, self, exposed, trace));
  const ef = options.ef ?? 1 + int(20);
  const query = Uint8Array.from({ length: graph.dimensions }, () => int(256));
  const settings = resolveSettings(
    options.settings ?? {
      firstGroup: 1 + int(3),
      group: 1 + int(5),
      syncEvery: 1 + int(5),
      pullDegree: int(4),
      pullDegreeKnown: int(4),
      patience: int(4),
      primaryShare: [0.001, 0.5, 1, 2][int(4)] as number,
    },
  );
  const count = Math.min(graph.count, options.entries ?? 1 + int(12));
  const chosen = new Set(Array.from({ length: count }, () => int(graph.count)));
  const vertices = Int32Array.from(chosen);
  // Some entries come with their distance, some without.
  const known = int(3) > 0;
  const distances = Float32Array.from(vertices, (vertex) => (known ? l2(graph, query, vertex) : Number.NaN));
  const entries = { vertices, distances };
  const k = 1 + int(ef);
  const timeoutMs = options.timeoutMs ?? 1_000_000;
  return { seed, shards, graph, query: { query, entries, k, ef, timeoutMs, settings }, trace, views, random };
}

export function clearTrace({ trace }: Case): void {
  trace.computed.clear();
  trace.expanded.clear();
}

/** The neighbours of a vertex that exist. */
export function linksOf(graph: MemoryGraph, vertex: number): number[] {
  const base = vertex * (graph.maxDegree + 1);
  const links = graph.links.subarray(base + 1, base + 1 + (graph.links[base] as number));
  return [...links].filter((link) => link >= 0 && link < graph.count);
}

/**
 * What a centralised best-first search guarantees, checked on what the shards did: the hits are the best of all vertices computed; all
 * within the final bound are expanded; all links of expanded ones are computed; and none is computed more than
 * `most` times.
 */
export function audit(one: Case, outcome: CotraOutcome, most = 1): void {
  const { graph, query, trace } = one;
  const { entries, k, ef } = query;
  const known = new Map<number, number>();
  for (const vertex of [...trace.computed.keys(), ...entries.vertices])
    known.set(vertex, l2(graph, query.query, vertex));
  const ranked = [...known].sort(([a, da], [b, db]) => da - db || a - b);
  const bound = ranked.length < ef ? Number.POSITIVE_INFINITY : (ranked[ef - 1] as [number, number])[1];
  const where = `SEED=${BASE}, case ${one.seed}`;
  expect([...outcome.hits.vertices], where).toEqual(ranked.slice(0, k).map(([vertex]) => vertex));
  expect([...outcome.hits.distances], where).toEqual(ranked.slice(0, k).map(([, distance]) => distance));
  for (const [vertex, distance] of ranked)
    if (distance <= bound) expect(trace.expanded.has(vertex), `${where}: ${vertex} not expanded`).toBe(true);
  for (const vertex of trace.expanded)
    for (const link of linksOf(graph, vertex))
      expect(known.has(link), `${where}: ${link}, a neighbour of ${vertex}, not computed`).toBe(true);
  for (const [vertex, times] of trace.computed)
    expect(times, `${where}: ${vertex} computed again`).toBeLessThanOrEqual(most);
}

/** The k nearest of all vertices that links lead to from the entries. */
export function reachable({ graph, query }: Case): number[] {
  const seen = new Set<number>(query.entries.vertices);
  for (const vertex of seen) for (const link of linksOf(graph, vertex)) seen.add(link);
  const ranked = [...seen].map((vertex) => ({ vertex, distance: l2(graph, query.query, vertex) }));
  ranked.sort((a, b) => a.distance - b.distance || a.vertex - b.vertex);
  return ranked.slice(0, query.k).map(({ vertex }) => vertex);
}
