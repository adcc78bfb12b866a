/** Shards that follow another are asked once, after it or without it, and nothing of a search that has ended is left. */
import { describe, expect, test, vi } from "vitest";
import type { Coordinator } from "../../../../actors/coordinator.ts";
import { askSelected } from "../../../../actors/vector/strategy/ask-selected.ts";
import type { NearReply } from "../../../../actors/vector/strategy/near-messages.ts";
import type {
  AskingStrategy,
  Lead,
  RoutedQuery,
  SelectedShard,
} from "../../../../actors/vector/strategy/vector-strategy.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { Gather, type Gathered, type GatherPolicy } from "../../../../src/routing/gather.ts";
import { createVirtualTime, type VirtualTime } from "../../../../src/runtime/scheduler.ts";

const TIMEOUT_MS = 1_000;
const VSHARDS = 64;

/** A request that is under way. */
interface Asked {
  readonly shard: number;
  readonly lead: Lead | undefined;
  readonly timeoutMs: number;
  readonly answer: (candidates: number) => void;
  readonly fail: (error: ShardloomError) => void;
}

class Site {
  readonly time: VirtualTime = createVirtualTime();
  readonly asked: Asked[] = [];
  /** Requests that have not ended. */
  open = 0;
  readonly #leads = new Map<number, Lead | undefined>();
  readonly #signal = new AbortController();
  readonly strategy = {
    name: "compass",
    directMessage: ({ shard }: SelectedShard, _: RoutedQuery, lead?: Lead) => {
      if (shard === this.refused) throw new ShardloomError("ERR_OUT_OF_MEMORY", "Cannot read leaves");
      this.#leads.set(shard, lead);
      return { type: 1, payload: { byteLength: 0, write: () => undefined } };
    },
  } as unknown as AskingStrategy<RoutedQuery>;
  refused = -1;

  /** Timers that were neither taken back nor have run. */
  get timers(): number {
    return this.time.pending();
  }

  get shards(): number[] {
    return this.asked.map(({ shard }) => shard);
  }

