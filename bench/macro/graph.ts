/**
 * Bench `graph` (P1 to P5): PageRank and breadth-first search over the public API, on an R-MAT graph or that of a file.
 *
 * P1: PageRank with one worker, one whole call against one of graphology's. P1b: the time of its supersteps (see graph-stage.ts), without
 * what a call does once, against a plain C++ loop, the faster of pulling and pushing. P2: one worker over two; beside it what two C++ loops at once gain over one, as a busy machine has no second core to give. P3: breadth-first search, see graph-search.ts. P4: bytes of the arena: vertices, adjacency in both directions, one
 * result held; then the most that it ever was, from before the load to after the first run with its checkpoints. P5: time an edge of the
 * largest of some R-MAT graphs over that of the smallest, whatever `--data` is.
 *
 * Every sample is checked: ranks within a relative 1e-9 of a plain loop's, levels equal.
 */
import { basename } from "node:path";
import { type GoalResult, judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchCase,
  type BenchContext,
  type BenchReport,
  type BenchRow,
  interleave,
  ratioOf,
  sized,
  toRow,
} from "../harness/harness.ts";
import type { NativeProgram } from "../harness/native.ts";
import { readGraphColumns } from "./graph-file.ts";
import { drawnInput, iterationsOf, measurePageRank, type PageRankMeasurement } from "./graph-measure.ts";
import { compileGraph, openNative } from "./graph-native.ts";
import { areRanks, type PageRankInput, type PageRankSide, pageRankInput, pageRankInputOf } from "./graph-page-rank.ts";
import { measureSearch } from "./graph-search.ts";
import { type GraphStage, openGraphStage, SPIN_LIMIT_US, workersOf } from "./graph-stage.ts";

/** Of P4. */
const BYTES = { edge: 16, vertex: 64 };

/** What a part of the bench has found. */
interface Part {
  readonly rows: readonly BenchRow[];
  readonly goals: readonly GoalResult[];
  readonly notes?: readonly string[];
}

/** Graphs that are loaded, each once: opened when first asked for. */
class Stages {
  readonly #opened: { readonly input: PageRankInput; readonly stage: GraphStage }[] = [];
  readonly #log: (line: string) => void;

  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  async get(input: PageRankInput, workers: number): Promise<GraphStage> {
    const known = this.#opened.find((one) => one.input.name === input.name && one.stage.workers === workers);
    if (known !== undefined) return known.stage;
    this.#log(`graph: loading ${input.name}, ${input.graph.sources.length} edges, into ${workersOf(workers)}`);
    const stage = await openGraphStage(workers, input.graph, input.iterations);
    this.#opened.push({ input, stage });
    return stage;
  }

