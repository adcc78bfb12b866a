/**
 * Bench `route`, C6: power of two choices against round robin with one replica that is slower than the others.
 *
 * Point reads over 3 shards that all hold everything, on real threads, open loop. Round robin gives the slow replica a
 * third of the load, of which its queue grows; nothing is hedged, so that only the choice counts.
 */
import { type GoalResult, judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, interleave, sized } from "../harness/harness.ts";
import { LoadedSide, p99Ratio, p99Row, type Side } from "./replica-load.ts";
import { ReplicaStage } from "./replica-stage.ts";

const SHARDS = 3;
const SLOW_SHARD = 2;
const SERVICE_US = 2_000;
const SLOW_TIMES = 3;
/** Of the 500 + 500 + 167 calls a second that the three can serve at most. Round robin loads the slow one to 60 %. */
const PER_SECOND = 300;
const CASE = "one of 3 replicas 3 times slower";

const serviceUs: Side["serviceUs"] = (shard) => (shard === SLOW_SHARD ? SLOW_TIMES * SERVICE_US : SERVICE_US);

/** Rows of all strategies, and the verdict on C6. */
export async function measureReplicas(
  context: BenchContext,
): Promise<{ readonly rows: BenchRow[]; readonly goal: GoalResult }> {
  const stage = new ReplicaStage({ shards: SHARDS, vshards: 64, replicationFactor: SHARDS });
  const load = { calls: sized(context.mode, 60, 500, 1_500), perSecond: PER_SECOND, seed: context.seed };
  try {
    const sides = (["power-of-two", "round-robin", "least-connections", "random"] as const).map(
      (strategy) =>
        new LoadedSide(
          stage,
          { name: CASE, side: strategy, strategy, hedgeAfter: "off", kind: "point", serviceUs },
          load,
        ),
    );
    const rows = await interleave(sides, sized(context.mode, 1, 5, 11));
    const [choices, turns] = sides;
    const p99s = sides.map(p99Row);
    const note = `p99 in ms: ${p99s.map((row) => `${row.side} ${row.median.toFixed(1)}`).join(", ")}; ${PER_SECOND} reads a second`;
    return { rows: [...rows, ...p99s], goal: judge(context.goals, "C6", p99Ratio(choices, turns), note) };
  } finally {
    await stage.close();
  }
}