  run(selected: readonly SelectedShard[], policy: GatherPolicy = "all"): Promise<Gathered<NearReply>> {
    const query = { timeoutMs: TIMEOUT_MS } as RoutedQuery;
    const asking = { strategy: this.strategy, query, selected, options: { signal: this.#signal.signal } };
    return askSelected(this.#coordinator(), asking, new Gather(selected.length, policy));
  }

  abort(): void {
    this.#signal.abort();
  }

  #coordinator(): Coordinator {
    const ask = (shard: number, ...[, , , , limits]: [unknown, unknown, unknown, unknown, AskLimits]) =>
      new Promise<NearReply>((resolve, reject) => {
        this.open++;
        const { timeoutMs, signal } = limits;
        let isOpen = true;
        const end = (act: () => void): void => {
          if (isOpen) this.open--;
          isOpen = false;
          act();
        };
        signal.addEventListener("abort", () => end(() => reject(signal.reason as Error)), { once: true });
        this.asked.push({
          ...{ shard, lead: this.#leads.get(shard), timeoutMs },
          answer: (candidates) => end(() => resolve(replyOf(shard, candidates))),
          fail: (error) => end(() => reject(error)),
        });
      });
    const after = this.time.scheduler.after;
    const nowMs = (): number => this.time.clock.nowMs();
    return { ask, after, nowMs, snapshot: { vshards: VSHARDS } } as unknown as Coordinator;
  }
}

interface AskLimits {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

function replyOf(shard: number, count: number): NearReply {
  const candidates = Array.from({ length: count }, (_, vertex) => ({
    ...{ vertex, distance: vertex, address: 8, incarnation: 1, shard },
  }));
  return { candidates, distances: 1, rounds: 0, messages: 0, bytes: 0, crossings: [{ shard: 2, vertex: shard }] };
}

/** Shard 3 leads 1 and 2, and 0 is asked by itself. */
const SELECTED: readonly SelectedShard[] = [
  { shard: 3, entries: [], followers: [1, 2] },
  { shard: 1, entries: [] },
  { shard: 2, entries: [] },
  { shard: 0, entries: [] },
];

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const lost = (): ShardloomError => new ShardloomError("ERR_WORKER_LOST", "Cannot ask shard");

async function answerAll(site: Site): Promise<void> {
  for (let next = 0; next < site.asked.length; next++) {
    site.asked[next]?.answer(next);
    await settled();
  }
}

describe("shards that follow another", () => {
  test("are asked once it has answered, with what it found and in the time that is left; others at once", async () => {
    const site = new Site();
    const done = site.run(SELECTED);
    expect([site.shards, site.timers]).toEqual([[3, 0], 1]);
    await site.time.advance(100);
    site.asked[0]?.answer(5);
    await settled();
    expect([site.shards, site.timers]).toEqual([[3, 0, 1, 2], 0]);
    const followers = site.asked.slice(2);
    expect(followers.map(({ lead }) => lead?.candidates.length)).toEqual([5, 5]);
    expect(followers.map(({ lead }) => lead?.crossings)).toEqual([1, 2].map(() => [{ shard: 2, vertex: 3 }]));
    expect(site.asked.map(({ timeoutMs }) => timeoutMs)).toEqual([1_000, 1_000, 900, 900]);
    expect(site.asked[1]?.lead).toBeUndefined();
    for (const { answer } of site.asked.slice(1)) answer(2);
    const { answers, completeness } = await done;
    expect([answers.length, completeness.complete]).toEqual([4, true]);
    expect(completeness.vshards).toEqual({ planned: VSHARDS, answered: VSHARDS });
    expect(site.open).toBe(0);
  });

  test("go without what they would follow where it fails", async () => {
    const site = new Site();
    const done = site.run(SELECTED, "best-effort");
    site.asked[0]?.fail(lost());
    await settled();
    expect(site.asked.map(({ shard, lead }) => [shard, lead])).toEqual([3, 0, 1, 2].map((shard) => [shard, undefined]));
    for (const { answer } of site.asked.slice(1)) answer(1);
    const { completeness } = await done;
    expect(completeness).toMatchObject({ answered: 3, failed: 1, complete: false });
    expect([site.open, site.timers]).toEqual([0, 0]);
  });

  test("go without it where it is slow, and are not asked again when it answers", async () => {
    const site = new Site();
    const done = site.run(SELECTED);
    await site.time.advance(TIMEOUT_MS / 4 - 1);
    expect(site.shards).toEqual([3, 0]);
    await site.time.advance(1);
    expect(site.shards).toEqual([3, 0, 1, 2]);
    await answerAll(site);
    expect((await done).completeness.complete).toBe(true);
    expect([site.shards, site.open, site.timers]).toEqual([[3, 0, 1, 2], 0, 0]);
  });

  test("are not asked where enough have answered, where it fails for good, or when the caller gives up", async () => {
    const site = new Site();
    const few = site.run(SELECTED, { quorum: 1 });
    site.asked[0]?.answer(3);
    const { answers, completeness } = await few;
    expect([answers.length, completeness.answered]).toEqual([1, 1]);
    expect(completeness.outcomes.map(({ shard, attempts }) => [shard, attempts])).toEqual([
      [0, 1],
      [1, 0],
      [2, 0],
      [3, 1],
    ]);
    await settled();
    expect([site.shards, site.open, site.timers]).toEqual([[3, 0], 0, 0]);

    const failing = new Site();
    const failed = expect(failing.run(SELECTED)).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    failing.asked[0]?.fail(lost());
    await failed;
    await settled();
    expect([failing.shards, failing.open, failing.timers]).toEqual([[3, 0], 0, 0]);

    const leaving = new Site();
    const left = expect(leaving.run(SELECTED)).rejects.toMatchObject({ code: "ERR_ABORTED" });
    leaving.abort();
    await left;
    await settled();
    await leaving.time.advance(TIMEOUT_MS);
    expect([leaving.shards, leaving.open, leaving.timers]).toEqual([[3, 0], 0, 0]);
  });

  test.each([
    [2, [3, 0, 1]],
    [3, []],
    [0, [3]],
  ])("end the search where the message of one cannot be made: shard %i", async (refused, asked) => {
    const site = new Site();
    site.refused = refused;
    const unhandled = vi.fn();
    process.on("unhandledRejection", unhandled);
    const failed = expect(site.run(SELECTED)).rejects.toMatchObject({ code: "ERR_OUT_OF_MEMORY" });
    site.asked[0]?.answer(3);
    await failed;
    await settled();
    await site.time.advance(TIMEOUT_MS);
    process.off("unhandledRejection", unhandled);
    expect(unhandled).not.toHaveBeenCalled();
    expect([site.shards, site.open, site.timers]).toEqual([asked, 0, 0]);
  });
});
