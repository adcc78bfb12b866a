/** Audits: copies at one LSN are compared, those behind are given time, and a difference is named. */
import { describe, expect, test } from "vitest";
import { AuditBook, type AuditParts, auditCopies, mergeAudits } from "../../src/cluster-audit.ts";
import { ShardloomError } from "../../src/errors.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { VshardContent } from "../../src/store/backup-manifest.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { startTestCluster } from "../support/cluster.ts";

const content = (
  vshard: number,
  lsn: number,
  hash: string,
  role: VshardContent["role"] = "replica",
): VshardContent => ({
  vshard,
  lsn,
  hash,
  role,
});

/** Shards that tell what a function says, round after round. */
function parts(
  shards: number,
  tell: (shard: number, round: number, vshard: number) => VshardContent | Error,
): AuditParts & { asked: number[][] } {
  const rounds = new Map<number, number>();
  const asked: number[][] = [];
  const control = {
    ask: <T>(call: (worker: never, shard: number) => Promise<T>): Promise<T>[] =>
      Array.from({ length: shards }, (_, shard) => {
        const round = (rounds.get(shard) ?? 0) + 1;
        rounds.set(shard, round);
        const audit = async (vshards: readonly number[]): Promise<VshardContent[]> => {
          asked.push([...vshards]);
          return vshards.map((vshard) => {
            const told = tell(shard, round, vshard);
            if (told instanceof Error) throw told;
            return told;
          });
        };
        return call({ audit } as never, shard);
      }),
  };
  const topology = createSnapshot({
    shards,
    vshards: 4,
    replicationFactor: shards,
    copies: Uint16Array.from({ length: 4 * shards }, (_, at) => at % shards),
  });
  const own = Array.from({ length: shards }, (_, shard) => shard);
  return {
    control,
    topology: () => topology,
    ownShards: own,
    clock: systemClock,
    scheduler: systemScheduler,
    asked,
  };
}

describe("a comparison", () => {
  test("names the copy that holds something else at the same LSN, and nobody who is only behind", () => {
    const book = new AuditBook();
    book.add(0, [content(5, 10, "aa", "primary")]);
    book.add(1, [content(5, 10, "aa")]);
    book.add(2, [content(5, 10, "bb")]);
    book.add(3, [content(5, 7, "cc")]);
    book.add(4, [content(5, -1, "dd")]);
    expect(book.judge(5, [0, 1, 2, 3, 4, 6]).copies.map(({ verdict, lag }) => [verdict, lag])).toEqual([
      ["same", 0],
      ["same", 0],
      ["differs", 0],
      ["behind", 3],
      ["behind", 11],
      ["silent", 0],
    ]);
  });

  test("of several nodes is made of what each has seen: what nobody looked at is never equal", async () => {
    const node = (own: number, hash: string) => ({
      ...parts(3, (shard, _, vshard) => content(vshard, 4, hash, shard === 0 ? "primary" : "replica")),
      ownShards: [own],
    });
    const audit = async (own: number, hash: string) => {
      const given = node(own, hash);
      const control: AuditParts["control"] = { ask: (call) => given.control.ask(call).slice(own, own + 1) };
      return auditCopies({ ...given, control });
    };
    const reports = await Promise.all([audit(0, "aa"), audit(1, "aa"), audit(2, "aa")]);
    const other = await audit(2, "bb");
    for (const report of reports)
      expect(report).toMatchObject({ equal: false, copies: 4, same: 4, differing: 0, elsewhere: 8 });
    expect(mergeAudits(reports)).toMatchObject({ equal: true, copies: 12, same: 12, elsewhere: 0 });
    expect(mergeAudits(reports.slice(0, 2))).toMatchObject({ equal: false, copies: 8, same: 8, elsewhere: 4 });
    expect(mergeAudits([...reports.slice(0, 2), other])).toMatchObject({
      equal: false,
      copies: 12,
      same: 8,
      differing: 4,
    });
  });

  test("remembers what was seen: copies that are never level at one time can be the same, or differ", () => {
    const book = new AuditBook();
    book.add(0, [content(1, 10, "h10", "primary")]);
    book.add(1, [content(1, 8, "h8")]);
    book.add(2, [content(1, 8, "h8")]);
    expect(book.judge(1, [0, 1, 2]).copies.map(({ verdict }) => verdict)).toEqual(["same", "behind", "behind"]);
    book.add(0, [content(1, 12, "h12", "primary")]);
    book.add(1, [content(1, 10, "h10")]);
    book.add(2, [content(1, 10, "other")]);
    expect(book.judge(1, [0, 1, 2]).copies.map(({ verdict, lag }) => [verdict, lag])).toEqual([
      ["same", 0],
      ["same", 2],
      ["differs", 2],
    ]);
  });
});

