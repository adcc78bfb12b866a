/** The exchange of tables under loss, duplication, reordering and crashes. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  CentroidExchange,
  type ExchangeMessage,
  type ExchangeState,
} from "../../../../actors/vector/routing/centroid-exchange.ts";
import { encodeCentroids } from "../../../../actors/vector/routing/centroid-table-codec.ts";
import { ELEMENT } from "../../../../native-bridge/kernels.ts";
import type { Random } from "../../../../src/runtime/random.ts";
import { columnsOf, SEED, SPACE, seeded } from "./support.ts";

/** Shards and a network that keeps every message until it is told what becomes of it. */
class Net {
  readonly random: Random;
  readonly shards: CentroidExchange[];
  readonly states: (ExchangeState | undefined)[];
  readonly published: number[];
  readonly #count: number;
  readonly #epochs: number[];
  readonly #mostBytes: number;
  flying: ExchangeMessage[] = [];
  delivered = 0;

  constructor(count: number, random: Random, mostBytes: number = Number.POSITIVE_INFINITY) {
    this.random = random;
    this.#mostBytes = mostBytes;
    this.#count = count;
    this.#epochs = Array(count).fill(1);
    this.states = Array(count).fill(undefined);
    this.published = Array(count).fill(0);
    this.shards = Array.from({ length: count }, (_, self) => this.#open(self));
  }

  #open(self: number): CentroidExchange {
    const peers = Array.from({ length: this.#count }, (_, i) => i).filter((i) => i !== self);
    const state = this.states[self];
    const epoch = this.#epochs[self] as number;
    const mostBytes = (): number => this.#mostBytes;
    return new CentroidExchange({
      self,
      peers,
      space: SPACE,
      epoch,
      mostBytes,
      ...(state === undefined ? {} : { state }),
    });
  }

  publish(self: number, leaves = 1 + (this.random.u32() % 9)): void {
    this.published[self] = leaves;
    this.send(this.at(self).publish(columnsOf(leaves, this.random)));
    if (this.random.u32() % 2 === 0) this.states[self] = this.at(self).state();
  }

  at(self: number): CentroidExchange {
    return this.shards[self] as CentroidExchange;
  }

  send(messages: readonly ExchangeMessage[]): void {
    this.flying.push(...messages);
  }

  /** Delivers one message at random; it may stay in flight, to arrive again. */
  deliver(again: boolean): void {
    if (this.flying.length === 0) return;
    const at = this.random.u32() % this.flying.length;
    const message = this.flying[at] as ExchangeMessage;
    if (!again) this.flying.splice(at, 1);
    this.delivered++;
    if ("bytes" in message && message.bytes.length > this.#mostBytes)
      throw new Error("a message is longer than one may be");
    this.send(this.at(message.to).receive(message));
  }

  lose(): void {
    if (this.flying.length > 0) this.flying.splice(this.random.u32() % this.flying.length, 1);
  }

  /** The shard starts again from what it kept, which may be old or nothing. */
  crash(self: number): void {
    this.#epochs[self] = (this.#epochs[self] as number) + 1;
    this.shards[self] = this.#open(self);
  }

  /** A quiet time: everybody says what it has, nothing is lost. */
  settle(): void {
    for (let round = 0; round < 3; round++) {
      for (const shard of this.shards) this.send(shard.tick());
      for (let steps = 0; this.flying.length > 0; steps++) {
        if (steps > 100_000) throw new Error("the exchange never falls silent");
        this.deliver(false);
      }
    }
  }
}

describe("exchange", () => {
  test("property: after any faults a quiet time makes all tables equal, and no shard ever goes back", () => {
    const step = fc.constantFrom("publish", "deliver", "again", "lose", "crash", "tick");
    const cases = fc.record({
      shards: fc.integer({ min: 2, max: 5 }),
      steps: fc.array(fc.tuple(step, fc.nat(4)), { maxLength: 80 }),
      mostBytes: fc.constantFrom(17, 150, Number.POSITIVE_INFINITY),
      seed: fc.integer(),
    });
    fc.assert(
      fc.property(cases, ({ shards, steps, mostBytes, seed }) => {
        const net = new Net(shards, seeded(seed), mostBytes);
        const newest = new Map<string, [number, number]>();
        for (const [kind, number] of steps) {
          const self = number % shards;
          if (kind === "publish") net.publish(self);
          if (kind === "deliver") net.deliver(false);
          if (kind === "again") net.deliver(true);
          if (kind === "lose") net.lose();
          if (kind === "tick") net.send(net.at(self).tick());
          if (kind === "crash") {
            net.crash(self);
            for (const key of newest.keys()) if (key.startsWith(`${self}:`)) newest.delete(key);
          }
          net.shards.forEach((shard, holder) => {
            for (const { shard: of, epoch, version } of shard.tables()) {
              const before = newest.get(`${holder}:${of}`) ?? [0, 0];
              expect(epoch > before[0] || (epoch === before[0] && version >= before[1])).toBe(true);
              newest.set(`${holder}:${of}`, [epoch, version]);
            }
          });
        }
        net.settle();
        for (const shard of net.shards) {
          expect(shard.tables()).toEqual(net.at(0).tables());
          expect(shard.refused).toBe(0);
        }
        // Whoever publishes now is the newest everywhere, whatever was forgotten before.
        net.publish(0);
        net.settle();
        for (const shard of net.shards) expect(shard.tables()[0]?.counts).toHaveLength(net.published[0] as number);
      }),
      { seed: SEED, numRuns: 150 },
    );
  });

  test("applying twice is once, and older after newer is nothing", () => {
    const random = seeded(1);
    const old = { ...columnsOf(3, random), space: SPACE, shard: 1, epoch: 4, version: 9 };
    const newer = { ...columnsOf(2, random), space: SPACE, shard: 1, epoch: 5, version: 1 };
    const shard = new CentroidExchange({ self: 0, peers: [1, 2], space: SPACE, epoch: 1 });
    const take = (table: typeof old): unknown =>
      shard.receive({ kind: "table", from: 2, to: 0, bytes: encodeCentroids(table) });
    take(newer);
    take(newer);
    take(old);
    expect(shard.tables()).toEqual([newer]);
    expect(shard.missing()).toEqual([0, 2]);
  });

  test("a shard that lost everything gets all tables back, its own too, and publishes above it", () => {
    const net = new Net(3, seeded(2));
    for (const self of [0, 1, 2]) net.publish(self);
    net.settle();
    net.states[1] = undefined;
    const own = net.at(1).tables()[1];
    net.crash(1);
    expect(net.at(1).missing()).toEqual([0, 1, 2]);
    net.settle();
    expect(net.at(1).missing()).toEqual([]);
    expect(net.at(1).tables()[1]).toEqual(own);
    net.publish(1);
    net.settle();
    expect(net.at(0).tables()[1]?.epoch).toBe(2);
  });

  test("a table larger than a message comes in parts, goes on after a loss, and is not begun again by a doubled part", () => {
    const net = new Net(2, seeded(7), 100);
    net.publish(0, 9);
    const [table] = net.at(0).tables();
    const bytes = encodeCentroids(table as NonNullable<typeof table>);
    const parts = Math.ceil(bytes.length / 100);
    net.flying = net.flying.filter(({ kind }) => kind === "offer");
    let sent = 0;
    const step = (): void => {
      if (net.flying[0]?.kind === "part") sent++;
      net.deliver(false);
    };
    while (sent === 0 && net.flying.length > 0) step();
    expect(sent, "one leaf would go in one message").toBe(1);
    net.flying = []; // the request for the rest is lost
    net.send(net.at(0).tick());
    while (net.flying.length > 0) step();
    expect(net.at(1).tables()).toEqual([table]);
    expect([bytes.length > 100, sent]).toEqual([true, parts + 1]); // the first twice, as who answers knows nothing
    const first = {
      kind: "part",
      from: 0,
      to: 1,
      shard: 0,
      checksum: 1,
      at: 0,
      total: 9e15,
      bytes: bytes.slice(0, 9),
    } as const;
    expect(net.at(1).receive(first)).toMatchObject([{ kind: "rest", at: 9 }]);
    expect(net.at(1).receive({ ...first, at: 5 })).toEqual([]);
    expect(net.at(0).receive({ kind: "rest", from: 1, to: 0, shard: 0, checksum: 1, at: 9 })).toEqual([]);
    expect(net.at(1).refused).toBe(0);
  });

  test("a shard that is down is known to be missing, and tables come round by others", () => {
    const net = new Net(3, seeded(3));
    net.publish(0);
    const reaches = (message: ExchangeMessage): boolean =>
      !(message.from === 0 && message.to === 2) && !(message.from === 2 && message.to === 0);
    for (let round = 0; round < 6; round++) {
      net.send(net.shards.flatMap((shard) => shard.tick()));
      for (let i = 0; i < 50; i++) {
        net.flying = net.flying.filter(reaches);
        net.deliver(false);
      }
    }
    expect(net.at(2).tables()).toEqual(net.at(0).tables());
    expect(net.at(2).missing()).toEqual([1, 2]);
  });

  test("two shards that agree fall silent: an offer is answered by nothing", () => {
    const net = new Net(2, seeded(4));
    net.publish(0);
    net.settle();
    const [offer] = net.at(0).tick();
    expect(net.at(1).receive(offer as ExchangeMessage)).toEqual([]);
  });

  test("what cannot be used is refused, counted and named, and changes nothing", () => {
    const shard = new CentroidExchange({ self: 0, peers: [1], space: SPACE, epoch: 1 });
    const table = { ...columnsOf(3, seeded(5)), space: SPACE, shard: 1, epoch: 1, version: 1 };
    const broken = encodeCentroids(table);
    broken[100] = (broken[100] as number) ^ 1;
    const otherSpace = { ...SPACE, element: ELEMENT.F32 };
    const refusals: [Partial<ExchangeMessage>, string][] = [
      [{ bytes: broken }, "ERR_CORRUPT"],
      [{ bytes: new Uint8Array(0) }, "ERR_TRUNCATED"],
      [{ bytes: encodeCentroids({ ...table, shard: 9 }) }, "ERR_INVALID_ARGUMENT"],
      [
        { bytes: encodeCentroids({ ...table, ...columnsOf(3, seeded(5), otherSpace), space: otherSpace }) },
        "ERR_COLLECTION_MISMATCH",
      ],
      [{ from: 7 }, "ERR_INVALID_ARGUMENT"],
      [{ to: 1 }, "ERR_INVALID_ARGUMENT"],
    ];
    refusals.forEach(([change, code], i) => {
      const message = { kind: "table", from: 1, to: 0, bytes: encodeCentroids(table), ...change } as ExchangeMessage;
      expect(shard.receive(message)).toEqual([]);
      expect(shard.refused).toBe(i + 1);
      expect(shard.lastRefusal?.code).toBe(code);
    });
    expect(shard.tables()).toEqual([]);
  });

  test("a transport may reuse the buffer of a table", () => {
    const shard = new CentroidExchange({ self: 0, peers: [1], space: SPACE, epoch: 1 });
    const table = { ...columnsOf(3, seeded(6)), space: SPACE, shard: 1, epoch: 1, version: 1 };
    const bytes = encodeCentroids(table);
    shard.receive({ kind: "table", from: 1, to: 0, bytes });
    bytes.fill(0);
    expect(shard.receive({ kind: "request", from: 1, to: 0, shards: [1, 0] })).toEqual([
      { kind: "table", from: 0, to: 1, bytes: encodeCentroids(table) },
    ]);
  });

  test.each([
    [{ self: -1 }, "self"],
    [{ peers: [0] }, "peers"],
    [{ peers: [1, 1] }, "peers"],
    [{ peers: [Number.NaN] }, "peers"],
    [{ epoch: -1 }, "epoch"],
  ])("refuses %j", (change, name) => {
    expect(() => new CentroidExchange({ self: 0, peers: [1], space: SPACE, epoch: 1, ...change })).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }),
    );
  });
});
