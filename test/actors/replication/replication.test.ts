/** Copies over real threads: what is written reaches them, reads from them are as fresh as asked, and nothing acknowledged is lost. */
import { describe, expect, test } from "vitest";
import type { ShardloomError } from "../../../src/errors.ts";
import { CONSISTENCY, REFUSAL, SCOPE } from "../../../src/wire/routed-codec.ts";
import { eventually } from "../../support/cluster.ts";
import { ANY_COPY, doc, type ReplicatedOptions, ReplicatedStage } from "../../support/replicated.ts";

async function staged(options: ReplicatedOptions, body: (stage: ReplicatedStage) => Promise<void>): Promise<void> {
  const stage = await ReplicatedStage.start(options);
  try {
    await body(stage);
  } finally {
    await stage.close();
  }
}

const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, at) => from + at);

describe("a write", () => {
  test("is on all copies, with equal versions, when all have acknowledged it", async () => {
    await staged({ workers: 3, replicationFactor: 3 }, async (stage) => {
      await stage.open();
      const ids = range(300);
      for (const shard of [0, 1, 2]) {
        const own = ids.filter((id) => stage.snapshot.owners[stage.vshardOf(id)] === shard);
        const { value, routed } = await stage.upsert(
          shard,
          own.map((id) => doc(id)),
          3,
        );
        expect(value).toMatchObject({ count: own.length, inserted: own.length });
        const written = new Set(own.map((id) => stage.vshardOf(id)));
        expect(new Set(routed.written.vshards)).toEqual(written);
        expect(routed.written.vshards).toHaveLength(written.size);
        // Acknowledged by all: no copy may lack it now.
        for (const [at, vshard] of routed.written.vshards.entries())
          for (const copy of stage.copiesOf(vshard))
            expect(stage.table.appliedLsn(vshard, copy)).toBeGreaterThanOrEqual(routed.written.lsns[at] as number);
        for (const copy of [0, 1, 2]) {
          const { value: found } = await stage.get(copy, own, ANY_COPY);
          expect(found.every((stored) => stored !== undefined)).toBe(true);
        }
      }
      expect(await stage.assertEqualCopies(ids)).toBe(300);
    });
  });

  test("of one acknowledgement reaches the copies by itself, deletes and updates included", async () => {
    await staged({ workers: 3, replicationFactor: 2 }, async (stage) => {
      const docs = await stage.open();
      const ids = range(400);
      await docs.upsert(ids.map((id) => doc(id)).map(({ id, vector }) => ({ id, vector })));
      await docs.upsert(range(100).map((id) => ({ id, vector: doc(id, 5).vector })));
      expect(await docs.delete(range(50, 200))).toBe(50);
      await stage.level();
      expect(await stage.assertEqualCopies(ids)).toBe(350);
    });
  });

  test("that more copies shall acknowledge than there are is refused, and nothing is written", async () => {
    await staged({ workers: 2, replicationFactor: 2 }, async (stage) => {
      await stage.open();
      const [id = 0] = stage.idsOn(0, 1);
      await expect(stage.upsert(0, [doc(id)], 3)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
      expect((await stage.count(0, ANY_COPY)).value).toBe(0);
    });
  });

  test("to a shard that is not the primary is refused", async () => {
    await staged({ workers: 2, replicationFactor: 2 }, async (stage) => {
      await stage.open();
      const [id = 0] = stage.idsOn(0, 1);
      await expect(stage.upsert(1, [doc(id)], 1)).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
      expect((await stage.count(0, ANY_COPY)).value + (await stage.count(1, ANY_COPY)).value).toBe(0);
    });
  });

  test("ends with ERR_QUORUM while a copy is blocked, is in doubt, and reaches the copy later", async () => {
    await staged({ workers: 2, replicationFactor: 2 }, async (stage) => {
      await stage.open();
      const ids = stage.idsOn(0, 20);
      await stage.upsert(
        0,
        ids.slice(0, 10).map((id) => doc(id)),
        2,
      );
      const blocked = stage.saboteurOn(1).block(1_500);
      const failure = await stage
        .upsert(
          0,
          ids.slice(10).map((id) => doc(id)),
          2,
          400,
        )
        .catch((error: unknown) => error);
      expect((failure as ShardloomError).code).toBe("ERR_QUORUM");
      // The primary has it all the same.
      expect((await stage.get(0, ids.slice(10), ANY_COPY)).value.filter((stored) => stored !== undefined)).toHaveLength(
        10,
      );
      const vshard = stage.vshardOf(ids[10] as number);
      const lag = stage.table.lag(vshard, 1);
      expect(lag?.lagMs).toBeGreaterThan(300);
      await blocked;
      await stage.level();
      expect(stage.table.lag(vshard, 1)?.lagMs).toBe(0);
      expect(await stage.assertEqualCopies(ids)).toBe(20);
    });
  });

  test("does not wait for the third copy when two acknowledgements are enough", async () => {
    await staged({ workers: 3, replicationFactor: 3 }, async (stage) => {
      await stage.open();
      const ids = stage.idsOn(0, 10);
      await stage.upsert(0, [doc(ids[0] as number)], 3);
      const blocked = stage.saboteurOn(2).block(1_000);
      let blocking = true;
      const done = blocked.then(() => {
        blocking = false;
      });
      await stage.upsert(
        0,
        ids.map((id) => doc(id)),
        2,
      );
      expect(blocking).toBe(true);
      await done;
      await stage.level();
      expect(await stage.assertEqualCopies(ids)).toBe(10);
    });
  });
});

describe("a copy that falls behind", () => {
  test("further than the log reaches is filled by a snapshot, and rows that are gone go there too", async () => {
    await staged({ workers: 2, replicationFactor: 2, vshards: 2 }, async (stage) => {
      await stage.open();
      const ids = stage.idsOn(0, 600);
      const id = ids[0] as number;
      const vshard = stage.vshardOf(id);
      await stage.upsert(
        0,
        ids.map((other) => doc(other)),
        2,
      );
      const done = stage.saboteurOn(1).block(3_000);
      await stage.remove(0, ids.slice(400), 1);
      // One entry each: more than the log of a vshard keeps.
      for (let from = 0; from < 4_500; from += 250)
        await Promise.all(range(250, from).map((generation) => stage.upsert(0, [doc(id, generation)], 1)));
      expect(stage.table.head(vshard) - stage.table.appliedLsn(vshard, 1)).toBeGreaterThan(4_096);
      await done;
      await stage.level();
      expect(await stage.assertEqualCopies(ids)).toBe(400);
    });
  });

  test("by documents with as much metadata as there may be gets them all", async () => {
    await staged({ workers: 2, replicationFactor: 2, memoryBytes: 512 * 1024 * 1024 }, async (stage) => {
      const docs = await stage.open();
      const ids = stage.idsOn(0, 12);
      const text = "x".repeat(65_000);
      for (const id of ids) await docs.upsert({ id, vector: doc(id).vector, payload: { text } });
      await stage.level();
      await stage.kill(1);
      await docs.delete(ids.slice(6));
      await stage.level();
      expect(await stage.assertEqualCopies(ids)).toBe(6);
    });
  });
});

describe("a read from a copy", () => {
  test("that must be strong is refused, one of any freshness is answered", async () => {
    await staged({ workers: 2, replicationFactor: 2 }, async (stage) => {
      await stage.open();
      const ids = stage.idsOn(0, 5);
      await stage.upsert(
        0,
        ids.map((id) => doc(id)),
        2,
      );
      const vshards = Uint16Array.from(new Set(ids.map((id) => stage.vshardOf(id))));
      const strong = await stage.get(1, ids, { consistency: CONSISTENCY.STRONG, scope: SCOPE.LISTED, vshards });
      expect(strong.routed.refused.map(({ vshard }) => vshard)).toEqual([...vshards]);
      expect(strong.routed.refused.every(({ reason }) => reason === REFUSAL.NOT_OWNER)).toBe(true);
      expect(strong.value).toEqual(ids.map(() => undefined));
      const any = await stage.get(1, ids, { consistency: CONSISTENCY.EVENTUAL, scope: SCOPE.LISTED, vshards });
      expect(any.routed.refused).toEqual([]);
      expect(any.value.map((stored) => stored?.vector?.[0])).toEqual(ids);
    });
  });

  test("of a session or with a bound is refused while the copy is behind, and answered once it is level", async () => {
    await staged({ workers: 2, replicationFactor: 2 }, async (stage) => {
      await stage.open();
      const [id = 0] = stage.idsOn(0, 1);
      const vshard = stage.vshardOf(id);
      await stage.upsert(0, [doc(id)], 2);
      const release = stage.saboteurOn(1).block(2_000);
      await eventually("its thread is blocked", () => {
        const beat = stage.control.heartbeats()[1];
        return beat?.activity === "js" && beat.sinceMs < stage.coordinator.nowMs() - 5;
      });
      const { routed } = await stage.upsert(0, [doc(id, 1)], 1);
      const lsn = routed.written.lsns[0] as number;
      expect(routed.written.vshards[0]).toBe(vshard);
      const vshards = Uint16Array.of(vshard);
      const minima = { vshards, lsns: Float64Array.of(lsn) };
      // Judged here, by the table that the shard judges by: the copy's thread is blocked.
      expect(stage.table.appliedLsn(vshard, 1)).toBeLessThan(lsn);
      const session = { consistency: CONSISTENCY.SESSION, scope: SCOPE.LISTED, vshards, minima } as const;
      await release;
      await stage.level();
      expect((await stage.get(1, [id], session)).routed.refused).toEqual([]);
      const beyond = { ...session, minima: { vshards, lsns: Float64Array.of(lsn + 1) } };
      const behind = await stage.get(1, [id], beyond);
      expect(behind.routed.refused).toEqual([{ vshard, reason: REFUSAL.BEHIND }]);
      expect(behind.value).toEqual([undefined]);
      // A primary that says it is far ahead makes the copy stale.
      stage.table.publishHead(vshard, lsn + 5, stage.coordinator.nowMs());
      const bound = { consistency: CONSISTENCY.BOUNDED_STALENESS, scope: SCOPE.LISTED, vshards } as const;
      const stale = await stage.get(1, [id], { ...bound, maxStalenessMs: 0 });
      expect(stale.routed.refused).toEqual([{ vshard, reason: REFUSAL.STALE }]);
      const loose = await stage.get(1, [id], { ...bound, maxStalenessMs: 60_000 });
      expect(loose.routed.refused).toEqual([]);
      expect(loose.value[0]?.vector?.at(-1)).toBe(1);
    });
  });

  test("answers for the vshards that are asked for and no others, scanned or through the index", async () => {
    await staged({ workers: 2, replicationFactor: 2, memoryBytes: 512 * 1024 * 1024 }, async (stage) => {
      const docs = await stage.open("docs", { scanRows: 100 });
      const ids = range(3_000);
      await docs.upsert(ids.map((id) => ({ id, vector: doc(id).vector })));
      await stage.level();
      await docs.indexed();
      const vshards = Uint16Array.of(3, 4, 9);
      const wanted = ids.filter((id) => vshards.includes(stage.vshardOf(id)));
      const some = { consistency: CONSISTENCY.EVENTUAL, scope: SCOPE.LISTED, vshards } as const;
      const query = doc(1_500).vector;
      const nearest = wanted.toSorted((a, b) => Math.abs(a - 1_500) - Math.abs(b - 1_500) || a - b).slice(0, 20);
      for (const shard of [0, 1]) {
        expect((await stage.count(shard, some)).value).toBe(wanted.length);
        expect((await stage.search(shard, query, 20, some)).value).toEqual(nearest);
        expect((await stage.search(shard, query, 20, some, false)).value).toHaveLength(20);
        expect((await stage.search(shard, query, wanted.length + 10, some, false)).value).toHaveLength(wanted.length);
        expect((await stage.count(shard, ANY_COPY)).value).toBe(3_000);
        const primary = await stage.count(shard, { consistency: CONSISTENCY.STRONG, scope: SCOPE.PRIMARY });
        expect(primary.value).toBe(ids.filter((id) => stage.snapshot.owners[stage.vshardOf(id)] === shard).length);
      }
      // A write between two reads of the same set is seen by the second.
      await stage.upsert(stage.copiesOf(3)[0] as number, [doc(stageId(stage, 3, 10_000))], 2);
      for (const shard of [0, 1]) expect((await stage.count(shard, some)).value).toBe(wanted.length + 1);
      expect(await docs.count()).toBe(3_001);
    });
  });
});

describe("a worker that is killed", () => {
  test("as replica, idle or under writes, catches up and is equal", async () => {
    await staged({ workers: 2, replicationFactor: 2 }, async (stage) => {
      const docs = await stage.open();
      const ids = range(600);
      await docs.upsert(range(300).map((id) => ({ id, vector: doc(id).vector })));
      await stage.level();
      const killed = stage.kill(1);
      const own = stage.idsOn(0, 100, 300);
      for (const id of own) await stage.upsert(0, [doc(id)], 1);
      await stage.remove(0, stage.idsOn(0, 20), 1);
      await killed;
      await stage.level();
      expect(await stage.assertEqualCopies([...new Set([...ids, ...own])])).toBe(300 + 100 - 20);
    });
  });

  test("as primary, in the middle of writes: no write that all copies acknowledged is lost, copies end equal", async () => {
    for (const round of [0, 1, 2]) {
      await staged({ workers: 2, replicationFactor: 2, vshards: 4 }, async (stage) => {
        await stage.open();
        const ids = stage.idsOn(0, 400);
        const acknowledged = new Map<number, number>();
        let generation = 0;
        let running = true;
        const writer = async (lane: number): Promise<void> => {
          while (running) {
            generation++;
            const own = generation;
            const batch = ids.filter((_, at) => at % 8 === lane).slice(0, 5 + (own % 40));
            const written = await stage
              .upsert(
                0,
                batch.map((id) => doc(id, own)),
                2,
              )
              .then(
                () => true,
                () => false,
              );
            if (written) for (const id of batch) acknowledged.set(id, own);
          }
        };
        const writers = Promise.all(range(8).map(writer));
        await eventually("some writes", () => acknowledged.size > 20 + 30 * round);
        await stage.kill(0);
        await eventually("writes to the next worker", () => generation > 60 + 30 * round);
        running = false;
        await writers;
        await stage.level();
        await stage.assertEqualCopies(ids);
        for (const shard of [0, 1]) {
          const list = [...acknowledged.keys()];
          const { value } = await stage.get(shard, list, ANY_COPY);
          for (const [at, stored] of value.entries())
            expect(stored?.vector?.at(-1)).toBeGreaterThanOrEqual(acknowledged.get(list[at] as number) as number);
        }
      });
    }
  });

  test("both at once: what all had acknowledged is there, and copies end equal", async () => {
    await staged({ workers: 3, replicationFactor: 2 }, async (stage) => {
      await stage.open();
      const ids = range(300);
      for (const shard of [0, 1, 2]) {
        const own = ids.filter((id) => stage.snapshot.owners[stage.vshardOf(id)] === shard);
        await stage.upsert(
          shard,
          own.map((id) => doc(id)),
          2,
        );
      }
      const both = [stage.kill(0), stage.kill(1)];
      await Promise.all(both);
      await stage.level();
      expect(await stage.assertEqualCopies(ids)).toBe(300);
      const [id = 0] = stage.idsOn(1, 1, 1_000);
      await stage.upsert(1, [doc(id)], 2);
      expect(await stage.assertEqualCopies([...ids, id])).toBe(301);
    });
  });
});

/** The first id from `from` on of a vshard. */
function stageId(stage: ReplicatedStage, vshard: number, from: number): number {
  for (let id = from; ; id++) if (stage.vshardOf(id) === vshard) return id;
}
