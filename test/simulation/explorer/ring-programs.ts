/**
 * Programs over rings, doorbells and bridges: what two threads do with them, and what must hold however they interleave.
 *
 * Invariant: a body makes its handles itself, as a thread would; results are plain data.
 */
import assert from "node:assert/strict";
import type { ExploreOptions, ThreadHandle } from "../../../src/sim/explorer/explore.ts";
import type { Production } from "./production.ts";

type Memory = { readonly memory: SharedArrayBuffer };
type Doorbells = Memory & { readonly bells: SharedArrayBuffer };

const RING_BYTES = 64;
const SERVER_BELL = 0;
const CLIENT_BELL = 128;
/** Longer than any run of a program: time stands still in them. */
const FOREVER_MS = 1e9;

/** Payload bytes of the records of a stream: none, one word, two words; record i has type i + 1. */
export type Stream = readonly number[];

/** How a stream goes through a ring. */
export interface StreamOptions {
  readonly stream: Stream;
  /** Drains of the consumer, and records a drain may take. */
  readonly drains: number;
  readonly limit?: number;
  /** Records of the stream that another producer has sent before the threads start; one of them was taken already. */
  readonly before?: number;
  /** Whether the producer closes the ring at the end. */
  readonly closes?: boolean;
}

interface Drained {
  readonly records: number[][];
  readonly codes: number[];
}

/** A producer that commits a stream and flushes at the end; a consumer that drains a few times. Nobody waits. */
export function ringStream({ ring }: Production, options: StreamOptions): ExploreOptions<Memory> {
  const { stream, drains, limit = 10, before = 0, closes = false } = options;
  const { RingProducer, RingConsumer, initializeRing, ringByteLength } = ring;
  const drain = (memory: SharedArrayBuffer, times: number, most: number): Drained => {
    const consumer = new RingConsumer(memory);
    const drained: Drained = { records: [], codes: [] };
    for (let turn = 0; turn < times; turn++) {
      const code = consumer.drain((type, offset, lengthBytes) => {
        const words = consumer.i32.subarray(offset >> 2, (offset + lengthBytes) >> 2);
        drained.records.push([type, lengthBytes, ...words]);
      }, most);
      drained.codes.push(code);
    }
    return drained;
  };
  const send = (memory: SharedArrayBuffer, from: number, to: number): number => {
    const producer = new RingProducer(memory);
    let sent = 0;
    for (const [index, bytes] of stream.entries()) {
      if (index < from || index >= to) continue;
      const offset = producer.tryClaim(index + 1, bytes);
      if (offset < 0) continue;
      for (let word = 0; word < bytes >> 2; word++) producer.i32[(offset >> 2) + word] = contents(index, word);
      producer.commit(offset);
      sent |= 1 << index;
    }
    if (closes && to === stream.length) producer.close();
    else producer.flush();
    return sent;
  };
  return {
    setup: () => {
      const memory = new SharedArrayBuffer(ringByteLength(RING_BYTES));
      initializeRing(memory, 0, RING_BYTES);
      send(memory, 0, before);
      if (before > 0) drain(memory, 1, 1);
      return { memory };
    },
    threads: [({ memory }) => send(memory, before, stream.length), ({ memory }) => drain(memory, drains, limit)],
    check: ({ shared, results }) => {
      const sent = (results[0] as number) | ((1 << before) - 1);
      const seen = results[1] as Drained;
      const rest = drain(shared.memory, stream.length + 1, limit);
      const expected = stream
        .map((bytes, at) => [at + 1, bytes, ...Array.from({ length: bytes >> 2 }, (_, word) => contents(at, word))])
        .filter((_, at) => (sent & (1 << at)) !== 0 && (before === 0 || at > 0));
      assert.deepEqual([...seen.records, ...rest.records], expected);
      const codes = [...seen.codes, ...rest.codes];
      assert.ok(!codes.includes(ring.RING_POISONED), "a sound ring was poisoned");
      const end = codes.indexOf(ring.RING_CLOSED);
      assert.ok(end < 0 ? !closes : codes.slice(end).every((code) => code < 0), "the end came before the last record");
    },
  };
}

function contents(index: number, word: number): number {
  return (index + 1) * 0x0101_0100 + word + 1;
}

