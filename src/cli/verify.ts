/**
 * `shardloom verify`: reads all of a node's directory, or of a backup, and tells what is damaged.
 *
 * Invariant: nothing is changed. Ends with 0 only when everything was read and is as it was written; what an unclean stop leaves (a torn tail
 * of a log) is no damage.
 */
import { verifyBackup } from "../cluster-restore.ts";
import { realPlatform } from "../cluster-workers.ts";
import type { Disk } from "../runtime/disk.ts";
import { MANIFEST_FILE } from "../store/backup-manifest.ts";
import { readCollections } from "../store/collection-store.ts";
import { existingDirectory } from "../store/data-directory.ts";
import { inspectLog, type LogSummary } from "../store/inspect-log.ts";
import { type Command, type CommandContext, EXIT } from "./command.ts";
import { withProgress } from "./directories.ts";
import { describeDamage } from "./log.ts";
import { formatTable } from "./table.ts";
import { formatCount } from "./units.ts";

export const verify: Command = {
  name: "verify",
  summary: "Read a node's directory or a backup, and tell what is damaged",
  usage: "[options] DIRECTORY",
  operands: { min: 1, max: 1 },
  options: {},
  async run(context) {
    const [path] = context.operands as [string];
    const platform = realPlatform();
    const looked = await platform.openDirectory(path, { shared: true });
    if ((await looked.disk.list("")).includes(MANIFEST_FILE)) return verifyOneBackup(context, path, looked.disk);
    await existingDirectory(looked.disk);
    const { disk, close } = await platform.openDirectory(path, { existing: true });
    try {
      return await verifyDirectory(context, path, disk);
    } finally {
      await close();
    }
  },
};

async function verifyOneBackup(context: CommandContext, path: string, disk: Disk): Promise<number> {
  const { parts, collections } = await withProgress(context, "verifying", (options) => verifyBackup(disk, options));
  const files = parts.reduce((sum, part) => sum + part.files.length, 0);
  context.output.object({ backup: path, shards: parts.length, files, collections: collections.collections.length });
  context.output.line(
    `The backup ${path} is whole: ${formatCount(files)} files of ${formatCount(parts.length)} shards.`,
  );
  return EXIT.OK;
}

async function verifyDirectory({ output, signal }: CommandContext, path: string, disk: Disk): Promise<number> {
  const record = await existingDirectory(disk);
  const { collections } = await readCollections(disk);
  const logs: LogSummary[] = [];
  for (const shard of record.ownShards) logs.push(await inspectLog(disk, shard, () => signal.throwIfAborted()));
  const damaged = logs.filter(({ corrupt }) => corrupt !== undefined);
  output.object({
    directory: path,
    ...record,
    collections: collections.map(({ engine, name }) => ({ engine, name })),
    logs: logs.map(({ shard, first, last, cutBytes, corrupt }) => ({ shard, first, last, cutBytes, corrupt })),
    damaged: damaged.length,
  });
  const { node, cluster, starts } = record;
  output.line(
    `Node ${node} of cluster ${cluster}, started ${formatCount(starts)} times, ${collections.length} collections.`,
  );
  const columns = [
    { title: "shard", align: "right" as const },
    { title: "frames", align: "right" as const },
    { title: "torn bytes", align: "right" as const },
    { title: "log" },
  ];
  const rows = logs.map(({ shard, frames, cutBytes, corrupt }) => [
    String(shard),
    formatCount(frames),
    formatCount(cutBytes),
    corrupt === undefined ? "whole" : describeDamage(corrupt),
  ]);
  output.line(formatTable(columns, rows, { columns: output.columns }));
  return damaged.length === 0 ? EXIT.OK : EXIT.FAILURE;
}
