/** A damaged record in a ring between threads: what it held fails typed, and the two threads get other rings. */
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { openBridge } from "../../native-bridge/bridge-layout.ts";
import { HEAD_OFFSET, RING_HEADER_BYTES, TAIL_OFFSET } from "../../native-bridge/ring-layout.ts";
import { realPlatform } from "../../src/cluster-workers.ts";
import { Cluster } from "../../src/index.ts";
import type { ShardTask } from "../../src/plane/shard-task.ts";
import { counter, relay, saboteur } from "../support/actors.ts";
import { ACTORS_URL, eventually, keyOnShard, PATIENT_DETECTOR } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";

let cluster: Cluster | undefined;
afterEach(() => cluster?.close());

/** A cluster of two workers, and the tasks that its workers were started with. */
async function startSpied(): Promise<{ cluster: Cluster; tasks: ShardTask[] }> {
  const tasks: ShardTask[] = [];
  const real = realPlatform();
  const platform = {
    ...real,
    createWorkerHost: (options: Parameters<typeof real.createWorkerHost>[0]) => {
      const host = real.createWorkerHost(options);
      return {
        run: (task: unknown, transfer: readonly unknown[], after?: Promise<void>) => {
          tasks.push(task as ShardTask);
          return host.run(task, transfer, after);
        },
        close: () => host.close(),
      };
    },
  };
  const options = { workers: 2, memoryBytes: 64 * 1024 * 1024, actors: [ACTORS_URL], maxHandlerMs: 60_000 };
  cluster = await Cluster.startOn({ platform }, { ...options, ...PATIENT_DETECTOR, requestTimeoutMs: 20_000 });
  return { cluster, tasks };
}

/**
 * Changes the check of the newest record in a ring.
 *
 * @param least Records that must be there; the first may be in its reader's hands, who has checked it.
 * @returns false while there are fewer
 */
function damage(bridge: SharedArrayBuffer, which: "requests" | "replies", least = 1): boolean {
  const layout = openBridge(bridge);
  const ring = which === "requests" ? layout.requestRingOffset : layout.replyRingOffset;
  const capacity = which === "requests" ? layout.requestCapacityBytes : layout.replyCapacityBytes;
  const words = new Int32Array(bridge);
  let head = Atomics.load(words, (ring + HEAD_OFFSET) >> 2) & (capacity - 1);
  let newest = -1;
  for (let records = 0; ; records++) {
    const record = (ring + RING_HEADER_BYTES + head) >> 2;
    const size = Atomics.load(words, record);
    if (size === 0 && records < least) return false;
    if (size === 0) break;
    newest = record;
    head += (size + 7) & -8;
  }
  words[newest + 1] = (words[newest + 1] as number) ^ 1;
  return true;
}

/**
 * Asks, and damages the answer before its reader sees it: gives the ask a microtask to leave, and holds this thread, which
 * is the reader, until the answer is there.
 *
 * @returns Undefined when that answer was read before, or the ask leaves with a later turn of the loop only
 */
async function damageAnswer(
  bridge: SharedArrayBuffer,
  ask: () => Promise<unknown>,
): Promise<{ lost: Promise<unknown> } | undefined> {
  const words = new Int32Array(bridge);
  const head = (openBridge(bridge).replyRingOffset + HEAD_OFFSET) >> 2;
  await turn(); // an ask in a chain of microtasks that has lasted leaves with a later turn
  const before = Atomics.load(words, head);
  const lost = ask();
  await Promise.resolve();
  const limit = performance.now() + 100;
  while (Atomics.load(words, head) === before && performance.now() < limit)
    if (damage(bridge, "replies")) return { lost };
  await lost;
  return undefined;
}

/** It adds nothing, as it may be done and fail all the same. */
const servesAgain = (of: Cluster, key: string): Promise<void> =>
  eventually("it serves again", () =>
    of
      .actor(counter, key)
      .add(0)
      .then(
        () => true,
        () => false,
      ),
  );

describe("a damaged record", () => {
  it("in a worker's requests ends that worker; its successor serves", async () => {
    const { cluster: of, tasks } = await startSpied();
    const key = keyOnShard(of, counter, 1);
    await of.actor(counter, key).add(1);
    const held = await hold(of, 1, 20_000);
    const asked = of.actor(counter, key).add(1);
    const failed = expect(asked).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    const [client] = tasks[1]?.clients ?? [];
    await eventually("a request waits", () => damage(client?.bridge as SharedArrayBuffer, "requests", 2));
    await held.release().catch(() => undefined);
    await failed;
    await servesAgain(of, key);
    expect(of.heartbeats().find(({ shard }) => shard === 1)?.incarnation).toBe(2);
  });

  it("in a client's replies fails what is open there, and nothing else; the worker lives on", async () => {
    const { cluster: of, tasks } = await startSpied();
    const key = keyOnShard(of, counter, 1);
    expect(await of.actor(counter, key).add(5)).toBe(5);
    const bridge = tasks[1]?.clients[0]?.bridge as SharedArrayBuffer;
    let sum = 5;
    let damaged: { lost: Promise<unknown> } | undefined;
    for (; damaged === undefined; sum++) damaged = await damageAnswer(bridge, () => of.actor(counter, key).add(1));
    await expect(damaged.lost).rejects.toMatchObject({ code: "ERR_WORKER_LOST", details: { shard: 1 } });
    await servesAgain(of, key);
    expect(await of.actor(counter, key).read(), "the worker did what it was asked, and kept its state").toBe(sum);
    expect(of.heartbeats().find(({ shard }) => shard === 1)?.incarnation).toBe(1);
  });

  it("that was lost among a client's replies fails what is open there, and nothing else; the worker lives on", async () => {
    const { cluster: of, tasks } = await startSpied();
    const key = keyOnShard(of, counter, 1);
    expect(await of.actor(counter, key).add(5)).toBe(5);
    const held = of.actor(saboteur, keyOnShard(of, saboteur, 1)).hold(300_000);
    const failed = expect(held).rejects.toMatchObject({ code: "ERR_WORKER_LOST", details: { shard: 1 } });
    const bridge = tasks[1]?.clients[0]?.bridge as SharedArrayBuffer;
    const { replyRingOffset } = openBridge(bridge);
    Atomics.add(new Int32Array(bridge), (replyRingOffset + TAIL_OFFSET) >> 2, 64); // published, and not there
    await failed;
    await servesAgain(of, key);
    expect(await of.actor(counter, key).read()).toBe(5);
    expect(of.heartbeats().find(({ shard }) => shard === 1)?.incarnation).toBe(1);
  });

  it("between two workers ends the one that reads it", async () => {
    const { cluster: of, tasks } = await startSpied();
    const key = keyOnShard(of, counter, 1);
    const asker = of.actor(relay, keyOnShard(of, relay, 0));
    await asker.addTo({ key, amount: 1 });
    const held = await hold(of, 1, 20_000);
    const outcomes = Promise.allSettled([asker.addTo({ key, amount: 1 })]);
    const bridge = tasks[0]?.peers.find(({ shard }) => shard === 1)?.outbound as SharedArrayBuffer;
    await eventually("a request waits", () => damage(bridge, "requests"));
    await held.release().catch(() => undefined);
    const [asked] = await outcomes;
    expect(asked.status).toBe("rejected");
    await servesAgain(of, key);
    await eventually("workers reach it", () =>
      asker.addTo({ key, amount: 1 }).then(
        () => true,
        () => false,
      ),
    );
    expect(of.heartbeats().map(({ incarnation }) => incarnation)).toEqual([1, 2]);
  });
});
