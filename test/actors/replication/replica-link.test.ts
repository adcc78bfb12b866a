/** One link alone, its peer answered by hand: what is sent, and in which order. */
import { expect, test } from "vitest";
import type { EngineReply } from "../../../actors/engine.ts";
import { OwnedVshard } from "../../../actors/replication/owned-vshard.ts";
import { ReplicaLink } from "../../../actors/replication/replica-link.ts";
import {
  answerCopies,
  COPY,
  type CopyStatus,
  readAppend,
  readAskedCopies,
} from "../../../actors/replication/replica-messages.ts";
import { type Payload, PendingRequest, type ReplySink } from "../../../src/routing/pending-request.ts";
import { createManualClock } from "../../../src/runtime/clock.ts";
import type { Scheduler } from "../../../src/runtime/scheduler.ts";
import { MemoryLog } from "../../../src/store/memory-log.ts";
import { REPLICA_STATUS } from "../../../src/wire/message-types.ts";
import { wireMemory } from "../vector/support.ts";

/** A peer whose copies are valid and apply what they get, and which answers one message at a time. */
class Peer {
  readonly applied: Map<number, number> = new Map();
  readonly maxPayloadBytes: number = 1 << 20;
  readonly #unanswered: (() => void)[] = [];

  request = (type: number, vshard: number, priority: number, atMs: number, payload: Payload, sink: ReplySink) => {
    const memory = wireMemory(payload.byteLength + 8);
    payload.write(memory, 0);
    const request = { ...memory, offset: 0, length: payload.byteLength };
    this.#unanswered.push(() => answer(sink, this.#take(type, request)));
    return new PendingRequest(type, vshard, priority, atMs, payload, sink, undefined, undefined);
  };

  answerOne(): void {
    this.#unanswered.shift()?.();
  }

  #take(type: number, request: Parameters<typeof readAppend>[0]): CopyStatus[] {
    if (type === REPLICA_STATUS)
      return readAskedCopies(request)
        .map(({ vshard }) => vshard)
        .map((vshard) => ({ vshard, state: COPY.VALID, lsn: 0 }));
    const touched = new Set<number>();
    readAppend(request, ({ vshard, lsn }) => {
      touched.add(vshard);
      this.applied.set(vshard, lsn);
    });
    return [...touched].map((vshard) => ({ vshard, state: COPY.VALID, lsn: this.applied.get(vshard) as number }));
  }
}

function answer(sink: ReplySink, copies: readonly CopyStatus[]): void {
  const memory = wireMemory(16 * copies.length + 64);
  answerCopies({ ...memory, offset: 0, claim: () => undefined } as unknown as EngineReply, copies);
  sink.onReply({ ...memory, offset: 0, length: 16 * copies.length + 8, serviceUs: 0, queueUs: 0 });
}

test("a vshard that always has more to send does not keep the others waiting", () => {
  const peer = new Peer();
  const link = new ReplicaLink({
    peer: 1,
    source: { shard: 0, incarnation: 1 },
    clock: createManualClock(0),
    scheduler: {} as Scheduler,
    requestTimeoutMs: 1_000,
    requester: () => peer,
    snapshot: () => () => undefined,
    isOpen: () => true,
    onAcked: (owned) => owned.onAcked(),
  });
  const [busy, other] = [0, 1].map((vshard) => new OwnedVshard(vshard, new MemoryLog({ maxBytes: 1 << 30 }))) as [
    OwnedVshard,
    OwnedVshard,
  ];
  const write = (owned: OwnedVshard): void => {
    owned.log.append({ type: 1, collection: 1, body: new Uint8Array(16_000) }, 0);
    link.wake(owned);
    link.pump();
  };
  link.assign([busy, other]);
  link.pump();
  peer.answerOne();
  for (let at = 0; at < 100; at++) write(busy);
  write(other);
  for (let message = 0; message < 10; message++) {
    peer.answerOne();
    for (let at = 0; at < 4; at++) write(busy); // as much as was sent
  }
  expect(peer.applied.get(other.vshard)).toBe(1);
  expect(peer.applied.get(busy.vshard)).toBeGreaterThan(20);
});