describe("an audit", () => {
  test("asks again only for what is open, until all are level", async () => {
    const given = parts(3, (shard, round, vshard) => {
      const lsn = shard === 2 && vshard === 1 ? Math.min(5, round) : 5;
      return content(vshard, lsn, `h${lsn}`, shard === 0 ? "primary" : "replica");
    });
    const report = await auditCopies(given);
    expect(report).toMatchObject({ equal: true, copies: 12, same: 12, behind: 0, differing: 0, silent: 0, rounds: 5 });
    expect(given.asked.slice(0, 3)).toEqual([
      [0, 1, 2, 3],
      [0, 1, 2, 3],
      [0, 1, 2, 3],
    ]);
    const later = given.asked.slice(3);
    expect(later.length).toBeGreaterThan(0);
    expect(later).toEqual(later.map(() => [1]));
  });

  test("ends with what is behind, by how much, and who was silent", async () => {
    const given = parts(3, (shard, _, vshard) => {
      if (shard === 1) return new ShardloomError("ERR_WORKER_LOST", "gone");
      return content(vshard, shard === 2 ? 3 : 9, "x", shard === 0 ? "primary" : "replica");
    });
    const report = await auditCopies(given, { timeoutMs: 1_000 });
    expect(report).toMatchObject({ equal: false, copies: 12, same: 4, behind: 4, silent: 4, differing: 0 });
    expect(report.vshards[0]?.copies[2]).toMatchObject({ shard: 2, lsn: 3, lag: 6, verdict: "behind" });
    expect(report.rounds).toBeGreaterThan(1);
  });

  test("tells a difference at once", async () => {
    const given = parts(2, (shard, _, vshard) =>
      content(vshard, 4, `${vshard}${vshard === 1 ? shard : ""}`, shard === 0 ? "primary" : "replica"),
    );
    const report = await auditCopies(given);
    expect(report).toMatchObject({ equal: false, same: 7, differing: 1, rounds: 1 });
    expect(report.vshards[1]?.copies).toMatchObject([
      { hash: "10", verdict: "same" },
      { hash: "11", verdict: "differs" },
    ]);
  });

  test("stops when it is told to, and fails where nothing can be hashed", async () => {
    const behind = parts(2, (shard, _, vshard) => content(vshard, shard, "x", shard === 0 ? "replica" : "primary"));
    const stopped = AbortSignal.timeout(30);
    await expect(auditCopies(behind, { signal: stopped })).rejects.toThrow(
      expect.objectContaining({ code: "ERR_ABORTED" }),
    );
    const unable = parts(2, () => new ShardloomError("ERR_UNAVAILABLE", "no hashes"));
    await expect(auditCopies(unable)).rejects.toThrow(expect.objectContaining({ code: "ERR_UNAVAILABLE" }));
  });

  test("reaches the workers of a cluster", async () => {
    await using cluster = await startTestCluster({ replicationFactor: 2 });
    const docs = await cluster.vectors("docs", { dimensions: 2 });
    await docs.upsert(
      Array.from({ length: 100 }, (_, id) => ({ id, vector: [id, 1] })),
      { acks: "all" },
    );
    const copies = 2 * cluster.topology.vshards;
    expect(await cluster.audit()).toMatchObject({ equal: true, copies, same: copies, differing: 0 });
  });
});
