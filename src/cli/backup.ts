/**
 * `shardloom backup`: copies what a node keeps into an empty directory, with a manifest of hashes. A node that runs does it itself, while it serves.
 *
 * Invariant: the target is a backup exactly when the command ends with 0; a command that was interrupted or failed leaves no manifest there.
 */
import { realpath } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve } from "node:path";
import { type BackupOptions, type BackupReport, backupDirectory } from "../cluster-backup.ts";
import { realPlatform } from "../cluster-workers.ts";
import { invalidArgument, ShardloomError } from "../errors.ts";
import { placesOf } from "../node-directory.ts";
import { type Command, EXIT } from "./command.ts";
import { describeReport, withProgress } from "./directories.ts";
import { backupNode, type NodeBackup } from "./node-control.ts";

export const backup: Command = {
  name: "backup",
  summary: "Back up the directory of a node, also of one that runs",
  usage: "[options] DIRECTORY TARGET",
  operands: { min: 2, max: 2 },
  options: {},
  async run(context) {
    const [directory, target] = context.operands as [string, string];
    const { report, ...live } = await withProgress(context, "backing up", (options) =>
      backUp(directory, target, options),
    );
    context.output.object({ directory, target, ...report, ...live });
    context.output.line(`Backed up ${directory} to ${target}: ${describeReport(report)}.`);
    const { node, others } = live;
    if (node !== undefined) context.output.line(`Node ${node} serves, and has done it itself.`);
    if (others !== undefined && others.length > 0)
      context.output.line(
        `It is this node's part as it is now; not in it is what the other nodes keep (${others.join(", ")}): back each of them up too.`,
      );
    return EXIT.OK;
  },
};

async function backUp(
  directory: string,
  target: string,
  options: BackupOptions,
): Promise<Partial<NodeBackup> & { readonly report: BackupReport }> {
  const { home, data } = await placesOf(directory);
  if (await isWithin(home ?? data, target))
    throw invalidArgument("back up directory", "target", `outside of ${directory}`, target);
  try {
    return { report: await backupDirectory(realPlatform(), data, target, options) };
  } catch (error) {
    if (home === undefined || !ShardloomError.is(error) || error.code !== "ERR_DIRECTORY_IN_USE") throw error;
    return backupNode(home, resolve(target), options);
  }
}

/** Whether a path, which need not be there, is a directory or in it. */
async function isWithin(directory: string, path: string): Promise<boolean> {
  const way = relative(await realOf(resolve(directory)), await realOf(resolve(path)));
  return !isAbsolute(way) && way.split(/[\\/]/)[0] !== "..";
}

async function realOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    const above = dirname(path);
    return above === path ? path : join(await realOf(above), relative(above, path));
  }
}
