/** The feed of one shard's documents over a log in memory: crashes, truncation, snapshots taken meanwhile, logs that lost their end, failures. */
import { rm, truncate } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { joinDocuments } from "../../../actors/document-codecs.ts";
import { DocumentFeed, type FeedOptions, type FeedSnapshot } from "../../../actors/document-feed.ts";
import type { ReplicatedEngine, SnapshotPart } from "../../../actors/engine.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { isClean } from "../../../src/store/document-files.ts";
import { type Documents, openDocuments } from "../../../src/store/documents.ts";
import type { LogFrame } from "../../../src/store/log.ts";
import { decodeSnapshotTable, encodeSnapshotTable } from "../../../src/store/snapshot-table.ts";
import { CLUSTER, createNodeDirectory, type NodeDirectory } from "../../store/documents-support.ts";
import { randomFrom } from "../vector/support.ts";
import { ALL_VSHARDS, applyTold, hashesOf, RandomLog, replay, vectorSubject } from "./support.ts";

const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000);

/** A shard: its log in memory, and what its documents' feed can see of it. */
class Shard {
  readonly random: () => number;
  readonly log: RandomLog;
  readonly node: NodeDirectory;
  first = 1;
  durable = 0;
  applied = 0;
  nowMs = 0;
  snapshot: FeedSnapshot | undefined;
  failing: ShardloomError | undefined;
  reads = 0;

  constructor(node: NodeDirectory, seed: number) {
    this.node = node;
    this.random = randomFrom(seed);
    this.log = new RandomLog(this.random, vectorSubject);
  }

  grow(frames: number): void {
    for (let left = frames; left > 0; left--) this.log.grow();
    this.durable = this.log.frames.length;
  }

  feed(overrides: Partial<FeedOptions> = {}): DocumentFeed {
    return new DocumentFeed({
      ...this.node.source(),
      reader: {
        read: (from, limitBytes, upTo) => this.#read(from, limitBytes, upTo),
        first: () => Promise.resolve(this.first),
        close: () => Promise.resolve(),
      },
      newestSnapshot: ({ first, head }) => {
        const { snapshot } = this;
        const fits = snapshot !== undefined && snapshot.position >= first && snapshot.endPosition <= head;
        return Promise.resolve(fits ? snapshot : undefined);
      },
      readTable: decodeSnapshotTable,
      durable: () => this.durable,
      onApplied: (position) => {
        this.applied = position;
      },
      collections: new Set([1]),
      nowMs: () => this.nowMs,
      ...overrides,
    });
  }

  #read(from: number, limitBytes: number, upTo: number): Promise<readonly LogFrame[]> {
    this.reads++;
    if (this.failing !== undefined) return Promise.reject(this.failing);
    const start = Math.max(from, this.first);
    const count = limitBytes > 0 ? 1 + Math.floor(this.random() * 5) : 1;
    return Promise.resolve(this.log.frames.slice(start - 1, Math.min(start - 1 + count, upTo)));
  }

  /** What an engine holds that replays the log up to a position. */
  engineAt(position: number): ReplicatedEngine {
    const engine = vectorSubject().replicated;
    for (const { entries } of this.log.frames.slice(0, position)) for (const entry of entries) replay(engine, entry);
    return engine;
  }

  /** A snapshot whose parts are taken while the log goes on. */
  takeSnapshot(): void {
    const position = this.log.frames.length + 1;
    const engine = this.engineAt(position - 1);
    const parts: { vshard: number; part: SnapshotPart }[] = [];
    for (const vshard of ALL_VSHARDS) {
      const next = engine.snapshot(vshard, 100);
      for (let part = next(); part !== undefined; part = next()) {
        parts.push({ vshard, part });
        if (this.random() < 0.2) for (const entry of this.log.grow().entries) replay(engine, entry);
      }
    }
    this.durable = this.log.frames.length;
    const table = encodeSnapshotTable({
      vshards: new Map([[3, { lsn: 7, state: "restoring", leaseEpoch: 2 }]]),
      keys: [{ position: 1, index: 0, vshard: 3, lsn: 1, key: "old", result: Uint8Array.of(5) }],
    });
    this.snapshot = {
      position,
      endPosition: this.log.frames.length,
      table,
      async *parts() {
        yield* parts;
      },
    };
  }

  async open(): Promise<Documents> {
    return openDocuments({ path: this.node.file(), clusterId: CLUSTER, shard: 0, readOnly: true });
  }
}

