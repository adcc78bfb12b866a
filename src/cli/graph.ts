/**
 * `shardloom graph run ALGORITHM`: loads a graph from files into a cluster of this process, runs an algorithm over it, shows what came out, and
 * writes it to a file. Other verbs are traversals (see graph-traversal.ts).
 *
 * Invariant: what is shown was counted or measured in this run. An output file is written beside its name and renamed when it is whole.
 */
import { createWriteStream } from "node:fs";
import { rename, rm, stat, writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Graph } from "../../actors/graph/client-graph.ts";
import type { GraphResult, VertexValue } from "../../actors/graph/client-run.ts";
import type { RunOptions, RunProgress } from "../../actors/graph/run-options.ts";
import type { VertexKey } from "../../actors/graph/vertex-key.ts";
import { ShardloomError } from "../errors.ts";
import { diskError } from "../runtime/disk.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { EXPLAIN_OPTION, runLines } from "./explain.ts";
import { keyOf, LOADING_OPTIONS, loadGraph, required } from "./graph-loading.ts";
import { TRAVERSAL_OPTIONS, traverse } from "./graph-traversal.ts";
import { createProgress } from "./progress.ts";
import { formatTable } from "./table.ts";
import { formatCount, formatSeconds } from "./units.ts";

const ALGORITHMS = ["pagerank", "wcc", "bfs", "sssp", "cdlp", "lcc"] as const;
type Algorithm = (typeof ALGORITHMS)[number];
const EXCHANGES = ["auto", "push", "pull"] as const;
const SHOWN = 10;
/** What LDBC Graphalytics writes for a vertex that a search does not reach. */
const UNREACHED = { bfs: "9223372036854775807", sssp: "infinity" } as const;

export const graph: Command = {
  name: "graph",
  summary: "Run an algorithm over a graph in files: graph run pagerank --graph FILE",
  usage: `[options] run ${ALGORITHMS.join("|")} | khop | path | triangles | motif a>b,b-c`,
  operands: { min: 1, max: 2 },
  options: {
    ...LOADING_OPTIONS,
    damping: { type: "number", summary: "pagerank: part of visits that follow an edge (default 0.85)", min: 0, max: 1 },
    iterations: { type: "integer", summary: "pagerank, cdlp: iterations (default 20 and 10)", min: 0, max: 100_000 },
    tolerance: { type: "number", summary: "pagerank: end when ranks change by less than this in all", min: 0 },
    ...TRAVERSAL_OPTIONS,
    exchange: { type: "string", summary: "How values travel", choices: EXCHANGES, default: "auto" },
    ...EXPLAIN_OPTION,
  },
  async run(context) {
    if (context.operands[0] !== "run") return traverse(context);
    const { output } = context;
    const algorithm = algorithmOf(context);
    const out = context.text("out");
    if (out !== undefined) await assertWritable(out); // before anything is loaded
    await using loaded = await loadGraph(context, algorithm === "sssp");
    const { graph: target, path, directed, vertices, edges, loadedMs } = loaded;
    const started = performance.now();
    await using result = await compute(target, algorithm, context);
    const elapsedMs = performance.now() - started;
    const rate = Math.round((result.edges * Math.max(1, result.supersteps) * 1000) / elapsedMs);
    output.line(
      `${algorithm}: ${formatCount(result.supersteps)} supersteps in ${formatSeconds(elapsedMs / 1000)} (${formatCount(rate)} edges/s).\n`,
    );
    const values = await result.toMap();
    show(algorithm, values, context);
    if (out !== undefined) {
      await write(out, algorithm, result);
      output.line(`\nWrote ${formatCount(values.size)} lines to ${out}.`);
    }
    const { supersteps, attempts, explain } = result;
    if (explain !== undefined) for (const line of runLines(explain)) output.line(`\n${line}`);
    output.object({
      algorithm,
      graph: path,
      directed,
      vertices,
      edges,
      loadedMs,
      supersteps,
      attempts,
      elapsedMs,
      ...summary(algorithm, values),
      ...(out === undefined ? {} : { out }),
      ...(explain === undefined ? {} : { explain }),
    });
    return EXIT.OK;
  },
};

function algorithmOf({ operands: [, name] }: CommandContext): Algorithm {
  const found = ALGORITHMS.find((known) => known === name);
  if (found === undefined)
    throw new UsageError(`ALGORITHM must be one of ${ALGORITHMS.join(", ")}: current value is ${name}`);
  return found;
}

