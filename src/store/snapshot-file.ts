/**
 * Snapshots of a shard on its disk: written while the shard serves, read when it starts. Layout in snapshot-layout.ts.
 *
 * Invariant: a snapshot has its name, `<position, 20 digits>.snapshot`, only when all of it is durable; what a crash or a full disk has left
 * of others is under a temporary name, which the next writer removes. Nothing damaged is given out: header, footer and table are
 * checked when a snapshot is opened, each chunk before its first part is told.
 * One writer per directory at a time. Directories exist already.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk, DiskFile } from "../runtime/disk.ts";
import {
  aligned,
  assertSnapshotFormat,
  CHUNK_HEADER_BYTES,
  CHUNK_KIND,
  type ChunkHeader,
  decodeChunkHeader,
  decodeFooter,
  decodeHeader,
  encodeFooter,
  encodeHeader,
  FOOTER_BYTES,
  HEADER_BYTES,
  isWholeChunk,
  PART_HEADER_BYTES,
  type SnapshotFooter,
  type SnapshotHeader,
  sealChunk,
} from "./snapshot-layout.ts";

/** Payload after which a chunk is written. A part that is larger has a chunk of its own. */
const CHUNK_BYTES = 1024 * 1024;
/** Bytes after which a writer syncs, so that none of its syncs, which others may have to wait for, is long. */
const SYNC_BYTES: number = 8 * 1024 * 1024;
const NAME = /^\d{20}\.snapshot$/;
const TEMPORARY = ".temporary";

/** Whether a name in a directory of snapshots is that of a whole one. */
export function isSnapshot(name: string): boolean {
  return NAME.test(name);
}

/** A part of what a vshard holds, as an effect that can be applied. */
export interface StoredPart {
  /** Message type whose effect it is. */
  readonly type: number;
  readonly collection: number;
  readonly body: Uint8Array;
}

/** A whole snapshot. */
export interface SnapshotReader {
  /** Path on its disk. */
  readonly path: string;
  /** The log from here on makes it whole... */
  readonly position: number;
  /** ...when it is applied up to here at least. */
  readonly endPosition: number;
  /** What its writer gave to `finish`. */
  readonly table: Uint8Array;
  /** Size of the file. */
  readonly bytes: number;
  /** Why newer snapshots than this one were passed over. */
  readonly damaged: readonly ShardloomError[];
  /**
   * Reads the parts in the order in which they were written. A body is valid for good; its `byteOffset` is a multiple of 8.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` with `details.path` and `details.offset`, before the first part of a chunk that is damaged.
   */
  parts(): AsyncIterable<{ readonly vshard: number; readonly part: StoredPart }>;
}

/** Which snapshots are considered. */
export interface SnapshotChoice {
  /** Only those of a lower position: what is left when one was found to be damaged while it was read. @default all */
  readonly below?: number;
  /** Whether the caller has the log that makes one whole. @default any will do */
  readonly usable?: (snapshot: { readonly position: number; readonly endPosition: number }) => boolean;
}

/** Writes one snapshot. Calls must not overlap; after a failure the writer is done, and nothing is left of the snapshot. */
export class SnapshotWriter {
  readonly position: number;
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #path: string;
  readonly #file: DiskFile;
  readonly #headerCrc: number;
  #chunk: Uint8Array = new Uint8Array(CHUNK_HEADER_BYTES + CHUNK_BYTES);
  #used = 0;
  #partsInChunk = 0;
  #parts = 0;
  #chunks = 0;
  #offset = 0;
  #synced = 0;
  #open = true;

  private constructor(disk: Disk, directory: string, path: string, file: DiskFile, position: number, crc: number) {
    this.#disk = disk;
    this.#directory = directory;
    this.#path = path;
    this.#file = file;
    this.position = position;
    this.#headerCrc = crc;
  }

  /**
   * Begins a snapshot, and removes what earlier ones that were not finished have left.
   *
   * @param position Of the log, from which on it has to be applied to what the parts will tell.
   * @param owner Number of who writes, so that no other one writes to the same file.
   */
  static async create(disk: Disk, directory: string, position: number, owner = 0): Promise<SnapshotWriter> {
    for (const name of await disk.list(directory))
      if (name.endsWith(TEMPORARY)) await disk.remove(`${directory}/${name}`);
    const path = `${directory}/${nameOf(position)}-${owner}${TEMPORARY}`;
    const { bytes, crc } = encodeHeader(position);
    const file = await disk.open(path, "create");
    const writer = new SnapshotWriter(disk, directory, path, file, position, crc);
    await writer.#orAbort(() => writer.#write(bytes));
    return writer;
  }

  /** Bytes that were written to the file so far. */
  get bytes(): number {
    return this.#offset;
  }

