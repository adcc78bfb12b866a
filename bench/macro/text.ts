/**
 * Bench `text` (C5, C5b): a search of the demo corpus over the whole path (client, ring, worker, reply), against MiniSearch
 * searching the same documents for the same queries on the calling thread.
 *
 * Corpus: the Markdown documentation under node_modules (src/cli/corpus.ts), two fields: heading and text. Queries: one to
 * four words that stand together in a passage, drawn with the seed; every side runs the same ones, one at a time. MiniSearch: version
 * of the lock file, its own tokeniser and default BM25+ settings, `combineWith: "OR"`, the first ten of its answer. Ours:
 * language "none" and no stop words, so that both match the same documents; k 10, no payload. With one worker, client and worker spin; with two, no longer than by default. Another row
 * measures English stems, which match more.
 * That the answers make sense is checked by how often both sides agree on the best document.
 */
import MiniSearch from "minisearch";
import { type Passage, readCorpus } from "../../src/cli/corpus.ts";
import { Cluster, type TextCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchCase,
  type BenchContext,
  type BenchReport,
  interleave,
  ratioOf,
  sized,
  toRow,
} from "../harness/harness.ts";

const K = 10;
const SPIN_LIMIT_US = 10_000;
/** Client and two workers are three threads for two cores: one that spins for long takes the core from one that works. */
const SPIN_LIMIT_TWO_US = 50;
/** Share of the queries whose best document is within the other side's first ten; below it one of them is broken. */
const LEAST_AGREEMENT = 0.8;

interface Side {
  readonly name: string;
  /** Ids of the best documents. */
  search(query: string): Promise<readonly (string | number)[]>;
  close(): Promise<void>;
}

/** Words that stand together in a passage; half of the queries are of two words. */
function drawQueries(passages: readonly Passage[], count: number, seed: number): string[] {
  const random = createSeededRandom(seed);
  const queries: string[] = [];
  while (queries.length < count) {
    const passage = passages[Math.floor(random.float() * passages.length)] as Passage;
    const words = passage.text.toLowerCase().match(/[a-z]{2,20}/g) ?? [];
    const length = random.float() < 0.5 ? 2 : 1 + Math.floor(random.float() * 4);
    if (words.length < length) continue;
    const first = Math.floor(random.float() * (words.length - length + 1));
    queries.push(words.slice(first, first + length).join(" "));
  }
  return queries;
}

function openMiniSearch(passages: readonly Passage[]): Side {
  const index = new MiniSearch<{ id: string; heading: string; text: string }>({ fields: ["heading", "text"] });
  index.addAll(passages.map(({ id, heading, text }) => ({ id, heading, text })));
  return {
    name: "minisearch",
    search: (query) =>
      Promise.resolve(
        index
          .search(query, { combineWith: "OR" })
          .slice(0, K)
          .map(({ id }) => id as string),
      ),
    close: () => Promise.resolve(),
  };
}

async function openCluster(
  name: string,
  workers: number,
  language: string,
  passages: readonly Passage[],
): Promise<Side & { readonly loadMs: number }> {
  const spinLimitUs = workers === 1 ? SPIN_LIMIT_US : SPIN_LIMIT_TWO_US;
  const cluster = await Cluster.start({ workers, spinLimitUs, requestTimeoutMs: 60_000 });
  try {
    return await fill(name, cluster, workers, language, passages);
  } catch (error) {
    await cluster.close(); // or its workers keep the process alive
    throw error;
  }
}

async function fill(
  name: string,
  cluster: Cluster,
  workers: number,
  language: string,
  passages: readonly Passage[],
): Promise<Side & { readonly loadMs: number }> {
  const collection: TextCollection = await cluster.text("corpus", { fields: ["heading", "text"], language });
  const startedMs = performance.now();
  await collection.upsert(passages.map(({ id, heading, text }) => ({ id, fields: { heading, text } })).values());
  const loadMs = performance.now() - startedMs;
  const shards = await collection.status();
  if (shards.length !== workers || shards.some(({ documents }) => documents === 0))
    throw new Error(`text bench: ${workers} shards must hold documents: ${JSON.stringify(shards)}`);
  return {
    name,
    loadMs,
    async search(query) {
      const { hits, completeness } = await collection.search(query, { k: K, includePayload: false });
      if (completeness.answered !== workers) throw new Error(`text bench: ${completeness.answered} shards answered`);
      return hits.map(({ id }) => id);
    },
    close: () => cluster.close(),
  };
}

