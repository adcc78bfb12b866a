/** What a shard says that it holds: LSN and hash of one moment, however much is written. */
import { describe, expect, test } from "vitest";
import type { ReplicatedEngine } from "../../../actors/engine.ts";
import { type AuditOptions, auditAtOnce, auditShard } from "../../../actors/replication/audit-shard.ts";
import { createVirtualTime, systemScheduler } from "../../../src/runtime/scheduler.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot } from "../../../src/topology/snapshot.ts";

const VSHARDS = 8;

/** Shard 0 of two, with copies of every vshard, whose engine's hash of a vshard is its LSN. */
function shard() {
  const copies = Uint16Array.from({ length: 2 * VSHARDS }, (_, at) => (at + (at >> 1)) % 2);
  const snapshot = createSnapshot({ shards: 2, vshards: VSHARDS, replicationFactor: 2, copies });
  const source = { current: () => snapshot, learn: () => false };
  const block = createReplicaBlock(snapshot, () => false);
  const { clock } = createVirtualTime();
  const table = new ReplicaTable(block, source, () => 0);
  const lsns = new Array<number>(VSHARDS).fill(0);
  let hashed = 0;
  let onHash: (vshard: number) => void = () => undefined;
  const write = (vshard: number): void => {
    lsns[vshard] = (lsns[vshard] as number) + 1;
    if (snapshot.owners[vshard] === 0) table.publishHead(vshard, lsns[vshard], 0);
    else table.publishApplied(vshard, 0, lsns[vshard], 0);
  };
  for (let vshard = 0; vshard < VSHARDS; vshard++) write(vshard);
  const engine = {
    contentHash: (vshard: number) => {
      hashed++;
      const hash = BigInt(lsns[vshard] as number);
      onHash(vshard);
      return hash;
    },
  } as ReplicatedEngine;
  const options: AuditOptions = {
    shard: 0,
    topology: source,
    table,
    engines: [engine],
    clock,
    scheduler: systemScheduler,
  };
  return {
    options,
    write,
    lsns,
    hashed: () => hashed,
    whenHashed: (act: (vshard: number) => void) => (onHash = act),
  };
}

function isTrue({ lsn, hash }: { lsn: number; hash: string }): boolean {
  return lsn === Number.parseInt(hash, 16) && hash.length === 16;
}

describe("an audit of a shard", () => {
  test("tells every copy with its role, or those that are asked for", async () => {
    const { options } = shard();
    const contents = await auditShard(options);
    expect(contents.map(({ vshard }) => vshard)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(contents.every(isTrue)).toBe(true);
    expect(new Set(contents.map(({ role }) => role))).toEqual(new Set(["primary", "replica"]));
    expect((await auditShard(options, [3])).map(({ vshard }) => vshard)).toEqual([3]);
  });

  test("does not take two engines that hold the same for none, and needs hashes of all", async () => {
    const { options } = shard();
    const [engine] = options.engines as [ReplicatedEngine];
    const [twice] = await auditShard({ ...options, engines: [engine, engine] }, [0]);
    expect(twice?.hash).not.toBe("0".repeat(16));
    const { contentHash: _, ...without } = engine;
    await expect(auditShard({ ...options, engines: [without as ReplicatedEngine] })).rejects.toThrow(
      expect.objectContaining({ code: "ERR_UNAVAILABLE" }),
    );
  });

  test("at once tells only what holds when it is marked, also when vshards change all the time", async () => {
    for (const busy of [0, 2, VSHARDS]) {
      const { options, write, lsns, whenHashed } = shard();
      let isOver = false;
      const writing = (async () => {
        while (!isOver) {
          for (let vshard = 0; vshard < busy; vshard++) write(vshard);
          await new Promise((resolve) => setImmediate(resolve));
        }
      })();
      whenHashed(() => undefined);
      const { mark, contents } = await auditAtOnce(options, () => [...lsns]);
      isOver = true;
      await writing;
      expect(contents).toHaveLength(VSHARDS);
      for (const content of contents) {
        expect(isTrue(content)).toBe(true);
        expect(content.lsn).toBe(mark[content.vshard]);
      }
    }
  });

  test("at once leaves out what takes too long to be hashed again", async () => {
    const { options, write, whenHashed } = shard();
    const slow = { nowMs: 0 };
    const clock = { ...options.clock, nowMs: () => slow.nowMs };
    // Every hash takes 150 ms, and vshards 0 to 3 have changed by the time that it is there.
    whenHashed((vshard) => {
      slow.nowMs += 150;
      if (vshard < 4) queueMicrotask(() => write(vshard));
    });
    const { contents } = await auditAtOnce({ ...options, clock }, () => undefined);
    expect(contents.map(({ vshard }) => vshard)).toEqual([0, 4, 5, 6, 7]);
    expect(contents.every(isTrue)).toBe(true);
  });
});
