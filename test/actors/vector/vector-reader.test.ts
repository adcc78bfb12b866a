/** One-sided access: equal to what the shards answer, and never torn while a shard on another thread writes. */

import { Worker } from "node:worker_threads";
import { afterAll, describe, expect, test } from "vitest";
import { NOT_FOUND, VectorReader } from "../../../actors/vector/vector-reader.ts";
import { createArena } from "../../../native-bridge/arena.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import { Verbs } from "../../../native-bridge/verbs.ts";
import { compareIds } from "../../../src/routing/merge.ts";
import type { VectorId } from "../../../src/store/id-codec.ts";
import { hashId } from "../../../src/topology/stable-hash.ts";
import { Bed, makeContext, pack, randomFrom } from "./support.ts";

function makeReader(
  memory: WebAssembly.Memory,
  roots: () => readonly (RegionRef | undefined)[],
  shards: number,
): VectorReader {
  const context = makeContext(memory, 60, 777);
  return new VectorReader(context.arena, new Verbs(context.arena), context.kernels, {
    roots,
    shardOf: (hash) => hash % shards,
  });
}

describe("over three quiet shards", () => {
  const memory = createArena({ capacityBytes: 32 * 1024 * 1024 });
  const beds = [0, 1, 2].map((workerIndex) => new Bed({ memory, workerIndex, seed: 10 + workerIndex }));
  const next = randomFrom(8);
  const ids: VectorId[] = Array.from({ length: 700 }, (_, i) => (i % 2 ? i : `doc/${i}`));
  const vectors = new Map(ids.map((id) => [id, Float32Array.from({ length: 10 }, () => next() * 2 - 1)]));
  let roots = beds.map((bed) => bed.open({ dimensions: 10, metric: "cosine" }).root);
  const reader = makeReader(memory, () => roots, 3);
  for (const id of ids)
    (beds[hashId(id) % 3] as Bed).upsert(10, [{ id, vector: vectors.get(id) as Float32Array, payload: { id } }]);

  test("get, document and region give every vector; unknown ids are not found", () => {
    const target = new Float32Array(12);
    for (const id of ids) {
      expect(reader.get(id, target, 2)).toBe(STATUS.SUCCESS);
      expect(target.slice(2)).toEqual(vectors.get(id));
      expect(reader.version).toBeGreaterThan(0);
      const document = reader.document(id);
      expect(document?.vector).toEqual(vectors.get(id));
      expect([...(document?.payload ?? [])]).toEqual([...pack({ id })]);
      const region = reader.region(id) as RegionRef;
      expect(region.length).toBe(40);
      const copy = new Float32Array(10);
      expect(new Verbs(beds[0]?.context.arena as never).read(region, copy)).toBe(STATUS.SUCCESS);
      expect(copy).toEqual(vectors.get(id));
    }
    expect(reader.get("nobody", target)).toBe(NOT_FOUND);
    expect(reader.document(123456)).toBeUndefined();
    expect(reader.region("nobody")).toBeUndefined();
    expect(reader.get(1, new Float32Array(3))).toBe(STATUS.LOCAL_LENGTH_ERROR);
  });

  test("scanExact equals the merged exact searches of the shards", () => {
    for (let round = 0; round < 20; round++) {
      const query = Float32Array.from({ length: 10 }, () => next() * 2 - 1);
      const k = 1 + Math.floor(next() * 800);
      const merged = beds
        .flatMap((bed) => bed.search(query, k, { exact: true, includePayload: true }).hits)
        .sort((a, b) => a.score - b.score || compareIds(a.id, b.id))
        .slice(0, k);
      const scan = reader.scanExact(query, k, { includePayload: true });
      expect(scan.hits).toEqual(merged);
      expect(scan.hits.length).toBe(Math.min(k, 700));
      expect(scan.statuses).toEqual([0, 0, 0]);
      expect(scan.unread).toBe(0);
    }
  });

  test.each([
    [Float32Array.of(1), 1, "ERR_DIMENSION_MISMATCH"],
    [new Float32Array(10), 0, "ERR_INVALID_ARGUMENT"],
    [new Float32Array(10).fill(Number.NaN), 1, "ERR_NOT_FINITE"],
  ])("a bad scan %# is refused", (query, k, code) => {
    expect(() => reader.scanExact(query, k)).toThrow(expect.objectContaining({ code }));
  });

  test("a deleted id ends in STALE_CELL or NOT_FOUND once its row is another's; a dropped collection in REGION_REVOKED", () => {
    const verbs = new Verbs(beds[0]?.context.arena as never);
    const id = ids[0] as VectorId;
    const bed = beds[hashId(id) % 3] as Bed;
    const region = reader.region(id) as RegionRef;
    const target = new Float32Array(10);
    bed.upsert(10, [{ id, vector: new Float32Array(10).fill(0.5) }]);
    expect(verbs.read(region, target)).toBe(STATUS.SUCCESS); // an update keeps references
    expect(target[0]).toBe(0.5);
    bed.delete([id]);
    expect(reader.get(id, target)).toBe(NOT_FOUND);
    let other = 0;
    while (hashId(`other${other}`) % 3 !== hashId(id) % 3) other++;
    bed.upsert(10, [{ id: `other${other}`, vector: new Float32Array(10).fill(1) }]);
    expect(verbs.read(region, target)).toBe(STATUS.STALE_CELL);
    for (const each of beds) each.drop();
    expect(verbs.read(region, target)).toBe(STATUS.REGION_REVOKED);
    expect(reader.get(ids[5] as VectorId, target)).toBe(STATUS.REGION_REVOKED);
    expect(reader.scanExact(new Float32Array(10), 1).statuses).toEqual([
      STATUS.REGION_REVOKED,
      STATUS.REGION_REVOKED,
      STATUS.REGION_REVOKED,
    ]);
    roots = beds.map((each) => each.open({ dimensions: 10, metric: "cosine" }, 2).root);
    expect(reader.get(ids[5] as VectorId, target)).toBe(NOT_FOUND);
    expect(reader.scanExact(new Float32Array(10), 1).hits).toEqual([]);
  });
});