async function drain(feed: DocumentFeed): Promise<void> {
  for (let turns = 0; turns < 10_000; turns++) if ((await feed.step()) !== "more") return;
  throw new Error("the feed never ends");
}

function hashesIn(documents: Documents): (bigint | undefined)[] {
  const engine = vectorSubject().replicated;
  for (const effect of documents.entries(joinDocuments, 65_536)) applyTold(engine, effect);
  return hashesOf(engine);
}

async function expectFollows(shard: Shard): Promise<void> {
  shard.log.end();
  shard.durable = shard.log.frames.length;
  const feed = shard.feed();
  await drain(feed);
  expect(feed.failure).toBeUndefined();
  expect(shard.applied).toBe(shard.durable);
  await feed.close();
  const documents = await shard.open();
  expect(documents.meta.appliedPosition).toBe(shard.durable);
  expect(documents.meta.wholeAt).toBeLessThanOrEqual(shard.durable);
  // Vshards whose restore a snapshot fell into are told as such; all others are right.
  const isKnown = (_hash: unknown, vshard: number): boolean => documents.vshards.get(vshard)?.state !== "unknown";
  const unknown = ALL_VSHARDS.filter((vshard) => !isKnown(0, vshard));
  expect(unknown.length).toBeLessThanOrEqual(shard.snapshot === undefined ? 0 : 2);
  expect(hashesIn(documents).filter(isKnown)).toEqual(hashesOf(shard.engineAt(shard.durable)).filter(isKnown));
  documents.close();
}

