/**
 * What a graph of the workload must hold, and what every question about it must be answered with.
 *
 * Invariant: a model is never changed; a change of it gives the next one, so that a change whose end is unknown leaves it as it was. Keys are
 * whole numbers; a pair of vertices may have several edges, which go together.
 */

import type { Random } from "../../runtime/random.ts";
import { alarmNumber, referenceAlarm } from "./graph-program.ts";
import {
  type ReferenceGraph,
  referenceBfs,
  referenceCdlp,
  referenceGraph,
  referenceLcc,
  referencePageRank,
  referenceSssp,
  referenceTriangles,
  referenceWcc,
} from "./graph-reference.ts";
import { below } from "./spread.ts";

export type ModelEdge = readonly [source: number, target: number, weight: number];

/** Vertices and edges. */
export interface GraphModel {
  readonly directed: boolean;
  readonly keys: ReadonlySet<number>;
  readonly edges: readonly ModelEdge[];
}

/** What becomes of a graph: edges that go and vertices that go, by their places in the model, then edges that come, with their ends. */
export interface GraphChange {
  readonly cut: readonly number[];
  readonly remove: readonly number[];
  readonly add: readonly ModelEdge[];
}

export const QUESTIONS = [
  "pageRank",
  "bfs",
  "sssp",
  "wcc",
  "cdlp",
  "lcc",
  "program",
  "kHop",
  "path",
  "triangles",
] as const;
export type QuestionName = (typeof QUESTIONS)[number];

/** Something to compute. */
export interface GraphQuestion {
  readonly name: QuestionName;
  readonly exchange: "auto" | "push" | "pull";
  readonly checkpointEvery: number;
  readonly iterations: number;
  /** Chooses the vertices that it begins and ends at. */
  readonly from: number;
  readonly to: number;
}

/** How far apart two answers may be that are rounded on their way. */
const TOLERANCE = 1e-9;
const MOST_DIFFERENCES = 3;
export const DAMPING = 0.85;
export const HOPS = 2;

/** A change that can be told as data. @param vertices Keys are below this @param isFirst Whether there is nothing yet */
export function drawChange(random: Random, vertices: number, isFirst: boolean): GraphChange {
  const key = (): number => below(random, vertices);
  const some = (most: number): number[] =>
    Array.from({ length: below(random, most + 1) }, () => below(random, 1 << 20));
  // Weights are eighths, whose sums are exact in any order.
  const edge = (): ModelEdge => [key(), key(), 1 + below(random, 32) / 8];
  const count = isFirst ? 3 * vertices : 1 + below(random, 6);
  return { cut: isFirst ? [] : some(3), remove: isFirst ? [] : some(2), add: Array.from({ length: count }, edge) };
}

export function drawQuestion(random: Random): GraphQuestion {
  return {
    name: QUESTIONS[below(random, QUESTIONS.length)] as QuestionName,
    exchange: (["auto", "push", "pull"] as const)[below(random, 3)] as GraphQuestion["exchange"],
    checkpointEvery: below(random, 5),
    iterations: 4 + below(random, 24),
    from: below(random, 1 << 20),
    to: below(random, 1 << 20),
  };
}

/** Of what a change names by places, what is there. */
export function resolveChange(
  { edges, keys }: GraphModel,
  { cut, remove, add }: GraphChange,
): { readonly pairs: readonly ModelEdge[]; readonly gone: readonly number[]; readonly add: readonly ModelEdge[] } {
  const known = [...keys];
  const pairs = edges.length === 0 ? [] : cut.map((at) => edges[at % edges.length] as ModelEdge);
  const gone = known.length === 0 ? [] : [...new Set(remove.map((at) => known[at % known.length] as number))];
  return { pairs, gone, add };
}

/** The model after a change, and how many edges between the pairs there were. */
export function changed(model: GraphModel, change: GraphChange): { readonly next: GraphModel; readonly cut: number } {
  const { pairs, gone, add } = resolveChange(model, change);
  const isSame = ([source, target]: ModelEdge, [from, to]: ModelEdge): boolean =>
    (source === from && target === to) || (!model.directed && source === to && target === from);
  const left = model.edges.filter((edge) => !pairs.some((pair) => isSame(edge, pair)));
  const kept = left.filter(([source, target]) => !gone.includes(source) && !gone.includes(target));
  const keys = new Set([...model.keys].filter((key) => !gone.includes(key)));
  for (const [source, target] of add) keys.add(source).add(target);
  return { next: { ...model, keys, edges: [...kept, ...add] }, cut: model.edges.length - left.length };
}

/** The vertex that a question names by a number; undefined when there is none. */
export function vertexAt({ keys }: GraphModel, place: number): number | undefined {
  return [...keys][place % Math.max(1, keys.size)];
}

/** What a question must be answered with: a value for each vertex that it is about. */
export function expectedAnswer(model: GraphModel, question: GraphQuestion): Map<number, number> {
  const keys = [...model.keys].sort((a, b) => a - b);
  const graph = referenceGraph(keys, model.edges, model.directed);
  if (question.name === "triangles") return new Map([[0, referenceTriangles(graph)]]);
  const values = valuesOf(graph, model, question);
  const all = keys.map((key, at): [number, number] => [key, values[at] as number]);
  if (question.name === "kHop") return new Map(all.filter(([, depth]) => depth <= HOPS));
  if (question.name === "path") return new Map(all.filter(([key]) => key === vertexAt(model, question.to)));
  return new Map(all);
}

function valuesOf(graph: ReferenceGraph, model: GraphModel, { name, from, iterations }: GraphQuestion): number[] {
  const source = vertexAt(model, from) as number;
  switch (name) {
    case "pageRank":
      return referencePageRank(graph, DAMPING, iterations);
    case "bfs":
    case "kHop":
      return referenceBfs(graph, source);
    case "sssp":
    case "path":
      return referenceSssp(graph, source);
    case "wcc":
      return referenceWcc(graph).map((least) => graph.keys[least] as number);
    case "cdlp":
      return referenceCdlp(graph, iterations) as number[];
    case "lcc":
      return referenceLcc(graph);
    case "program":
      return referenceAlarm(graph).map(alarmNumber);
    case "triangles":
      return [];
  }
}

/** How an answer differs from what it must be, in a few sentences; none: it does not. */
export function differences(found: ReadonlyMap<unknown, number>, expected: ReadonlyMap<number, number>): string[] {
  const wrong: string[] = [];
  for (const [key, value] of expected) {
    const actual = found.get(key);
    if (actual === undefined) wrong.push(`${key} is missing`);
    else if (actual !== value && !(Math.abs(actual - value) <= TOLERANCE))
      wrong.push(`${key} has ${actual} instead of ${value}`);
  }
  for (const key of found.keys()) if (!expected.has(key as number)) wrong.push(`${String(key)} should not be there`);
  return wrong.slice(0, MOST_DIFFERENCES);
}
