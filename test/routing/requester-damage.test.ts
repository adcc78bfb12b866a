/** A requester whose ring was damaged: everybody who waits is told, and nothing throws at those who did not ask. */
import { describe, expect, it } from "vitest";
import { BridgeClient, BridgeServer, createBridge } from "../../native-bridge/bridge.ts";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { ShardloomError } from "../../src/errors.ts";
import { Requester } from "../../src/routing/requester.ts";
import { createManualClock } from "../../src/runtime/clock.ts";
import { corruptRing } from "../../src/sim/memory-faults.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { LocalTopology } from "../../src/topology/topology-source.ts";
import { decodeErrorAt } from "../../src/wire/error-codec.ts";
import { ACTOR_ASK } from "../../src/wire/message-types.ts";

function connected() {
  const memory = createBridge({ creditMessages: 1 });
  const clock = createManualClock();
  const bell = (): Doorbell => new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
  const client = new BridgeClient(memory, bell());
  const server = new BridgeServer(memory, bell());
  const damaged = { count: 0 };
  const requester = new Requester(client, {
    clock,
    origin: { node: 0, shard: 0xffff, incarnation: 1 },
    targetShard: 0,
    topology: new LocalTopology(createSnapshot({ shards: 1, vshards: 1 })),
    decodeError: decodeErrorAt,
    onDirty: () => undefined,
    onDamaged: () => damaged.count++,
  });
  const codes: string[] = [];
  const ask = (name: string, deadlineAtMs: number) =>
    requester.request(
      ACTOR_ASK,
      0,
      1,
      deadlineAtMs,
      { byteLength: 0, write: () => undefined },
      {
        onReply: () => codes.push(`${name} answered`),
        onFailure: ({ code }) => codes.push(`${name} ${code}`),
      },
    );
  return { memory, clock, client, server, requester, codes, ask, damaged };
}

describe("a requester over a damaged ring", () => {
  it("tells who cancels and who waits, and refuses who comes", () => {
    const { memory, clock, server, requester, codes, ask } = connected();
    const sent = ask("sent", 1000);
    const queued = ask("queued", 50);
    expect([sent.state, queued.state]).toEqual(["sent", "queued"]);
    requester.flush();
    expect(corruptRing([memory], 0)).toBe("size of requests of bridge 0");
    server.drainRequests(() => undefined, 10);
    expect(server.requests.isDamaged()).toBe(true);

    expect(requester.cancel(sent, new ShardloomError("ERR_ABORTED", "given up"))).toBe(true);
    expect(codes).toEqual(["sent ERR_ABORTED"]);
    expect(requester.sendQueued()).toBe(0);
    expect(requester.drain(10)).toBe(0);
    clock.setMs(60);
    requester.sweep(60);
    expect(codes).toEqual(["sent ERR_ABORTED", "queued ERR_TIMEOUT"]);
    expect(() => ask("late", 1000)).toThrow(expect.objectContaining({ code: "ERR_WORKER_LOST" }));
    expect(requester.pending).toBe(0);
  });

  it("tells its owner when it notices that a reply was lost, and never of a whole ring or of one that the peer reads", () => {
    for (const ring of ["requests", "replies"] as const) {
      const { memory, client, server, requester, ask, damaged } = connected();
      requester.lookForDamage();
      ask("call", 1000);
      requester.flush();
      if (ring === "replies") {
        server.drainRequests((_type, _offset, _length, slot, sequence) => {
          server.claimReply(2, 8, slot, sequence);
          server.commitReply();
        }, 10);
        server.flush();
      }
      requester.lookForDamage();
      expect(damaged.count).toBe(0);
      expect(corruptRing([memory], 0.5)).toBe(`lost size of ${ring} of bridge 0`);
      requester.lookForDamage();
      expect(server.requests.isDamaged()).toBe(ring === "requests");
      expect(damaged.count).toBe(ring === "replies" ? 1 : 0);
      client.close();
    }
  });
});
