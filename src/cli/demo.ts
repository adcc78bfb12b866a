/**
 * `shardloom demo`: indexes the Markdown documentation under node_modules, answers queries, shows what a blocked
 * thread does to messages and to one-sided reads, and ranks the installed packages by their dependencies.
 *
 * Invariant: everything shown was computed in this run by the public API; a step that fails ends the demo with its error.
 */
import type { VectorCollection, VectorDocument, VectorHit } from "../../actors/vector/client-collection.ts";
import { Cluster } from "../cluster.ts";
import { ShardloomError } from "../errors.ts";
import { type Command, type CommandContext, EXIT } from "./command.ts";
import { type Passage, passageText, readCorpus } from "./corpus.ts";
import { blocker } from "./demo-actors.ts";
import { showDependencies } from "./demo-graph.ts";
import { EMBEDDING_DIMENSIONS, embed } from "./embedding.ts";
import { EXPLAIN_OPTION, explanationLines } from "./explain.ts";
import { measureLatencies } from "./latency.ts";
import { createProgress } from "./progress.ts";
import { formatTable } from "./table.ts";
import { formatBytes, formatCount, formatNanoseconds, formatSeconds } from "./units.ts";

const QUERIES: readonly string[] = [
  "approximate nearest neighbour search in a vector index",
  "run tasks in a pool of worker threads",
  "serialize objects to MessagePack quickly",
  "property based testing with random inputs",
];
const BLOCK_MS = 1_000;
const ASK_TIMEOUT_MS = 150;

export const demo: Command = {
  name: "demo",
  summary: "Index the documentation under node_modules, search it, block a shard, measure, rank packages",
  usage: "[options] [QUERY ...]",
  operands: { min: 0, max: 20 },
  options: {
    workers: { type: "integer", summary: "Worker threads (default: cores - 1, at least 2)", min: 1, max: 64 },
    passages: { type: "integer", summary: "Passages to index at most", min: 1, max: 1_000_000, default: 4000 },
    k: { type: "integer", summary: "Answers per query", short: "k", min: 1, max: 100, default: 3 },
    ...EXPLAIN_OPTION,
  },
  async run(context) {
    const { output, signal } = context;
    const workers = context.number("workers");
    const passages = await readCorpus({ limit: context.number("passages") ?? 4000 });
    await using cluster = await Cluster.start({
      ...(workers === undefined ? {} : { workers }),
      actors: [new URL("./demo-actors.js", import.meta.url)],
      maxHandlerMs: 5 * BLOCK_MS, // the thread that is blocked on purpose is not to be replaced
    });
    output.line(
      `Shardloom: ${cluster.topology.shards} shards on worker threads, ${cluster.topology.vshards} vshards.\n`,
    );
    const docs = await cluster.vectors("passages", { dimensions: EMBEDDING_DIMENSIONS, metric: "cosine" });
    await indexPassages(docs, passages, context);
    for (const query of [...QUERIES, ...context.operands]) {
      signal.throwIfAborted();
      await answer(docs, query, context);
    }
    await showBlockedShard(cluster, docs, passages, context);
    await showLatencies(cluster, docs, passages, context);
    await showDependencies(cluster, context);
    return EXIT.OK;
  },
};

async function indexPassages(
  docs: VectorCollection,
  passages: readonly Passage[],
  { output, signal }: CommandContext,
): Promise<void> {
  const started = performance.now();
  const packages = new Set(passages.map((passage) => passage.package)).size;
  const loading = createProgress({ label: "embedding and storing", total: passages.length, unit: "passages", output });
  await docs.upsert(documents(passages), {
    signal,
    timeoutMs: 60_000,
    onProgress: ({ written }) => loading.update(written),
  });
  loading.finish();
  const loadedMs = performance.now() - started;
  const indexing = createProgress({ label: "indexing", total: passages.length, unit: "passages", output });
  await docs.indexed({ signal, timeoutMs: 120_000, onProgress: ({ indexed }) => indexing.update(indexed) });
  indexing.finish();
  const shards = await docs.status({ signal });
  const bytes = shards.reduce((sum, shard) => sum + shard.vectorBytes + shard.heapBytes, 0);
  const seconds = (performance.now() - started) / 1000;
  output.line(
    `${formatCount(passages.length)} passages of ${packages} packages: stored in ${formatSeconds(loadedMs / 1000)}, indexed after ${formatSeconds(seconds)}, ${formatBytes(bytes)} in registered regions.\n`,
  );
  output.object({
    event: "indexed",
    passages: passages.length,
    packages,
    storedMs: loadedMs,
    indexedMs: seconds * 1000,
    bytes,
  });
}

function* documents(passages: readonly Passage[]): Generator<VectorDocument> {
  for (const passage of passages) {
    const { id, heading, text } = passage;
    yield { id, vector: embed(passageText(passage)), payload: { package: passage.package, heading, text } };
  }
}

