/**
 * `shardloom graph khop`, `path`, `triangles` and `motif PATTERN`: what is asked of a graph in files by traversals.
 *
 * Invariant: a result that a bound cut short says so, for people and under `--json`; then the exit code is still 0.
 */
import type { Explained } from "../../actors/graph/client-explain.ts";
import type { Graph } from "../../actors/graph/client-graph.ts";
import type { GraphExplanation } from "../../actors/graph/graph-account.ts";
import type { Direction, Truncation } from "../../actors/graph/traversal/adjacency.ts";
import type { Motif, MotifEdge } from "../../actors/graph/traversal/motif-pattern.ts";
import type { VertexKey } from "../../actors/graph/vertex-key.ts";
import { type CommandContext, EXIT, type OptionSpecs, UsageError } from "./command.ts";
import { graphLines } from "./explain.ts";
import { keyOf, loadGraph, required } from "./graph-loading.ts";
import { createProgress, type Progress } from "./progress.ts";
import { formatTable } from "./table.ts";
import { formatCount, formatSeconds } from "./units.ts";

const SHOWN = 10;
const DEFAULT_HOPS = 2;
const EDGE = /^([^\s<>-]+)(>|-)([^\s<>-]+)$/;

/** Options of traversals; `--source` is also that of searches. */
export const TRAVERSAL_OPTIONS: OptionSpecs = {
  source: {
    type: "string",
    summary: "bfs, sssp, khop, path: the vertex to begin at; pagerank: where walks begin (default: anywhere)",
    placeholder: "VERTEX",
  },
  target: { type: "string", summary: "path: the vertex to end at", placeholder: "VERTEX" },
  hops: { type: "integer", summary: `khop: edges from the source at most (default ${DEFAULT_HOPS})`, min: 0 },
  direction: {
    type: "string",
    summary: "khop, path: edges that are followed",
    choices: ["out", "in", "both"],
    default: "out",
  },
  weighted: { type: "boolean", summary: "path: least sum of weights rather than fewest edges" },
  limit: { type: "integer", summary: "khop, motif: vertices or matches at most", min: 1 },
  "max-edges": { type: "integer", summary: "Traversals: neighbours to read at most (default 10000000)", min: 1 },
};

/** What a traversal found. */
interface Answer {
  readonly truncated: Truncation | undefined;
  readonly explain?: GraphExplanation;
  /** For people. */
  readonly lines: readonly string[];
  /** Under `--json`. */
  readonly found: Readonly<Record<string, unknown>>;
}

type Traversal = (graph: Graph, context: CommandContext, progress: Progress) => Promise<Answer>;

const TRAVERSALS: Readonly<Record<string, { readonly unit: string; readonly run: Traversal }>> = {
  khop: { unit: "vertices", run: around },
  path: { unit: "vertices", run: shortestPath },
  triangles: { unit: "vertices", run: triangles },
  motif: { unit: "matches", run: motifs },
};

/** Runs the traversal that the first operand names. @throws {UsageError} for wrong operands and options. */
export async function traverse(context: CommandContext): Promise<number> {
  const { output, operands } = context;
  const [verb = "", pattern] = operands;
  const traversal = Object.hasOwn(TRAVERSALS, verb) ? TRAVERSALS[verb] : undefined;
  if (traversal === undefined)
    throw new UsageError(
      `The first operand must be run, ${Object.keys(TRAVERSALS).join(", ")}: current value is ${verb}`,
    );
  if (context.text("out") !== undefined) throw new UsageError(`--out is for run: ${verb} writes no file`);
  if (verb === "motif") motifOf(pattern);
  else if (pattern !== undefined) throw new UsageError(`unexpected operand ${JSON.stringify(pattern)}`);
  if (verb === "khop" || verb === "path") required(context, "source");
  if (verb === "path") required(context, "target");
  await using loaded = await loadGraph(context, verb === "path" && context.flag("weighted"));
  const { graph, path, directed, vertices, edges, loadedMs } = loaded;
  const progress = createProgress({ label: verb, total: undefined, unit: traversal.unit, output });
  const started = performance.now();
  let answer: Answer;
  try {
    answer = await traversal.run(graph, context, progress);
    progress.finish();
  } catch (error) {
    progress.fail();
    throw error;
  }
  const elapsedMs = performance.now() - started;
  const { truncated, lines, found, explain } = answer;
  output.line(`${verb}: ${formatSeconds(elapsedMs / 1000)}.\n`);
  for (const line of lines) output.line(line);
  if (truncated !== undefined)
    output.line(`There may be more: it ended at the bound of ${formatCount(truncated.limit)} ${truncated.by}.`);
  if (explain !== undefined) for (const line of graphLines(explain)) output.line(`\n${line}`);
  const more = { ...(truncated === undefined ? {} : { truncated }), ...(explain === undefined ? {} : { explain }) };
  output.object({ traversal: verb, graph: path, directed, vertices, edges, loadedMs, elapsedMs, ...found, ...more });
  return EXIT.OK;
}

