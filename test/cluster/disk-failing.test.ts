/**
 * Clusters of real threads one of whose disks fails while they serve: its syncs, or it becomes read-only. Writes there end typed, everything else
 * goes on, the shard comes back by itself, and nothing acknowledged is lost.
 */
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Cluster, type ClusterOptions, type ShardloomError, type VectorCollection } from "../../src/index.ts";
import { eventually } from "../support/cluster.ts";
import { FAILING_FILES_URL, FailingFiles } from "../support/failing-files.ts";

const MIB = 1024 * 1024;
const BAD = 1;

let root = "";
let data = "";
let files: FailingFiles;
let cluster: Cluster;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-failing-"));
  data = join(root, "data");
  files = new FailingFiles(join(root, "failing"));
});
afterEach(async () => {
  files.close();
  await cluster.close();
  await rm(root, { recursive: true });
});

async function start(options: ClusterOptions = {}): Promise<VectorCollection> {
  cluster = await Cluster.start({
    workers: 2,
    vshards: 16,
    memoryBytes: 64 * MIB,
    directory: data,
    actors: [FAILING_FILES_URL],
    requestTimeoutMs: 20_000,
    ...options,
  });
  return cluster.vectors("docs", { dimensions: 2, metric: "l2" });
}

/** So many ids of documents on a shard. */
function idsOn(shard: number, count: number): number[] {
  return Array.from({ length: 16 * count }, (_, id) => id)
    .filter((id) => cluster.shardOfId(id) === shard)
    .slice(0, count);
}

async function generations(
  docs: VectorCollection,
  ids: readonly number[],
  consistency: "strong" | "eventual" = "strong",
): Promise<unknown[]> {
  const rows = await docs.getMany(ids, { consistency });
  return rows.map((row) => row?.vector?.[1]);
}

/** Why the log of a shard fails at present, as `info` tells. */
async function logFailure(shard: number): Promise<ShardloomError | undefined> {
  return (await cluster.info()).workers[shard]?.stats?.storage?.log as ShardloomError | undefined;
}

describe.each([
  { kind: "sync", code: "ERR_IO", errno: "EIO" },
  { kind: "read-only", code: "ERR_READ_ONLY", errno: "EROFS" },
] as const)("a disk with trouble of kind $kind, of one shard", ({ kind, code, errno }) => {
  test("fails that shard's writes typed while all else goes on, and is used again when it works", {
    timeout: 90_000,
  }, async () => {
    let docs = await start();
    const [bad, good] = [idsOn(BAD, 12), idsOn(1 - BAD, 12)];
    const upsert = (id: number, generation: number): Promise<unknown> => docs.upsert({ id, vector: [id, generation] });
    for (const id of [...bad, ...good]) await upsert(id, 1);
    expect(await logFailure(BAD)).toBeUndefined();

    files.set({ kind, below: join(data, "shards", String(BAD)) });
    const [doubtful, ...certain] = bad as [number, ...number[]];
    for (let generation = 2; generation < 6; generation++) {
      const details = expect.objectContaining({ errno, written: 0, ...(generation === 2 ? { inDoubt: true } : {}) });
      await expect(upsert(doubtful, generation)).rejects.toThrow(expect.objectContaining({ code, details }));
      for (const id of good) await upsert(id, generation);
    }
    expect(await logFailure(BAD)).toMatchObject({ code, details: { errno } });
    expect(await logFailure(1 - BAD)).toBeUndefined();
    expect(await generations(docs, good)).toEqual(good.map(() => 5));
    expect((await generations(docs, bad, "eventual")).slice(1)).toEqual(certain.map(() => 1));
    const { hits } = await docs.search([0, 0], { k: 24, consistency: "eventual" });
    expect(hits).toHaveLength(24);

    files.set(undefined);
    const isWritten = (): Promise<boolean> =>
      upsert(certain[0] as number, 7).then(
        () => true,
        () => false,
      );
    await eventually("writes go on", isWritten, 30_000);
    expect(await logFailure(BAD)).toBeUndefined();
    // What was in doubt was kept in line; what was refused after it was not.
    expect(await generations(docs, [doubtful])).toEqual([2]);
    for (const id of certain) await upsert(id, 7);
    const expected = [2, ...certain.map(() => 7), ...good.map(() => 5)];
    expect(await generations(docs, [...bad, ...good])).toEqual(expected);
    // As a power cut leaves it, and from the log alone: nothing that closes makes good what no sync has kept.
    await cp(data, `${root}/image`, { recursive: true, filter: (path) => !path.endsWith("/lock") });
    await cluster.close();
    data = `${root}/image`;
    docs = await start({ documents: false });
    expect(await generations(docs, [...bad, ...good])).toEqual(expected);
  });
});
