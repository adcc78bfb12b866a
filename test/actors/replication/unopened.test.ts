/** A primary and a peer at which one collection is not open yet: its vshard waits for that, and no other one. */
import { expect, test } from "vitest";
import type { EngineReply, ReceivedEffect } from "../../../actors/engine.ts";
import { Copies } from "../../../actors/replication/copies.ts";
import { OwnedVshard } from "../../../actors/replication/owned-vshard.ts";
import { ReplicaLink } from "../../../actors/replication/replica-link.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { type Payload, PendingRequest, type ReplySink } from "../../../src/routing/pending-request.ts";
import { createVirtualTime } from "../../../src/runtime/scheduler.ts";
import { MemoryLog } from "../../../src/store/memory-log.ts";
import { firstShardIncarnation } from "../../../src/topology/member.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import { wireMemory } from "../vector/support.ts";

test.each([
  { by: "entries", life: 1 },
  { by: "a snapshot", life: 2 },
])("a collection not open at a peer keeps its own vshard waiting, not the others, by $by", async ({ life }) => {
  const time = createVirtualTime(1000);
  const topology = new LocalTopology(createSnapshot({ shards: 2, vshards: 8, replicationFactor: 2 }));
  const table = new ReplicaTable(createReplicaBlock(topology.current()), topology, () => 5);
  const told: number[] = [];
  let open = false;
  const engine = {
    types: [1],
    has: () => true,
    apply: ({ vshard, collection }: ReceivedEffect) => {
      if (collection === 1 && !open)
        throw new ShardloomError("ERR_UNKNOWN_COLLECTION", "Cannot find collection as it is not open yet");
      told.push(vshard);
    },
    snapshot: () => () => undefined,
    beginRestore: () => undefined,
    endRestore: () => undefined,
    contentHash: () => 0n,
  };
  const copies = new Copies({
    shard: 1,
    incarnation: firstShardIncarnation(life),
    topology,
    table,
    nowMs: () => 5,
    engines: [engine],
  });
  let messages = 0;
  const request = (type: number, v: number, p: number, atMs: number, payload: Payload, sink: ReplySink) => {
    messages++;
    const memory = wireMemory(payload.byteLength + 8);
    payload.write(memory, 0);
    time.scheduler.after(1, () => {
      let claimed = { ...wireMemory(8), offset: 0, length: 0 };
      const reply = {
        claim: (length: number) => {
          claimed = { ...wireMemory(length), offset: 0, length };
          Object.assign(reply, claimed);
        },
      } as unknown as EngineReply;
      try {
        copies.handlers.get(type)?.({ ...memory, offset: 0, length: payload.byteLength }, reply);
      } catch (error) {
        return sink.onFailure(ShardloomError.from(error));
      }
      sink.onReply({ ...claimed, serviceUs: 0, queueUs: 0 });
    });
    return new PendingRequest(type, v, p, atMs, payload, sink, undefined, undefined);
  };
  const own = Array.from({ length: 8 }, (_, v) => v).filter((v) => topology.current().owners[v] === 0);
  const link = new ReplicaLink({
    peer: 1,
    source: { shard: 0, incarnation: 1 },
    clock: time.clock,
    scheduler: time.scheduler,
    requestTimeoutMs: 1_000,
    requester: () => ({ maxPayloadBytes: 4096, request }),
    snapshot: (vshard) => {
      const parts = [{ type: 1, collection: vshard === own[0] ? 1 : 2, body: new Uint8Array(8) }];
      return () => parts.pop();
    },
    isOpen: () => true,
    onAcked: (owned) => owned.onAcked(),
  });
  const all = own.map((v) => new OwnedVshard(v, new MemoryLog({ maxBytes: 1 << 30 })));
  link.assign(all);
  link.pump();
  if (life === 1) await time.advance(10);
  all.forEach((owned, at) => {
    if (life > 1) return;
    owned.log.append({ type: 1, collection: at === 0 ? 1 : 2, body: new Uint8Array(8) }, 0);
    link.wake(owned);
  });
  link.pump();
  await time.advance(10_000);
  expect(told).toEqual(own.slice(1));
  expect(messages).toBeLessThan(50);
  open = true;
  await time.advance(2_000);
  expect(told).toEqual([...own.slice(1), own[0]]);
  expect(all.map(({ copies: known }) => known.get(1)?.acked)).toEqual(own.map(() => (life === 1 ? 1 : 0)));
});
