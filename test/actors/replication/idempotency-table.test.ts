/** The table of keys against a model: bounds, restores, and successors that find what the dead worker had. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { IdempotencyTable } from "../../../actors/replication/idempotency-table.ts";
import { Arena, createArena } from "../../../native-bridge/arena.ts";
import { RegionTable } from "../../../native-bridge/region-table.ts";
import type { KeyEntry } from "../../../src/store/idempotent-effect.ts";
import { dieAt, generator } from "../../native-bridge/memory-support.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const RUNS = process.env["SHARDLOOM_LONG"] === "1" ? 2_000 : 100;

function entry(key: string, timeMs = 0, changed = 0): KeyEntry {
  return { type: 1, collection: 2, part: 0, key, items: changed + 1, changed, timeMs };
}

interface Bounds {
  readonly minBytes?: number;
  readonly maxBytes?: number;
  readonly maxKeys?: number;
  readonly lifetimeMs?: number;
}

class Host {
  nowMs = 0;
  readonly arena: Arena;
  readonly regions: RegionTable;
  readonly #bounds: Bounds;

  constructor(bounds: Bounds = {}, capacityBytes = 4 * 1024 * 1024) {
    this.#bounds = bounds;
    this.arena = new Arena(createArena({ capacityBytes }));
    this.regions = new RegionTable(this.arena, 1, generator(SEED));
  }

  first(): IdempotencyTable {
    const { arena, regions } = this;
    return new IdempotencyTable({ arena, regions, nowMs: () => this.nowMs, ...this.#bounds });
  }

  /** The table of the worker that comes next. What nobody takes is left over. */
  next(): { table: IdempotencyTable; left: number } {
    const { arena, regions } = this;
    const adopted = new Map(regions.adopt(1, 1).map((region) => [region.address, region]));
    const table = new IdempotencyTable({ arena, regions, nowMs: () => this.nowMs, ...this.#bounds }, adopted);
    return { table, left: adopted.size };
  }
}

function known(table: IdempotencyTable): string[][] {
  return [0, 1, 2].map((vshard) => table.keysOf(vshard).map(({ key, changed }) => `${key}=${changed}`));
}

type Command =
  | { readonly kind: "record"; readonly vshard: number; readonly key: string; readonly changed: number }
  | { readonly kind: "retain"; readonly vshard: number; readonly modulus: number }
  | { readonly kind: "later"; readonly ms: number }
  | { readonly kind: "die"; readonly at: number };

const commands = fc.array(
  fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant("record" as const),
        vshard: fc.nat(2),
        key: fc.oneof(fc.nat(30).map(String), fc.string({ unit: "grapheme", minLength: 1, maxLength: 60 })),
        changed: fc.nat(9),
      }),
    },
    fc.record({ kind: fc.constant("retain" as const), vshard: fc.nat(2), modulus: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ kind: fc.constant("later" as const), ms: fc.nat(400) }),
    fc.record({ kind: fc.constant("die" as const), at: fc.nat(40) }),
  ) as fc.Arbitrary<Command>,
  { maxLength: 80 },
);

describe("a table of keys", () => {
  test("knows what it was told, newest last, and so does every successor", () => {
    fc.assert(
      fc.property(commands, (list) => {
        const host = new Host({ minBytes: 1024, lifetimeMs: 1_000 });
        let table = host.first();
        let model: Map<string, { changed: number; timeMs: number }>[] = [new Map(), new Map(), new Map()];
        const expected = (): string[][] =>
          model.map((keys) =>
            [...keys]
              .filter(([, { timeMs }]) => host.nowMs - timeMs < 1_000)
              .map(([key, { changed }]) => `${key}=${changed}`),
          );
        for (const command of list) {
          if (command.kind === "later") host.nowMs += command.ms;
          if (command.kind === "die") table = host.next().table;
          const keys = "vshard" in command ? (model[command.vshard] as (typeof model)[number]) : new Map();
          if (command.kind === "record") {
            host.nowMs++; // no two at once: of those the first stays
            table.record(command.vshard, entry(command.key, host.nowMs, command.changed));
            keys.delete(command.key);
            keys.set(command.key, { changed: command.changed, timeMs: host.nowMs });
          }
          if (command.kind === "retain") {
            const kept = table.keysOf(command.vshard).filter((_, at) => at % command.modulus === 0);
            table.retain(command.vshard, kept);
            model = model.map((each, vshard) => {
              if (vshard !== command.vshard) return each;
              return new Map(kept.map(({ key, changed, timeMs }) => [key, { changed, timeMs }]));
            });
          }
          expect(known(table)).toEqual(expected());
          const { table: next, left } = host.next();
          expect(known(next)).toEqual(expected());
          expect(left).toBe(0);
          table = next;
        }
      }),
      { numRuns: RUNS, seed: SEED },
    );
  });

  test("forgets the oldest of a vshard, and of all when its room is used up; its arena does not grow", () => {
    const host = new Host({ minBytes: 1024, maxBytes: 4096, maxKeys: 10 });
    const table = host.first();
    for (let at = 0; at < 12; at++) table.record(0, entry(`a${at}`, at));
    expect(table.keysOf(0).map(({ key }) => key)).toEqual(Array.from({ length: 10 }, (_, at) => `a${at + 2}`));
    const { usedBytes } = host.arena.stats();
    for (let at = 0; at < 5_000; at++) table.record(1 + (at % 500), entry(`b${at}`, at));
    expect(table.find(0, entry("a11"))).toBeUndefined();
    expect(table.find(1 + (4_999 % 500), entry("b4999"))?.key).toBe("b4999");
    expect(table.byteLength).toBeLessThanOrEqual(4096 + 64);
    expect(table.size).toBeLessThan(4096 / 40);
    expect(table.size).toBeGreaterThan(4096 / 80);
    expect(host.arena.stats().usedBytes - usedBytes).toBeLessThan(4096);
    const { table: next } = host.next();
    expect(next.size).toBe(table.size);
  });

  test("keeps what it has when the arena has no room for more", () => {
    const host = new Host({ minBytes: 1024 }, 1024 * 1024);
    const table = host.first();
    table.record(0, entry("first", 1));
    const blocks: number[] = [];
    for (let bytes = 65_536; bytes >= 64; bytes >>= 1)
      for (;;) {
        try {
          blocks.push(host.arena.allocate(bytes));
        } catch {
          break; // it is full, as it is to be
        }
      }
    for (let at = 0; at < 1_000; at++) table.record(0, entry(`k${at}`, 2 + at));
    expect(table.find(0, entry("k999"))?.key).toBe("k999");
    expect(table.find(0, entry("first"))).toBeUndefined();
    expect(blocks.length).toBeGreaterThan(0);
  });

  test("is whole for a successor wherever its worker dies, and leaves nothing of its blocks behind", () => {
    for (let n = 0; n < 400; n++) {
      const host = new Host({ minBytes: 1024, maxBytes: 4096 });
      const table = host.first();
      let told = -1;
      dieAt(n, () => {
        for (let at = 0; at < 90; at++) {
          table.record(at % 3, entry(`k${at}`, at));
          told = at;
        }
      });
      const { table: next, left } = host.next();
      expect(left).toBe(0);
      if (told >= 0) expect(next.find(told % 3, entry(`k${told}`))?.key, `step ${n}`).toBe(`k${told}`);
      for (let at = told + 2; at < 90; at++) expect(next.find(at % 3, entry(`k${at}`))).toBeUndefined();
      next.record(0, entry("after", 1_000));
      expect(host.next().table.find(0, entry("after"))?.key).toBe("after");
    }
  });
});
