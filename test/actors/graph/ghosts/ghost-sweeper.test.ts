/** The sweeper under virtual time: its rate in every span, lost and late answers, and that it stops. */
import { describe, expect, test } from "vitest";
import { GHOST_STATUS, type GhostReply } from "../../../../actors/graph/ghosts/ghost-codec.ts";
import { GhostSweeper, type GhostSweeperOptions } from "../../../../actors/graph/ghosts/ghost-sweeper.ts";
import { GhostTable } from "../../../../actors/graph/ghosts/ghost-table.ts";
import type { VertexKey } from "../../../../actors/graph/vertex-key.ts";
import { createVirtualTime, type VirtualTime } from "../../../../src/runtime/scheduler.ts";

interface Scene {
  readonly time: VirtualTime;
  readonly table: GhostTable;
  readonly sweeper: GhostSweeper;
  /** When each ghost was asked about. */
  readonly asked: { readonly atMs: number; readonly owner: number; readonly keys: readonly VertexKey[] }[];
  readonly gone: (readonly [VertexKey, number])[];
}

type Verify = (keys: readonly VertexKey[]) => Promise<GhostReply>;

const allExist: Verify = (keys) => Promise.resolve({ ownerEpoch: 1, statuses: keys.map(() => GHOST_STATUS.exists) });

function scene(ghosts: number, verify: Verify, options: Partial<GhostSweeperOptions> = {}): Scene {
  const time = createVirtualTime();
  const table = new GhostTable({ ttlMs: 3000, clock: time.clock });
  for (let key = 0; key < ghosts; key++) table.acquire(key, key % 3, 1);
  const asked: Scene["asked"] = [];
  const gone: Scene["gone"] = [];
  const sweeper = new GhostSweeper({
    table,
    clock: time.clock,
    scheduler: time.scheduler,
    verify: (owner, keys) => {
      asked.push({ atMs: time.clock.nowMs(), owner, keys });
      return verify(keys);
    },
    onGone: (key, references) => gone.push([key, references]),
    checksPerSecond: 100,
    ...options,
  });
  return { time, table, sweeper, asked, gone };
}

const total = (asked: Scene["asked"]): number => asked.reduce((sum, { keys }) => sum + keys.length, 0);

describe("a ghost sweeper", () => {
  test("asks about every ghost in turn, no faster than it may in any second, one message an owner", async () => {
    const { time, table, sweeper, asked } = scene(250, allExist);
    sweeper.start();
    await time.advance(999);
    expect(asked).toEqual([]); // nothing is due before a third of the time
    await time.advance(4001);
    for (const { atMs: fromMs } of asked) {
      const span = asked.filter(({ atMs }) => atMs >= fromMs && atMs < fromMs + 1000);
      expect(total(span)).toBeLessThanOrEqual(110);
    }
    expect(total(asked)).toBeGreaterThan(380);
    expect(new Set(asked.flatMap(({ keys }) => keys)).size).toBe(250);
    for (const { owner, keys } of asked) for (const key of keys) expect((key as number) % 3).toBe(owner);
    const sweeps = new Set(asked.map(({ atMs }) => atMs)).size;
    expect(asked.length).toBeLessThanOrEqual(sweeps * 3);
    expect(sweeper.counters()).toMatchObject({ gone: 0, unknown: 0, outdated: 0, kept: total(asked) });
    expect(table.size).toBe(250);
    sweeper.stop();
    const before = asked.length;
    await time.advance(5000);
    expect(asked.length).toBe(before);
    expect(time.pending()).toBe(0);
  });

  test("makes up for nothing when it was late", async () => {
    const { time, sweeper, asked } = scene(1000, allExist);
    sweeper.start();
    await time.advance(1500);
    const before = total(asked);
    // The thread was held for ten seconds: the clock has moved, and one sweep is due.
    (time.clock as unknown as { setMs(ms: number): void }).setMs(11_500);
    await time.advance(100);
    expect(total(asked) - before).toBeLessThanOrEqual(20);
    sweeper.stop();
  });

  test("tells of vertices that are gone, with the edges that led to them", async () => {
    const { time, table, sweeper, gone } = scene(10, (keys) =>
      Promise.resolve({
        ownerEpoch: 1,
        statuses: keys.map((key) => (key === 4 ? GHOST_STATUS.gone : GHOST_STATUS.exists)),
      }),
    );
    table.acquire(4, 1, 1);
    sweeper.start();
    await time.advance(3000);
    expect(gone).toEqual([[4, 2]]);
    expect(table.size).toBe(9);
    sweeper.stop();
  });

  test("keeps ghosts whose answers are lost, refused, short or from elsewhere, and asks again", async () => {
    let turn = 0;
    const { time, table, sweeper, gone, asked } = scene(1, (keys) => {
      turn++;
      if (turn === 1) return Promise.reject(new Error("lost"));
      if (turn === 2) return Promise.resolve({ ownerEpoch: 1, statuses: [] });
      if (turn === 3) return Promise.resolve({ ownerEpoch: 1, statuses: keys.map(() => GHOST_STATUS.elsewhere) });
      return allExist(keys);
    });
    sweeper.start();
    await time.advance(3500);
    expect(sweeper.counters()).toMatchObject({ kept: 0, unknown: 3 });
    await time.advance(1000);
    expect(asked.length).toBe(4);
    expect(table.pinned).toBe(1);
    expect(sweeper.counters()).toEqual({ asked: 4, kept: 1, gone: 0, unknown: 3, outdated: 0 });
    expect(gone).toEqual([]);
    sweeper.stop();
  });

  test("waits for no more answers than it may, and takes those that come after it stopped", async () => {
    const answers: (() => void)[] = [];
    const { time, sweeper, table, gone } = scene(
      100,
      (keys) => new Promise((resolve) => answers.push(() => resolve({ ownerEpoch: 1, statuses: keys.map(() => 0) }))),
      { maxInFlight: 25 },
    );
    sweeper.start();
    await time.advance(20_000);
    expect(sweeper.inFlight).toBe(25);
    expect(sweeper.counters().asked).toBe(25);
    sweeper.stop();
    table.acquire(0, 0, 1); // better news than the answer under way
    for (const answer of answers) answer();
    await time.settle();
    expect(sweeper.inFlight).toBe(0);
    expect(gone).toHaveLength(24);
    expect(sweeper.counters().outdated).toBe(1);
    expect(table.release(0)).toBe(1);
  });

  test.each([{ checksPerSecond: 0 }, { intervalMs: -1 }, { maxInFlight: Number.NaN }])("%j is refused", (options) => {
    expect(() => scene(0, allExist, options)).toThrow(/Cannot create ghost sweeper as/);
  });
});
