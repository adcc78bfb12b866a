/**
 * Measures PageRank by all sides in turn; ours is plugged in.
 *
 * A sample is one run, counted in nanoseconds an edge and iteration. Every side is validated before its first counted sample and after its
 * last, so that one that did less work cannot win. graphology gets a smaller graph than those above scale 16, as it keeps some 350 bytes an edge
 * on the heap; ours then runs on both, and the ratio of each pair is taken at its own scale.
 */
import {
  type BenchCase,
  type BenchContext,
  type BenchMode,
  type BenchRow,
  interleave,
  sized,
} from "../harness/harness.ts";
import { openGraphology, openGraphologyLoop } from "./graph-graphology.ts";
import { compileGraph, openNative } from "./graph-native.ts";
import { type OpenPageRankSide, type PageRankInput, type PageRankSide, pageRankInput } from "./graph-page-rank.ts";

/** See the header. */
const GRAPHOLOGY_SCALE_AT_MOST = 16;
const GRAPHOLOGY_EDGES_AT_MOST = 16 * 2 ** GRAPHOLOGY_SCALE_AT_MOST;

/** What {@link measurePageRank} found: rows of sides `shardloom`, `graphology`, `graphology-loop`, `native-pull` and `native-push`. */
export interface PageRankMeasurement {
  readonly rows: readonly BenchRow[];
  readonly notes: readonly string[];
  /** Names of the cases: that of the whole graph, which C++ gets, and that of graphology's. */
  readonly whole: string;
  readonly small: string;
}

/** Iterations of every side. */
export function iterationsOf(mode: BenchMode): number {
  return sized(mode, 5, 10, 20);
}

/** R-MAT at scale 18 (smoke: 8, quick: 16). */
export function drawnInput({ mode, seed }: Pick<BenchContext, "mode" | "seed">): PageRankInput {
  return pageRankInput(sized(mode, 8, 16, 18), seed, iterationsOf(mode));
}

/**
 * Measures PageRank: ours, graphology's, and plain C++ where there is a compiler. Sides interleave.
 *
 * @param openOurs Opens ours, with one worker.
 */
export async function measurePageRank(
  context: Pick<BenchContext, "mode" | "seed" | "log">,
  openOurs: OpenPageRankSide,
  input: PageRankInput = drawnInput(context),
): Promise<PageRankMeasurement> {
  const rounds = sized(context.mode, 2, 5, 7);
  const fits = input.graph.sources.length <= GRAPHOLOGY_EDGES_AT_MOST;
  const small = fits ? input : pageRankInput(GRAPHOLOGY_SCALE_AT_MOST, context.seed, input.iterations);
  const notes: string[] = [];
  const log = (line: string): void => {
    notes.push(line);
    context.log(line);
  };
  const name = (on: PageRankInput): string => `pagerank-${on.name}`;
  const cases: BenchCase[] = [];
  const add = async (on: PageRankInput, side: string, open: OpenPageRankSide): Promise<void> => {
    const opened = await open(on, log);
    if (opened !== undefined) cases.push(pageRankCase(name(on), side, opened, on));
  };
  const program = compileGraph(log);
  try {
    await add(input, "shardloom", openOurs);
    if (program !== undefined) {
      await add(input, "native-pull", (on) => openNative(program, "pull", on));
      await add(input, "native-push", (on) => openNative(program, "push", on));
    }
    if (small !== input) await add(small, "shardloom", openOurs);
    await add(small, "graphology", openGraphology);
    await add(small, "graphology-loop", openGraphologyLoop);
    const rows = await interleave(cases.splice(0), rounds);
    return { rows, notes, whole: name(input), small: name(small) };
  } finally {
    for (const one of cases) await one.close?.(); // what was opened before another side could not be
    program?.dispose();
  }
}

/** A case of the harness. */
function pageRankCase(name: string, side: string, opened: PageRankSide, input: PageRankInput): BenchCase {
  const steps = input.graph.sources.length * input.iterations;
  return {
    name,
    side,
    unit: "ns/edge",
    run: async () => (await opened.run()) / steps,
    validate: () => {
      if (!opened.isRight()) throw new Error(`${name} by ${side} gave other ranks than the plain loop`);
    },
    close: () => opened.close?.(),
  };
}