function boundsOf(context: CommandContext): { signal: AbortSignal; explain: boolean; maxEdges?: number } {
  const maxEdges = context.number("max-edges");
  const { signal } = context;
  return { signal, explain: context.flag("explain"), ...(maxEdges === undefined ? {} : { maxEdges }) };
}

function told({ truncated, explain }: Explained<Pick<Answer, "truncated">>): Pick<Answer, "truncated" | "explain"> {
  return { truncated, ...(explain === undefined ? {} : { explain }) };
}

async function around(graph: Graph, context: CommandContext, progress: Progress): Promise<Answer> {
  const hops = context.number("hops") ?? DEFAULT_HOPS;
  const limit = context.number("limit");
  const { depths, ...rest } = await graph.kHop([keyOf(required(context, "source"))], {
    ...boundsOf(context),
    hops,
    direction: context.text("direction") as Direction,
    ...(limit === undefined ? {} : { maxVertices: limit }),
  });
  progress.update(depths.size);
  const counts: number[] = [];
  for (const depth of depths.values()) counts[depth] = (counts[depth] ?? 0) + 1;
  const rows = counts.map((count, depth) => [String(depth), formatCount(count)]);
  return {
    ...told(rest),
    lines: [formatTable([{ title: "edges away" }, { title: "vertices", align: "right" }], rows)],
    found: { hops, depths: [...depths] },
  };
}

async function shortestPath(graph: Graph, context: CommandContext, progress: Progress): Promise<Answer> {
  const [from, to] = [keyOf(required(context, "source")), keyOf(required(context, "target"))];
  const { path, distance, ...rest } = await graph.shortestPath(from, to, {
    ...boundsOf(context),
    direction: context.text("direction") as Direction,
    weighted: context.flag("weighted"),
  });
  progress.update(path?.length ?? 0);
  const way = path === undefined ? `${to} cannot be reached from ${from}.` : `${path.join(" → ")} (${distance})`;
  return { ...told(rest), lines: [way], found: { path: path ?? null, distance: path === undefined ? null : distance } };
}

async function triangles(graph: Graph, context: CommandContext, progress: Progress): Promise<Answer> {
  let seen = 0;
  async function* vertices(): AsyncGenerator<VertexKey> {
    for await (const key of graph.vertices({ signal: context.signal })) {
      progress.update(++seen);
      yield key;
    }
  }
  // Who reads the vertices shows how far it is; to be explained, the graph reads them, as part of the question.
  const from = context.flag("explain") ? {} : { vertices: vertices() };
  const { triangles: count, ...rest } = await graph.countTriangles({ ...boundsOf(context), ...from });
  return {
    ...told(rest),
    lines: [`${formatCount(count)} triangles.`],
    found: { triangles: count },
  };
}

async function motifs(graph: Graph, context: CommandContext, progress: Progress): Promise<Answer> {
  const limit = context.number("limit");
  const { matches, ...rest } = await graph.findMotif(motifOf(context.operands[1]), {
    ...boundsOf(context),
    ...(limit === undefined ? {} : { maxMatches: limit }),
  });
  progress.update(matches.length);
  const names = Object.keys(matches[0] ?? {}).sort();
  const rows = matches.slice(0, SHOWN).map((match) => names.map((name) => String(match[name])));
  return {
    ...told(rest),
    lines: [
      `${formatCount(matches.length)} matches.`,
      ...(rows.length === 0
        ? []
        : [
            formatTable(
              names.map((title) => ({ title })),
              rows,
            ),
          ]),
    ],
    found: { matches },
  };
}

/** `a>b,b>c,c-a`: edges from one to another, or of either direction. */
function motifOf(pattern: string | undefined): Motif {
  const edges = (pattern ?? "").split(",").map((text): MotifEdge => {
    const [, from, kind, to] = EDGE.exec(text.trim()) ?? [];
    if (from === undefined || to === undefined)
      throw new UsageError(`PATTERN must be edges such as a>b,b>c,c-a: current value is ${pattern}`);
    return { from, to, either: kind === "-" };
  });
  return { edges };
}
