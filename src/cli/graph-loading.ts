/**
 * What every verb of `shardloom graph` begins with: a cluster of this process with the graph of some files in it.
 *
 * Invariant: files are read once, as they are loaded; a load that fails leaves no cluster behind.
 */
import type { Graph } from "../../actors/graph/client-graph.ts";
import type { VertexKey } from "../../actors/graph/vertex-key.ts";
import { Cluster } from "../cluster.ts";
import { type GraphFile, type GraphFileProgress, loadGraphFile, openGraphFile } from "../files/graph-file.ts";
import { type CommandContext, type OptionSpecs, UsageError } from "./command.ts";
import { createProgress } from "./progress.ts";
import { formatCount, formatSeconds } from "./units.ts";

const LEAST_MEMORY = 256 * 1024 * 1024;
const MOST_MEMORY = 4 * 1024 * 1024 * 1024;
/** Bytes of memory for a byte of text, which a line of an edge has a dozen of; compressed files hold some four times as much. */
const MEMORY_PER_BYTE = 6;
const COMPRESSED = 4;

/** Options of the files and of the cluster. */
export const LOADING_OPTIONS: OptionSpecs = {
  graph: {
    type: "string",
    summary: "Required: edges (LDBC .e or .properties, `source target [weight]`, CSV; plain or gzip)",
    placeholder: "FILE",
  },
  vertices: { type: "string", summary: "Vertices (default: beside FILE.e the FILE.v)", placeholder: "FILE" },
  format: { type: "string", summary: "How both are split (default: by the name)", choices: ["list", "csv"] },
  undirected: { type: "boolean", summary: "Edges lead both ways (default: what .properties says, or directed)" },
  out: { type: "string", summary: "Write `vertex value` lines to this file", placeholder: "FILE", short: "o" },
  workers: { type: "integer", summary: "Worker threads (default: cores - 1, at least 2)", min: 1, max: 64 },
  "memory-mb": {
    type: "integer",
    summary: "Shared memory to reserve, in MiB (default: by the files)",
    min: 1,
    max: 4096,
  },
};

/** A graph that was loaded, with its cluster. */
export interface LoadedGraph extends AsyncDisposable {
  readonly graph: Graph;
  readonly path: string;
  readonly directed: boolean;
  readonly vertices: number;
  readonly edges: number;
  readonly loadedMs: number;
}

/** Starts a cluster, loads the files that the options name, and says so. @throws {UsageError} without `--graph`, or without weights. */
export async function loadGraph(context: CommandContext, weighted: boolean): Promise<LoadedGraph> {
  const file = await openGraphFile(required(context, "graph"), {
    vertices: context.text("vertices"),
    format: context.text("format") as "list" | "csv" | undefined,
  });
  const workers = context.number("workers");
  const cluster = await Cluster.start({
    memoryBytes: memoryFor(file, context),
    ...(workers === undefined ? {} : { workers }),
  });
  try {
    const directed = !context.flag("undirected") && file.directed !== false;
    const graph = await cluster.graph("loaded", { directed, weighted });
    const { vertices, edges, elapsedMs: loadedMs } = await store(graph, file, context);
    context.output.line(
      `${directed ? "Directed" : "Undirected"} graph, ${formatCount(vertices)} vertices, ${formatCount(edges)} edges, loaded in ${formatSeconds(loadedMs / 1000)}.`,
    );
    const path = file.edgePath;
    return { graph, path, directed, vertices, edges, loadedMs, [Symbol.asyncDispose]: () => cluster.close() };
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

export function required(context: CommandContext, name: string): string {
  const value = context.text(name);
  if (value === undefined) throw new UsageError(`--${name} must be given`);
  return value;
}

function memoryFor(file: GraphFile, context: CommandContext): number {
  const chosen = context.number("memory-mb");
  if (chosen !== undefined) return chosen * 1024 * 1024;
  const text = file.byteLength() * (file.edgePath.endsWith(".gz") ? COMPRESSED : 1);
  return Math.min(MOST_MEMORY, Math.max(LEAST_MEMORY, Math.ceil((text * MEMORY_PER_BYTE) / 65_536) * 65_536));
}

async function store(
  target: Graph,
  file: GraphFile,
  { output, signal }: CommandContext,
): Promise<{ vertices: number; edges: number; elapsedMs: number }> {
  const progress = createProgress({ label: "loading", total: file.byteLength(), unit: "bytes", output });
  const started = performance.now();
  const onProgress = ({ bytesRead }: GraphFileProgress): void => progress.update(bytesRead);
  try {
    const { vertices, edges } = await loadGraphFile(target, file, { signal, onProgress });
    progress.finish();
    return { vertices, edges, elapsedMs: performance.now() - started };
  } catch (error) {
    progress.fail();
    throw error;
  }
}

/** A vertex as the files' readers have it: a number where the text is one. */
export function keyOf(text: string): VertexKey {
  const number = Number(text);
  return Number.isSafeInteger(number) && number >= 0 && String(number) === text ? number : text;
}