/** A consumer that parks at a bell until it has all records; a producer that rings after each. `park` is how it parks. */
export function ringAndBell(
  production: Production,
  records: number,
  park: "wait" | "waitAsync",
): ExploreOptions<Doorbells> {
  const { ring, doorbell } = production;
  const { RingProducer, RingConsumer, initializeRing, ringByteLength } = ring;
  return {
    setup: () => {
      const memory = new SharedArrayBuffer(ringByteLength(RING_BYTES));
      initializeRing(memory, 0, RING_BYTES);
      return { memory, bells: new SharedArrayBuffer(128) };
    },
    threads: [
      ({ memory, bells }) => {
        const producer = new RingProducer(memory);
        const bell = new doorbell.Doorbell(bells);
        for (let type = 1; type <= records; type++) {
          const offset = producer.tryClaim(type, 0);
          if (offset < 0) return "full";
          producer.commit(offset);
          producer.flush();
          bell.ring();
        }
        return "sent";
      },
      ({ memory, bells }, thread) => {
        const consumer = new RingConsumer(memory);
        const bell = new doorbell.Doorbell(bells);
        const types: number[] = [];
        while (types.length < records) {
          if (park === "wait") parkUntil(production, bell, () => !consumer.isEmpty());
          else suspendUntil(bell, thread, () => !consumer.isEmpty());
          consumer.drain((type) => types.push(type), 8);
        }
        return types;
      },
    ],
    check: ({ results }) => {
      assert.deepEqual(results, ["sent", Array.from({ length: records }, (_, index) => index + 1)]);
    },
  };
}

/** Two producers with a ring each and one bell; the consumer parks until it has a record of both. */
export function twoRingers(production: Production): ExploreOptions<Doorbells> {
  const { ring, doorbell } = production;
  const { RingProducer, RingConsumer, initializeRing, ringByteLength } = ring;
  const bytes = ringByteLength(RING_BYTES);
  const producer =
    (at: number) =>
    ({ memory, bells }: Doorbells): void => {
      const own = new RingProducer(memory, at * bytes);
      own.commit(own.tryClaim(at + 1, 0));
      own.flush();
      new doorbell.Doorbell(bells).ring();
    };
  return {
    setup: () => {
      const memory = new SharedArrayBuffer(2 * bytes);
      for (const at of [0, 1]) initializeRing(memory, at * bytes, RING_BYTES);
      return { memory, bells: new SharedArrayBuffer(128) };
    },
    threads: [
      producer(0),
      producer(1),
      ({ memory, bells }) => {
        const consumers = [0, 1].map((at) => new RingConsumer(memory, at * bytes));
        const bell = new doorbell.Doorbell(bells);
        const types: number[] = [];
        while (types.length < 2) {
          parkUntil(production, bell, () => consumers.some((consumer) => !consumer.isEmpty()));
          for (const consumer of consumers) consumer.drain((type) => types.push(type), 8);
        }
        return types.sort((a, b) => a - b);
      },
    ],
    check: ({ results }) => assert.deepEqual(results[2], [1, 2]),
  };
}

/** A consumer whose waits may time out at any moment; it gives up at the second that does. */
export function bellWithTimeouts(production: Production): ExploreOptions<Doorbells> {
  const { ring, doorbell } = production;
  const whole = ringAndBell(production, 2, "wait");
  return {
    ...whole,
    timeouts: true,
    threads: [
      whole.threads[0] as (typeof whole.threads)[number],
      ({ memory, bells }) => {
        const consumer = new ring.RingConsumer(memory);
        const bell = new doorbell.Doorbell(bells);
        const types: number[] = [];
        for (let late = 0; types.length < 2 && late < 2; ) {
          const ticket = bell.prepareWait();
          if (!consumer.isEmpty()) bell.cancelWait();
          else if (bell.wait(ticket, 20) === "timed-out") late++;
          consumer.drain((type) => types.push(type), 8);
        }
        return { types, parked: Atomics.load(new Int32Array(bells), 1) };
      },
    ],
    check: ({ shared, results }) => {
      const { types, parked } = structuredClone(results[1]) as { types: number[]; parked: number };
      new ring.RingConsumer(shared.memory).drain((type) => types.push(type), 8);
      assert.deepEqual(types, [1, 2]);
      assert.equal(parked, 0, "the bell says that somebody is parked who is not");
    },
  };
}

