import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FairQueue, MAX_PASSED, QueueEntry } from "../../src/routing/fair-queue.ts";
import { PRIORITY } from "../../src/wire/envelope-layout.ts";

class Item extends QueueEntry {
  readonly serial: number;

  constructor(serial: number, priority: number, tenant: number, weight = 1, cost = 1) {
    super(priority, tenant, weight, cost);
    this.serial = serial;
  }
}

function drain(queue: FairQueue<Item>): Item[] {
  const taken: Item[] = [];
  for (let item = queue.take(); item !== undefined; item = queue.take()) taken.push(item);
  return taken;
}

const WEIGHTS = [1, 0.1, 3, 7.5, 1, 100];

type Step =
  | { readonly kind: "push"; readonly priority: number; readonly tenant: number; readonly cost: number }
  | { readonly kind: "take" }
  | { readonly kind: "remove"; readonly which: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("push" as const),
      priority: fc.nat({ max: 2 }),
      tenant: fc.nat({ max: 5 }),
      cost: fc.constantFrom(1, 5, 40),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("take" as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("remove" as const), which: fc.nat() }) },
);

describe("FairQueue", () => {
  it("gives each entry exactly once, in order within tenant and priority, under any pushes, takes and removals", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const queue = new FairQueue<Item>();
        const waiting: Item[] = [];
        let serial = 0;
        const taken = (item: Item | undefined): void => {
          if (item === undefined) {
            expect(waiting).toEqual([]);
            return;
          }
          const first = waiting.find(({ priority, tenant }) => priority === item.priority && tenant === item.tenant);
          expect(item).toBe(first);
          waiting.splice(waiting.indexOf(item), 1);
          expect(queue.remove(item)).toBe(false);
        };
        for (const one of steps) {
          if (one.kind === "push") {
            const item = new Item(serial++, one.priority, one.tenant, WEIGHTS[one.tenant], one.cost);
            queue.push(item);
            waiting.push(item);
            expect(queue.newest(one.priority, one.tenant)).toBe(item);
          } else if (one.kind === "take") {
            taken(queue.take());
          } else if (waiting.length > 0) {
            const [item] = waiting.splice(one.which % waiting.length, 1);
            expect(queue.remove(item as Item)).toBe(true);
            expect(queue.remove(item as Item)).toBe(false);
          }
          expect(queue.size).toBe(waiting.length);
          const listed: number[] = [];
          queue.forEach((item) => {
            listed.push(item.serial);
          });
          expect(listed.sort((a, b) => a - b)).toEqual(waiting.map((item) => item.serial).sort((a, b) => a - b));
        }
        for (const item of drain(queue)) taken(item);
        expect(waiting).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });

  it("shares by weight: while two tenants wait, their served cost per weight stays within one entry of each", () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ tenant: fc.nat({ max: 5 }), cost: fc.constantFrom(1, 2, 10) }), {
          minLength: 40,
          maxLength: 300,
        }),
        fc.array(fc.boolean(), { maxLength: 300 }),
        (offers, pushes) => {
          const queue = new FairQueue<Item>();
          let next = 0;
          const offer = (): void => {
            const { tenant, cost } = offers[next++ % offers.length] as { tenant: number; cost: number };
            queue.push(new Item(next, PRIORITY.NORMAL, tenant, WEIGHTS[tenant], cost));
          };
          for (let at = 0; at < 30; at++) offer();
          // Served cost per weight of each pair, from the moment since which both have waited without a break.
          const base = new Map<string, [number, number]>();
          const served = WEIGHTS.map(() => 0);
          const check = (): void => {
            for (let a = 0; a < WEIGHTS.length; a++) {
              for (let b = 0; b < a; b++) {
                const key = `${a},${b}`;
                if (queue.countOf(PRIORITY.NORMAL, a) === 0 || queue.countOf(PRIORITY.NORMAL, b) === 0) {
                  base.delete(key);
                  continue;
                }
                const since = base.get(key) ?? [served[a] as number, served[b] as number];
                base.set(key, since);
                const lead = (served[a] as number) - since[0] - ((served[b] as number) - since[1]);
                expect(Math.abs(lead)).toBeLessThanOrEqual(
                  10 / (WEIGHTS[a] as number) + 10 / (WEIGHTS[b] as number) + 1e-9,
                );
              }
            }
          };
          check();
          for (const push of pushes) {
            if (push) offer();
            else {
              const item = queue.take();
              if (item !== undefined) served[item.tenant] = (served[item.tenant] as number) + item.cost / item.weight;
            }
            check();
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it("does not let a tenant gain by leaving the queue and coming back", () => {
    const queue = new FairQueue<Item>();
    for (let at = 0; at < 2_000; at++) queue.push(new Item(at, PRIORITY.NORMAL, 1));
    let light = 0;
    queue.push(new Item(0, PRIORITY.NORMAL, 2, 0.1));
    for (let at = 0; at < 1_100; at++) {
      if (queue.take()?.tenant !== 2) continue;
      light++;
      queue.push(new Item(at, PRIORITY.NORMAL, 2, 0.1));
    }
    expect(light).toBeGreaterThanOrEqual(99);
    expect(light).toBeLessThanOrEqual(101);
  });

  it("serves a tenant in time though new tenants arrive before every turn", () => {
    const queue = new FairQueue<Item>();
    queue.push(new Item(-1, PRIORITY.NORMAL, 0));
    queue.push(new Item(-2, PRIORITY.NORMAL, 0));
    const turns: number[] = [];
    for (let at = 1; at < 20; at++) {
      queue.push(new Item(at, PRIORITY.NORMAL, at));
      if (queue.take()?.tenant === 0) turns.push(at);
    }
    expect(turns).toEqual([1, 3]);
  });

  it("serves the higher priority first, but passes over a lower one a bounded number of times", () => {
    const queue = new FairQueue<Item>();
    for (let at = 0; at < 200; at++)
      for (const priority of [PRIORITY.BULK, PRIORITY.NORMAL, PRIORITY.CONTROL]) queue.push(new Item(at, priority, 1));
    const order = Array.from({ length: 200 }, () => (queue.take() as Item).priority);
    expect(order.slice(0, 8)).toEqual(Array(8).fill(PRIORITY.CONTROL));
    for (const priority of [PRIORITY.BULK, PRIORITY.NORMAL]) {
      const places = order.flatMap((value, at) => (value === priority ? [at] : []));
      expect(places.length).toBeGreaterThan(5);
      // One more: two low classes may come due at once.
      for (const [index, place] of places.entries())
        expect(place - (places[index - 1] ?? -1)).toBeLessThanOrEqual((MAX_PASSED[priority] as number) + 2);
    }
    expect(order.filter((priority) => priority === PRIORITY.CONTROL).length).toBeGreaterThan(150);
  });

  it("tells about how many are ahead: exactly, for equal costs and one priority", () => {
    fc.assert(
      fc.property(fc.array(fc.nat({ max: 3 }), { maxLength: 60 }), fc.nat({ max: 3 }), (tenants, tenant) => {
        const queue = new FairQueue<Item>();
        for (const [at, one] of tenants.entries()) queue.push(new Item(at, PRIORITY.NORMAL, one));
        const guess = queue.ahead(PRIORITY.NORMAL, tenant, 1);
        const mine = new Item(-1, PRIORITY.NORMAL, tenant);
        queue.push(mine);
        const place = drain(queue).indexOf(mine);
        expect(guess).toBeGreaterThanOrEqual(place);
        expect(guess).toBeLessThanOrEqual(tenants.length);
        if (tenants.every((one) => one === tenant)) expect(guess).toBe(place);
      }),
    );
    const queue = new FairQueue<Item>();
    for (let at = 0; at < 50; at++) queue.push(new Item(at, PRIORITY.NORMAL, 1));
    expect(queue.ahead(PRIORITY.NORMAL, 1, 1)).toBe(50);
    expect(queue.ahead(PRIORITY.NORMAL, 2, 1)).toBe(1);
    expect(queue.ahead(PRIORITY.BULK, 2, 1)).toBe(50);
    expect(queue.ahead(PRIORITY.CONTROL, 2, 1)).toBe(0);
  });
});
