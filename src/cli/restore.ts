/**
 * `shardloom restore`: makes a node's directory of a backup, in an empty place, and sees that a cluster on it has what the backup says.
 *
 * Invariant: ends with 0 only when every file was verified, and with a cluster also every content of which the backup has a hash.
 */
import { Cluster } from "../cluster.ts";
import { type Command, EXIT } from "./command.ts";
import { describeReport, withProgress } from "./directories.ts";
import { formatCount } from "./units.ts";

export const restore: Command = {
  name: "restore",
  summary: "Restore a backup into an empty directory, and verify it",
  usage: "[options] BACKUP DIRECTORY",
  operands: { min: 2, max: 2 },
  options: {
    "files-only": { type: "boolean", summary: "verify the files, and start no cluster to compare contents" },
  },
  async run(context) {
    const [from, into] = context.operands as [string, string];
    const report = await withProgress(context, "restoring", (options) =>
      Cluster.restore(from, into, { ...options, verify: !context.flag("files-only") }),
    );
    context.output.object({ backup: from, directory: into, ...report });
    context.output.line(`Restored ${from} to ${into}: ${describeReport(report)}.`);
    context.output.line(
      `Compared the contents of ${formatCount(report.verifiedVshards)} vshards; the backup has hashes of ${formatCount(report.hashedVshards)} copies.`,
    );
    return EXIT.OK;
  },
};