/** Production's own loop of a thread that blocks; time stands still, so nothing but the bell ends it. */
function parkUntil(
  { idle }: Production,
  bell: InstanceType<Production["doorbell"]["Doorbell"]>,
  holds: () => boolean,
): void {
  const spin = { spin: (predicate: () => boolean) => predicate(), woke: () => undefined };
  const held = idle.waitUntil(holds, bell, spin, () => 0, FOREVER_MS);
  assert.ok(held, "the wait ended before its predicate held");
}

/** The same over waitAsync, as reply pump and data plane do it. */
function suspendUntil(
  bell: InstanceType<Production["doorbell"]["Doorbell"]>,
  thread: ThreadHandle,
  holds: () => boolean,
): void {
  while (!holds()) {
    const ticket = bell.prepareWait();
    if (holds()) {
      bell.cancelWait();
      return;
    }
    const woken = bell.waitAsync(ticket);
    if (woken !== undefined) thread.await(woken);
  }
}

function bridgeSetup({ bridge }: Production, options: Parameters<Production["bridge"]["createBridge"]>[0]): Doorbells {
  return { memory: bridge.createBridge(options), bells: new SharedArrayBuffer(384) };
}

/** The request ring is full and one more tell is to go: the client is refused, wishes for room, parks, and must be rung. */
export function bridgeRoom(production: Production): ExploreOptions<Doorbells> {
  const { bridge, doorbell } = production;
  const options = { requestCapacityBytes: RING_BYTES, replyCapacityBytes: RING_BYTES, creditMessages: 1 };
  const full = 3;
  return {
    setup: () => {
      const shared = bridgeSetup(production, options);
      const client = new bridge.BridgeClient(shared.memory, new doorbell.Doorbell(shared.bells, SERVER_BELL));
      for (let type = 1; type <= full; type++) client.commit(client.tryTell(type, 0, 2));
      client.flush();
      return shared;
    },
    threads: [
      ({ memory, bells }) => {
        const client = new bridge.BridgeClient(memory, new doorbell.Doorbell(bells, SERVER_BELL));
        const own = new doorbell.Doorbell(bells, CLIENT_BELL);
        // One look between announcement and wait: tryTell looks twice, so it needs no other.
        let ticket = own.prepareWait();
        let offset = client.tryTell(full + 1, 0, 2);
        while (offset < 0) {
          own.wait(ticket, FOREVER_MS);
          ticket = own.prepareWait();
          offset = client.tryTell(full + 1, 0, 2);
        }
        own.cancelWait();
        client.commit(offset);
        client.flush();
      },
      ({ memory, bells }) => {
        const server = new bridge.BridgeServer(memory, new doorbell.Doorbell(bells, CLIENT_BELL));
        const own = new doorbell.Doorbell(bells, SERVER_BELL);
        const types: number[] = [];
        while (types.length <= full) {
          parkUntil(production, own, () => !server.requests.isEmpty());
          server.drainRequests((type) => types.push(type), 8);
        }
        return types;
      },
    ],
    check: ({ results }) => assert.deepEqual(results[1], [1, 2, 3, 4]),
  };
}

