/** Clusters on a directory: one at a time, counted, and with their collections open again the next time. */
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { realPlatform } from "../../src/cluster-workers.ts";
import { Cluster, type ClusterOptions } from "../../src/index.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { formatCheckedJson } from "../../src/store/checked-json.ts";
import { readCollections } from "../../src/store/collection-store.ts";
import { readDataDirectory } from "../../src/store/data-directory.ts";
import { firstShardIncarnation } from "../../src/topology/member.ts";
import { saboteur } from "../support/actors.ts";
import { ACTORS_URL, eventually, keyOnShard } from "../support/cluster.ts";
import { MemoryNetwork } from "../support/memory-network.ts";

const CHILD = fileURLToPath(new URL("./directory-holder.child.js", import.meta.url));

let root = "";
let directory = "";
let clusters: Cluster[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-cluster-"));
  directory = join(root, "data");
});
afterEach(async () => {
  await Promise.all(clusters.map((cluster) => cluster.close()));
  clusters = [];
  await rm(root, { recursive: true });
});

async function start(options: ClusterOptions = {}): Promise<Cluster> {
  const cluster = await Cluster.start({ workers: 2, memoryBytes: 64 * 1024 * 1024, directory, ...options });
  clusters.push(cluster);
  return cluster;
}

async function contents(): Promise<Record<string, string>> {
  const names = (await readdir(directory, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const paths = names.map(({ parentPath, name }) => join(parentPath, name));
  return Object.fromEntries(
    await Promise.all(paths.map(async (path) => [path, await readFile(path, "latin1")] as const)),
  );
}

function code(name: string, details: object = {}): unknown {
  return expect.objectContaining({ code: name, details: expect.objectContaining(details) });
}

describe("a directory", () => {
  test("is made, counts the lives of its node, and numbers what belongs to them", async () => {
    for (const starts of [1, 2, 3]) {
      const cluster = await start();
      expect(await readDataDirectory(await createSystemDisk(directory))).toMatchObject({
        starts,
        node: "local",
        vshards: 64,
      });
      const incarnations = cluster.heartbeats().map(({ incarnation }) => incarnation);
      expect(incarnations).toEqual([firstShardIncarnation(starts), firstShardIncarnation(starts)]);
      expect((await readdir(directory)).includes("lock")).toBe(true);
      const docs = await cluster.vectors("docs", { dimensions: 2 });
      await docs.upsert([{ id: "a", vector: [1, starts] }]);
      expect((await docs.search([1, starts], { k: 1 })).hits[0]?.id).toBe("a");
      await cluster.close();
      expect((await readdir(directory)).includes("lock")).toBe(false);
    }
  });

  test("is used by one cluster of a process at a time, also when both start at once", async () => {
    const first = await start();
    const before = await contents();
    await expect(start()).rejects.toThrow(code("ERR_DIRECTORY_IN_USE", { pid: process.pid }));
    expect(await contents()).toEqual(before);
    await first.close();
    const both = await Promise.allSettled([start(), start(), start()]);
    expect(both.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    for (const outcome of both)
      if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code: "ERR_DIRECTORY_IN_USE" });
  });

  test("in use by a live process is refused with its number and nothing touched; killed, it is taken over with its collections", async () => {
    const child = spawn(process.execPath, [CHILD, directory], { stdio: ["ignore", "pipe", "inherit"] });
    const exited = new Promise((resolve) => child.once("exit", resolve));
    try {
      await new Promise((resolve) => child.stdout.once("data", resolve));
      const before = await contents();
      await expect(start()).rejects.toThrow(code("ERR_DIRECTORY_IN_USE", { pid: child.pid }));
      await expect(start()).rejects.toThrow(String(child.pid));
      expect(await contents()).toEqual(before);
    } finally {
      child.kill("SIGKILL");
      await exited;
    }
    const cluster = await start();
    expect((await cluster.info()).collections).toEqual(["docs"]);
    expect(await readDataDirectory(await createSystemDisk(directory))).toMatchObject({ starts: 2 });
  });

  test("of another shape, a newer format, or something else is refused, nothing touched and nothing left running", async () => {
    await (await start()).close();
    const before = await contents();
    for (const [options, name, expected, value] of [
      [{ workers: 3 }, "ownShards", [0, 1, 2], [0, 1]],
      [{ vshards: 32 }, "vshards", 32, 64],
      [{ replicationFactor: 2 }, "replicationFactor", 2, 1],
    ] as const)
      await expect(start(options)).rejects.toThrow(code("ERR_DIRECTORY_MISMATCH", { name, expected, value }));
    expect(await contents()).toEqual(before);
    await writeFile(join(directory, "shardloom.json"), formatCheckedJson(2, {}));
    const newer = await contents();
    await expect(start()).rejects.toThrow(code("ERR_UNSUPPORTED_FORMAT", { value: 2 }));
    expect(await contents()).toEqual(newer);
    await rm(join(directory, "shardloom.json"));
    await writeFile(join(directory, "photo.jpg"), "mine");
    const foreign = await contents();
    await expect(start()).rejects.toThrow(code("ERR_DIRECTORY_MISMATCH", { files: ["photo.jpg", "shards"] }));
    expect(await contents()).toEqual(foreign);
  });

  test("of which one file of a shard is of a newer format is refused, nothing touched, its starts not counted", async () => {
    const first = await start({ snapshotBytes: 16 * 1024 });
    const docs = await first.vectors("docs", { dimensions: 2 });
    const snapshots = join(directory, "shards", "1", "snapshots");
    await eventually("a snapshot", async () => {
      await docs.upsert(Array.from({ length: 100 }, (_, id) => ({ id, vector: [id, 1] })));
      return (await readdir(snapshots)).some((name) => name.endsWith(".snapshot"));
    });
    await first.close();
    const log = join(directory, "shards", "1", "log");
    const last = (paths: string[], ending: string): string =>
      paths.filter((path) => path.endsWith(ending)).at(-1) ?? "";
    const newer = (at: number, length: number) => (bytes: Buffer) => {
      bytes.writeUInt32LE(99, at);
      bytes.writeUInt32LE(crc32(bytes.subarray(0, length)), length);
      return bytes;
    };
    for (const [path, change] of [
      [join(log, last((await readdir(log)).sort(), ".segment")), newer(8, 60)],
      [join(snapshots, last((await readdir(snapshots)).sort(), ".snapshot")), newer(4, 28)],
      [join(directory, "documents", "1", "clean"), () => Buffer.from(formatCheckedJson(99, { bytes: 0, crc32: 0 }))],
    ] as const) {
      const whole = await readFile(path);
      await writeFile(path, change(Buffer.from(whole)));
      const before = await contents();
      await expect(start(), path).rejects.toThrow(code("ERR_UNSUPPORTED_FORMAT"));
      expect(await contents()).toEqual(before);
      await writeFile(path, whole);
    }
    await start();
  });

  test("is given free when the start fails later on", async () => {
    const broken = new URL("./no-such-module.js", import.meta.url);
    await expect(start({ actors: [broken] })).rejects.toThrow(code("ERR_MODULE_NOT_LOADED"));
    expect((await readdir(directory)).includes("lock")).toBe(false);
    await start();
  });
});

describe("collections of a directory", () => {
  test("are open again under their ids, without options or with the same, and refuse others", async () => {
    const first = await start();
    await first.vectors("docs", { dimensions: 4, metric: "l2" });
    await first.text("notes", { fields: { title: 2, body: 1 }, language: "english" });
    const kept = await readCollections(await createSystemDisk(directory));
    expect(kept.collections.map(({ engine, name }) => [engine, name])).toEqual([
      ["vector", "docs"],
      ["text", "notes"],
    ]);
    await first.close();

    const second = await start();
    expect((await second.info()).collections).toEqual(["docs", "notes"]);
    expect(await readCollections(await createSystemDisk(directory))).toEqual(kept);
    await expect(second.vectors("docs", { dimensions: 5 })).rejects.toThrow(
      code("ERR_COLLECTION_MISMATCH", { name: "dimensions", expected: 4, value: 5 }),
    );
    await expect(second.text("notes", { fields: { title: 1, body: 1 } })).rejects.toThrow(
      code("ERR_COLLECTION_MISMATCH"),
    );
    await second.vectors("docs", { dimensions: 4, metric: "l2" });
    const docs = await second.vectors("docs");
    await docs.upsert([{ id: 1, vector: [1, 2, 3, 4] }]);
    expect((await docs.search([1, 2, 3, 4], { k: 1 })).hits.map(({ id }) => id)).toEqual([1]);
    const target = new Float32Array(4);
    await docs.read(1, target); // one-sided: the roots are there
    expect(target).toEqual(Float32Array.of(1, 2, 3, 4));
    const notes = await second.text("notes");
    await notes.upsert([{ id: "n", fields: { title: "running", body: "dogs" } }]);
    expect((await notes.search("run dog", { k: 1 })).hits.map(({ id }) => id)).toEqual(["n"]);
    await expect(second.vectors("others")).rejects.toThrow(code("ERR_UNKNOWN_COLLECTION"));
  });

  test("that were dropped are gone, and the next of that name has another id, in every life", async () => {
    const ids = new Set<number>();
    for (let life = 0; life < 3; life++) {
      const cluster = await start();
      await expect(cluster.vectors("docs")).rejects.toThrow(code("ERR_UNKNOWN_COLLECTION"));
      await cluster.vectors("docs", { dimensions: 2 + life });
      const disk = await createSystemDisk(directory);
      const [listed] = (await readCollections(disk)).collections;
      expect(listed).toMatchObject({ name: "docs", generation: life, options: { dimensions: 2 + life } });
      ids.add(listed?.collection as number);
      expect(await Promise.all([cluster.dropVectors("docs"), cluster.dropVectors("docs")])).toEqual([true, true]);
      expect(await readCollections(disk)).toEqual({
        collections: [],
        generations: [{ engine: "vector", name: "docs", generation: life + 1 }],
      });
      expect(await cluster.dropVectors("docs")).toBe(false);
      await cluster.close();
    }
    expect(ids.size).toBe(3);
  });

  test("that could not be made are not listed", async () => {
    const cluster = await start();
    await expect(cluster.vectors("big", { dimensions: 0 })).rejects.toThrow(code("ERR_INVALID_ARGUMENT"));
    await cluster.close();
    expect((await (await start()).info()).collections).toEqual([]);
  });

  test("are open on workers that replace others, with what was written", async () => {
    const first = await start();
    await first.vectors("docs", { dimensions: 2 });
    await first.close();
    const cluster = await start({ actors: [ACTORS_URL], maxHandlerMs: 800 });
    const docs = await cluster.vectors("docs");
    await docs.upsert(Array.from({ length: 50 }, (_, id) => ({ id, vector: [id, 1] })));
    const restarted = new Promise((resolve) => cluster.once("worker-restarted", resolve));
    await cluster
      .actor(saboteur, keyOnShard(cluster, saboteur, 1))
      .block(60_000)
      .catch(() => undefined);
    await restarted;
    expect(await docs.count()).toBe(50);
    expect((await docs.search([49, 1], { k: 50 })).hits).toHaveLength(50);
  });
});

describe("a node of several", () => {
  test("of another cluster, of the same name and shape, is refused with nothing touched; a directory of before there were names is given one", async () => {
    const network = new MemoryNetwork(systemScheduler, 1);
    const members = [
      { name: "n0", shards: [0] },
      { name: "n1", shards: [1] },
    ];
    const node = async (name?: string): Promise<void> => {
      const of = name === undefined ? {} : { cluster: name };
      const nodes = { ...of, self: "n0", incarnation: 1, members, transport: network.transport("n0") };
      const options = { workers: 1, vshards: 16, memoryBytes: 64 * 1024 * 1024, directory };
      await (await Cluster.startOn({ platform: realPlatform(), nodes }, options)).close();
    };
    await node();
    await node("ours");
    expect(await readDataDirectory(await createSystemDisk(directory))).toMatchObject({ clusterName: "ours" });
    const before = await contents();
    const refused = code("ERR_DIRECTORY_MISMATCH", { name: "cluster", expected: "theirs", value: "ours" });
    await expect(node("theirs")).rejects.toThrow(refused);
    await expect(node("theirs")).rejects.toThrow('its cluster must be "theirs": current value is "ours"');
    expect(await contents()).toEqual(before);
    await node("ours");
  });

  test("has the larger of its own count and the one that it is given", async () => {
    const network = new MemoryNetwork(systemScheduler, 1);
    const members = [
      { name: "n0", shards: [0] },
      { name: "n1", shards: [1] },
    ];
    const node = async (incarnation: number): Promise<Cluster> => {
      const nodes = { self: "n0", incarnation, members, transport: network.transport("n0") };
      const options = { workers: 1, vshards: 16, memoryBytes: 64 * 1024 * 1024, directory };
      const cluster = await Cluster.startOn({ platform: realPlatform(), nodes }, options);
      clusters.push(cluster);
      return cluster;
    };
    for (const [given, expected] of [
      [1, 1],
      [1, 2],
      [9, 9],
      [1, 10],
    ] as const) {
      const cluster = await node(given);
      expect(cluster.heartbeats()[0]?.incarnation).toBe(firstShardIncarnation(expected));
      expect(cluster.members().find(({ id }) => id === "n0")?.incarnation).toBe(expected);
      await cluster.close();
    }
    await expect(start({ workers: 1, vshards: 16 })).rejects.toThrow(
      code("ERR_DIRECTORY_MISMATCH", { name: "node", expected: "local", value: "n0" }),
    );
    await eventually("nothing holds the directory", async () => !(await readdir(directory)).includes("lock"));
  });
});
