/** Writes with keys: a repetition does nothing and is answered as the first one was, wherever the worker died and whoever took over. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ReceivedEffect } from "../../../actors/engine.ts";
import type { PendingEffect } from "../../../actors/replication/replicated-write.ts";
import { createArena } from "../../../native-bridge/arena.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { dieAt } from "../../native-bridge/memory-support.ts";
import { EffectTape, KeyedShard } from "./keyed-shard.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const SEED = Number(process.env["SEED"] ?? 20_261_121);
const IDS = Array.from({ length: 12 }, (_, id) => id);

function arena(): WebAssembly.Memory {
  return createArena({ capacityBytes: 2 * 1024 * 1024 });
}

/** The shard that comes after one that died. It may die as well while it takes over. */
function successor(memory: WebAssembly.Memory, root: number, dies: number): KeyedShard {
  dieAt(dies, () => void new KeyedShard({ memory, root, seed: 77 }));
  return new KeyedShard({ memory, root, seed: 99 });
}

function same(ids: readonly number[], value: number): Map<number, number> {
  return new Map(ids.map((id) => [id, value]));
}

describe("a repetition", () => {
  test("of an upsert does not undo what came after it, and is answered as the first", () => {
    const shard = new KeyedShard({ memory: arena() });
    shard.upsert(same([1, 2], 1));
    const first = shard.upsert(same([1, 2, 3, 4], 2), "a");
    expect(first).toEqual({ count: 4, inserted: 2 });
    shard.upsert(same([3], 3));
    shard.delete([4]);
    expect(shard.upsert(same([1, 2, 3, 4], 2), "a")).toEqual(first);
    expect(shard.values(IDS)).toEqual(
      new Map([
        [1, 2],
        [2, 2],
        [3, 3],
      ]),
    );
  });

  test("of a delete leaves what was written after it, also where the first found nothing", () => {
    const shard = new KeyedShard({ memory: arena() });
    shard.upsert(same([1, 2], 1));
    expect(shard.delete([1, 2, 5], "d")).toBe(2);
    shard.upsert(same([1, 5], 9));
    expect(shard.delete([1, 2, 5], "d")).toBe(2);
    expect(shard.values(IDS)).toEqual(same([1, 5], 9));
    expect(shard.delete([1, 5], "e")).toBe(2);
  });

  test("is another write under another key, for another operation, and in another part", () => {
    const shard = new KeyedShard({ memory: arena() });
    shard.upsert(same([1], 1), "k");
    expect(shard.delete([1], "k")).toBe(1);
    expect(shard.upsert(same([1], 2), "l")).toEqual({ count: 1, inserted: 1 });
    expect(shard.upsert(same([1], 3), "k", 1)).toEqual({ count: 1, inserted: 0 });
    expect(shard.values([1])).toEqual(same([1], 3));
  });

  test("that brings other documents is refused, and changes nothing", () => {
    const shard = new KeyedShard({ memory: arena() });
    const here = IDS.filter((id) => shard.upsert(same([id], 1)) && true);
    shard.upsert(same(here.slice(0, 4), 2), "k");
    expect(() => shard.upsert(same(here, 3), "k")).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    expect([...shard.values(here).values()].filter((value) => value === 3)).toEqual([]);
    // And the shard goes on.
    expect(shard.upsert(same([1], 4), "other").count).toBe(1);
  });

  test("is a new write when its key is over time", () => {
    let nowMs = 1_000;
    const shard = new KeyedShard({ memory: arena(), nowMs: () => nowMs });
    shard.upsert(same([1], 1), "k");
    nowMs += 599_000;
    shard.upsert(same([1], 2), "k");
    expect(shard.values([1])).toEqual(same([1], 1));
    nowMs += 2_000;
    shard.upsert(same([1], 3), "k");
    expect(shard.values([1])).toEqual(same([1], 3));
  });
});

/** What is done while the worker dies; every id of it has value 1 before. */
const OPERATIONS: readonly [string, (shard: KeyedShard) => unknown, Map<number, number>][] = [
  [
    "upsert",
    (shard) => shard.upsert(same([0, 1, 2, 8, 9, 10], 2), "k"),
    new Map([...same([3, 4, 5], 1), ...same([0, 1, 2, 8, 9, 10], 2)]),
  ],
  ["delete", (shard) => shard.delete([0, 2, 4, 7], "k"), same([1, 3, 5], 1)],
];

