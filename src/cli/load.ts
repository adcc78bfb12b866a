/**
 * `shardloom load FILE`: loads a file of vectors into a cluster of this process, indexes it, and checks the index
 * against exact search.
 *
 * Invariant: what is reported was counted or measured in this run. A file that fails half-way ends with its error and
 * how many rows had been stored.
 */
import type { VectorCollection, VectorDocument } from "../../actors/vector/client-collection.ts";
import {
  INDEX_NAMES,
  type IndexName,
  METRIC_NAMES,
  type MetricName,
  STRATEGY_NAMES,
  type StrategyName,
} from "../../actors/vector/vector-options.ts";
import { Cluster } from "../cluster.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { openVectorFile, VECTOR_FORMATS } from "./formats/open-file.ts";
import type { VectorFile, VectorFormat } from "./formats/vector-file.ts";
import { createProgress } from "./progress.ts";
import { formatTable } from "./table.ts";
import { formatBytes, formatCount, formatNanoseconds, formatSeconds } from "./units.ts";

const INDEX_TIMEOUT_MS = 24 * 3_600_000;
/** Bytes of arena per stored component besides the vector itself are small; this leaves room for chunks and directories. */
const HEADROOM = 1.25;
const LEAST_MEMORY = 256 * 1024 * 1024;
const MOST_MEMORY = 4 * 1024 * 1024 * 1024;

export const load: Command = {
  name: "load",
  summary: "Load a vector file (idx, fvecs, bvecs, npy, JSON lines; plain or gzip), index it, measure recall",
  usage: "[options] FILE",
  operands: { min: 1, max: 1 },
  options: {
    format: { type: "string", summary: "Read the file as this format", choices: VECTOR_FORMATS },
    metric: { type: "string", summary: "Distance", choices: METRIC_NAMES, default: "l2" },
    strategy: { type: "string", summary: "How searches find vectors", choices: STRATEGY_NAMES, default: "scatter" },
    index: { type: "string", summary: "What spire chooses by", choices: INDEX_NAMES, default: "leaves" },
    recall: { type: "number", summary: "Recall that strategies aim at (default 0.95)", min: 0.01, max: 1 },
    workers: { type: "integer", summary: "Worker threads (default: cores - 1, at least 2)", min: 1, max: 64 },
    queries: { type: "string", summary: "File of query vectors (default: rows of FILE)", placeholder: "FILE" },
    sample: { type: "integer", summary: "Queries to run", min: 1, max: 1_000_000, default: 100 },
    k: { type: "integer", summary: "Answers per query", short: "k", min: 1, max: 1_000, default: 10 },
    "memory-mb": {
      type: "integer",
      summary: "Shared memory to reserve, in MiB (default: what the file needs)",
      min: 1,
      max: 4096,
    },
  },
  async run(context) {
    const { output } = context;
    const file = await openVectorFile(context.operands[0] as string, formatOption(context));
    const workers = context.number("workers");
    const recall = context.number("recall");
    await using cluster = await Cluster.start({
      memoryBytes: memoryFor(file, context),
      ...(workers === undefined ? {} : { workers }),
    });
    const docs = await cluster.vectors("loaded", {
      dimensions: file.dimensions,
      metric: (context.text("metric") ?? "l2") as MetricName,
      strategy: (context.text("strategy") ?? "scatter") as StrategyName,
      index: (context.text("index") ?? "leaves") as IndexName,
      ...(recall === undefined ? {} : { recall }),
    });
    const sample: Float32Array[] = [];
    const stored = await store(docs, file, sample, context);
    const indexedMs = await index(docs, context);
    output.line(
      `${file.format}, ${formatCount(stored.rows)} vectors of ${file.dimensions} ${file.element} components.`,
    );
    output.line(
      `Stored in ${formatSeconds(stored.elapsedMs / 1000)} (${formatCount(Math.round((stored.rows / stored.elapsedMs) * 1000))}/s), indexed ${formatSeconds(indexedMs / 1000)} later.`,
    );
    const shards = await docs.status({ timeoutMs: 60_000 });
    const bytes = shards.reduce((sum, shard) => sum + shard.vectorBytes + shard.heapBytes, 0);
    output.line(`${shards.length} shards, ${formatBytes(bytes)} in registered regions.\n`);
    const queries = await queryVectors(sample, file, context);
    const quality = await compare(docs, queries, context);
    output.object({
      file: file.path,
      format: file.format,
      dimensions: file.dimensions,
      rows: stored.rows,
      storedMs: stored.elapsedMs,
      indexedMs,
      shards: shards.length,
      bytes,
      ...quality,
    });
    return EXIT.OK;
  },
};

function formatOption(context: CommandContext): { format?: VectorFormat } {
  const format = context.text("format");
  return format === undefined ? {} : { format: format as VectorFormat };
}

