/** The documents' thread over real log files that are written meanwhile, and what the next start of the node opens. */
import { rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { joinDocuments } from "../../../actors/document-codecs.ts";
import { type DocumentsThread, startDocumentsThread } from "../../../src/plane/documents-thread.ts";
import { systemScheduler } from "../../../src/runtime/scheduler.ts";
import { openDocumentsForRecovery } from "../../../src/store/document-recovery.ts";
import { SegmentLog } from "../../../src/store/segment-log.ts";
import { CLUSTER, createNodeDirectory, type NodeDirectory } from "../../store/documents-support.ts";
import { randomFrom } from "../vector/support.ts";
import { applyTold, hashesOf, RandomLog, replay, vectorSubject } from "./support.ts";

const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
const WORKER = new URL("../../../actors/documents.worker.cjs", import.meta.url);

function start(node: NodeDirectory, durable: SharedArrayBuffer): DocumentsThread {
  return startDocumentsThread(WORKER, {
    directory: node.path,
    clusterId: CLUSTER,
    shards: [0, 2],
    collections: [1],
    durable,
  });
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error("waited too long");
    await sleep(10);
  }
}

test("follows the logs of its shards, and leaves what the next start opens", { timeout: 120_000 }, async () => {
  console.info(`documents thread: SEED=${SEED}`);
  await using node = await createNodeDirectory();
  for (const path of ["shards", "shards/0", "shards/2"]) await node.disk.makeDirectory(path);
  const durable = new SharedArrayBuffer(8 * 8);
  const positions = new Float64Array(durable);
  const shards = await Promise.all(
    [0, 2].map(async (shard) => {
      const log = await SegmentLog.open(node.disk, `shards/${shard}/log`, {
        scheduler: systemScheduler,
        firstSegmentBytes: 4_096,
        segmentBytes: 16_384,
      });
      log.onChange = () => {
        positions[shard] = log.durable;
      };
      const engine = vectorSubject().replicated;
      return { shard, log, engine, random: new RandomLog(randomFrom(SEED + shard), vectorSubject) };
    }),
  );
  const grow = async (frames: number): Promise<void> => {
    for (const { log, engine, random } of shards) {
      for (let left = frames; left > 0; left--) {
        const { entries } = random.grow();
        for (const entry of entries) replay(engine, entry);
        log.append(entries);
      }
      await log.flush();
    }
  };
  for (let life = 0; life < 3; life++) {
    await grow(20);
    const documents = start(node, durable);
    for (let round = 0; round < 5; round++) await grow(10);
    await until(() => shards.every(({ shard, log }) => documents.applied(shard) === log.durable));
    await grow(10);
    await documents.close();
    for (const { shard, log } of shards) {
      expect([documents.applied(shard), documents.failure(shard)]).toEqual([log.durable, undefined]);
    }
    if (life === 1) await rm(node.file(2).replace("data.mdb", "clean"));
  }
  for (const { shard, log, engine, random } of shards) {
    random.end();
    const left = random.frames.slice(log.head);
    for (const { entries } of left) {
      for (const entry of entries) replay(engine, entry);
      log.append(entries);
    }
    await log.flush();
    const found = await openDocumentsForRecovery(node.source(shard), log);
    if (found === undefined) throw new Error("no documents");
    expect(found.meta.appliedPosition).toBe(log.head - left.length);
    const fresh = vectorSubject().replicated;
    if (left.length === 0) {
      for (const effect of found.entries(joinDocuments, 65_536)) applyTold(fresh, effect);
      expect(hashesOf(fresh)).toEqual(hashesOf(engine));
    }
    found.close();
    await log.close();
  }
  const last = start(node, durable);
  await last.close();
  for (const { shard, log } of shards) {
    const found = await openDocumentsForRecovery(node.source(shard), log);
    if (found === undefined) throw new Error("no documents");
    expect(found.meta.appliedPosition).toBe(log.durable);
    found.close();
  }
});