describe("a worker that dies at any atomic operation of a keyed write", () => {
  test.each(OPERATIONS)(
    "%s: all of it or nothing; the retry after another's write does it at most once",
    (_, act, done) => {
      const counts = { whole: 0, nothing: 0, redone: 0 };
      const before = same([0, 1, 2, 3, 4, 5], 1);
      for (let n = 0; ; n++) {
        const memory = arena();
        const shard = new KeyedShard({ memory });
        shard.upsert(before);
        if (n % 2 === 1) shard.upsert(same([5], 1), "earlier"); // blocks are there, or are made by the write
        const died = dieAt(n >> 1, () => void act(shard));
        const next = died ? successor(memory, shard.root, (n * 13) % 150) : shard;
        const found = next.values(IDS);
        const whole = isSame(found, done);
        expect(whole || isSame(found, before), `step ${n}: ${[...found].join(" ")}`).toBe(true);
        counts[whole ? "whole" : "nothing"]++;
        if (next.redone > 0) counts.redone++;
        // Another client overwrites all, and the first one comes again.
        next.upsert(same(IDS, 7));
        const answer = act(next);
        if (whole) expect(next.values(IDS), `step ${n}`).toEqual(same(IDS, 7));
        else expect(next.values(IDS).size + (typeof answer === "number" ? answer : 0), `step ${n}`).toBe(IDS.length);
        if (whole) expect(answer).toEqual(typeof answer === "number" ? 3 : { count: 6, inserted: 3 });
        // Whatever it did, it does it no more, also for the next successor.
        next.upsert(same(IDS, 8));
        const last = successor(memory, shard.root, 1_000);
        expect(act(last)).toEqual(answer);
        expect(last.values(IDS)).toEqual(same(IDS, 8));
        if (!died) break;
      }
      expect(counts.whole, "steps after which it had happened").toBeGreaterThan(5);
      expect(counts.nothing, "steps after which it had not").toBeGreaterThan(5);
    },
  );
});

function isSame(a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>): boolean {
  return a.size === b.size && [...a].every(([id, value]) => b.get(id) === value);
}

function received({ vshard, type, collection, body }: PendingEffect): ReceivedEffect {
  const bytes = new Uint8Array((body.length + 7) & ~7);
  bytes.set(body);
  const { buffer } = bytes;
  const views = { bytes, i32: new Int32Array(buffer), f32: new Float32Array(buffer), f64: new Float64Array(buffer) };
  return { ...views, vshard, type, collection, offset: 0, length: body.length };
}

function replay(shard: KeyedShard, effects: readonly PendingEffect[]): void {
  const engines = [shard.keys.replicated, shard.vectors.replicated];
  for (const effect of effects) engines.find(({ types }) => types.includes(effect.type))?.apply(received(effect));
}

function restore(from: KeyedShard, to: KeyedShard, limit: number): void {
  for (let vshard = 0; vshard < 8; vshard++) {
    const targets = [to.keys.replicated, to.vectors.replicated];
    for (const engine of targets) engine.beginRestore(vshard);
    for (const engine of [from.vectors.replicated, from.keys.replicated]) {
      const next = engine.snapshot(vshard, limit);
      for (let part = next(); part !== undefined; part = next()) replay(to, [{ vshard, ...part }]);
    }
    for (const engine of targets) engine.endRestore(vshard);
  }
}

interface Step {
  readonly ids: readonly number[];
  readonly deletes: boolean;
  /** Makes the write, makes an earlier one again, or something happens to the shard. */
  readonly what: "write" | "plain" | "again" | "die" | "promote" | "snapshot" | "restart";
  readonly pick: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  ids: fc.uniqueArray(fc.nat(11), { minLength: 1, maxLength: 6 }),
  deletes: fc.boolean(),
  what: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom("write" as const, "again" as const) },
    { weight: 3, arbitrary: fc.constantFrom("plain" as const) },
    {
      weight: 2,
      arbitrary: fc.constantFrom("die" as const, "promote" as const, "snapshot" as const, "restart" as const),
    },
  ),
  pick: fc.nat(1_000),
});

