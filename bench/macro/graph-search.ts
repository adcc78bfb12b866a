/**
 * Breadth-first search, direction-optimising ("auto") against pushing only, from vertices that reach much of the graph.
 *
 * Every search must give the levels of a plain search; one that pushes only must not have pulled, and the other must have done both.
 */
import { createSeededRandom } from "../../src/runtime/random.ts";
import { type BenchCase, type BenchContext, type BenchRow, interleave, ratioOf, sized } from "../harness/harness.ts";
import { type Csr, toCsr } from "./graph-data.ts";
import { type GraphStage, type TimedRun, workersOf } from "./graph-stage.ts";

const CANDIDATES = 32;

interface Search {
  readonly source: number;
  /** `Float64Array[vertices]`; infinity where it does not come. */
  readonly levels: Float64Array;
}

export interface SearchMeasurement {
  readonly rows: readonly BenchRow[];
  /** Pushing only over direction-optimising, the smallest of all stages; NaN, and why, when there was nothing to compare. */
  readonly ratio: number;
  readonly note: string;
}

/** Measures on all stages, which hold the same graph. A sample is the mean of one search from each source, its supersteps only. */
export async function measureSearch(
  { mode, seed }: Pick<BenchContext, "mode" | "seed">,
  name: string,
  stages: readonly GraphStage[],
): Promise<SearchMeasurement> {
  const [{ columns }] = stages as [GraphStage];
  const searches = drawSearches(toCsr(columns), seed, sized(mode, 2, 4, 8));
  const ways = new Set<string>();
  const cases = stages.flatMap((stage) =>
    (["push", "auto"] as const).map((exchange) =>
      searchCase(`bfs-${name}`, stage, exchange, searches, (run) => {
        if (exchange === "auto") for (const way of run.exchanges) ways.add(way);
      }),
    ),
  );
  const rows = await interleave(cases, sized(mode, 2, 5, 7));
  const ratios = stages.map((stage) => ratioOf(rows, `bfs-${name}`, sideOf(stage, "push"), sideOf(stage, "auto")));
  const each = stages.map(({ workers }, at) => `${workersOf(workers)} ${ratios[at]?.toFixed(2)}`).join(", ");
  if (ways.size < 2) return { rows, ratio: Number.NaN, note: `never other than ${[...ways].join()} on this graph` };
  return { rows, ratio: Math.min(...ratios), note: each };
}

function sideOf({ workers }: GraphStage, exchange: string): string {
  return `${workersOf(workers)}, ${exchange}`;
}

function searchCase(
  name: string,
  stage: GraphStage,
  exchange: "auto" | "push",
  searches: readonly Search[],
  ran: (run: TimedRun) => void,
): BenchCase {
  let right = 0;
  return {
    name,
    side: sideOf(stage, exchange),
    unit: "ms/search",
    run: async () => {
      let insideMs = 0;
      for (const { source, levels } of searches) {
        const run = await stage.bfs(source, exchange);
        ran(run);
        insideMs += run.insideMs;
        const strays = exchange === "push" && run.exchanges.some((way) => way !== "push");
        const same = levels.every((level, vertex) => level === run.values[vertex]);
        if (!same || strays) throw new Error(`graph bench: the ${exchange} search from ${source} went wrong`);
        right++;
      }
      return insideMs / searches.length;
    },
    validate: () => {
      if (right < searches.length) throw new Error(`graph bench: ${right} searches were right`);
    },
  };
}

/** Those of some drawn sources that reach most. */
function drawSearches(out: Csr, seed: number, count: number): Search[] {
  const random = createSeededRandom(seed);
  const sources = new Set<number>();
  for (let draw = 0; draw < 100 * CANDIDATES && sources.size < CANDIDATES; draw++) {
    const source = Math.floor(random.float() * out.vertices);
    if (out.offsets[source] !== out.offsets[source + 1]) sources.add(source);
  }
  const searches = [...sources].map((source) => ({ source, ...plainSearch(out, source) }));
  return searches.sort((a, b) => b.reached - a.reached).slice(0, count);
}

function plainSearch({ vertices, offsets, targets }: Csr, source: number): { levels: Float64Array; reached: number } {
  const levels = new Float64Array(vertices).fill(Number.POSITIVE_INFINITY);
  const queue = new Uint32Array(vertices);
  levels[source] = 0;
  queue[0] = source;
  let reached = 1;
  for (let at = 0; at < reached; at++) {
    const vertex = queue[at] as number;
    for (let edge = offsets[vertex] as number; edge < (offsets[vertex + 1] as number); edge++) {
      const target = targets[edge] as number;
      if (levels[target] !== Number.POSITIVE_INFINITY) continue;
      levels[target] = (levels[vertex] as number) + 1;
      queue[reached++] = target;
    }
  }
  return { levels, reached };
}