function timed(side: Side, queries: readonly string[]): BenchCase {
  let answered = 0;
  let asked = 0;
  return {
    name: "search",
    side: side.name,
    unit: "us/search",
    run: async () => {
      asked += queries.length;
      const startedMs = performance.now();
      for (const query of queries) if ((await side.search(query)).length > 0) answered++;
      return ((performance.now() - startedMs) * 1000) / queries.length;
    },
    validate: () => {
      // Every query stands in a passage; a tokeniser may see other words in it (`a_b`), but seldom.
      if (answered < 0.98 * asked || asked === 0)
        throw new Error(`text bench: ${side.name} answered ${answered} of ${asked} queries`);
    },
    close: () => side.close(),
  };
}

/** How often the best document is the same, and how often it is among the other's first ten. */
async function agreement(one: Side, other: Side, queries: readonly string[]): Promise<{ same: number; near: number }> {
  let same = 0;
  let near = 0;
  for (const query of queries) {
    const [best] = await one.search(query);
    const theirs = await other.search(query);
    if (best === theirs[0]) same++;
    if (best !== undefined && theirs.includes(best)) near++;
  }
  return { same: same / queries.length, near: near / queries.length };
}

async function measure(context: BenchContext): Promise<BenchReport> {
  const passages = await readCorpus({ limit: sized(context.mode, 1_000, 4_000, 4_000) });
  const queries = drawQueries(passages, sized(context.mode, 100, 1_000, 4_000), context.seed);
  context.log(`text: indexing ${passages.length} passages`);
  const mini = openMiniSearch(passages);
  const sides = [mini];
  try {
    const one = await openCluster("1 shard", 1, "none", passages);
    sides.push(one);
    const agreed = await agreement(one, mini, queries);
    if (agreed.near < LEAST_AGREEMENT)
      throw new Error(`text bench: only ${agreed.near} of the best documents are among MiniSearch's first ${K}`);
    const rounds = sized(context.mode, 1, 7, 11);
    const single = await interleave([timed(mini, queries), timed(one, queries)], rounds); // closes both
    sides.length = 0;
    const again = openMiniSearch(passages);
    const two = await openCluster("2 workers", 2, "none", passages);
    sides.push(two);
    const double = await interleave([timed(again, queries), timed(two, queries)], rounds);
    sides.length = 0;
    const english = await openCluster("1 shard, English", 1, "english", passages);
    const stems = await interleave([timed(english, queries)], Math.min(rounds, 3));
    return {
      rows: [
        ...single,
        ...double.map((row) => (row.side === "minisearch" ? { ...row, side: "minisearch, beside 2 workers" } : row)),
        ...stems,
        toRow("load", "1 shard", "documents/s", [(passages.length / one.loadMs) * 1000]),
        toRow("load", "2 workers", "documents/s", [(passages.length / two.loadMs) * 1000]),
        toRow("same best document", "1 shard", "fraction", [agreed.same]),
        toRow("best within their first ten", "1 shard", "fraction", [agreed.near]),
      ],
      goals: [
        judge(context.goals, "C5", ratioOf(single, "search", "1 shard", "minisearch")),
        judge(context.goals, "C5b", ratioOf(double, "search", "2 workers", "minisearch")),
      ],
      notes: [
        `${passages.length} passages, ${queries.length} queries of 1 to 4 words, k ${K}, one at a time, spinLimitUs ${SPIN_LIMIT_US}, with 2 workers ${SPIN_LIMIT_TWO_US}`,
        "each C5 ratio against MiniSearch in the same rounds; 2 workers ask twice (statistics, then the search)",
      ],
    };
  } finally {
    for (const side of sides) await side.close();
  }
}

export const bench: Bench = { name: "text", run: measure };
