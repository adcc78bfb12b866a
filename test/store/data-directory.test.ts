/** What a directory is, on the real disk and on a simulated one that loses power: counted once, and never mistaken for another. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { SimDisk } from "../../src/sim/disk.ts";
import { createFaultInjector } from "../../src/sim/injector.ts";
import { formatCheckedJson } from "../../src/store/checked-json.ts";
import { CollectionStore, readCollections } from "../../src/store/collection-store.ts";
import {
  checkDataDirectory,
  type DirectoryRecord,
  type DirectoryShape,
  readDataDirectory,
  startDataDirectory,
} from "../../src/store/data-directory.ts";
import { SteppedLoop } from "../sim/stepped-loop.ts";

const SHAPE: DirectoryShape = { node: "n0", ownShards: [0, 1], shards: 4, vshards: 64, replicationFactor: 2 };
const random = createSeededRandom(Number(process.env["SEED"] ?? 1));

let root = "";
let disk: Disk;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-directory-"));
  disk = await createSystemDisk(root);
});
afterEach(() => rm(root, { recursive: true }));

function start(
  shape: DirectoryShape = SHAPE,
  rest: { cluster?: string; leastStarts?: number; maxStarts?: number } = {},
): Promise<DirectoryRecord> {
  return startDataDirectory(disk, { shape, maxStarts: 32_767, randomU32: () => random.u32(), ...rest });
}

function code(name: string, details: object = {}): unknown {
  return expect.objectContaining({ code: name, details: expect.objectContaining(details) });
}

async function contents(): Promise<Record<string, string>> {
  const names = await readdir(root);
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await readFile(join(root, name), "latin1")] as const)),
  );
}

describe("a directory", () => {
  test("is made when it is empty, keeps its id, and counts its starts", async () => {
    expect(await readDataDirectory(disk)).toBeUndefined();
    const first = await start();
    expect(first).toMatchObject({ ...SHAPE, starts: 1, cluster: expect.stringMatching(/^[0-9a-f]{32}$/) });
    for (let starts = 2; starts < 5; starts++) expect(await start()).toEqual({ ...first, starts });
    expect(await start(SHAPE, { leastStarts: 40 })).toEqual({ ...first, starts: 40 });
    expect(await start(SHAPE, { leastStarts: 7 })).toEqual({ ...first, starts: 41 });
    expect(await readDataDirectory(disk)).toEqual({ ...first, starts: 41 });
    expect(await readdir(root)).toEqual(["shardloom.json"]);
  });

  test("of another shape or cluster is refused with both values, and nothing is touched", async () => {
    const { cluster } = await start();
    const before = await contents();
    const others: [Partial<DirectoryShape>, unknown][] = [
      [{ node: "n1" }, "n0"],
      [{ ownShards: [0, 2] }, [0, 1]],
      [{ shards: 5 }, 4],
      [{ vshards: 128 }, 64],
      [{ replicationFactor: 1 }, 2],
    ];
    for (const [other, value] of others) {
      const [[name, expected]] = Object.entries(other) as [[string, unknown]];
      const refused = code("ERR_DIRECTORY_MISMATCH", { name, expected, value });
      await expect(start({ ...SHAPE, ...other })).rejects.toThrow(refused);
      await expect(checkDataDirectory(disk, { ...SHAPE, ...other })).rejects.toThrow(refused);
      await expect(start({ ...SHAPE, ...other })).rejects.toThrow(JSON.stringify(expected));
      await expect(start({ ...SHAPE, ...other })).rejects.toThrow(JSON.stringify(value));
    }
    await expect(start(SHAPE, { cluster: "other" })).rejects.toThrow(
      code("ERR_DIRECTORY_MISMATCH", { name: "cluster" }),
    );
    expect(await contents()).toEqual(before);
    await checkDataDirectory(disk, SHAPE, cluster);
  });

  test("with files of something else is refused; what an interrupted first start left is not", async () => {
    for (const name of ["lock", "lock.0a.next", "shardloom.json.new", "collections.json", "collections.json.new"])
      await writeFile(join(root, name), "half");
    await mkdir(join(root, "lost+found"));
    expect(await readDataDirectory(disk)).toBeUndefined();
    await writeFile(join(root, "thesis.txt"), "precious");
    const before = await readdir(root);
    await expect(start()).rejects.toThrow(code("ERR_DIRECTORY_MISMATCH", { files: ["thesis.txt"] }));
    expect(await readdir(root)).toEqual(before);
    await rm(join(root, "thesis.txt"));
    expect((await start()).starts).toBe(1);
  });

  test("of a newer format is refused, and nothing is touched", async () => {
    await writeFile(join(root, "shardloom.json"), formatCheckedJson(2, { anything: 1 }));
    await writeFile(join(root, "unheard-of"), "");
    const before = await contents();
    const refused = code("ERR_UNSUPPORTED_FORMAT", { format: 1, value: 2 });
    await expect(start()).rejects.toThrow(refused);
    await expect(checkDataDirectory(disk, SHAPE)).rejects.toThrow(refused);
    await writeFile(join(root, "shardloom.json"), '{"format": 9}');
    await expect(start()).rejects.toThrow(code("ERR_UNSUPPORTED_FORMAT", { value: 9 }));
    expect({ ...(await contents()), "shardloom.json": "" }).toEqual({ ...before, "shardloom.json": "" });
  });

  test("whose file has any bit flipped, or is cut, is refused typed or says the same", async () => {
    const record = await start();
    const good = await readFile(join(root, "shardloom.json"));
    let refusals = 0;
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bad = Uint8Array.from(good);
      bad[bit >>> 3] = (bad[bit >>> 3] as number) ^ (1 << (bit & 7));
      await writeFile(join(root, "shardloom.json"), bad);
      const read = await readDataDirectory(disk).catch((error: unknown) => (error as { code: string }).code);
      if (typeof read === "string") {
        expect(read).toBe("ERR_CORRUPT"); // never a newer format, which people would look for a release for
        refusals++;
      } else expect(read).toEqual(record); // white space between members
    }
    expect(refusals).toBeGreaterThan(good.length * 4);
    for (const size of [0, 1, good.length >> 1, good.length - 3]) {
      await writeFile(join(root, "shardloom.json"), good.subarray(0, size));
      await expect(start()).rejects.toThrow(code("ERR_CORRUPT"));
    }
    const whole = formatCheckedJson(1, { cluster: "c", node: "n0" });
    await writeFile(join(root, "shardloom.json"), whole);
    await expect(start()).rejects.toThrow(code("ERR_CORRUPT"));
  });

  test("that was started as often as can be counted is refused for good", async () => {
    await start(SHAPE, { leastStarts: 32_767 });
    await expect(start()).rejects.toThrow(code("ERR_UNAVAILABLE", { starts: 32_768, maxStarts: 32_767 }));
    expect((await readDataDirectory(disk))?.starts).toBe(32_767);
  });
});

describe("collections of a directory", () => {
  const docs = { engine: "vector", name: "docs", collection: 7, generation: 0, options: { dimensions: 3 } };

  test("are there again, in whatever order they were changed", async () => {
    const store = await CollectionStore.open(disk, true);
    await Promise.all([
      store.add(docs),
      store.add({ ...docs, engine: "text", collection: 8 }),
      store.remove({ engine: "vector", name: "docs", generation: 1 }),
      store.add({ ...docs, collection: 9, generation: 1 }),
      store.remove({ engine: "vector", name: "never", generation: 0 }),
    ]);
    const kept = {
      collections: [
        { ...docs, engine: "text", collection: 8 },
        { ...docs, collection: 9, generation: 1 },
      ],
      generations: [{ engine: "vector", name: "docs", generation: 1 }],
    };
    expect(store.kept).toEqual(kept);
    expect((await CollectionStore.open(disk, false)).kept).toEqual(kept);
    // Generations never go back.
    await store.remove({ engine: "vector", name: "docs", generation: 0 });
    expect((await readCollections(disk)).generations).toEqual(kept.generations);
  });

  test("that are missing or damaged are not taken for none", async () => {
    await expect(CollectionStore.open(disk, false)).rejects.toThrow(code("ERR_CORRUPT"));
    const store = await CollectionStore.open(disk, true);
    await store.add(docs);
    const file = join(root, "collections.json");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replace('"docs"', '"dogs"'));
    await expect(CollectionStore.open(disk, false)).rejects.toThrow(code("ERR_CORRUPT"));
    await writeFile(file, formatCheckedJson(1, { collections: [{}], generations: [] }));
    await expect(CollectionStore.open(disk, false)).rejects.toThrow(code("ERR_CORRUPT"));
    await writeFile(file, formatCheckedJson(2, {}));
    await expect(CollectionStore.open(disk, false)).rejects.toThrow(code("ERR_UNSUPPORTED_FORMAT"));
  });

  test("a change that fails changes nothing, and the next one is made", async () => {
    const store = await CollectionStore.open(disk, true);
    await mkdir(join(root, "collections.json.new"));
    await expect(store.add(docs)).rejects.toThrow(code("ERR_IO"));
    expect(store.kept.collections).toEqual([]);
    await rm(join(root, "collections.json.new"), { recursive: true });
    await store.add(docs);
    expect((await readCollections(disk)).collections).toEqual([docs]);
  });
});

describe("on a disk that loses power", () => {
  const seed = Number(process.env["SEED"] ?? 1);

  /** Lives of a node, each cut off by a crash after some of the disk's steps. */
  async function lives(run: number): Promise<{ starts: number[]; lost: string[] }> {
    const loop = new SteppedLoop(seed + run);
    const chance = createSeededRandom(seed + run);
    const faults = createFaultInjector({ "disk-lost-write": 0.5, "disk-torn": 0.5 }, (name) => loop.stream(name), []);
    const simulated = new SimDisk({ node: "n0", loop, faults });
    const starts: number[] = [];
    let acknowledged: string[] = [];
    const lost: string[] = [];
    for (let life = 0; life < 6; life++) {
      const mine = simulated.mount();
      const serve = async (): Promise<void> => {
        const isNew = (await readDataDirectory(mine)) === undefined;
        const store = await CollectionStore.open(mine, isNew);
        const record = await startDataDirectory(mine, { shape: SHAPE, maxStarts: 100, randomU32: () => chance.u32() });
        starts.push(record.starts);
        const names = store.kept.collections.map(({ name }) => name);
        lost.push(...acknowledged.filter((name) => !names.includes(name)));
        acknowledged = names;
        for (let at = 0; at < 5; at++) {
          const name = `c${life}-${at}`;
          await store.add({ engine: "vector", name, collection: at, generation: 0, options: {} });
          acknowledged.push(name);
        }
      };
      let failure: Error | undefined;
      serve().catch((error: unknown) => {
        failure = error as Error;
      });
      const steps = life === 5 ? 10_000 : chance.u32() % 90;
      for (let step = 0; step < steps && failure === undefined; step++) if (!(await loop.step())) break;
      if (failure !== undefined) throw failure;
      simulated.crash();
    }
    return { starts, lost };
  }

  test("no start is counted twice, and no acknowledged collection is lost", async () => {
    let counted = 0;
    for (let run = 0; run < 100; run++) {
      const { starts, lost } = await lives(run);
      expect(lost, `SEED=${seed + run}`).toEqual([]);
      for (const [at, value] of starts.entries())
        if (at > 0) expect(value, `SEED=${seed + run}`).toBeGreaterThan(starts[at - 1] as number);
      counted += starts.length;
    }
    expect(counted).toBeGreaterThan(200);
  });
});
