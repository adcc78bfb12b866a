/**
 * Whatever is asked, told, given up, cut, healed, damaged and lost, in whatever order: every request ends once, with an answer of its own
 * or a typed error, and the counters add up at every moment.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { ACTOR_ASK, ACTOR_TELL, VECTOR_GET } from "../../src/wire/message-types.ts";
import { type Asked, Pair, PlayedShard, payload } from "./linked-nodes.ts";

const step = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant("ask" as const),
      size: fc.integer({ min: 4, max: 3_000 }),
      type: fc.constantFrom(VECTOR_GET, ACTOR_ASK),
      timeoutMs: fc.constantFrom(5, 60_000),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("tell" as const), size: fc.integer({ min: 4, max: 500 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("cancel" as const), back: fc.integer({ min: 1, max: 5 }) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("advance" as const), ms: fc.integer({ min: 1, max: 400 }) }) },
  {
    weight: 4,
    arbitrary: fc.constantFrom(...(["hold", "release", "sleep", "awake"] as const).map((kind) => ({ kind }))),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(...(["cut", "heal", "damage", "replace", "sever"] as const).map((kind) => ({ kind }))),
  },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

const TYPED = new Set(["ERR_TIMEOUT", "ERR_WORKER_LOST", "ERR_UNAVAILABLE", "ERR_OVERLOADED", "ERR_ABORTED"]);

class Play {
  readonly of = new Pair({ bridge: { creditMessages: 8, requestCapacityBytes: 16_384, replyCapacityBytes: 16_384 } });
  readonly asked: Asked[] = [];
  #damages = 0;
  #incarnation = 65_537;

  constructor() {
    const { a, network } = this.of;
    a.links.onShard(({ shard, state, incarnation }) => {
      if (state === "up" && incarnation !== 65_537) a.attach(shard);
    });
    network.transform = (_from, _to, frame) => {
      if (this.#damages > 0) frame[frame.length >> 1] = (frame[frame.length >> 1] as number) ^ 0x10;
      this.#damages = 0;
      return frame;
    };
    this.of.start();
  }

  async do(step: Step): Promise<void> {
    const { of } = this;
    switch (step.kind) {
      case "ask":
        return this.#ask(step.size, step.type, step.timeoutMs);
      case "tell":
        of.a.plane
          .requester(1)
          .tell(ACTOR_TELL, 3, 1, payload(new Uint8Array(step.size)))
          ?.catch(() => undefined);
        return;
      case "cancel": {
        const asked = this.asked.at(-step.back);
        if (asked?.outcome === undefined && asked?.pending !== undefined)
          of.a.plane.requester(1).cancel(asked.pending, new ShardloomError("ERR_ABORTED", "given up"));
        return;
      }
      case "advance":
        return this.pass(step.ms);
      case "hold":
        of.shard.hold = true;
        return;
      case "release":
        return this.release();
      case "sleep":
        of.shard.asleep = true;
        return;
      case "awake":
        of.shard.asleep = false;
        return;
      case "cut":
        return of.network.cut("a", "b");
      case "heal":
        return of.network.heal("a", "b");
      case "damage":
        this.#damages = 1;
        return;
      case "sever":
        return of.b.links.sever("a", new ShardloomError("ERR_UNAVAILABLE", "silent"));
      case "replace":
        of.b.links.clients[0]?.lose(1, new ShardloomError("ERR_WORKER_LOST", "the worker died"));
        of.shard = new PlayedShard(of.b, 1, ++this.#incarnation);
        return;
    }
  }

  release(): void {
    const { shard } = this.of;
    shard.hold = false;
    for (const held of shard.held.splice(0)) shard.answer(held, held.payload);
  }

  async pass(ms: number): Promise<void> {
    const end = this.of.time.clock.nowMs() + ms;
    await this.of.until("time", () => this.of.time.clock.nowMs() >= end, ms + 10);
    this.check();
  }

  /** Asks until there is an answer: the connection may be lost yet, or not there again. */
  async answered(): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      this.#ask(8, VECTOR_GET, 60_000);
      const asked = this.asked.at(-1) as Asked;
      await this.of.until("an outcome", () => asked.outcome !== undefined);
      if (!ShardloomError.is(asked.outcome)) return;
      await this.pass(20);
    }
    throw new Error("nothing was answered after everything was healed");
  }

  check(): void {
    const { sent, delivered, rejected, dead, inDoubt, open } = this.of.a.links.stats()[0]?.counters ?? ({} as never);
    expect(sent).toBe(delivered + rejected + dead + inDoubt + open);
    for (const [at, { outcome }] of this.asked.entries()) {
      if (outcome === undefined) continue;
      if (ShardloomError.is(outcome)) expect(TYPED).toContain(outcome.code);
      else expect(new DataView(outcome.buffer, outcome.byteOffset).getUint32(0, true)).toBe(at);
    }
  }

  #ask(size: number, type: number, timeoutMs: number): void {
    const bytes = new Uint8Array(size);
    new DataView(bytes.buffer).setUint32(0, this.asked.length, true);
    try {
      this.asked.push(this.of.a.ask(1, bytes, { type, timeoutMs }));
    } catch (error) {
      this.asked.push({ outcome: error as ShardloomError, pending: undefined });
    }
  }
}

describe("links under faults", () => {
  it("end every request once and account for every message", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
        const play = new Play();
        try {
          for (const one of steps) {
            await play.do(one);
            play.check();
          }
          play.of.network.heal("a", "b");
          play.of.shard.asleep = false;
          play.release();
          await play.answered();
          await play.of.until("every outcome", () => play.asked.every(({ outcome }) => outcome !== undefined), 100_000);
          // A call whose asker timed out is open until the peer answers it, drops it, or its slot is used again.
          await play.of.until("every message", () => play.of.a.links.stats()[0]?.counters.open === 0, 100_000);
          play.check();
        } finally {
          play.of.close();
        }
      }),
      { numRuns: process.env["SHARDLOOM_LONG"] === "1" ? 1_000 : 60 },
    );
  });
});
