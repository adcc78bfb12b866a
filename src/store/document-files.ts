/**
 * The files of a shard's documents below the node's directory, and the mark that says that they were closed in order.
 *
 * ```
 *  documents/<shard>/data.mdb       the LMDB environment
 *  documents/<shard>/data.mdb-lock  LMDB's readers and its writer
 *  documents/<shard>/clean          size and checksum of data.mdb when it was closed
 *  documents/<shard>/scrub-….mdb    a copy that a scrub is making
 * ```
 *
 * The mark is checked JSON, see checked-json.ts: a flipped bit makes it say nothing, and never that it is of a newer release.
 * Invariant: the mark is there only while nobody has the environment open to write, and it names the very bytes of the file: a file that was
 * changed since, by whatever, is not clean. It goes durably before the first write and comes durably after the last.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import { type Disk, type DiskFile, listIfThere } from "../runtime/disk.ts";
import { formatCheckedJson, parseCheckedJson } from "./checked-json.ts";
import { DOCUMENTS_FORMAT } from "./document-layout.ts";

/** Largest environment whose checksum is taken when it is closed; larger ones are scrubbed at the next start. */
const MAX_MARKED_BYTES: number = 2 * 1024 ** 3;
const CHUNK_BYTES: number = 4 * 1024 * 1024;
const ROOT = "documents";
const DATA = "data.mdb";
const LOCK = "data.mdb-lock";
const MARK = "clean";

const MAX_MARK_BYTES = 1024;

interface Mark {
  readonly format: number;
  readonly bytes: number;
  readonly crc32: number;
}

/** Where the documents of one shard are. */
export interface DocumentsPlace {
  readonly disk: Disk;
  readonly shard: number;
}

/** Path of the environment below the node's directory. */
export function documentsFile(shard: number): string {
  return `${ROOT}/${shard}/${DATA}`;
}

/** Path of a copy that a scrub makes. @param token Told apart from what an earlier scrub may still be writing */
export function scrubFile(shard: number, token: number): string {
  return `${ROOT}/${shard}/scrub-${token.toString(36)}.mdb`;
}

export async function makeDocumentsDirectory({ disk, shard }: DocumentsPlace): Promise<void> {
  await disk.makeDirectory(ROOT);
  await disk.makeDirectory(`${ROOT}/${shard}`);
  await disk.syncDirectory("");
  await disk.syncDirectory(ROOT);
}

/** Whether there is an environment, whatever is in it. */
export async function hasDocuments({ disk, shard }: DocumentsPlace): Promise<boolean> {
  return (await namesIn(disk, shard)).includes(DATA);
}

/** Whether the environment is what it was when it was last closed in order. Cost: reads all of it. */
export async function isClean({ disk, shard }: DocumentsPlace): Promise<boolean> {
  const mark = await readMark(disk, shard);
  if (mark === undefined || mark.format !== DOCUMENTS_FORMAT) return false;
  const found = await checksumOf(disk, documentsFile(shard), mark.bytes);
  return found?.bytes === mark.bytes && found.crc32 === mark.crc32;
}

/** Throws when the environment was closed in order by a newer release. @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT`, and as disks do. */
export async function checkDocumentsFormat({ disk, shard }: DocumentsPlace): Promise<void> {
  const format = (await readMark(disk, shard))?.format ?? DOCUMENTS_FORMAT;
  if (!(format > DOCUMENTS_FORMAT)) return;
  throw new ShardloomError(
    "ERR_UNSUPPORTED_FORMAT",
    `Cannot open documents of shard ${shard} as their format must be at most ${DOCUMENTS_FORMAT}: current value is ${format}; a newer release has written them`,
    { details: { path: documentsFile(shard), format: DOCUMENTS_FORMAT, value: format } },
  );
}