/** A write as its client knows it. */
interface Made {
  readonly key: string;
  readonly ids: readonly number[];
  readonly deletes: boolean;
  readonly value: number;
  readonly answer: unknown;
}

/** A shard, the log of its effects, and a model of what it holds. */
class Story {
  shard: KeyedShard;
  tape = new EffectTape();
  readonly model = new Map<number, number>();
  readonly made: Made[] = [];
  #memory = arena();
  #value = 0;
  readonly #random = createSeededRandom(SEED);

  constructor() {
    this.shard = new KeyedShard({ memory: this.#memory, log: this.tape });
  }

  take({ ids, deletes, what, pick }: Step): void {
    if (what === "plain") this.#apply(ids, deletes, ++this.#value, undefined);
    else if (what === "write") this.#write(ids, deletes);
    else if (what === "again") this.#again(pick);
    else if (what === "die") this.shard = this.#successor();
    else this.#move(what);
    expect(this.shard.values(IDS)).toEqual(new Map([...this.model].sort(([a], [b]) => a - b)));
  }

  #write(ids: readonly number[], deletes: boolean): void {
    const value = ++this.#value;
    const key = `key-${value}`;
    // Every third one dies on its way; whether it has happened is what the rows say.
    const dies = value % 3 === 0 ? Math.floor(this.#random.float() * 60) : Number.POSITIVE_INFINITY;
    const died = dieAt(dies, () => void this.#send(ids, deletes, value, key));
    if (died) this.shard = this.#successor();
    const answer = this.#send(ids, deletes, value, key);
    this.made.push({ key, ids, deletes, value, answer });
    for (const id of ids) {
      if (deletes) this.model.delete(id);
      else this.model.set(id, value);
    }
  }

  #again(pick: number): void {
    const made = this.made[pick % Math.max(1, this.made.length)];
    if (made !== undefined) expect(this.#send(made.ids, made.deletes, made.value, made.key)).toEqual(made.answer);
  }

  #apply(ids: readonly number[], deletes: boolean, value: number, key: string | undefined): void {
    this.#send(ids, deletes, value, key);
    for (const id of ids) {
      if (deletes) this.model.delete(id);
      else this.model.set(id, value);
    }
  }

  #send(ids: readonly number[], deletes: boolean, value: number, key: string | undefined): unknown {
    return deletes ? this.shard.delete(ids, key) : this.shard.upsert(same(ids, value), key);
  }

  #successor(): KeyedShard {
    const { root } = this.shard;
    return new KeyedShard({ memory: this.#memory, root, seed: 3, log: this.tape });
  }

  /** Another shard with memory of its own goes on: one that has had all effects, or a snapshot, some effects of which it has had before. */
  #move(what: "promote" | "snapshot" | "restart"): void {
    const memory = arena();
    const tape = new EffectTape();
    const next = new KeyedShard({ memory, log: tape });
    if (what !== "promote" || this.#dead) restore(this.shard, next, what === "snapshot" ? 256 : 2 ** 16);
    else replay(next, this.tape.effects);
    // Everything so far comes again from the log, on top of it.
    if (what === "restart") replay(next, this.tape.effects.slice(-2));
    tape.effects.push(...this.tape.effects);
    this.#memory = memory;
    this.shard = next;
    this.tape = tape;
  }

  /** The log of a shard whose worker died lacks what its successor did again. */
  get #dead(): boolean {
    return this.made.some(({ value }) => value % 3 === 0);
  }
}

describe("whatever happens", () => {
  test("each write with a key is done once, in its place: deaths, repetitions, copies and snapshots", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 5, maxLength: 40 }), (steps) => {
        const story = new Story();
        for (const each of steps) story.take(each);
        for (const { ids, deletes, value, key, answer } of story.made.slice(-20)) {
          const before = story.shard.values(IDS);
          const again = deletes ? story.shard.delete(ids, key) : story.shard.upsert(same(ids, value), key);
          expect(again).toEqual(answer);
          expect(story.shard.values(IDS)).toEqual(before);
        }
      }),
      { numRuns: LONG ? 1_000 : 60, seed: SEED },
    );
  });
});