function memoryFor(file: VectorFile, context: CommandContext): number {
  const chosen = context.number("memory-mb");
  if (chosen !== undefined) return chosen * 1024 * 1024;
  const rows = file.count ?? Math.ceil((file.byteLength * 8) / (file.dimensions * 4));
  const needed = rows * (file.dimensions * 4 + 256) * HEADROOM;
  return Math.min(MOST_MEMORY, Math.max(LEAST_MEMORY, Math.ceil(needed / 65_536) * 65_536));
}

async function store(
  docs: VectorCollection,
  file: VectorFile,
  sample: Float32Array[],
  context: CommandContext,
): Promise<{ rows: number; elapsedMs: number }> {
  const wanted = context.text("queries") === undefined ? (context.number("sample") ?? 100) : 0;
  const progress = createProgress({ label: "storing", total: file.count, unit: "vectors", output: context.output });
  const started = performance.now();
  try {
    const { written } = await docs.upsert(documents(file, sample, wanted), {
      signal: context.signal,
      timeoutMs: 60_000,
      onProgress: (done) => progress.update(done.written),
    });
    progress.finish();
    return { rows: written, elapsedMs: performance.now() - started };
  } catch (error) {
    progress.fail();
    throw error;
  }
}

/** Passes rows on and keeps an evenly spaced sample of them as queries. */
async function* documents(file: VectorFile, sample: Float32Array[], wanted: number): AsyncGenerator<VectorDocument> {
  const every = Math.max(1, Math.floor((file.count ?? wanted) / Math.max(1, wanted)));
  let row = 0;
  for await (const { id, vector, payload } of file.rows()) {
    if (sample.length < wanted && row % every === 0) sample.push(vector);
    row++;
    yield { id, vector, ...(payload === undefined ? {} : { payload }) };
  }
}

async function index(docs: VectorCollection, { output, signal }: CommandContext): Promise<number> {
  const started = performance.now();
  const progress = createProgress({ label: "indexing", total: await docs.count(), unit: "vectors", output });
  try {
    await docs.indexed({ signal, timeoutMs: INDEX_TIMEOUT_MS, onProgress: ({ indexed }) => progress.update(indexed) });
  } catch (error) {
    progress.fail();
    throw error;
  }
  progress.finish();
  return performance.now() - started;
}

async function queryVectors(
  sample: Float32Array[],
  file: VectorFile,
  context: CommandContext,
): Promise<Float32Array[]> {
  const path = context.text("queries");
  if (path === undefined) return sample;
  const queries = await openVectorFile(path);
  if (queries.dimensions !== file.dimensions) {
    throw new UsageError(`--queries ${path} has ${queries.dimensions} dimensions, and the file ${file.dimensions}`);
  }
  const wanted = context.number("sample") ?? 100;
  const vectors: Float32Array[] = [];
  for await (const { vector } of queries.rows()) if (vectors.push(vector) >= wanted) break;
  return vectors;
}

/** Runs every query through the index and exactly, and compares. */
async function compare(
  docs: VectorCollection,
  queries: readonly Float32Array[],
  context: CommandContext,
): Promise<Record<string, unknown>> {
  const { output, signal } = context;
  const k = context.number("k") ?? 10;
  const times = { index: [] as number[], exact: [] as number[] };
  let found = 0;
  let expected = 0;
  let codes = 0;
  const answeredBy: Record<string, number> = {};
  const progress = createProgress({ label: "searching", total: queries.length, unit: "queries", output });
  for (const [at, query] of queries.entries()) {
    const answers = { index: new Set<string | number>(), exact: new Set<string | number>() };
    for (const side of ["index", "exact"] as const) {
      const started = performance.now();
      const { hits, by, reading } = await docs.search(query, {
        k,
        exact: side === "exact",
        includePayload: false,
        timeoutMs: 60_000,
        signal,
      });
      times[side].push(performance.now() - started);
      for (const hit of hits) answers[side].add(hit.id);
      if (side === "exact") continue;
      answeredBy[by] = (answeredBy[by] ?? 0) + 1;
      codes += reading?.codes ?? 0;
    }
    expected += answers.exact.size;
    for (const id of answers.exact) if (answers.index.has(id)) found++;
    progress.update(at + 1);
  }
  progress.finish();
  const recall = expected === 0 ? 1 : found / expected;
  const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
  const rows = [
    ["index", recall.toFixed(4), formatNanoseconds(median(times.index) * 1e6)],
    ["exact scan", "1.0000", formatNanoseconds(median(times.exact) * 1e6)],
  ];
  output.line(`${formatCount(queries.length)} queries, one at a time, k = ${k}:`);
  output.line(
    formatTable(
      [{ title: "search" }, { title: `recall@${k}`, align: "right" }, { title: "median", align: "right" }],
      rows,
      { columns: output.columns },
    ),
  );
  const read = codes === 0 ? {} : { codesRead: codes / queries.length };
  const medians = { indexMedianMs: median(times.index), exactMedianMs: median(times.exact) };
  return { queries: queries.length, k, recall, ...medians, answeredBy, ...read };
}