/** The reply ring is full and one more reply is to go: the server holds it back, parks, and must be rung when there is room. */
export function bridgeOverflow(production: Production): ExploreOptions<Doorbells> {
  const { bridge, doorbell } = production;
  const requests = 4;
  const options = {
    requestCapacityBytes: 4 * RING_BYTES,
    replyCapacityBytes: RING_BYTES,
    creditMessages: 2 * requests,
  };
  const answer = ({ memory, bells }: Doorbells, limit: number): InstanceType<typeof bridge.BridgeServer> => {
    const server = new bridge.BridgeServer(memory, new doorbell.Doorbell(bells, CLIENT_BELL));
    server.drainRequests((type) => {
      server.claimReply(type, 0);
      server.commitReply();
    }, limit);
    server.flush();
    return server;
  };
  return {
    setup: () => {
      const shared = bridgeSetup(production, options);
      const client = new bridge.BridgeClient(shared.memory, new doorbell.Doorbell(shared.bells, SERVER_BELL));
      for (let type = 1; type <= requests; type++) client.commit(client.tryRequest(type, 0, 2));
      client.flush();
      answer(shared, requests - 1);
      return shared;
    },
    threads: [
      ({ memory, bells }) => {
        const client = new bridge.BridgeClient(memory, new doorbell.Doorbell(bells, SERVER_BELL));
        const own = new doorbell.Doorbell(bells, CLIENT_BELL);
        const types: number[] = [];
        while (types.length < requests) {
          parkUntil(production, own, () => !client.replies.isEmpty());
          client.drainReplies((type) => types.push(type), 8);
        }
        return types;
      },
      (shared) => {
        const server = answer(shared, requests);
        const own = new doorbell.Doorbell(shared.bells, SERVER_BELL);
        while (server.hasOverflow()) {
          parkUntil(production, own, () => server.canMoveOverflow());
          server.flush();
        }
      },
    ],
    check: ({ results }) => assert.deepEqual(results[0], [1, 2, 3, 4]),
  };
}

/**
 * A request is cancelled while the server may be starting it, and its slot is used again at once: the second request is
 * handled once, the first one never once its cancellation is over. With `awaits` the client also takes the replies: that of the
 * second completes it, that of the first never does.
 */
export function bridgeCancel(production: Production, awaits: boolean): ExploreOptions<Doorbells> {
  const { bridge, doorbell } = production;
  const options = { requestCapacityBytes: 2 * RING_BYTES, replyCapacityBytes: 2 * RING_BYTES, creditMessages: 4 };
  return {
    setup: () => bridgeSetup(production, options),
    threads: [
      ({ memory, bells }) => {
        const client = new bridge.BridgeClient(memory, new doorbell.Doorbell(bells, SERVER_BELL));
        const slots: number[] = [];
        for (const type of [1, 2]) {
          client.commit(client.tryRequest(type, 0, 2));
          client.flush();
          slots.push(client.lastSlot);
          if (type === 2) continue;
          assert.ok(client.cancel(client.lastSlot, client.lastSequence), "the request was open");
          Atomics.store(new Int32Array(bells), CANCELLED, 1);
        }
        assert.equal(slots[0], slots[1], "the second request takes the slot of the first");
        return awaits ? completionsOf(production, client, bells) : undefined;
      },
      ({ memory, bells }) => {
        const server = new bridge.BridgeServer(memory, new doorbell.Doorbell(bells, CLIENT_BELL));
        const own = new doorbell.Doorbell(bells, SERVER_BELL);
        const handled: (readonly [type: number, over: boolean])[] = [];
        let taken = 0;
        while (taken < 2) {
          parkUntil(production, own, () => !server.requests.isEmpty());
          const over = Atomics.load(new Int32Array(bells), CANCELLED) === 1;
          taken += server.drainRequests((type) => {
            handled.push([type, over]);
            if (!awaits) return;
            server.claimReply(type, 0);
            server.commitReply();
          }, 1);
          server.flush();
        }
        return handled;
      },
    ],
    check: ({ results }) => {
      const handled = results[1] as (readonly [number, boolean])[];
      assert.equal(handled.filter(([type]) => type === 2).length, 1, "the second request was not handled once");
      assert.ok(!handled.some(([type, over]) => type === 1 && over), "a request was started after it was cancelled");
      if (awaits) assert.deepEqual(results[0], [2], "another reply was taken for that of the second request");
    },
  };
}

/** Word of the bells at which the client says that its cancellation is over. */
const CANCELLED = 256 >> 2;

function completionsOf(
  production: Production,
  client: InstanceType<Production["bridge"]["BridgeClient"]>,
  bells: SharedArrayBuffer,
): number[] {
  const own = new production.doorbell.Doorbell(bells, CLIENT_BELL);
  const completed: number[] = [];
  while (completed.length === 0) {
    parkUntil(production, own, () => !client.replies.isEmpty());
    client.drainReplies((type, _offset, _length, slot, sequence) => {
      if (client.complete(slot, sequence)) completed.push(type);
    }, 8);
  }
  return completed;
}
