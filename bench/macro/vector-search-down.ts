/**
 * G18 of bench `vector-search`: one of 16 shards is held, and searches by Compass that take what they can get go on without it, over real threads.
 *
 * Invariant: every search ends, long before the shard is let go; one that misses something says so. Where other shards had no time either the report
 * says so, and their loss counts. Recall is that of the same queries with the shard and without it, asked in the same way.
 */
import { existsSync } from "node:fs";
import type { Cluster, SearchResult } from "../../src/index.ts";
import { Gate } from "../../test/support/gate.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchReport, median, sized, toRow } from "../harness/harness.ts";
import { countFound, must } from "./vector-search-curve.ts";
import { K, type VectorSet } from "./vector-search-data.ts";
import { holder } from "./vector-search-holder.ts";
import { type Sharded, shardsOf } from "./vector-search-shards.ts";

const SHARDS = 16;
const AT_ONCE = 8;
/** For what a search may take that has to do without a shard, on a busy machine. */
const MOST_MS = 60_000;
const HELD_MS = 240_000;
/** For searches with every shard there. */
const WHOLE_MS = 60_000;
const LOOK_MS = 5;
const SETTING = { by: "compass", recall: 0.99, ef: 40, gather: "best-effort" } as const;

interface Without {
  readonly recall: number;
  /** Share of the answers that say that something is missing. */
  readonly partial: number;
  /** Share that this thread gave whole from the shard's memory, as nobody that was asked has answered. */
  readonly alone: number;
  /** Answers that miss a shard that was there, but had no time. */
  readonly others: number;
}

async function search(
  { collection }: Sharded,
  set: VectorSet,
  count: number,
  timeoutMs: number,
  down?: number,
): Promise<Without> {
  const sums = { found: 0, partial: 0, alone: 0, others: 0 };
  const step = Math.max(1, Math.floor(set.queries.count / count));
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let at = next++; at < count; at = next++) {
      const startedMs = performance.now();
      const result = await collection.search(set.queries.at(at * step), {
        ...SETTING,
        timeoutMs,
        k: K,
        includePayload: false,
      });
      must(performance.now() - startedMs < MOST_MS, "a search without a shard took too long");
      sums.found += countFound(
        set.truth,
        at * step,
        result.hits.map(({ id }) => id as number),
      );
      const missing = missingOf(result);
      if (missing.length > 0) sums.partial++;
      if (missing.some((shard) => shard !== down)) sums.others++;
      if (result.by === "one-sided") sums.alone++;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return {
    recall: sums.found / (count * K),
    partial: sums.partial / count,
    alone: sums.alone / count,
    others: sums.others,
  };
}

/** Shards that an answer says are missing. */
function missingOf({ completeness }: SearchResult): number[] {
  const missing = completeness.outcomes.filter(({ status }) => status !== "answered" && status !== "empty");
  must(completeness.complete === (missing.length === 0), "an answer does not say that it is partial");
  return missing.map(({ shard }) => shard);
}

/** Does something while a shard's thread serves nobody. */
async function whileHeld<T>(cluster: Cluster, shard: number, work: () => Promise<T>): Promise<T> {
  const gate = new Gate();
  const begun = `${gate.path}.begun`;
  let key = 0;
  while (cluster.shardOfActor(holder, `${key}`) !== shard) key++;
  const command = { path: gate.path, begun, milliseconds: HELD_MS };
  const held = cluster.actor(holder, `${key}`).hold(command, { timeoutMs: 2 * HELD_MS });
  let isOver = false;
  held.then(
    () => {
      isOver = true;
    },
    () => {
      isOver = true;
    },
  );
  try {
    while (!existsSync(begun) && !isOver) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    const done = await work();
    must(!isOver, "a shard was let go too early");
    return done;
  } finally {
    gate.open();
    await held.catch(() => undefined);
  }
}

/** Rows and the verdict on G18. */
export async function measureDown(context: BenchContext, set: VectorSet): Promise<BenchReport> {
  const { mode, goals, log } = context;
  const site = await shardsOf(context, set, SHARDS);
  const count = Math.min(set.queries.count, sized(mode, 30, 100, 500));
  const held = Array.from({ length: site.shards }, (_, shard) => shard).filter(
    (shard) => shard % sized(mode, 2, 4, 1) === 0,
  );
  const timeoutMs = sized(mode, 800, 2_000, 2_000);
  const whole = await search(site, set, count, WHOLE_MS);
  must(whole.partial === 0, "something is missing although every shard is there");
  const downs: Without[] = [];
  for (const shard of held) {
    downs.push(await whileHeld(site.cluster, shard, () => search(site, set, count, timeoutMs, shard)));
  }
  log("vector-search: searched without a shard");
  const partial = downs.map((down) => down.partial);
  const others = downs.reduce((sum, down) => sum + down.others, 0);
  const alone = downs.map((down) => down.alone);
  must(partial.some((share) => share > 0) || alone.some((share) => share > 0), "nobody missed a shard that was held");
  const losses = downs.map(({ recall }) => 100 * (whole.recall - recall));
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  const percent = (shares: readonly number[]): string => (100 * median(shares)).toFixed(0);
  const note = `${percent(partial)} % of answers say what is missing, ${percent(alone)} % were given one-sidedly instead`;
  return {
    rows: [toRow("one shard held", `compass, ${SHARDS} shards`, "points of recall", losses, note)],
    goals: [
      judge(
        goals,
        "G18",
        Math.max(0, mean),
        `${held.length} shards in turn, worst ${Math.max(...losses).toFixed(2)}; ${note}`,
      ),
    ],
    notes: [
      ...(others > 0 ? [`DISTURBED: ${others} answers miss a shard that was there`] : []),
      `down: ${count} queries a shard, gather best-effort; a search that asks for all answers one-sidedly, from its memory`,
    ],
  };
}
