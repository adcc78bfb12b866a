/**
 * Bench `gather`: the merge of ranked answers (C2, see merge.ts), and what hedging makes of one slow shard, in latency and in requests.
 *
 * Reads over 4 shards with 3 copies of everything, on real threads; shards sleep while they serve, so latency is theirs
 * and not the cores'. Slow: on one shard 2 % of the requests take 50 times as long, and hold up what comes behind them.
 * All sides plan round robin, as power of two choices would avoid the slow shard and leave nothing to hedge, and get the
 * same seeded arrivals; the side without the slow shard is not hedged.
 */
import { judge } from "../harness/goals.ts";
import { type Bench, type BenchContext, type BenchReport, interleave, sized } from "../harness/harness.ts";
import { measureMerge } from "../micro/merge.ts";
import { LoadedSide, p99Ratio, p99Row, type Side } from "./replica-load.ts";
import { ReplicaStage } from "./replica-stage.ts";

const SHARDS = 4;
const SLOW_SHARD = 1;
const SERVICE_US = 2_000;
const SLOW_TIMES = 50;
const SLOW_SHARE = 0.02;
/** Calls a second: low enough that shards are idle most of the time and what is measured is not the queue. */
const PER_SECOND = 60;
const CASE = "scatter read";

const service = (): number => SERVICE_US;
const oneSlow: Side["serviceUs"] = (shard, random) =>
  shard === SLOW_SHARD && random.float() < SLOW_SHARE ? SLOW_TIMES * SERVICE_US : SERVICE_US;

const SIDES: readonly Omit<Side, "name" | "kind">[] = [
  { side: "no slow shard", strategy: "round-robin", hedgeAfter: "off", serviceUs: service },
  { side: "slow shard", strategy: "round-robin", hedgeAfter: "off", serviceUs: oneSlow },
  { side: "slow shard, hedged", strategy: "round-robin", hedgeAfter: "p95", serviceUs: oneSlow },
];

/** C3 and C3b. */
async function measureHedging(context: BenchContext): Promise<BenchReport> {
  const stage = new ReplicaStage({ shards: SHARDS, vshards: 64, replicationFactor: 3 });
  const load = { calls: sized(context.mode, 20, 150, 300), perSecond: PER_SECOND, seed: context.seed };
  try {
    const sides = SIDES.map((side) => new LoadedSide(stage, { ...side, name: CASE, kind: "scatter" }, load));
    const rows = await interleave(sides, sized(context.mode, 1, 7, 15));
    const [calm, slow, hedged] = sides;
    const stats = hedged?.stats;
    const won = `${stats?.hedges} hedges, ${stats?.hedgesWon} won, ${stats?.denied} denied`;
    const requests = sides.map((side) => side.stats.requests);
    return {
      rows: [...rows, ...sides.map(p99Row)],
      goals: [
        judge(context.goals, "C3", p99Ratio(hedged, calm), `not hedged ${p99Ratio(slow, calm).toFixed(1)}; ${won}`),
        judge(context.goals, "C3b", (requests[2] ?? Number.NaN) / (requests[1] ?? Number.NaN)),
      ],
      notes: [
        `requests: ${requests.join(", ")}; p99s are of rounds of ${load.calls} calls, ratios the median over rounds`,
        `${SHARDS} shards, 3 copies, ${SERVICE_US / 1000} ms a request, ${PER_SECOND} scatters a second, shards sleep while they serve`,
      ],
    };
  } finally {
    await stage.close();
  }
}

async function run(context: BenchContext): Promise<BenchReport> {
  const merging = await measureMerge(context);
  const hedging = await measureHedging(context);
  return {
    rows: [...merging.rows, ...hedging.rows],
    goals: [...merging.goals, ...hedging.goals],
    notes: [...merging.notes, ...hedging.notes],
  };
}

export const bench: Bench = { name: "gather", run };