describe("while the shard writes on another thread", () => {
  let worker: Worker | undefined;
  afterAll(async () => {
    await worker?.terminate();
  });

  test("no torn vector, no vector of another id, no lost id; updates are seen", async () => {
    const memory = createArena({ capacityBytes: 64 * 1024 * 1024 });
    const control = new Int32Array(new SharedArrayBuffer(16)); // stop | rounds
    worker = new Worker(new URL("./writer-worker.js", import.meta.url), {
      workerData: { memory, control: control.buffer },
    });
    const root = await new Promise<RegionRef>((resolve, reject) => {
      worker?.once("message", resolve);
      worker?.once("error", reject);
    });
    const reader = makeReader(memory, () => [root], 1);
    const dimensions = 96;
    const target = new Float32Array(dimensions);
    const versions = new Map<number, number>();
    let reads = 0;
    let torn = 0;
    let notFound = 0;
    let mismatched = 0;
    let changed = 0;
    let retries = 0;
    let scans = 0;
    const [least, most] = [Number(process.env["STRESS_MS"] ?? 500), 60_000];
    const beganMs = performance.now();
    const isEnough = (): boolean =>
      reads > 10_000 && changed > 1_000 && scans > 50 && Atomics.load(control, 1) > 100 && retries < reads / 10;
    for (let ms = 0; ms < least || (!isEnough() && ms < most); ms = performance.now() - beganMs) {
      for (let id = 0; id < 200; id++) {
        const status = reader.get(id, target);
        if (status === STATUS.RETRY_EXCEEDED) {
          retries++;
          continue;
        }
        if (status === NOT_FOUND) {
          if (id < 100) notFound++; // ids below 100 are only ever updated
          continue;
        }
        expect(status).toBe(STATUS.SUCCESS);
        reads++;
        // Component i of id n at step s is n * 1000 + s % 1000, the same for all i.
        const value = target[0] as number;
        if (Math.floor(value / 1000) !== id || target.some((component) => component !== value)) torn++;
        if (reader.version !== versions.get(id)) changed++;
        if (reader.version < (versions.get(id) ?? 0)) torn++;
        versions.set(id, reader.version);
      }
      const probe = Math.floor(reads % 100);
      const result = reader.scanExact(new Float32Array(dimensions).fill(probe * 1000 + 500), 5, {
        includeVector: true,
        includePayload: true,
      });
      scans++;
      if (result.statuses[0] === STATUS.SUCCESS) {
        for (const hit of result.hits) {
          const value = hit.vector?.[0] as number;
          if (hit.vector?.some((component) => component !== value) || Math.floor(value / 1000) !== hit.id) torn++;
          const score = dimensions * (value - probe * 1000 - 500) ** 2;
          if (Math.abs(hit.score - score) > score * 1e-5) mismatched++;
          if (hit.payload?.length !== pack({ value, pad: "p".repeat(value % 300) }).length) mismatched++;
        }
      }
    }
    Atomics.store(control, 0, 1);
    expect({ torn, notFound, mismatched }).toEqual({ torn: 0, notFound: 0, mismatched: 0 });
    expect(reads).toBeGreaterThan(10_000);
    expect(changed).toBeGreaterThan(1_000);
    expect(scans).toBeGreaterThan(50);
    expect(Atomics.load(control, 1)).toBeGreaterThan(100);
    expect(retries).toBeLessThan(reads / 10);
  });
});
