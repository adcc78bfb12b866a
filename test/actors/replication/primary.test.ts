/** A primary alone, whose peers never answer: what it keeps for them. */
import { expect, test } from "vitest";
import { Primary } from "../../../actors/replication/primary.ts";
import { PendingRequest } from "../../../src/routing/pending-request.ts";
import { createManualClock } from "../../../src/runtime/clock.ts";
import type { Scheduler } from "../../../src/runtime/scheduler.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";

const TYPE = 1;
const LOG_BYTES: number = 1024 * 1024;

function primaryOf(vshards: number) {
  const snapshot = createSnapshot({ shards: 2, vshards, replicationFactor: 2 });
  const topology = new LocalTopology(snapshot);
  const clock = createManualClock(1);
  const primary = new Primary({
    shard: 0,
    incarnation: 1,
    acks: 2,
    topology,
    table: new ReplicaTable(createReplicaBlock(snapshot), topology, () => 1),
    nowMs: () => 1,
    engines: [],
    clock,
    scheduler: {} as Scheduler,
    requestTimeoutMs: 1_000,
    requester: () => ({
      maxPayloadBytes: 1 << 20,
      request: (type, vshard, priority, atMs, payload, sink) =>
        new PendingRequest(type, vshard, priority, atMs, payload, sink, undefined, undefined),
    }),
    logBytes: LOG_BYTES,
  });
  const own = Array.from({ length: vshards }, (_, vshard) => vshard).filter((v) => snapshot.owners[v] === 0);
  return { primary, own };
}

test.each([
  { vshards: 2, bodyBytes: 1_000 },
  { vshards: 4_096, bodyBytes: 1_000 },
  { vshards: 4_096, bodyBytes: 8 },
  { vshards: 64, bodyBytes: 100_000 },
])("the logs of $vshards vshards keep to their limit with bodies of $bodyBytes bytes", ({ vshards, bodyBytes }) => {
  const { primary, own } = primaryOf(vshards);
  let most = 0;
  for (let at = 0; at < 20_000_000 / (bodyBytes + 1_000); at++) {
    const write = primary.begin(1, 0);
    write.add(own[at % own.length] as number, TYPE, 1, new Uint8Array(bodyBytes));
    write.publish();
    primary.commit(write, undefined, undefined);
    if (at % 64 === 0) most = Math.max(most, primary.loggedBytes);
  }
  expect(most).toBeLessThanOrEqual(LOG_BYTES);
  expect(most).toBeGreaterThan(LOG_BYTES / 8);
});
