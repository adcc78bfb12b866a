/**
 * What the commands over directories of nodes share: progress in bytes, and an end that says what an interruption left.
 *
 * Invariant: they work offline. A directory that a cluster has open is refused with `ERR_DIRECTORY_IN_USE`; a running one is backed up by its own
 * process, with `cluster.snapshot()`, for which `shardloom backup` asks a node.
 */
import type { BackupOptions, BackupReport } from "../cluster-backup.ts";
import type { CommandContext } from "./command.ts";
import { createProgress } from "./progress.ts";
import { formatBytes, formatCount, formatSeconds } from "./units.ts";

/** Runs something that tells its progress in bytes, and shows that. */
export async function withProgress<T>(
  { output, signal }: CommandContext,
  label: string,
  run: (options: Required<Pick<BackupOptions, "signal" | "onProgress">>) => Promise<T>,
): Promise<T> {
  const progress = createProgress({ label, total: undefined, unit: "bytes", output });
  try {
    const result = await run({
      signal,
      onProgress: ({ bytes, totalBytes }) => progress.update(bytes, `${formatBytes(totalBytes)} in all`),
    });
    progress.finish();
    return result;
  } catch (error) {
    progress.fail();
    throw error;
  }
}

/** One line for people. */
export function describeReport({ shards, files, bytes, elapsedMs }: BackupReport): string {
  const what = `${formatCount(files)} files of ${formatCount(shards)} shards, ${formatBytes(bytes)}`;
  return `${what}, in ${formatSeconds(elapsedMs / 1000)}`;
}