/** Marks an environment that nobody has open as clean, unless it is too large for that. */
export async function markClean({ disk, shard }: DocumentsPlace): Promise<void> {
  const found = await checksumOf(disk, documentsFile(shard), MAX_MARKED_BYTES);
  if (found === undefined) return;
  const path = `${ROOT}/${shard}/${MARK}`;
  await withFile(disk, path, "write", async (file) => {
    await file.truncate(0);
    await file.write(0, Buffer.from(formatCheckedJson(DOCUMENTS_FORMAT, found)));
    await file.sync();
  });
  await disk.syncDirectory(`${ROOT}/${shard}`);
}

/** Takes the mark away, durably: from here on the environment may be written to. */
export async function unmark({ disk, shard }: DocumentsPlace): Promise<void> {
  await removeNames(disk, shard, (name) => name === MARK);
}

/** Removes the environment and all that belongs to it; nobody has it open. */
export async function removeDocuments({ disk, shard }: DocumentsPlace): Promise<void> {
  await removeNames(disk, shard, (name) => name === MARK);
  await removeNames(disk, shard, (name) => name === DATA || name === LOCK || name.startsWith("scrub-"));
}

/** Removes what scrubs have left that did not end. */
export async function removeScrubs({ disk, shard }: DocumentsPlace): Promise<void> {
  await removeNames(disk, shard, (name) => name.startsWith("scrub-"));
}

/** Puts the copy that a scrub has made in the environment's place. */
export async function adoptScrub({ disk, shard }: DocumentsPlace, copy: string): Promise<void> {
  await withFile(disk, copy, "write", (file) => file.sync());
  await removeNames(disk, shard, (name) => name === MARK || name === LOCK);
  await disk.rename(copy, documentsFile(shard));
  await disk.syncDirectory(`${ROOT}/${shard}`);
}

async function readMark(disk: Disk, shard: number): Promise<Mark | undefined> {
  const path = `${ROOT}/${shard}/${MARK}`;
  try {
    return await withFile(disk, path, "read", async (file) => {
      const text = Buffer.from(await file.read(0, MAX_MARK_BYTES)).toString("utf8");
      const content = parseCheckedJson(text, path, DOCUMENTS_FORMAT) as Omit<Mark, "format">;
      return { ...content, format: DOCUMENTS_FORMAT };
    });
  } catch (error) {
    if (!ShardloomError.is(error)) throw error;
    // A mark that cannot be read says as little as none.
    if (error.code === "ERR_NO_FILE" || error.code === "ERR_CORRUPT") return undefined;
    if (error.code !== "ERR_UNSUPPORTED_FORMAT") throw error;
    return { format: Number(error.details["value"]), bytes: 0, crc32: 0 };
  }
}

/** Size and checksum of a file; undefined when it is not there, or is larger than the limit. */
async function checksumOf(disk: Disk, path: string, maxBytes: number): Promise<Omit<Mark, "format"> | undefined> {
  try {
    return await withFile(disk, path, "read", async (file) => {
      const bytes = await file.size();
      if (bytes > maxBytes) return undefined;
      let crc = 0;
      let next = file.read(0, CHUNK_BYTES);
      for (let at = 0; at < bytes; ) {
        const chunk = await next;
        if (chunk.length === 0) return undefined;
        at += chunk.length;
        next = at < bytes ? file.read(at, CHUNK_BYTES) : next; // the disk reads on meanwhile
        crc = crc32(chunk, crc);
      }
      await next;
      return { bytes, crc32: crc };
    });
  } catch (error) {
    if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return undefined;
    throw error;
  }
}

async function removeNames(disk: Disk, shard: number, isGoing: (name: string) => boolean): Promise<void> {
  const going = (await namesIn(disk, shard)).filter(isGoing);
  for (const name of going) await disk.remove(`${ROOT}/${shard}/${name}`);
  if (going.length > 0) await disk.syncDirectory(`${ROOT}/${shard}`);
}

function namesIn(disk: Disk, shard: number): Promise<readonly string[]> {
  return listIfThere(disk, `${ROOT}/${shard}`);
}

async function withFile<T>(
  disk: Disk,
  path: string,
  mode: "read" | "write",
  run: (file: DiskFile) => Promise<T>,
): Promise<T> {
  const file = await disk.open(path, mode);
  try {
    return await run(file);
  } finally {
    await file.close();
  }
}