describe(`SEED=${SEED}`, () => {
  test("a feed follows what is durable, through lives that end in order or not", { timeout: 120_000 }, async () => {
    await using node = await createNodeDirectory();
    const shard = new Shard(node, SEED);
    for (let life = 0; life < 8; life++) {
      const before = shard.applied;
      const feed = shard.feed();
      if (life === 0) expect(await feed.step()).toBe("idle"); // nothing is known to be durable
      shard.grow(10 + Math.floor(shard.random() * 20));
      const hidden = Math.floor(shard.random() * 3);
      shard.durable -= hidden;
      await drain(feed);
      expect([shard.applied, feed.failure]).toEqual([shard.durable, undefined]);
      expect(shard.applied).toBeGreaterThan(before);
      shard.durable += hidden;
      if (shard.random() < 0.5) await feed.step();
      await feed.close();
      expect(await isClean(node.source())).toBe(true);
      // A life that did not end in order has left no mark: the next one scrubs.
      if (shard.random() < 0.5) await rm(node.file().replace("data.mdb", "clean"));
    }
    await expectFollows(shard);
  });

  test("a log that was truncated ahead of the documents: they come from the snapshot that allowed it", async () => {
    await using node = await createNodeDirectory();
    const shard = new Shard(node, SEED + 1);
    shard.grow(30);
    const feed = shard.feed();
    await drain(feed);
    shard.grow(10);
    shard.takeSnapshot();
    shard.grow(15);
    shard.first = (shard.snapshot as FeedSnapshot).position;
    await drain(feed);
    expect([shard.applied, feed.failure]).toEqual([shard.durable, undefined]);
    await feed.close();
    const documents = await shard.open();
    expect(documents.meta.wholeAt).toBe(shard.snapshot?.endPosition);
    expect([...documents.keys()][0]).toMatchObject({ key: "old", result: Uint8Array.of(5) });
    documents.close();
    await expectFollows(shard);
  });

  test("without a snapshot, a log that has lost its beginning is waited for", async () => {
    await using node = await createNodeDirectory();
    const shard = new Shard(node, SEED + 2);
    shard.grow(20);
    shard.first = 10;
    const feed = shard.feed();
    expect([await feed.step(), await feed.step()]).toEqual(["idle", "idle"]);
    expect(shard.applied).toBe(0);
    shard.takeSnapshot();
    shard.grow(5);
    await drain(feed);
    expect(shard.applied).toBe(shard.durable);
    await feed.close();
    await expectFollows(shard);
  });

  test("a snapshot that cannot be read leaves no documents, and is tried again", async () => {
    await using node = await createNodeDirectory();
    const shard = new Shard(node, SEED + 3);
    shard.grow(20);
    shard.takeSnapshot();
    const { snapshot } = shard;
    if (snapshot === undefined) throw new Error("no snapshot");
    shard.first = snapshot.position;
    shard.grow(5);
    shard.snapshot = {
      ...snapshot,
      async *parts() {
        let left = 9;
        for await (const part of snapshot.parts()) {
          if (left-- === 0) throw new ShardloomError("ERR_CORRUPT", "damaged");
          yield part;
        }
      },
    };
    const feed = shard.feed();
    expect([await feed.step(), feed.failure?.code, shard.applied]).toEqual(["idle", "ERR_CORRUPT", 0]);
    shard.snapshot = snapshot;
    expect([await feed.step(), feed.failure?.code]).toEqual(["idle", "ERR_CORRUPT"]); // not at once
    shard.nowMs += 60_000;
    await drain(feed);
    expect([shard.applied, feed.failure]).toEqual([shard.durable, undefined]);
    await feed.close();
    await expectFollows(shard);
  });

  test("documents ahead of a log that lost its end, or damaged, are built anew", async () => {
    await using node = await createNodeDirectory();
    const shard = new Shard(node, SEED + 4);
    shard.grow(20);
    shard.log.end(); // what is cut off has no half of a restore
    const kept = shard.log.frames.length;
    shard.grow(10);
    shard.log.end();
    shard.durable = shard.log.frames.length;
    const feed = shard.feed();
    await drain(feed);
    await feed.close();
    shard.log.frames.splice(kept);
    shard.durable = kept;
    const reads = shard.reads;
    const next = shard.feed();
    await drain(next);
    expect(shard.applied).toBe(kept);
    expect(shard.reads - reads).toBeGreaterThan(3);
    await next.close();
    await truncate(node.file(), 9_000);
    await expectFollows(shard);
  });

  test("a log that cannot be read is tried again, later and later", async () => {
    await using node = await createNodeDirectory();
    const shard = new Shard(node, SEED + 5);
    shard.grow(20);
    const feed = shard.feed();
    expect(await feed.step()).toBe("more");
    shard.failing = new ShardloomError("ERR_IO", "no");
    const { reads } = shard;
    for (; shard.nowMs < 100_000; shard.nowMs += 100) await feed.step();
    expect(feed.failure?.code).toBe("ERR_IO");
    expect(shard.reads - reads).toBeGreaterThan(4);
    expect(shard.reads - reads).toBeLessThan(12);
    shard.failing = undefined;
    shard.nowMs += 60_000;
    await drain(feed);
    expect([shard.applied, feed.failure]).toEqual([20, undefined]);
    await feed.close();
  });

  test("documents of collections that were dropped are removed when the next life opens them", async () => {
    await using node = await createNodeDirectory();
    const shard = new Shard(node, SEED + 6);
    shard.grow(20);
    const feed = shard.feed({ collections: new Set() });
    await drain(feed);
    await feed.close();
    const before = await shard.open();
    expect([...before.documents()].length).toBeGreaterThan(5);
    before.close();
    const next = shard.feed({ collections: new Set([2]) });
    await next.step();
    await next.close();
    const after = await shard.open();
    expect([...after.documents()].length).toBe(0);
    after.close();
  });
});
