/**
 * Small files of a node's directory that are replaced as a whole: JSON that people can read, with format and checksum.
 *
 * Invariant: after a crash at any point the file has its old content or its new one, whole. A file that was changed by anything else than
 * {@link writeCheckedJson} is refused; one of a newer format is told apart from a damaged one, so the members `format`, `crc32` and
 * `content`, and what the checksum is of, stay what they are in all formats, unless there is no checksum.
 * Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014 (write, sync, rename, sync directory).
 */
import { describeValue, ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import type { Disk } from "../runtime/disk.ts";

/** What the new content is written to, before it takes the file's place. */
export const NEW_SUFFIX = ".new";

/** Largest file; a larger one is not one of ours. */
const MAX_BYTES: number = 256 * 1024 * 1024;

/**
 * Reads a file.
 *
 * @param format The newest one that the caller knows.
 * @returns its content; undefined when there is no such file
 * @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT`, `ERR_CORRUPT`, and as disks do.
 */
export async function readCheckedJson(disk: Disk, path: string, format: number): Promise<unknown> {
  const text = await readText(disk, path);
  return text === undefined ? undefined : parseCheckedJson(text, path, format);
}

/** Replaces a file, atomically and durably. When it fails the old content stands, or either. */
export async function writeCheckedJson(disk: Disk, path: string, format: number, content: unknown): Promise<void> {
  const bytes = new TextEncoder().encode(formatCheckedJson(format, content));
  const fresh = `${path}${NEW_SUFFIX}`;
  const file = await disk.open(fresh, "write");
  try {
    await file.truncate(0);
    await file.write(0, bytes);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(fresh, path);
  await disk.syncDirectory(path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "");
}

/** The text of a file with this content. */
export function formatCheckedJson(format: number, content: unknown): string {
  return `${JSON.stringify({ format, crc32: checksum(format, content), content }, undefined, 2)}\n`;
}

/** The content of a file's text. @param path For errors */
export function parseCheckedJson(text: string, path: string, format: number): unknown {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw corrupt(path, "JSON", (cause as Error).message, cause);
  }
  if (typeof parsed !== "object" || parsed === null) throw corrupt(path, "a JSON object", describeValue(parsed));
  const { format: found, crc32: stated, content } = parsed as Record<string, unknown>;
  if (!Number.isInteger(found)) throw corrupt(path, "a JSON object with a format", describeValue(found));
  const isNewer = (found as number) > format;
  const actual = checksum(found as number, content);
  // The checksum comes first, as one flipped bit makes a newer format of a known one.
  if (stated !== actual && !(isNewer && stated === undefined)) {
    const claim = isNewer ? `, of format ${String(found)} where at most ${format} is known` : "";
    throw corrupt(path, `of checksum ${describeValue(stated)}`, `${actual}${claim}`);
  }
  if (isNewer)
    throw new ShardloomError(
      "ERR_UNSUPPORTED_FORMAT",
      `Cannot read ${path} as its format must be at most ${format}: current value is ${String(found)}; a newer release has written it`,
      { details: { path, format, value: found } },
    );
  return content;
}

async function readText(disk: Disk, path: string): Promise<string | undefined> {
  const file = await disk.open(path, "read").catch((error: unknown) => {
    if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return undefined;
    throw error;
  });
  if (file === undefined) return undefined;
  try {
    const size = await file.size();
    if (size > MAX_BYTES) throw corrupt(path, `at most ${MAX_BYTES} bytes`, String(size));
    const bytes = await file.read(0, size);
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch (cause) {
      throw corrupt(path, "UTF-8", "other bytes", cause);
    }
  } finally {
    await file.close();
  }
}

function checksum(format: number, content: unknown): string {
  return crc32(`${format}\n${JSON.stringify(content)}`)
    .toString(16)
    .padStart(8, "0");
}

function corrupt(path: string, rule: string, value: string, cause?: unknown): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot read ${path} as it must be ${rule}: current value is ${value}`, {
    details: { path },
    ...(cause === undefined ? {} : { cause }),
  });
}