  /** Adds a part; the body is copied. */
  async write(vshard: number, { type, collection, body }: StoredPart): Promise<void> {
    this.#assertOpen();
    const length = PART_HEADER_BYTES + aligned(body.length);
    if (this.#used > 0 && this.#used + length > CHUNK_BYTES)
      await this.#orAbort(() => this.#writeChunk(CHUNK_KIND.PARTS));
    const start = CHUNK_HEADER_BYTES + this.#used;
    if (start + length > this.#chunk.length) this.#chunk = new Uint8Array(start + length);
    const view = new DataView(this.#chunk.buffer, start, length);
    view.setInt32(0, vshard, true);
    view.setInt32(4, type, true);
    view.setInt32(8, collection, true);
    view.setUint32(12, body.length, true);
    this.#chunk.set(body, start + PART_HEADER_BYTES);
    this.#chunk.fill(0, start + PART_HEADER_BYTES + body.length, start + length);
    this.#used += length;
    this.#partsInChunk++;
    if (this.#used >= CHUNK_BYTES) await this.#orAbort(() => this.#writeChunk(CHUNK_KIND.PARTS));
  }

  /**
   * Ends the snapshot; it counts when this has resolved.
   *
   * @param end.endPosition The log has to be applied up to here at least.
   * @param end.table Whatever is to be known of all vshards before the first part is read.
   * @returns the size of the file
   */
  finish(end: { readonly endPosition: number; readonly table: Uint8Array }): Promise<number> {
    this.#assertOpen();
    return this.#orAbort(async () => {
      if (this.#used > 0) await this.#writeChunk(CHUNK_KIND.PARTS);
      const tableOffset = this.#offset;
      this.#chunk = new Uint8Array(CHUNK_HEADER_BYTES + aligned(8 + end.table.length));
      new DataView(this.#chunk.buffer).setUint32(CHUNK_HEADER_BYTES, end.table.length, true);
      this.#chunk.set(end.table, CHUNK_HEADER_BYTES + 8);
      this.#used = this.#chunk.length - CHUNK_HEADER_BYTES;
      await this.#writeChunk(CHUNK_KIND.TABLE);
      const { position } = this;
      const footer = { position, endPosition: end.endPosition, tableOffset, chunks: this.#chunks, parts: this.#parts };
      await this.#write(encodeFooter(footer, this.#headerCrc));
      await this.#file.sync();
      await this.#file.close();
      await this.#disk.rename(this.#path, `${this.#directory}/${nameOf(position)}`);
      await this.#disk.syncDirectory(this.#directory);
      this.#open = false;
      return this.#offset;
    });
  }

  /** Gives the snapshot up and its space back; harmless when it has ended. */
  async abort(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    try {
      await this.#file.close();
      await this.#disk.remove(this.#path);
    } catch {
      // What is left has a temporary name: nobody reads it, and the next writer removes it.
    }
  }

  async #orAbort<T>(run: () => Promise<T>): Promise<T> {
    try {
      return await run();
    } catch (error) {
      await this.abort();
      throw error;
    }
  }

  async #writeChunk(kind: number): Promise<void> {
    const chunk = { kind, number: this.#chunks++, payloadBytes: this.#used, parts: this.#partsInChunk };
    const bytes = this.#chunk.subarray(0, CHUNK_HEADER_BYTES + this.#used);
    sealChunk(bytes, chunk, this.#headerCrc);
    this.#parts += this.#partsInChunk;
    this.#used = this.#partsInChunk = 0;
    await this.#write(bytes);
    if (this.#offset - this.#synced < SYNC_BYTES) return;
    await this.#file.sync();
    this.#synced = this.#offset;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.#file.write(this.#offset, bytes);
    this.#offset += bytes.length;
  }

  #assertOpen(): void {
    if (this.#open) return;
    throw new ShardloomError("ERR_CLOSED", "Cannot write snapshot as it must be open: current value is ended", {
      details: { path: this.#path },
    });
  }
}

/**
 * Opens the newest whole snapshot of a directory that the caller can use.
 *
 * @returns undefined when the directory has none
 * @throws {ShardloomError} `ERR_CORRUPT` with `details.path` and `details.offset` when there are some, and none is left that is whole;
 *   `ERR_UNSUPPORTED_FORMAT` when the newest of them is of another format.
 */
export async function openNewestSnapshot(
  disk: Disk,
  directory: string,
  { below = Number.POSITIVE_INFINITY, usable = () => true }: SnapshotChoice = {},
): Promise<SnapshotReader | undefined> {
  const damaged: ShardloomError[] = [];
  for (const name of (await namesIn(disk, directory)).reverse()) {
    const position = Number.parseInt(name, 10);
    if (position >= below) continue;
    const path = `${directory}/${name}`;
    try {
      const opened = await openSnapshot(disk, path, position);
      if (usable(opened)) return { ...opened, damaged, parts: () => readParts(disk, path, opened) };
    } catch (error) {
      if (!isDamage(error)) throw error;
      damaged.push(error);
    }
  }
  if (damaged[0] !== undefined) throw damaged[0];
  return undefined;
}

/** Removes all snapshots but the newest. @param keep How many stay. @returns how many were removed */
export async function removeOldSnapshots(disk: Disk, directory: string, keep: number): Promise<number> {
  const names = await namesIn(disk, directory);
  const old = names.slice(0, Math.max(0, names.length - keep));
  for (const name of old) await disk.remove(`${directory}/${name}`);
  if (old.length > 0) await disk.syncDirectory(directory);
  return old.length;
}

interface OpenedSnapshot extends SnapshotFooter {
  readonly path: string;
  readonly bytes: number;
  readonly table: Uint8Array;
  readonly header: SnapshotHeader;
}

async function openSnapshot(disk: Disk, path: string, position: number): Promise<OpenedSnapshot> {
  const file = await disk.open(path, "read");
  try {
    const bytes = await file.size();
    const head = await file.read(0, HEADER_BYTES);
    assertSnapshotFormat(head, path);
    const header = decodeHeader(head);
    if (header === undefined || header.position !== position) throw corrupt(path, 0, "header");
    const footerOffset = bytes - FOOTER_BYTES;
    if (footerOffset < HEADER_BYTES) throw corrupt(path, bytes, "footer");
    const footer = decodeFooter(await file.read(footerOffset, FOOTER_BYTES), header.crc);
    if (footer === undefined || footer.position !== position) throw corrupt(path, footerOffset, "footer");
    const { tableOffset, chunks } = footer;
    const { bytes: chunk, header: found } = await readChunk(file, path, tableOffset, footerOffset, header);
    if (found.kind !== CHUNK_KIND.TABLE || found.number !== chunks - 1 || tableOffset + chunk.length !== footerOffset)
      throw corrupt(path, tableOffset, "table");
    const length = new DataView(chunk.buffer, chunk.byteOffset + CHUNK_HEADER_BYTES).getUint32(0, true);
    const table = chunk.slice(CHUNK_HEADER_BYTES + 8, CHUNK_HEADER_BYTES + 8 + length);
    return { ...footer, path, bytes, table, header };
  } finally {
    await file.close();
  }
}

async function* readParts(
  disk: Disk,
  path: string,
  { header, tableOffset, chunks, parts }: OpenedSnapshot,
): AsyncGenerator<{ vshard: number; part: StoredPart }> {
  const file = await disk.open(path, "read");
  try {
    let offset = HEADER_BYTES;
    let told = 0;
    for (let number = 0; number < chunks - 1; number++) {
      const { bytes, header: chunk } = await readChunk(file, path, offset, tableOffset, header);
      if (chunk.kind !== CHUNK_KIND.PARTS || chunk.number !== number) throw corrupt(path, offset, "chunk");
      const found = partsOf(bytes, chunk);
      if (found === undefined) throw corrupt(path, offset, "chunk");
      yield* found;
      told += found.length;
      offset += bytes.length;
    }
    if (offset !== tableOffset || told !== parts) throw corrupt(path, offset, "number of parts");
  } finally {
    await file.close();
  }
}

/** Reads a chunk that must end at `end` or before. Its bytes begin at a multiple of 8 in their buffer. */
async function readChunk(
  file: DiskFile,
  path: string,
  offset: number,
  end: number,
  { crc }: SnapshotHeader,
): Promise<{ bytes: Uint8Array; header: ChunkHeader }> {
  if (!(offset >= HEADER_BYTES && offset + CHUNK_HEADER_BYTES <= end)) throw corrupt(path, offset, "chunk");
  const header = decodeChunkHeader(await file.read(offset, CHUNK_HEADER_BYTES), crc);
  const length = CHUNK_HEADER_BYTES + (header?.payloadBytes ?? 0);
  if (header === undefined || offset + length > end) throw corrupt(path, offset, "chunk");
  const bytes = await file.read(offset, length);
  if (!isWholeChunk(bytes, header)) throw corrupt(path, offset, "chunk");
  return { bytes: bytes.byteOffset % 8 === 0 ? bytes : bytes.slice(), header };
}

function partsOf(bytes: Uint8Array, chunk: ChunkHeader): { vshard: number; part: StoredPart }[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: { vshard: number; part: StoredPart }[] = [];
  let at = CHUNK_HEADER_BYTES;
  while (at + PART_HEADER_BYTES <= bytes.length) {
    const start = at + PART_HEADER_BYTES;
    const length = view.getUint32(at + 12, true);
    if (start + length > bytes.length) return undefined;
    const body = bytes.subarray(start, start + length);
    const part = { type: view.getInt32(at + 4, true), collection: view.getInt32(at + 8, true), body };
    parts.push({ vshard: view.getInt32(at, true), part });
    at = start + aligned(length);
  }
  return at === bytes.length && parts.length === chunk.parts ? parts : undefined;
}

/** Names of the snapshots, the oldest first. */
async function namesIn(disk: Disk, directory: string): Promise<string[]> {
  return (await disk.list(directory)).filter((name) => NAME.test(name)).sort();
}

function nameOf(position: number): string {
  return `${String(position).padStart(20, "0")}.snapshot`;
}

/** A file that cannot be read is as good as one that is damaged: an older one may do. */
function isDamage(error: unknown): error is ShardloomError {
  return ShardloomError.is(error) && ["ERR_CORRUPT", "ERR_IO", "ERR_NO_FILE"].includes(error.code);
}

function corrupt(path: string, offset: number, what: string): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read snapshot ${path} as its ${what} must be whole: it is damaged at ${offset}`,
    { details: { path, offset, what } },
  );
}
