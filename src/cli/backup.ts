/**
 * `shardloom backup`: copies the directory of a node that does not run into an empty one, with a manifest of hashes.
 *
 * Invariant: the target is a backup exactly when the command ends with 0; a command that was interrupted or failed leaves no manifest there.
 */
import { backupDirectory } from "../cluster-backup.ts";
import { realPlatform } from "../cluster-workers.ts";
import { type Command, EXIT } from "./command.ts";
import { describeReport, withProgress } from "./directories.ts";

export const backup: Command = {
  name: "backup",
  summary: "Back up the directory of a node that does not run",
  usage: "[options] DIRECTORY TARGET",
  operands: { min: 2, max: 2 },
  options: {},
  async run(context) {
    const [directory, target] = context.operands as [string, string];
    const report = await withProgress(context, "backing up", (options) =>
      backupDirectory(realPlatform(), directory, target, options),
    );
    context.output.object({ directory, target, ...report });
    context.output.line(`Backed up ${directory} to ${target}: ${describeReport(report)}.`);
    return EXIT.OK;
  },
};
