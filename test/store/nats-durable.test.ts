/**
 * What a shard keeps, with nothing on this machine: its log and its snapshots in NATS, by the code that keeps them on a disk. Processes end at any
 * moment and others come, servers are killed meanwhile; a shard that starts has every durable row.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ReceivedEffect, ReplicatedEngine, SnapshotPart } from "../../actors/engine.ts";
import { replay } from "../../actors/storage/replay.ts";
import { SnapshotTask } from "../../actors/storage/snapshot-task.ts";
import { TrackedLog } from "../../actors/storage/tracked-log.ts";
import { VshardStates } from "../../actors/storage/vshard-states.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { createSeededRandom, systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { LOG_ENTRY } from "../../src/store/log.ts";
import { hasBegun, hasOrigin, markBegun, markOrigin, unmark } from "../../src/store/log-marks.ts";
import { NatsLog } from "../../src/store/nats-log.ts";
import { openNatsDisk } from "../../src/store/nats-object-store.ts";
import { openNewestSnapshot } from "../../src/store/snapshot-file.ts";
import { NatsServer } from "../support/nats-server.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const LIVES = process.env["SHARDLOOM_LONG"] === "1" ? 40 : 6;
const CALL_MS = 10_000;
const VSHARDS = 4;
const TYPE = 5;
const COLLECTION = 1;
const EMPTY = new Uint8Array(0);
const DIRECTORY = "shards/0/snapshots";

let server: NatsServer;

beforeAll(async () => {
  server = await NatsServer.start();
});
afterAll(() => server[Symbol.asyncDispose]());

/** Rows of numbers by number, in vshards; an effect is one row, or a snapshot's many. */
class Numbers implements ReplicatedEngine {
  readonly types: readonly number[] = [TYPE];
  readonly rows: readonly Map<number, number>[] = Array.from({ length: VSHARDS }, () => new Map<number, number>());

  has(collection: number): boolean {
    return collection === COLLECTION;
  }

  apply({ vshard, f64, offset, length }: ReceivedEffect): void {
    for (let at = offset / 8; at < (offset + length) / 8; at += 2)
      this.rows[vshard]?.set(f64[at] as number, f64[at + 1] as number);
  }

  snapshot(vshard: number): () => SnapshotPart | undefined {
    const rows = [...(this.rows[vshard] ?? [])];
    return () => {
      const some = rows.splice(0, 10);
      return some.length === 0 ? undefined : { type: TYPE, collection: COLLECTION, body: bodyOf(some) };
    };
  }

  beginRestore(vshard: number): void {
    this.rows[vshard]?.clear();
  }

  endRestore(): void {}

  contentHash(): bigint {
    return 0n;
  }
}

function bodyOf(rows: readonly (readonly [number, number])[]): Uint8Array {
  return new Uint8Array(Float64Array.from(rows.flat()).buffer);
}

/** A shard as a process has it: opened, loaded, and with snapshots every so often. */
async function start(
  life: number,
): Promise<{ engine: Numbers; log: TrackedLog; snapshots: SnapshotTask; loaded: number }> {
  const connection = await server.connect();
  const disk = await openNatsDisk(connection, { store: "shard-0", scheduler: systemScheduler, random: systemRandom });
  for (const path of ["shards", "shards/0", DIRECTORY]) await disk.makeDirectory(path);
  const stream = await connection.openStream({ name: "shard-0-log" }, CALL_MS);
  const begun = await hasBegun(disk, 0);
  const states = new VshardStates(VSHARDS);
  const options = { scheduler: systemScheduler, random: systemRandom, begun, timeoutMs: 1_000 };
  const log = new TrackedLog(await NatsLog.open(stream, options), states);
  await markBegun(disk, 0);
  const engine = new Numbers();
  const usable = ({ position, endPosition }: { position: number; endPosition: number }): boolean =>
    position + 1 >= log.first && endPosition <= log.head;
  const snapshot = await openNewestSnapshot(disk, DIRECTORY, { usable });
  if (snapshot !== undefined) states.decode(snapshot.table);
  for await (const { vshard, part } of snapshot?.parts() ?? []) {
    const buffer = part.body.buffer as ArrayBuffer;
    const view = { bytes: new Uint8Array(buffer), i32: new Int32Array(0), f32: new Float32Array(0) };
    const f64 = new Float64Array(buffer, 0, buffer.byteLength >>> 3);
    engine.apply({ ...view, f64, ...part, vshard, offset: part.body.byteOffset, length: part.body.length });
  }
  const position = snapshot?.position ?? 0;
  await replay({ log, states, engines: [engine] }, position + 1);
  const storage = { snapshotBytes: 2_000, snapshotBytesPerSecond: 1e9 };
  const common = { disk, directory: DIRECTORY, log, storage, clock: systemClock, scheduler: systemScheduler };
  const snapshots = new SnapshotTask({ ...common, incarnation: life });
  snapshots.loaded(position, snapshot?.bytes ?? 0);
  snapshots.start([engine], () => Array.from({ length: VSHARDS }, (_, vshard) => vshard));
  return { engine, log, snapshots, loaded: position };
}

