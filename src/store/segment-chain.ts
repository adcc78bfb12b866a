/**
 * Which of the segment files of a log count: the newest of its last owner, and what each says came before it.
 *
 * Invariant: a file that an owner made whose successor had already looked is in no chain: what was under way when a worker died may still get
 * its name, at any later time. Where all files have one owner, all count.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk } from "../runtime/disk.ts";
import {
  decodeSegmentHeader,
  parseSegmentName,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
  segmentsOf,
} from "./segment-format.ts";

/**
 * @param names Of the log's directory.
 * @returns names by first position, rising
 * @throws {ShardloomError} As the disk does, and `ERR_UNSUPPORTED_FORMAT`.
 */
export async function chainOf(disk: Disk, directory: string, names: readonly string[]): Promise<Map<number, string>> {
  const all = names.flatMap((name) => parseSegmentName(name) ?? []);
  const newest = all.reduce((owner, segment) => Math.max(owner, segment.owner), 0);
  if (all.every(({ owner }) => owner === newest)) return segmentsOf(names);
  const known = new Set(names);
  const own = all.filter(({ owner }) => owner === newest);
  let next: string | undefined = own.reduce((last, segment) => (segment.first > last.first ? segment : last)).name;
  const chain = new Map<number, string>();
  while (next !== undefined) {
    const { first } = parseSegmentName(next) as { first: number };
    const header = await headerOf(disk, `${directory}/${next}`);
    if (header === "gone") break;
    chain.set(first, next);
    if (header === undefined) {
      // Damaged: what came before is told by nothing else than the names.
      for (const [before, name] of segmentsOf(names)) if (before < first) chain.set(before, name);
      break;
    }
    const { previousFirst, previousOwner } = header;
    const previous = previousFirst === 0 ? undefined : segmentName(previousFirst, previousOwner);
    next = previous !== undefined && known.has(previous) && previousFirst < first ? previous : undefined;
  }
  return new Map([...chain].sort(([one], [other]) => one - other));
}

async function headerOf(disk: Disk, path: string): Promise<SegmentHeader | "gone" | undefined> {
  try {
    const file = await disk.open(path, "read");
    try {
      return decodeSegmentHeader(await file.read(0, SEGMENT_HEADER_BYTES), path);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return "gone";
    throw error;
  }
}
