/** What a shard tells of what it does as primary: that worlds can judge who did. */
import { expect, onTestFinished, test } from "vitest";
import type { HeldReply } from "../../../actors/engine.ts";
import { Primary } from "../../../actors/replication/primary.ts";
import { PRIMARY_ACTS, type PrimaryAct } from "../../../actors/replication/primary-acts.ts";
import { VshardGate } from "../../../actors/replication/vshard-gate.ts";
import { createManualClock } from "../../../src/runtime/clock.ts";
import type { Scheduler } from "../../../src/runtime/scheduler.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot, type TopologySnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import {
  CONSISTENCY,
  RoutedReader,
  type RoutedRequest,
  routedRequestBytes,
  SCOPE,
  writeRoutedRequest,
} from "../../../src/wire/routed-codec.ts";
import { wireMemory } from "../vector/support.ts";

/** Shard 0 is primary of vshards 0 and 2, shard 1 of the others. */
function snapshotOf(mapVersion: number): TopologySnapshot {
  const terms = Uint32Array.of(1, 1, mapVersion, 1);
  return createSnapshot({ shards: 2, vshards: 4, replicationFactor: 2, mapVersion, topologyEpoch: mapVersion, terms });
}

function heard(): PrimaryAct[] {
  const acts: PrimaryAct[] = [];
  const hear = (message: unknown): void => void acts.push(message as PrimaryAct);
  PRIMARY_ACTS.subscribe(hear);
  onTestFinished(() => void PRIMARY_ACTS.unsubscribe(hear));
  return acts;
}

test("a primary tells that it gives an LSN, and when it acknowledges the write, with the vshard's term", () => {
  const acts = heard();
  const topology = new LocalTopology(snapshotOf(1));
  const answers: string[] = [];
  const primary = new Primary({
    shard: 0,
    incarnation: 1,
    acks: 1,
    topology,
    table: new ReplicaTable(createReplicaBlock(topology.current()), topology, () => 1),
    nowMs: () => 1,
    engines: [],
    clock: createManualClock(1),
    scheduler: {} as Scheduler,
    requestTimeoutMs: 1_000,
    requester: () => undefined,
  });
  const write = primary.begin(1, 0);
  write.add(0, 1, 1, new Uint8Array(8));
  write.publish();
  expect(acts).toEqual([{ kind: "append", vshard: 0, term: 1, shard: 0 }]);
  const held: HeldReply = {
    cancelled: false,
    send: () => void answers.push("sent"),
    fail: () => answers.push("failed"),
  };
  primary.commit(write, held, new Uint8Array(0));
  expect(answers).toEqual(["sent"]);
  expect(acts.slice(1)).toEqual([{ kind: "acknowledge", vshard: 0, term: 1, shard: 0 }]);
});

test("a shard tells of a strong read which vshards it read as their primary, and nothing of other reads or of a read that is refused", () => {
  const acts = heard();
  const topology = new LocalTopology(snapshotOf(3));
  const table = new ReplicaTable(createReplicaBlock(topology.current()), topology, () => 1);
  const gate = new VshardGate(0, topology, table);
  const admit = (request: RoutedRequest): void => {
    const memory = wireMemory(routedRequestBytes(request));
    writeRoutedRequest(memory, 0, request);
    gate.admit(new RoutedReader().open(memory, 0, routedRequestBytes(request)));
  };
  const strong: RoutedRequest = { consistency: CONSISTENCY.STRONG, scope: SCOPE.LISTED, vshards: Uint16Array.of(1, 2) };
  admit({ ...strong, consistency: CONSISTENCY.EVENTUAL });
  expect(acts).toEqual([]);
  admit(strong);
  gate.assertStill();
  expect(acts).toEqual([{ kind: "read", vshard: 2, term: 3, shard: 0 }]); // vshard 1 was refused: it is another one's
  admit(strong);
  topology.learn(snapshotOf(4));
  expect(() => gate.assertStill()).toThrow(/map must be what it was/);
  expect(acts).toHaveLength(1);
});
