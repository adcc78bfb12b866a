/**
 * Two marks that tell a shard's log that never had anything from one that was lost.
 *
 * ```
 *  shards/<n>.begun   empty; beside the shard's directory, so that it is there when all of that was removed
 *  shards/<n>/origin  empty; the directory is the one that the first life of the node has made
 * ```
 *
 * Invariant: `begun` comes after the first segment of the log is durable, so a log beside it that has no segment has lost it. What is lost
 * before the mark is there is not found; it comes with the first group. A log of before there were marks gets its own when it is opened, as
 * one that was restored from a backup does. `origin` is made before the shard serves for the first time, and goes when what is damaged is
 * put aside: a log without segments in a directory with it, and without `begun`, has never had any.
 */
import { type Disk, listIfThere } from "../runtime/disk.ts";
import { isSnapshot } from "./snapshot-file.ts";

const PARENT = "shards";
const ORIGIN = "origin";

/** Whether a shard's log has had a segment; also a snapshot says so. */
export async function hasBegun(disk: Disk, shard: number): Promise<boolean> {
  if (await isThere(disk, PARENT, begunOf(shard))) return true;
  return (await listIfThere(disk, `${PARENT}/${shard}/snapshots`)).some(isSnapshot);
}

/** Makes the mark, durably. The directory of shards must be there. */
export function markBegun(disk: Disk, shard: number): Promise<void> {
  return make(disk, PARENT, begunOf(shard));
}

/** Removes the marks, durably: the log will begin anew, and not for the first time. */
export async function unmark(disk: Disk, shard: number): Promise<void> {
  await remove(disk, directoryOf(shard), ORIGIN);
  await remove(disk, PARENT, begunOf(shard));
}

/** Whether the first life of the node has made the shard's directory. */
export function hasOrigin(disk: Disk, shard: number): Promise<boolean> {
  return isThere(disk, directoryOf(shard), ORIGIN);
}

/** Makes the mark, durably. The shard's directory must be there. */
export function markOrigin(disk: Disk, shard: number): Promise<void> {
  return make(disk, directoryOf(shard), ORIGIN);
}

async function isThere(disk: Disk, directory: string, name: string): Promise<boolean> {
  return (await listIfThere(disk, directory)).includes(name);
}

async function make(disk: Disk, directory: string, name: string): Promise<void> {
  const file = await disk.open(`${directory}/${name}`, "write");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.syncDirectory(directory);
}

async function remove(disk: Disk, directory: string, name: string): Promise<void> {
  if (!(await isThere(disk, directory, name))) return;
  await disk.remove(`${directory}/${name}`);
  await disk.syncDirectory(directory);
}

function directoryOf(shard: number): string {
  return `${PARENT}/${shard}`;
}

function begunOf(shard: number): string {
  return `${shard}.begun`;
}
