/**
 * Files of derived state on a shard's disk: some sections of bytes and what they mean, under one checksum, replaced atomically.
 *
 * ```
 *  u32 magic | u32 format | u32 bytes of the meaning | u32 sections | u32 CRC of all that follows | u32 CRC of the 20 bytes before
 *  f64 length of each section | the meaning as JSON, padded to 8 | the sections, each padded to 8
 * ```
 *
 * Invariant: a reader gets all that one writer wrote, or a typed error. Derived state is worth no second copy: who gets `ERR_CORRUPT`
 * makes it anew.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import type { Disk, DiskFile } from "../runtime/disk.ts";

const MAGIC = 0x31584449; // "IDX1"
const FORMAT = 1;
const HEADER_BYTES = 24;
/** Most sections of a file. */
const MAX_SECTIONS = 64;
/** Bytes that are read, or written, at a time. */
const PIECE_BYTES: number = 4 * 1024 * 1024;

/** Ends the names of files that are being written; whatever has such a name may be removed by who owns the directory. */
export const TEMPORARY = ".temporary";

/** What a file holds. */
export interface IndexFile<Meaning> {
  /** Plain JSON. */
  readonly meaning: Meaning;
  /** Each begins at a multiple of 8 of its buffer. */
  readonly sections: readonly Uint8Array[];
}

/** Writes a file in place of the one of that name. Nobody may change the sections meanwhile. */
export async function writeIndexFile<Meaning>(
  disk: Disk,
  directory: string,
  name: string,
  { meaning, sections }: IndexFile<Meaning>,
): Promise<void> {
  const json = new TextEncoder().encode(JSON.stringify(meaning));
  const lengths = new Uint8Array(Float64Array.from(sections, (section) => section.length).buffer);
  const pieces = [lengths, ...[json, ...sections].flatMap((bytes) => [bytes, new Uint8Array(-bytes.length & 7)])];
  const header = new Uint32Array([MAGIC, FORMAT, json.length, sections.length, 0, 0]);
  header[4] = pieces.reduce((crc, bytes) => crc32(bytes, crc), 0);
  const head = new Uint8Array(header.buffer);
  header[5] = crc32(head.subarray(0, HEADER_BYTES - 4));
  const temporary = `${directory}/${name}${TEMPORARY}`;
  const file = await disk.open(temporary, "write");
  try {
    await file.truncate(0);
    let offset = 0;
    for (const bytes of [head, ...pieces]) {
      if (bytes.length > 0) await file.write(offset, bytes);
      offset += bytes.length;
    }
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(temporary, `${directory}/${name}`);
  await disk.syncDirectory(directory);
}

/** @throws {ShardloomError} `ERR_NO_FILE`, `ERR_CORRUPT`, and as disks do. */
export async function readIndexFile<Meaning>(disk: Disk, directory: string, name: string): Promise<IndexFile<Meaning>> {
  const path = `${directory}/${name}`;
  const file = await disk.open(path, "read");
  try {
    const head = await file.read(0, HEADER_BYTES);
    if (head.length < HEADER_BYTES) throw corrupt(path);
    const [magic, format, jsonBytes = 0, count = 0, crc, headCrc] = new Uint32Array(head.slice().buffer);
    if (magic !== MAGIC || format !== FORMAT || count > MAX_SECTIONS) throw corrupt(path);
    if (headCrc !== crc32(head.subarray(0, HEADER_BYTES - 4))) throw corrupt(path);
    const body = await readAll(file, HEADER_BYTES, (await file.size()) - HEADER_BYTES);
    if (crc32(body) !== crc) throw corrupt(path);
    const lengths = new Float64Array(body.buffer, 0, count);
    const sections: Uint8Array[] = [];
    let at = count * 8;
    for (const length of [jsonBytes, ...lengths]) {
      sections.push(body.subarray(at, at + length));
      at += Math.ceil(length / 8) * 8;
    }
    if (at !== body.length) throw corrupt(path);
    return { meaning: JSON.parse(new TextDecoder().decode(sections.shift())) as Meaning, sections };
  } finally {
    await file.close();
  }
}

/**
 * Removes one engine's files that are of no use: those of collections that are not open, and what a crash has left. Files of collections
 * are named `<engine>-<collection>.<kind>`.
 */
export async function removeStrayFiles(
  disk: Disk,
  directory: string,
  engine: string,
  isOpen: (collectionId: number) => boolean,
): Promise<void> {
  for (const name of await disk.list(directory)) {
    if (!name.startsWith(`${engine}-`)) continue;
    const [, collection] = /-(\d+)\.[a-z]+$/.exec(name) ?? [];
    if (name.endsWith(TEMPORARY) || collection === undefined || !isOpen(Number(collection)))
      await disk.remove(`${directory}/${name}`);
  }
}

/** CRC-32 and size of a whole file, read piece by piece. */
export async function checksumOf(disk: Disk, path: string): Promise<{ readonly bytes: number; readonly crc: number }> {
  const file = await disk.open(path, "read");
  try {
    let crc = 0;
    let offset = 0;
    for (;;) {
      const piece = await file.read(offset, PIECE_BYTES);
      if (piece.length === 0) return { bytes: offset, crc };
      crc = crc32(piece, crc);
      offset += piece.length;
    }
  } finally {
    await file.close();
  }
}

async function readAll(file: DiskFile, from: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.max(0, length));
  for (let filled = 0; filled < length; ) {
    const piece = await file.read(from + filled, Math.min(PIECE_BYTES, length - filled));
    if (piece.length === 0) break;
    bytes.set(piece, filled);
    filled += piece.length;
  }
  return bytes;
}

function corrupt(path: string): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot read index file ${path} as it must be whole: it is damaged`, {
    details: { path },
  });
}
