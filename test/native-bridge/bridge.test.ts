import { describe, expect, test } from "vitest";
import {
  BridgeClient,
  type BridgeOptions,
  BridgeServer,
  createBridge,
  NO_CREDIT,
  SUSPENDED,
  THROTTLED,
} from "../../native-bridge/bridge.ts";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { INSUFFICIENT_CAPACITY, RING_CLOSED } from "../../native-bridge/spsc-ring.ts";

function makeBridge(options: BridgeOptions = {}): {
  client: BridgeClient;
  server: BridgeServer;
  clientBell: Doorbell;
  serverBell: Doorbell;
  clock: { us: number };
} {
  const bells = new SharedArrayBuffer(2 * DOORBELL_BYTES);
  const clientBell = new Doorbell(bells, 0);
  const serverBell = new Doorbell(bells, DOORBELL_BYTES);
  const memory = createBridge(options);
  const clock = { us: 1000 };
  const nowUs = (): number => clock.us;
  return {
    client: new BridgeClient(memory, serverBell, { nowUs }),
    server: new BridgeServer(memory, clientBell, { nowUs }),
    clientBell,
    serverBell,
    clock,
  };
}

function request(
  client: BridgeClient,
  value: number,
  lengthBytes: number = 8,
  priority: number = 1,
): [number, number] | number {
  const offset = client.tryRequest(5, lengthBytes, priority);
  if (offset < 0) return offset;
  client.requests.i32[offset >> 2] = value;
  client.commit(offset);
  return [client.lastSlot, client.lastSequence];
}

function pair(answer: [number, number] | number): [number, number] {
  if (typeof answer === "number") throw new Error(`refused with ${answer}`);
  return answer;
}

/** Answers every waiting request with its value + 1; returns the values seen. */
function serve(server: BridgeServer, replyBytes: number = 8): number[] {
  const seen: number[] = [];
  server.drainRequests((_type, offset, _length, slot) => {
    const value = server.requests.i32[offset >> 2] as number;
    seen.push(value);
    if (slot < 0) return;
    server.claimReply(6, replyBytes);
    server.replyI32[server.replyOffset >> 2] = value + 1;
    server.commitReply();
  }, 10_000);
  server.flush();
  return seen;
}

function collect(client: BridgeClient): { value: number; fresh: boolean }[] {
  const replies: { value: number; fresh: boolean }[] = [];
  client.drainReplies((type, offset, _length, slot, sequence) => {
    expect(type).toBe(6);
    expect(offset % 8).toBe(0);
    replies.push({ value: client.replies.i32[offset >> 2] as number, fresh: client.complete(slot, sequence) });
  }, 10_000);
  return replies;
}