async function answer(
  docs: VectorCollection,
  query: string,
  { output, signal, number, flag }: CommandContext,
): Promise<void> {
  const started = performance.now();
  const options = { k: number("k") ?? 3, signal, explain: flag("explain") };
  const { hits, completeness, explain } = await docs.search(embed(query), options);
  const elapsedMs = performance.now() - started;
  output.line(
    `“${query}”  (${formatNanoseconds(elapsedMs * 1e6)}, ${completeness.answered} of ${completeness.planned} shards)`,
  );
  const rows = hits.map((hit) => [(1 - hit.score).toFixed(3), field(hit, "package"), snippet(hit)]);
  output.line(
    formatTable([{ title: "score", align: "right" }, { title: "package" }, { title: "passage" }], rows, {
      columns: output.columns,
    }),
  );
  if (explain !== undefined) for (const line of explanationLines(explain)) output.line(line);
  output.line();
  output.object({
    event: "answer",
    query,
    elapsedMs,
    completeness: { planned: completeness.planned, answered: completeness.answered },
    hits: hits.map((hit) => ({
      id: hit.id,
      score: 1 - hit.score,
      package: field(hit, "package"),
      heading: field(hit, "heading"),
      text: field(hit, "text"),
    })),
    ...(explain === undefined ? {} : { explain }),
  });
}

function field(hit: VectorHit, name: string): string {
  const value = hit.payload?.[name];
  return typeof value === "string" ? value : "";
}

function snippet(hit: VectorHit): string {
  const heading = field(hit, "heading");
  return `${heading === "" ? "" : `${heading}: `}${field(hit, "text")}`.replaceAll(/\s+/g, " ");
}

/** Blocks one shard's thread and counts what still works meanwhile. */
async function showBlockedShard(
  cluster: Cluster,
  docs: VectorCollection,
  passages: readonly Passage[],
  { output }: CommandContext,
): Promise<void> {
  const shard = 0;
  let key = "demo";
  for (let at = 0; cluster.shardOfActor(blocker, key) !== shard; at++) key = `demo-${at}`;
  const ids = passages.map((passage) => passage.id).filter((id) => cluster.shardOfId(id) === shard);
  const blocked = cluster.actor(blocker, key).block(BLOCK_MS, { timeoutMs: BLOCK_MS * 3 });
  const started = performance.now();
  const reader = cluster.reader();
  const target = new Float32Array(EMBEDDING_DIMENSIONS);
  let reads = 0;
  let longestMs = 0;
  const timeouts: string[] = [];
  while (performance.now() - started < BLOCK_MS - ASK_TIMEOUT_MS * 2) {
    const ask = docs.get(ids[timeouts.length % ids.length] as string, { timeoutMs: ASK_TIMEOUT_MS }).then(
      () => "answered",
      (error: unknown) => (ShardloomError.is(error) ? error.code : String(error)),
    );
    for (let at = 0; at < 2_000; at++, reads++) {
      const before = performance.now();
      const region = docs.region(ids[reads % ids.length] as string);
      const status = region === undefined ? -1 : reader.read(region, target);
      if (status !== 0)
        throw new ShardloomError("ERR_REGION_ACCESS", "Cannot read a vector of the blocked shard", {
          details: { status },
        });
      longestMs = Math.max(longestMs, performance.now() - before);
    }
    timeouts.push(await ask);
  }
  await blocked;
  const answeredAgain = await docs.get(ids[0] as string, { timeoutMs: 2_000 });
  const outcomes = [...new Set(timeouts)].join(", ");
  output.line(`Shard ${shard}'s thread blocked for ${formatSeconds(BLOCK_MS / 1000)}:`);
  output.line(
    `  one-sided reads of its vectors   ${formatCount(reads)} of ${formatCount(reads)} answered, slowest ${formatNanoseconds(longestMs * 1e6)}`,
  );
  output.line(
    `  messages to it                   ${timeouts.length} of ${timeouts.length} ended ${outcomes} after ${ASK_TIMEOUT_MS} ms`,
  );
  output.line(
    `  afterwards                       ${answeredAgain === undefined ? "no answer" : "it answers messages again"}\n`,
  );
  output.object({
    event: "blocked",
    shard,
    blockMs: BLOCK_MS,
    reads,
    slowestReadNs: longestMs * 1e6,
    asks: timeouts.length,
    outcomes: [...new Set(timeouts)],
  });
}

async function showLatencies(
  cluster: Cluster,
  docs: VectorCollection,
  passages: readonly Passage[],
  { output }: CommandContext,
): Promise<void> {
  const id = passages[0]?.id as string;
  const region = docs.region(id);
  if (region === undefined) throw new ShardloomError("ERR_REGION_ACCESS", `Cannot measure as ${id} has no region`);
  const rows = await measureLatencies(cluster, region, cluster.shardOfId(id));
  output.line("Measured now, in this process:");
  output.line(
    formatTable(
      [
        { title: "what" },
        { title: "median", align: "right" },
        { title: "p99", align: "right" },
        { title: "samples", align: "right" },
      ],
      rows.map((row) => [
        row.what,
        formatNanoseconds(row.medianNs),
        formatNanoseconds(row.p99Ns),
        formatCount(row.samples),
      ]),
      { columns: output.columns },
    ),
  );
  output.line();
  output.object({ event: "latencies", rows });
}
