/**
 * L5, a part of bench `durable`: starting a cluster on a directory that was closed, until a search through the index answers, against loading
 * and indexing the same vectors into an empty one.
 *
 * Invariant: both sides are counted from before `Cluster.start`. A warm start has ended when every shard has all of its rows in its
 * index and a search is answered; the documents are counted then. One rebuild is made, as it takes a minute; its directory is what is started on.
 */
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchReport, median, sized, toRow } from "../harness/harness.ts";
import { documentsOf, must, openDurable, withFolder } from "./durable-stage.ts";

const K = 10;

/** Rows and the verdict on L5. */
export async function measureRestart(context: BenchContext): Promise<BenchReport> {
  const { mode, seed } = context;
  const count = sized(mode, 4_000, 25_000, 100_000);
  const documents = documentsOf(count, seed);
  const query = documents[0]?.vector ?? [];
  context.log(`durable: rebuild and warm restarts of ${count} documents`);
  const warmMs: number[] = [];
  const closeMs: number[] = [];
  let largestTail = 0;
  const rebuildMs = await withFolder(async (directory) => {
    const startedMs = performance.now();
    let stage = await openDurable(directory("restart"));
    const onProgress = ({ rows, indexed }: { readonly rows: number; readonly indexed: number }): void => {
      largestTail = Math.max(largestTail, rows - indexed);
    };
    await stage.collection.upsert(documents.values());
    await stage.collection.indexed({ timeoutMs: 600_000, onProgress });
    const rebuiltMs = performance.now() - startedMs;
    for (let round = 0; round < sized(mode, 1, 3, 3); round++) {
      const closingMs = performance.now();
      await stage.cluster.close({ timeoutMs: 60_000 });
      const openingMs = performance.now();
      closeMs.push(openingMs - closingMs);
      stage = await openDurable(directory("restart"));
      const before = await stage.collection.status();
      await stage.collection.indexed({ timeoutMs: 600_000 });
      const { hits } = await stage.collection.search(query, { k: K });
      warmMs.push(performance.now() - openingMs);
      must(hits.length === K && hits[0]?.id === 0, "a search after a restart did not find what is there");
      must((await stage.collection.count()) === count, "documents are missing after a restart");
      const indexed = before.reduce((sum, shard) => sum + shard.indexed, 0);
      must(indexed > count / 2, `only ${indexed} of ${count} rows were in the index when the cluster had started`);
    }
    await stage.cluster.close({ timeoutMs: 60_000 });
    return rebuiltMs;
  });
  const name = `${count} documents`;
  return {
    rows: [
      toRow(name, "rebuild", "ms", [rebuildMs]),
      toRow(name, "warm restart", "ms", warmMs),
      toRow(name, "close", "ms", closeMs, "saves the indexes"),
    ],
    goals: [judge(context.goals, "L5", median(warmMs) / rebuildMs, name)],
    notes: [`restart: ${largestTail} rows of both shards waited for the index when the load had ended`],
  };
}
