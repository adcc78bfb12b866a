/**
 * L1, a part of bench `durable`: appending upserts of 128-d vectors to a segment log, each batch awaited until it is durable, against a raw
 * `write` + `fdatasync` of the same bytes and against LMDB transactions of the same documents.
 *
 * Invariant: every side has each batch synced before it begins the next, on the same file system, in alternating samples of one process; what was
 * written is counted again at the end. The raw side appends to a plain file, by the thread pool as the log does and by calls
 * that block; the goal takes the faster of the two for each batch size, and the worse of the two sizes. Files that were allocated ahead, and several
 * writers that share groups, are measured and told, not judged.
 */
import { closeSync, fdatasyncSync, fstatSync, openSync, rmSync, writeSync } from "node:fs";
import { type FileHandle, mkdir, mkdtemp, open as openFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { open as openLmdb, type RootDatabase } from "lmdb";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { LOG_ENTRY, type ShardLogEntry } from "../../src/store/log.ts";
import { frameBytes } from "../../src/store/segment-format.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { judge } from "../harness/goals.ts";
import {
  type BenchCase,
  type BenchContext,
  type BenchReport,
  type BenchRow,
  interleave,
  ratioOf,
  sized,
} from "../harness/harness.ts";

const DIMENSIONS = 128;
/** Of a document besides its vector: id, flags, metadata. */
const OTHER_BYTES = 24;
const DOCUMENT_BYTES: number = DIMENSIONS * 4 + OTHER_BYTES;
const WRITERS = 8;
const UNIT = "documents/s";
export const LOG_SIDE = "shardloom";
const SHARED = `shardloom, ${WRITERS} writers`;
const RAW = "raw write + fdatasync";
const RAW_BLOCKING = "raw write + fdatasync, blocking";
const RAW_ALLOCATED = "raw, allocated ahead";
const LMDB = "lmdb";

/** One batch as each side writes it. */
interface Batch {
  readonly name: string;
  readonly documents: number;
  /** Batches of one sample. */
  readonly count: number;
  readonly entries: readonly ShardLogEntry[];
  /** The same number of bytes as the log writes. */
  readonly bytes: Uint8Array;
}

function batchOf(documents: number, count: number, seed: number): Batch {
  const random = createSeededRandom(seed);
  const body = new Uint8Array(documents * DOCUMENT_BYTES);
  const values = new Float32Array(body.buffer);
  for (let at = 0; at < values.length; at++) values[at] = random.float();
  const entry = { kind: LOG_ENTRY.EFFECT, vshard: 1, lsn: 1, leaseEpoch: 0, type: 1, collection: 1, body };
  const entries = [{ ...entry, idempotencyKey: "", result: new Uint8Array(0) }];
  const bytes = new Uint8Array(frameBytes(entries));
  bytes.set(body, bytes.length - body.length);
  return { name: `batches of ${documents}`, documents, count, entries, bytes };
}

/** Runs a batch so many times, and says how many documents a second that was. */
async function rate({ documents, count }: Batch, write: () => Promise<void> | void): Promise<number> {
  const startedMs = performance.now();
  for (let at = 0; at < count; at++) await write();
  return (documents * count * 1000) / (performance.now() - startedMs);
}

function must(is: boolean, what: string): void {
  if (!is) throw new Error(`segment log bench: ${what}`);
}

function logCase(batch: Batch, folder: string, writers: number): BenchCase {
  let log: SegmentLog | undefined;
  let written = 0;
  const write = async (): Promise<void> => {
    const position = log?.append(batch.entries) ?? 0;
    written++;
    await log?.flush();
    must((log?.durable ?? 0) >= position, "a frame was not durable when it was said to be");
  };
  return {
    name: batch.name,
    side: writers === 1 ? LOG_SIDE : SHARED,
    unit: UNIT,
    setup: async () => {
      log = await SegmentLog.open(await createSystemDisk(folder), "log", { scheduler: systemScheduler });
    },
    run: async () => {
      const sample = await rate({ ...batch, count: Math.ceil(batch.count / writers) }, async () => {
        for (let at = 1; at < writers; at++) {
          log?.append(batch.entries);
          written++;
        }
        await write();
      });
      // What a checkpoint would do: the disk does not fill up.
      await log?.truncateBelow(log.head);
      return sample * writers;
    },
    validate: () =>
      must(log?.durable === written && written > 0, "the log has another number of frames than were appended"),
    close: async () => {
      const found = await log?.read(written, 1);
      const body = found?.at(-1)?.entries[0]?.body ?? new Uint8Array(0);
      must(Buffer.compare(body, batch.entries[0]?.body ?? body) === 0, "the last frame is not as it was appended");
      await log?.close();
    },
  };
}

function rawCase(batch: Batch, path: string, allocatedBytes = 0): BenchCase {
  let file: FileHandle | undefined;
  let end = 0;
  return {
    name: batch.name,
    side: allocatedBytes === 0 ? RAW : RAW_ALLOCATED,
    unit: UNIT,
    run: async () => {
      // Each sample a new file, as the log's segments are.
      await file?.close();
      file = await openFile(path, "w");
      if (allocatedBytes > 0) await file.writeFile(new Uint8Array(allocatedBytes)).then(() => file?.datasync());
      end = 0;
      return rate(batch, async () => {
        await file?.write(batch.bytes, 0, batch.bytes.length, end);
        await file?.datasync();
        end += batch.bytes.length;
      });
    },
    validate: () =>
      must(
        fstatSync(file?.fd ?? -1).size === Math.max(allocatedBytes, end) && end > 0,
        "the raw file has another size",
      ),
    close: () => file?.close(),
  };
}

function blockingCase(batch: Batch, path: string): BenchCase {
  let file = -1;
  let end = 0;
  return {
    name: batch.name,
    side: RAW_BLOCKING,
    unit: UNIT,
    run: () => {
      if (file >= 0) closeSync(file);
      file = openSync(path, "w");
      end = 0;
      return rate(batch, () => {
        writeSync(file, batch.bytes, 0, batch.bytes.length, end);
        fdatasyncSync(file);
        end += batch.bytes.length;
      });
    },
    validate: () => must(fstatSync(file).size === end && end > 0, "the raw file has another size"),
    close: () => closeSync(file),
  };
}

function lmdbCase(batch: Batch, path: string): BenchCase {
  let database: RootDatabase<Uint8Array, number> | undefined;
  let next = 0;
  const body = batch.entries[0]?.body ?? new Uint8Array(0);
  const documents = Array.from({ length: batch.documents }, (_, at) =>
    Buffer.from(body.buffer, at * DOCUMENT_BYTES, DOCUMENT_BYTES),
  );
  return {
    name: batch.name,
    side: LMDB,
    unit: UNIT,
    setup: () => {
      database = openLmdb<Uint8Array, number>({ path, encoding: "binary", keyEncoding: "uint32" });
    },
    run: () =>
      rate(batch, async () => {
        const db = database as RootDatabase<Uint8Array, number>;
        await db.batch(() => {
          for (const document of documents) void db.put(next++, document);
        });
        await db.flushed;
      }),
    validate: () => must(database?.getCount() === next && next > 0, "lmdb has another number of documents"),
    close: async () => database?.close(),
  };
}

/** Rows and the verdicts on L1. */
export async function measureSegmentLog(context: BenchContext): Promise<BenchReport> {
  const { mode, seed } = context;
  const folder = await mkdtemp(join(tmpdir(), "shardloom-durable-"));
  const batches = [batchOf(64, sized(mode, 4, 150, 400), seed), batchOf(1_000, sized(mode, 2, 30, 80), seed)];
  const rows: BenchRow[] = [];
  try {
    for (const batch of batches) {
      const at = async (name: string): Promise<string> => {
        const path = join(folder, `${batch.documents}-${name}`);
        await mkdir(path);
        return path;
      };
      const cases = [
        logCase(batch, await at("log"), 1),
        rawCase(batch, join(await at("raw"), "file")),
        blockingCase(batch, join(await at("blocking"), "file")),
        lmdbCase(batch, await at("lmdb")),
        logCase(batch, await at("shared"), WRITERS),
        rawCase(batch, join(await at("allocated"), "file"), batch.bytes.length * batch.count),
      ];
      rows.push(...(await interleave(cases, sized(mode, 2, 15, 31))));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const worst = (ratio: (name: string) => number): number => Math.min(...batches.map(({ name }) => ratio(name)));
  const over = (side: string, baselines: readonly string[]): number =>
    worst((name) => Math.min(...baselines.map((baseline) => ratioOf(rows, name, side, baseline))));
  const raw = over(LOG_SIDE, [RAW, RAW_BLOCKING]);
  const note = `each batch awaited; ${over(LOG_SIDE, [RAW_ALLOCATED]).toFixed(2)} of raw in a file allocated ahead; ${WRITERS} writers: ${over(SHARED, [RAW, RAW_BLOCKING]).toFixed(2)}`;
  return {
    rows,
    goals: [judge(context.goals, "L1", raw, note), judge(context.goals, "L1b", over(LOG_SIDE, [LMDB]))],
    notes: [`${DOCUMENT_BYTES} bytes a document; files below ${tmpdir()}`],
  };
}