async function compute(target: Graph, algorithm: Algorithm, context: CommandContext): Promise<GraphResult> {
  const { output, signal } = context;
  const [damping, iterations, tolerance] = ["damping", "iterations", "tolerance"].map((name) => context.number(name));
  const source = context.text("source");
  const progress = createProgress({ label: algorithm, total: undefined, unit: "supersteps", output });
  const options: RunOptions = {
    signal,
    explain: context.flag("explain"),
    exchange: context.text("exchange") as (typeof EXCHANGES)[number],
    onProgress: ({ superstep, active, delta }: RunProgress) =>
      progress.update(
        superstep,
        delta === undefined ? `${formatCount(active)} active` : `delta ${delta.toExponential(2)}`,
      ),
  };
  const bounded = { ...options, ...(iterations === undefined ? {} : { iterations }) };
  try {
    const result = await (algorithm === "pagerank"
      ? target.pageRank({
          ...bounded,
          ...(damping === undefined ? {} : { damping }),
          ...(tolerance === undefined ? {} : { tolerance }),
          ...(source === undefined ? {} : { sources: [keyOf(source)] }),
        })
      : algorithm === "cdlp"
        ? target.cdlp(bounded)
        : algorithm === "bfs" || algorithm === "sssp"
          ? target[algorithm]({ ...options, source: keyOf(required(context, "source")) })
          : target[algorithm](options));
    progress.finish();
    return result;
  } catch (error) {
    progress.fail();
    throw error;
  }
}

function show(algorithm: Algorithm, values: ReadonlyMap<VertexKey, number>, { output }: CommandContext): void {
  const reached = [...values.values()].filter(Number.isFinite);
  if (algorithm === "pagerank" || algorithm === "lcc") {
    const top = [...values].sort(([, a], [, b]) => b - a).slice(0, SHOWN);
    output.line(
      formatTable(
        [{ title: "vertex" }, { title: algorithm === "lcc" ? "coefficient" : "rank", align: "right" }],
        top.map(([key, value]) => [String(key), value.toPrecision(4)]),
      ),
    );
  } else if (algorithm === "sssp") {
    output.line(
      `${formatCount(reached.length)} of ${formatCount(values.size)} vertices are reached; the farthest is ${reached.reduce((a, b) => Math.max(a, b), 0)} away.`,
    );
  } else {
    const groups = groupsOf(reached);
    const rows =
      algorithm === "bfs" ? [...groups].sort(([a], [b]) => a - b) : [...groups].sort(([, a], [, b]) => b - a);
    const title = algorithm === "bfs" ? "depth" : algorithm === "wcc" ? "component" : "community";
    output.line(
      formatTable(
        [{ title }, { title: "vertices", align: "right" }],
        rows.slice(0, SHOWN).map(([value, count]) => [String(value), formatCount(count)]),
      ),
    );
    if (rows.length > SHOWN) output.line(`and ${formatCount(rows.length - SHOWN)} more`);
    if (reached.length < values.size)
      output.line(`${formatCount(values.size - reached.length)} vertices are not reached.`);
  }
}

function summary(algorithm: Algorithm, values: ReadonlyMap<VertexKey, number>): Readonly<Record<string, unknown>> {
  const reached = [...values.values()].filter(Number.isFinite);
  if (algorithm === "wcc") return { components: groupsOf(reached).size };
  if (algorithm === "cdlp") return { communities: groupsOf(reached).size };
  if (algorithm === "bfs" || algorithm === "sssp") return { reached: reached.length };
  const sum = reached.reduce((a, b) => a + b, 0);
  return algorithm === "lcc" ? { mean: sum / Math.max(1, reached.length) } : { mass: sum };
}

function groupsOf(values: readonly number[]): Map<number, number> {
  const groups = new Map<number, number>();
  for (const value of values) groups.set(value, (groups.get(value) ?? 0) + 1);
  return groups;
}

/** Writes a line for each vertex, as LDBC Graphalytics has them. */
async function write(path: string, algorithm: Algorithm, result: GraphResult): Promise<void> {
  const unreached = algorithm === "bfs" || algorithm === "sssp" ? UNREACHED[algorithm] : "";
  async function* lines(): AsyncGenerator<string> {
    for await (const { key, value } of result as AsyncIterable<VertexValue>)
      yield `${key} ${Number.isFinite(value) ? value : unreached}\n`;
  }
  await beside(path, async (unfinished) => {
    await pipeline(Readable.from(lines()), createWriteStream(unfinished));
    await rename(unfinished, path);
  });
}

async function assertWritable(path: string): Promise<void> {
  await beside(path, async (unfinished) => {
    await writeFile(unfinished, "");
    const isDirectory = (await stat(path).catch(() => undefined))?.isDirectory();
    if (isDirectory === true) throw diskError("write results", path, "EISDIR");
    await rm(unfinished);
  });
}

/** Does something with an unfinished file, of which nothing is left when that fails. @throws {ShardloomError} `ERR_NO_FILE`, `ERR_DISK_FULL` … */
async function beside(path: string, act: (unfinished: string) => Promise<void>): Promise<void> {
  const unfinished = `${path}.new`;
  try {
    await act(unfinished);
  } catch (error) {
    await rm(unfinished, { force: true });
    const errno = (error as NodeJS.ErrnoException).code;
    throw ShardloomError.is(error) || errno === undefined ? error : diskError("write results", path, errno, error);
  }
}