  async close(): Promise<void> {
    for (const { stage } of this.#opened.splice(0)) await stage.close();
  }
}

function isRight(input: PageRankInput, values: Float64Array): boolean {
  return areRanks(input, (vertex) => values[vertex] as number);
}

/** Ours as a side of P1; the times of whole calls go to `calls`, in ms. */
function sideOf(stage: GraphStage, input: PageRankInput, calls: number[]): PageRankSide {
  let right = false;
  return {
    run: async () => {
      const { insideMs, callMs, supersteps, values } = await stage.pageRank(input.damping, input.iterations);
      right = supersteps === input.iterations && isRight(input, values);
      calls.push(callMs);
      return insideMs * 1e6;
    },
    isRight: () => right,
  };
}

async function pageRankPart(context: BenchContext, input: PageRankInput, stages: Stages): Promise<Part> {
  const calls = new Map<PageRankInput, number[]>();
  const measured = await measurePageRank(
    context,
    async (on) => {
      const own: number[] = [];
      calls.set(on, own);
      return sideOf(await stages.get(on, 1), on, own);
    },
    input,
  );
  const callRows = [...calls].map(([on, times]) => {
    const perEdge = (ms: number): number => (ms * 1e6) / (on.graph.sources.length * on.iterations);
    const counted = times.slice(1).map(perEdge); // the first is the warm-up
    return toRow(`pagerank-${on.name}`, "shardloom-call", "ns/edge", counted, "the whole call, adjacency built before");
  });
  const rows = [...measured.rows, ...callRows];
  return { rows, goals: pageRankGoals(context, measured, rows), notes: measured.notes };
}

function pageRankGoals(
  context: BenchContext,
  { whole, small }: PageRankMeasurement,
  rows: readonly BenchRow[],
): GoalResult[] {
  const calls = ratioOf(rows, small, "graphology", "shardloom-call");
  const loops = ratioOf(rows, small, "graphology-loop", "shardloom");
  const also = `iterations alone over supersteps alone ${loops.toFixed(1)}`;
  const goals = [judge(context.goals, "P1", calls, `${small}; ${also}`)];
  const native = ["native-pull", "native-push"].map((side) => ratioOf(rows, whole, side, "shardloom"));
  if (native.some(Number.isNaN)) return goals; // no compiler; the notes say so
  const note = `${whole}; over pulling ${native[0]?.toFixed(2)}, over pushing ${native[1]?.toFixed(2)}`;
  return [...goals, judge(context.goals, "P1b", Math.min(...native), note)];
}

/** PageRank on one stage, in ns an edge and superstep. */
function timedCase(name: string, side: string, stage: GraphStage, input: PageRankInput): BenchCase {
  const ours = sideOf(stage, input, []);
  return {
    name,
    side,
    unit: "ns/edge",
    run: async () => {
      const ns = await ours.run();
      if (!ours.isRight()) throw new Error(`${name} by ${side} gave other ranks than the plain loop`);
      return ns / (input.graph.sources.length * input.iterations);
    },
    validate: () => {
      if (!ours.isRight()) throw new Error(`${name} by ${side} has not run`);
    },
  };
}

/** What the machine itself gains by its second core just now: a C++ loop alone, and two at once. */
function machineCases(name: string, program: NativeProgram, input: PageRankInput): BenchCase[] {
  const steps = input.graph.sources.length * input.iterations;
  return [1, 2].map((count) => {
    const loops = Array.from({ length: count }, () => openNative(program, "pull", input));
    return {
      name,
      side: `C++, ${count} at once`,
      unit: "ns/edge",
      run: async () => Math.max(...(await Promise.all(loops.map(async (loop) => loop.run())))) / (count * steps),
      validate: () => {
        if (!loops.every((loop) => loop.isRight())) throw new Error(`${name} by C++ gave other ranks`);
      },
      close: () => {
        for (const loop of loops) void loop.close?.();
      },
    };
  });
}

async function workersPart(context: BenchContext, input: PageRankInput, stages: Stages): Promise<Part> {
  const name = `workers-${input.name}`;
  const cases = [
    timedCase(name, "1 worker", await stages.get(input, 1), input),
    timedCase(name, "2 workers", await stages.get(input, 2), input),
  ];
  const program = compileGraph(context.log);
  try {
    if (program !== undefined) cases.push(...machineCases(name, program, input));
    const rows = await interleave(cases, sized(context.mode, 2, 7, 9));
    const machine = ratioOf(rows, name, "C++, 1 at once", "C++, 2 at once");
    const note = Number.isNaN(machine) ? undefined : `two C++ loops at once, over one: ${machine.toFixed(2)}`;
    return { rows, goals: [judge(context.goals, "P2", ratioOf(rows, name, "1 worker", "2 workers"), note)] };
  } finally {
    program?.dispose();
  }
}

async function searchPart(context: BenchContext, input: PageRankInput, stages: Stages): Promise<Part> {
  const held = [await stages.get(input, 1), await stages.get(input, 2)];
  const { rows, ratio, note } = await measureSearch(context, input.name, held);
  return { rows, goals: [judge(context.goals, "P3", ratio, note)] };
}

async function memoryPart(context: BenchContext, input: PageRankInput, stages: Stages): Promise<Part> {
  const { vertices, sources } = input.graph;
  const allowed = BYTES.edge * sources.length + BYTES.vertex * vertices;
  const name = `load-${input.name}`;
  const rows: BenchRow[] = [];
  let held = 0;
  let most = 0;
  for (const workers of [1, 2]) {
    const { memory, loadMs, first } = await stages.get(input, workers);
    const side = workersOf(workers);
    const perEdge = (what: string, bytes: number, note?: string): BenchRow =>
      toRow(`${name}, ${what}`, side, "B/edge", [bytes / sources.length], note);
    rows.push(
      toRow(name, side, "edges/s", [(sources.length / loadMs) * 1000]),
      toRow(
        `${name}, first run`,
        side,
        "ms",
        [first.callMs],
        `builds the adjacency; supersteps ${first.insideMs.toFixed(1)}`,
      ),
      perEdge("arena with a result", memory.heldBytes),
      perEdge("arena at most", memory.mostBytes),
    );
    // Only of the first that was loaded: later ones are given what the process has already.
    if (workers === 1)
      rows.push(
        perEdge("process at most", memory.residentBytes, "not judged: the arena, and the heaps of all threads"),
      );
    held = Math.max(held, memory.heldBytes / allowed);
    most = Math.max(most, memory.mostBytes / allowed);
  }
  const note = `${sources.length} edges, ${vertices} vertices; the larger of 1 and 2 workers`;
  return { rows, goals: [judge(context.goals, "P4", held, note), judge(context.goals, "P4b", most, note)] };
}

async function growthPart(context: BenchContext, stages: Stages): Promise<Part> {
  const { mode, seed } = context;
  const scales = sized(mode, [6, 8], [14, 16], [16, 18, 20]);
  const cases: BenchCase[] = [];
  for (const scale of scales) {
    const input = pageRankInput(scale, seed, iterationsOf(mode));
    cases.push(timedCase(`growth-${input.name}`, "1 worker", await stages.get(input, 1), input));
  }
  const rows = await interleave(cases, sized(mode, 2, 5, 5));
  const [first, last] = [rows[0], rows.at(-1)] as [BenchRow, BenchRow];
  const note =
    mode === "full"
      ? undefined
      : `scales ${scales.join(" and ")} only: what a superstep costs at any size hides growth`;
  return { rows, goals: [judge(context.goals, "P5", last.median / first.median, note)] };
}

async function measure(context: BenchContext): Promise<BenchReport> {
  const { data } = context.inputs;
  const input =
    data === undefined
      ? drawnInput(context)
      : pageRankInputOf(basename(data), await readGraphColumns(data), iterationsOf(context.mode));
  const stages = new Stages(context.log);
  try {
    const parts: Part[] = [];
    parts.push(await memoryPart(context, input, stages)); // first, as it loads
    parts.push(await pageRankPart(context, input, stages));
    parts.push(await workersPart(context, input, stages));
    parts.push(await searchPart(context, input, stages));
    parts.push(await growthPart(context, stages));
    const goals = parts.flatMap((part) => part.goals);
    return {
      rows: parts.flatMap((part) => part.rows),
      goals: goals.sort((a, b) => a.id.localeCompare(b.id)),
      notes: [
        ...parts.flatMap((part) => part.notes ?? []),
        `${input.iterations} iterations of PageRank; ns/edge: time of its supersteps, from the acknowledgement of the first, which sets ranks up, to the last`,
        `not in it: building the adjacency, the run's state, keeping and reading the result; those but the last are in shardloom-call`,
        `spinLimitUs ${SPIN_LIMIT_US}, threads not pinned, a checkpoint every 8 supersteps as by default`,
      ],
    };
  } finally {
    await stages.close();
  }
}

export const bench: Bench = { name: "graph", run: measure };
