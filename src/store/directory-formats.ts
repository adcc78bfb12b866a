/**
 * Whether all that a node's directory keeps of its shards is of a format that this release reads, before anything of it is opened.
 *
 * Invariant: it changes nothing, and refuses nothing but newer formats: what is damaged or cannot be read is for whoever opens it. Documents that
 * were not closed in order say their format only to the scrub.
 */
import { ShardloomError } from "../errors.ts";
import { type Disk, listIfThere } from "../runtime/disk.ts";
import { checkDocumentsFormat } from "./document-files.ts";
import { decodeSegmentHeader, SEGMENT_HEADER_BYTES, segmentsOf } from "./segment-format.ts";
import { assertSnapshotFormat, HEADER_BYTES } from "./snapshot-layout.ts";

/** @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT` naming the file. */
export async function checkShardFormats(disk: Disk, shards: readonly number[]): Promise<void> {
  for (const shard of shards) {
    const log = `shards/${shard}/log`;
    for (const name of segmentsOf(await namesIn(disk, log)).values())
      await checkHeader(disk, `${log}/${name}`, SEGMENT_HEADER_BYTES, decodeSegmentHeader);
    const snapshots = `shards/${shard}/snapshots`;
    for (const name of await namesIn(disk, snapshots))
      await checkHeader(disk, `${snapshots}/${name}`, HEADER_BYTES, assertSnapshotFormat);
    await unlessNewer(checkDocumentsFormat({ disk, shard }), undefined);
  }
}

function namesIn(disk: Disk, directory: string): Promise<readonly string[]> {
  return unlessNewer(listIfThere(disk, directory), []);
}

function checkHeader(
  disk: Disk,
  path: string,
  bytes: number,
  check: (header: Uint8Array, path: string) => unknown,
): Promise<void> {
  const read = async (): Promise<void> => {
    const file = await disk.open(path, "read");
    try {
      check(await file.read(0, bytes), path);
    } finally {
      await file.close();
    }
  };
  return unlessNewer(read(), undefined);
}

/** @param otherwise What it is where something else is wrong than a newer format */
async function unlessNewer<T>(found: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await found;
  } catch (error) {
    if (!ShardloomError.is(error) || error.code === "ERR_UNSUPPORTED_FORMAT") throw error;
    return otherwise;
  }
}
