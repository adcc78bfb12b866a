/**
 * What a cluster on a directory has in its next life without deriving it again, and what a backup has that was taken while it served.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Cluster, type ClusterOptions, type VectorCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { AcknowledgedWrites } from "../support/acknowledged.ts";
import { eventually, randomVector } from "../support/cluster.ts";

const MIB = 1024 * 1024;
const DIMENSIONS = 8;
const SEED = Number(process.env["SEED"] ?? 1);
const DOCUMENTS = 600;

let root = "";
let directory = "";
let clusters: Cluster[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-restart-"));
  directory = join(root, "data");
});
afterEach(async () => {
  await Promise.all(clusters.map((cluster) => cluster.close()));
  clusters = [];
  await rm(root, { recursive: true });
});

async function start(path: string, options: ClusterOptions = {}): Promise<Cluster> {
  const cluster = await Cluster.start({
    workers: 2,
    vshards: 16,
    memoryBytes: 128 * MIB,
    directory: path,
    requestTimeoutMs: 20_000,
    ...options,
  });
  clusters.push(cluster);
  return cluster;
}

const VECTORS = { dimensions: DIMENSIONS, metric: "l2", scanRows: 50 } as const;
const TEXTS = { fields: ["title", "body"], language: "english", positions: true } as const;

describe.each([1, 2])("a cluster of %i copies in its next life", (replicationFactor) => {
  test("has its documents, index and postings at once, and sessions go on", { timeout: 120_000 }, async () => {
    const random = createSeededRandom(SEED);
    const first = await start(directory, { replicationFactor });
    const docs = await first.vectors("docs", VECTORS);
    const notes = await first.text("notes", TEXTS);
    const session = first.session();
    const vectors = Array.from({ length: DOCUMENTS }, () => randomVector(random, DIMENSIONS));
    await docs.upsert(
      vectors.map((vector, id) => ({ id, vector, payload: { odd: id % 2 } })),
      { session },
    );
    await docs.delete([1, 2, 3], { session });
    const bodyOf = (id: number): string =>
      `running dogs number${id} ${id % 3 === 0 ? "sleep under old trees" : "bark"}`;
    await notes.upsert(
      Array.from({ length: DOCUMENTS }, (_, id) => ({
        id: `n${id}`,
        fields: { title: `note ${id}`, body: bodyOf(id) },
      })),
      { session },
    );
    await notes.delete(["n1", "n2"], { session });
    await docs.indexed();
    const queries = vectors.slice(10, 20);
    const ask = async (collection: VectorCollection) =>
      Promise.all(queries.map(async (query) => (await collection.search(query, { k: 5 })).hits));
    const expected = await ask(docs);
    const textsOf = async (cluster: Cluster) => {
      const collection = await cluster.text("notes");
      const words = ["dog run", '"old trees"', "sleep", "number17"];
      return Promise.all(words.map(async (word) => (await collection.search(word, { k: 20 })).hits));
    };
    const expectedTexts = await textsOf(first);
    expect(expectedTexts.map((hits) => hits.length)).toEqual([20, 20, 20, 1]);
    const rows = (await docs.status()).map((shard) => shard.rows);
    await first.close();

    const second = await start(directory, { replicationFactor });
    const again = await second.vectors("docs", VECTORS);
    // The first that is asked of it.
    const status = await again.status();
    expect(status.map((shard) => shard.rows)).toEqual(rows);
    expect(status.map((shard) => [shard.unindexed, shard.indexed > 0])).toEqual(status.map(() => [0, true]));
    expect((await (await second.text("notes")).status()).map(({ unindexed }) => unindexed)).toEqual([0, 0]);
    expect(await ask(again)).toEqual(expected);
    expect(await textsOf(second)).toEqual(expectedTexts);
    expect(await again.count({ filter: { odd: 1 } })).toBe(DOCUMENTS / 2 - 2);
    // What was written under it is there; so a copy that has it all answers.
    const token = second.session(session.toString());
    expect((await again.get(17, { session: token }))?.vector).toEqual(vectors[17]);
    const before = token.toString();
    await again.upsert({ id: 17, vector: vectors[18] as Float32Array }, { session: token });
    expect(token.toString()).not.toBe(before);
    expect((await again.get(17, { session: token, consistency: "session" }))?.vector).toEqual(vectors[18]);
    if (replicationFactor > 1) expect(await second.audit()).toMatchObject({ equal: true, differing: 0 });
  });
});

describe.each([1, 2])("a cluster of %i copies that serves", (replicationFactor) => {
  test("is backed up, and restored to something between what was acknowledged before and what was tried after", {
    timeout: 120_000,
  }, async () => {
    const cluster = await start(directory, { replicationFactor, snapshotBytes: 128 * 1024 });
    const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
    const written = new AcknowledgedWrites({
      ids: Array.from({ length: 200 }, (_, id) => id),
      writers: 3,
      documentOf: (id, generation) => ({ id, vector: [generation, id, 0, 0], payload: { filling: "x".repeat(500) } }),
      generationOf: (vector) => vector[0] as number,
      timeoutMs: 20_000,
    });
    written.start(() => docs);
    await eventually("some writes", () => written.acknowledgements > 100, 60_000);
    await written.stop();
    // What is acknowledged before it begins must be in it; what is tried later may be.
    written.start(() => docs);
    const least = written.acknowledged();
    expect(least.size).toBeGreaterThan(0);
    const target = join(root, "backup");
    const report = await cluster.snapshot(target);
    expect(report).toMatchObject({ shards: 2, hashedVshards: 16 * replicationFactor });
    const before = written.acknowledgements;
    await eventually("writes go on", () => written.acknowledgements > before + 20, 60_000);
    await written.stop();
    await written.check(docs);
    expect([...written.codes]).toEqual([]);

    const into = join(root, "restored");
    const restored = await Cluster.restore(target, into, { cluster: { memoryBytes: 128 * MIB } });
    expect(restored).toMatchObject({ shards: 2, verifiedVshards: 16 });
    const copy = await start(into, { replicationFactor });
    const copied = await copy.vectors("docs");
    const found = await copied.getMany(Array.from({ length: 200 }, (_, id) => id));
    expect(found.filter((row) => row !== undefined).length).toBe(await copied.count());
    const live = await docs.getMany(Array.from({ length: 200 }, (_, id) => id));
    for (const [id, row] of found.entries()) {
      const generation = row?.vector?.[0] ?? 0;
      expect(generation, `document ${id}`).toBeGreaterThanOrEqual(least.get(id) ?? 0);
      expect(generation, `document ${id}`).toBeLessThanOrEqual(live[id]?.vector?.[0] ?? 0);
    }
    if (replicationFactor > 1) expect(await copy.audit()).toMatchObject({ equal: true });
    // It is a cluster as any: written to, and started again.
    await copied.upsert({ id: 1_000, vector: [1, 2, 3, 4] });
    await copy.close();
    expect((await (await (await start(into, { replicationFactor })).vectors("docs")).get(1_000))?.vector?.[3]).toBe(4);
  });

  test("has backups of which no byte may change", { timeout: 120_000 }, async () => {
    const random = createSeededRandom(SEED + replicationFactor);
    const cluster = await start(directory, { replicationFactor });
    const docs = await cluster.vectors("docs", { dimensions: 4 });
    await docs.upsert(Array.from({ length: 100 }, (_, id) => ({ id, vector: [id + 1, 1, 0, 0] })));
    const target = join(root, "backup");
    await cluster.snapshot(target);
    const entries = await readdir(target, { recursive: true, withFileTypes: true });
    const paths = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
    expect(paths.length).toBeGreaterThan(2);
    for (const [at, path] of paths.entries()) {
      const whole = await readFile(path);
      const bad = Uint8Array.from(whole);
      const place = Math.floor(random.float() * whole.length);
      bad[place] = (bad[place] as number) ^ (1 << (random.u32() % 8));
      await writeFile(path, bad);
      const outcome = Cluster.restore(target, join(root, `refused-${at}`), { verify: false });
      await expect(outcome, `byte ${place} of ${path}`).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_(CORRUPT|UNSUPPORTED_FORMAT)$/) }),
      );
      await writeFile(path, whole);
    }
    await Cluster.restore(target, join(root, "taken"), { cluster: { memoryBytes: 128 * MIB } });
  });
});