describe("a shard in NATS", () => {
  test("has every durable row in its next process, from snapshots and the log after them", {
    timeout: 300_000,
  }, async () => {
    const random = createSeededRandom(SEED);
    const lsns = new Array<number>(VSHARDS).fill(0);
    /** By vshard and row: what is durable, and what was asked for after that. */
    const durable = new Map<string, number>();
    const asked = new Map<string, Set<number>>();
    let snapshotsLoaded = 0;
    for (let life = 1, value = 1; life <= LIVES; life++) {
      const { engine, log, snapshots, loaded } = await start(life);
      if (loaded > 0) snapshotsLoaded++;
      for (const [key, last] of durable) {
        const [vshard = 0, row = 0] = key.split("/").map(Number);
        const found = engine.rows[vshard]?.get(row);
        expect([last, ...(asked.get(key) ?? [])], `life ${life}, row ${key}`).toContain(found);
        durable.set(key, found as number);
      }
      for (const [vshard] of lsns.entries()) lsns[vshard] = log.states.lsnOf(vshard);
      asked.clear();
      const pending: { position: number; key: string; value: number }[] = [];
      log.onChange = () => {
        while (pending[0] !== undefined && pending[0].position <= log.durable) {
          const done = pending.shift() as (typeof pending)[number];
          durable.set(done.key, done.value);
          for (const older of asked.get(done.key) ?? []) if (older <= done.value) asked.get(done.key)?.delete(older);
        }
        snapshots.consider();
      };
      for (let write = 0; write < 150; write++, value++) {
        const vshard = Math.floor(random.float() * VSHARDS);
        const row = Math.floor(random.float() * 20);
        const key = `${vshard}/${row}`;
        const body = bodyOf([[row, value]]);
        const entry = { kind: LOG_ENTRY.EFFECT, vshard, leaseEpoch: 0, type: TYPE, collection: COLLECTION, body };
        lsns[vshard] = (lsns[vshard] as number) + 1;
        const position = log.append([{ ...entry, lsn: lsns[vshard], idempotencyKey: "", result: EMPTY }]);
        engine.rows[vshard]?.set(row, value);
        pending.push({ position, key, value });
        asked.set(key, (asked.get(key) ?? new Set()).add(value));
        if (random.float() < 0.5) await log.flush();
      }
      if (life % 3 !== 2) await snapshots.take(); // others end with whatever they have
      // Processes end in order, or as they are: then what they have under way may yet come.
      log.onChange = undefined;
      if (life % 2 === 0) await snapshots.close().then(() => log.close());
      if (life % 3 === 0) {
        await server.stop("SIGKILL");
        await server.startAgain();
      }
    }
    expect(snapshotsLoaded).toBeGreaterThan(LIVES / 2);
  });

  test("has the marks of its log where its snapshots are", async () => {
    const open = async (): ReturnType<typeof openNatsDisk> =>
      openNatsDisk(await server.connect(), { store: "marks", scheduler: systemScheduler, random: systemRandom });
    let disk = await open();
    for (const path of ["shards", "shards/3"]) await disk.makeDirectory(path);
    expect([await hasBegun(disk, 3), await hasOrigin(disk, 3)]).toEqual([false, false]);
    await markOrigin(disk, 3);
    await markBegun(disk, 3);
    disk = await open();
    expect([await hasBegun(disk, 3), await hasOrigin(disk, 3)]).toEqual([true, true]);
    await unmark(disk, 3);
    disk = await open();
    expect([await hasBegun(disk, 3), await hasOrigin(disk, 3)]).toEqual([false, false]);
  });
});