describe("Bridge", () => {
  test("pairs replies with requests, and gives credits back", () => {
    const { client, server } = makeBridge({ creditMessages: 4 });
    for (let round = 0; round < 10; round++) {
      pair(request(client, 10));
      pair(request(client, 20));
      client.flush();
      expect(serve(server)).toEqual([10, 20]);
      expect(collect(client)).toEqual([
        { value: 11, fresh: true },
        { value: 21, fresh: true },
      ]);
      expect(client.stats()).toMatchObject({ openMessages: 0, openBytes: 0, staleReplies: 0 });
    }
  });

  test("tells need no credit and get no reply", () => {
    const { client, server } = makeBridge({ creditMessages: 1 });
    for (let i = 0; i < 5; i++) {
      const offset = client.tryTell(5, 8, 1);
      client.requests.i32[offset >> 2] = i;
      client.commit(offset);
    }
    client.flush();
    expect(serve(server)).toEqual([0, 1, 2, 3, 4]);
    expect(() => server.claimReply(6, 8)).toThrow(/slot must be that of a request/);
  });

  test("one wake serves a whole batch", () => {
    const { client, server, clientBell, serverBell } = makeBridge();
    serverBell.prepareWait();
    clientBell.prepareWait();
    for (let i = 0; i < 50; i++) pair(request(client, i));
    client.flush();
    client.flush();
    expect(serverBell.counters().wakes).toBe(1);
    serve(server);
    server.flush();
    expect(clientBell.counters().wakes).toBe(1);
    expect(collect(client)).toHaveLength(50);
  });

  test("message credits bound open requests; a request that was encoded with a throw costs none", () => {
    const { client, server } = makeBridge({ creditMessages: 2 });
    for (let i = 0; i < 10; i++) expect(client.tryRequest(5, 8, 2)).toBeGreaterThan(0); // claimed, never committed
    pair(request(client, 1, 8, 2));
    pair(request(client, 2, 8, 2));
    expect(request(client, 3, 8, 2)).toBe(NO_CREDIT);
    expect(client.stats().refused.noCredit).toBe(1);
    serve(server);
    collect(client);
    pair(request(client, 4, 8, 2));
  });

  test("byte credits bound the payload of open requests", () => {
    const { client } = makeBridge({ requestCapacityBytes: 4096, creditBytes: 2000 });
    pair(request(client, 1, 1000, 2));
    expect(request(client, 2, 1001 - 16, 2)).not.toBe(NO_CREDIT);
    expect(request(client, 2, 100, 2)).toBe(NO_CREDIT);
    expect(client.stats().openBytes).toBe(1985);
  });

  test("pressure: throttled at 85 %, suspended at 95 %, released at 85 % and 75 %, and the sender is held", () => {
    const { client, server } = makeBridge({ creditMessages: 100 });
    const open: [number, number][] = [];
    const grow = (to: number): void => {
      while (open.length < to) open.push(pair(request(client, open.length, 8, 2)));
    };
    const shrink = (to: number): void => {
      while (open.length > to) client.cancel(...(open.pop() as [number, number]));
      serve(server); // the ring drains, too
    };
    grow(84);
    expect(client.pressure()).toBe("open");
    open.push(pair(request(client, 0, 8, 0)));
    expect(client.pressure()).toBe("throttled");
    expect(request(client, 0, 8, 0)).toBe(THROTTLED);
    expect(client.tryTell(5, 8, 0)).toBe(THROTTLED);
    open.push(pair(request(client, 0, 8, 1)));
    grow(95);
    expect(client.pressure()).toBe("suspended");
    expect([request(client, 0, 8, 0), request(client, 0, 8, 1), client.tryTell(5, 8, 1)]).toEqual([
      SUSPENDED,
      SUSPENDED,
      SUSPENDED,
    ]);
    open.push(pair(request(client, 0, 8, 2))); // control passes
    shrink(86);
    expect(request(client, 0, 8, 1)).toBe(SUSPENDED);
    shrink(85);
    expect(request(client, 0, 8, 0)).toBe(THROTTLED);
    shrink(76);
    expect(request(client, 0, 8, 0)).toBe(THROTTLED);
    shrink(75);
    expect(client.pressure()).toBe("open");
    pair(request(client, 0, 8, 0));
    expect(client.stats().refused).toMatchObject({ throttled: 4, suspended: 4 });
  });

  test("a full ring throttles tells, and the server rings once it has drained", () => {
    const { client, server, clientBell } = makeBridge({ requestCapacityBytes: 4096, creditMessages: 10_000 });
    let code = 0;
    while (code >= 0) {
      code = client.tryTell(5, 100, 0);
      if (code >= 0) client.commit(code);
    }
    expect(code).toBe(THROTTLED);
    for (code = 0; code >= 0; ) {
      code = client.tryTell(5, 100, 1);
      if (code >= 0) client.commit(code);
    }
    expect(code).toBe(SUSPENDED);
    for (code = 0; code >= 0; ) {
      code = client.tryTell(5, 100, 2);
      if (code >= 0) client.commit(code);
    }
    expect(code).toBe(INSUFFICIENT_CAPACITY);
    clientBell.prepareWait();
    serve(server);
    expect(clientBell.counters().wakes).toBe(1);
    expect(client.tryTell(5, 100, 0)).toBeGreaterThan(0);
  });

  test("cancel() frees slot and credit at once; the server skips what it has not started", () => {
    const { client, server } = makeBridge({ creditMessages: 2 });
    const first = pair(request(client, 1, 8, 2));
    pair(request(client, 2, 8, 2));
    expect(client.cancel(...first)).toBe(true);
    expect(client.cancel(...first)).toBe(false);
    const third = pair(request(client, 3, 8, 2)); // takes the freed slot
    expect(third[0]).toBe(first[0]);
    client.flush();
    expect(serve(server)).toEqual([2, 3]);
    expect(collect(client)).toEqual([
      { value: 3, fresh: true },
      { value: 4, fresh: true },
    ]);
    expect(client.stats()).toMatchObject({ cancelled: 1, skipped: 1, staleReplies: 0, openMessages: 0 });
  });

  test("the late reply of a request cancelled after its start is stale, also when the slot is in use again", () => {
    const { client, server } = makeBridge({ creditMessages: 1 });
    const first = pair(request(client, 1, 8, 2));
    client.flush();
    serve(server);
    client.cancel(...first);
    const second = pair(request(client, 2, 8, 2));
    expect(second[0]).toBe(first[0]);
    client.flush();
    serve(server);
    expect(collect(client)).toEqual([
      { value: 2, fresh: false },
      { value: 3, fresh: true },
    ]);
    expect(client.stats().staleReplies).toBe(1);
  });

  test("replies are never dropped: what finds no room waits, in order, bounded by the credits", () => {
    const { client, server, serverBell } = makeBridge({ replyCapacityBytes: 1024, creditMessages: 200 });
    for (let i = 0; i < 150; i++) pair(request(client, i));
    client.flush();
    serve(server, 200);
    expect(server.hasOverflow()).toBe(true);
    const values: number[] = [];
    for (let round = 0; round < 200 && values.length < 150; round++) {
      serverBell.prepareWait();
      const before = serverBell.counters().wakes;
      values.push(...collect(client).map((reply) => reply.value));
      if (server.hasOverflow()) expect(serverBell.counters().wakes).toBe(before + 1);
      server.flush();
    }
    expect(values).toEqual(Array.from({ length: 150 }, (_, i) => i + 1));
    expect(client.stats().overflowed).toBeGreaterThan(100);
    expect(server.hasOverflow()).toBe(false);
  });

  test("held replies of cancelled requests are let go and counted", () => {
    const { client, server } = makeBridge({ replyCapacityBytes: 1024, creditMessages: 20 });
    const open = Array.from({ length: 10 }, (_, i) => pair(request(client, i)));
    client.flush();
    serve(server, 200);
    for (const request of open) client.cancel(...request);
    let stale = collect(client).length;
    server.flush();
    stale += collect(client).length;
    expect(server.hasOverflow()).toBe(false);
    expect(stale + client.stats().discarded).toBe(10);
    expect(client.stats()).toMatchObject({ staleReplies: stale, openMessages: 0 });
  });

  test("replies may come later and out of order, named by their pair", () => {
    const { client, server } = makeBridge();
    pair(request(client, 1));
    pair(request(client, 2));
    client.flush();
    const waiting: [number, number][] = [];
    server.drainRequests((_type, _offset, _length, slot, sequence) => waiting.push([slot, sequence]), 10);
    for (const [slot, sequence] of waiting.reverse()) {
      expect(server.isCancelled(slot, sequence)).toBe(false);
      server.claimReply(6, 8, slot, sequence);
      server.replyI32[server.replyOffset >> 2] = slot;
      server.commitReply();
    }
    server.flush();
    expect(collect(client).every((reply) => reply.fresh)).toBe(true);
  });

  test("queue wait is sampled with the injected clock", () => {
    const { client, server, clock } = makeBridge();
    for (let round = 0; round < 130; round++) {
      const offset = client.tryTell(5, 8, 1);
      client.commit(offset);
      client.flush();
      clock.us += 7;
      serve(server);
    }
    expect(client.stats().queueWait).toEqual({ samples: 3, meanUs: 7, maxUs: 7 });
  });

  test("closing either side is seen by the other", () => {
    const { client, server } = makeBridge();
    pair(request(client, 1));
    client.close();
    expect(serve(server)).toEqual([1]);
    expect(server.drainRequests(() => undefined, 1)).toBe(RING_CLOSED);
    const other = makeBridge();
    other.server.close();
    expect(request(other.client, 1)).toBe(RING_CLOSED);
    expect(other.client.drainReplies(() => undefined, 1)).toBe(RING_CLOSED);
  });

  test.each([
    [{ creditMessages: 0 }, /creditMessages must be an integer in \[1, 65536\]: current value is 0/],
    [{ creditMessages: 1.5 }, /creditMessages/],
    [
      { creditBytes: 10 },
      /creditBytes must be an integer in \[262128, 2\^31\), to admit the largest request: current value is 10/,
    ],
    [{ requestCapacityBytes: 1000 }, /capacityBytes must be a power of two/],
  ])("createBridge(%o) is refused", (options, message) => {
    expect(() => createBridge(options)).toThrow(message);
  });

  test.each([-1, -4, 1.5, Number.NaN, 2 ** 33])(
    "a request of %s bytes is refused with nothing taken",
    (lengthBytes) => {
      const { client, server } = makeBridge();
      expect(() => client.tryRequest(5, lengthBytes, 1)).toThrow(/lengthBytes/);
      expect(() => client.tryTell(5, lengthBytes, 1)).toThrow(/lengthBytes/);
      expect(() => server.claimReply(6, lengthBytes, 0, 1)).toThrow(/lengthBytes/);
      expect(client.stats().openMessages).toBe(0);
      expect(() => client.commit(4096)).toThrow(/offset must be that of the open claim/);
    },
  );

  test("memory that holds no bridge throws ERR_CORRUPT", () => {
    expect(() => new BridgeServer(new SharedArrayBuffer(64), new Doorbell(new SharedArrayBuffer(128)))).toThrow(
      expect.objectContaining({ code: "ERR_CORRUPT" }),
    );
  });
});
