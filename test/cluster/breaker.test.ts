/** The breaker of a shard that does not answer, over real threads: one request looks whether it does again, the others do not wait for it. */
import { expect, it } from "vitest";
import { ShardloomError } from "../../src/index.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";

/** As long as a breaker stays open at first, at most: 200 ms and half of that. */
const OPEN_MS = 300;
/** Failures in a row that open it. */
const FAILURES = 5;
const ROUND = 10;

/** How a call ended: `ok`, or its error's code and reason. */
async function outcomeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "ok";
  } catch (error) {
    if (!ShardloomError.is(error)) throw error;
    const { reason } = error.details;
    return typeof reason === "string" ? `${error.code} ${reason}` : error.code;
  }
}

it("lets exactly one request through to a shard that was silent, until that is answered", async () => {
  const patient = { maxHandlerMs: 60_000, suspectMs: 50_000, downMs: 60_000 };
  await using cluster = await startTestCluster({ replicationFactor: 2, ...patient });
  const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
  const id = Array.from({ length: 1_000 }, (_, at) => at).find((at) => cluster.shardOfId(at) === 1) as number;
  await docs.upsert({ id, vector: [1, 2, 3, 4] }, { acks: "all" });
  const read = (timeoutMs: number): Promise<string> => outcomeOf(docs.get(id, { unavailable: "fail", timeoutMs }));
  const stats = (): object => {
    const { passedOver, breakersOpened, shards } = cluster.routerStats();
    return { passedOver, breakersOpened, breaker: shards[1]?.breaker, inFlight: shards[1]?.inFlight };
  };
  const held = await hold(cluster, 1, 20_000);
  for (let at = 0; at < FAILURES; at++) {
    expect(stats()).toMatchObject({ breaker: "closed", breakersOpened: 0 });
    expect(await read(20)).toBe("ERR_TIMEOUT");
  }
  const openedMs = performance.now();
  expect(stats()).toEqual({ breaker: "open", breakersOpened: 1, passedOver: 0, inFlight: 0 });
  await eventually("its time is over", () => performance.now() - openedMs > OPEN_MS);
  // The shard is silent still: of all that ask now one waits for it.
  const outcomes: string[] = [];
  const round = Promise.all(Array.from({ length: ROUND }, async () => void outcomes.push(await read(20_000))));
  await eventually("all but one are refused", () => outcomes.length === ROUND - 1);
  expect(new Set(outcomes)).toEqual(new Set(["ERR_UNAVAILABLE breaker-open"]));
  expect(stats()).toEqual({ breaker: "half-open", breakersOpened: 1, passedOver: ROUND - 1, inFlight: 1 });
  // Who may ask another copy does.
  const { completeness } = await docs.search([1, 2, 3, 4], { k: 1, consistency: "eventual", hedge: false });
  expect(completeness.outcomes.flatMap(({ servedBy }) => servedBy)).not.toContain(1);
  expect(stats()).toMatchObject({ breaker: "half-open", inFlight: 1 });
  expect(held.isOn).toBe(true);
  await held.release();
  await round;
  expect(outcomes[ROUND - 1]).toBe("ok");
  expect(stats()).toMatchObject({ breaker: "closed", breakersOpened: 1, inFlight: 0 });
  const { passedOver } = cluster.routerStats();
  expect(await Promise.all(Array.from({ length: ROUND }, () => read(20_000)))).toEqual(new Array(ROUND).fill("ok"));
  expect(cluster.routerStats().passedOver).toBe(passedOver);
});
