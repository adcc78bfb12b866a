/**
 * `shardloom log`: what is in the logs of a node's directory: positions, LSNs of every vshard, damaged places.
 *
 * Invariant: nothing is changed, not even a torn tail. A damaged log is shown up to its damage, and the command ends with 1.
 */
import { realPlatform } from "../cluster-workers.ts";
import { existingDirectory } from "../store/data-directory.ts";
import { inspectLog, type LogSummary } from "../store/inspect-log.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { createProgress } from "./progress.ts";
import { formatTable } from "./table.ts";
import { formatBytes, formatCount } from "./units.ts";

export const log: Command = {
  name: "log",
  summary: "Show the logs of a node's directory: positions, LSNs of vshards, damaged places",
  usage: "[options] DIRECTORY",
  operands: { min: 1, max: 1 },
  options: {
    shard: { type: "integer", min: 0, max: 255, summary: "only this shard" },
    vshards: { type: "boolean", summary: "list every vshard" },
  },
  async run(context) {
    const { output } = context;
    const [path] = context.operands as [string];
    const { disk, close } = await realPlatform().openDirectory(path, {
      existing: true,
      check: async (looked) => void (await existingDirectory(looked)),
    });
    try {
      const { ownShards } = await existingDirectory(disk);
      const logs: LogSummary[] = [];
      const progress = createProgress({ label: "reading", total: undefined, unit: "frames", output });
      let frames = 0;
      for (const shard of wantedShards(context, ownShards)) {
        const summary = await inspectLog(disk, shard, (more) => {
          context.signal.throwIfAborted();
          frames += more;
          progress.update(frames);
        });
        logs.push(summary);
      }
      progress.finish();
      for (const summary of logs) show(context, summary);
      return logs.every(({ corrupt }) => corrupt === undefined) ? EXIT.OK : EXIT.FAILURE;
    } finally {
      await close();
    }
  },
};

function wantedShards(context: CommandContext, own: readonly number[]): readonly number[] {
  const shard = context.number("shard");
  if (shard === undefined) return own;
  if (own.includes(shard)) return [shard];
  throw new UsageError(`--shard must be one of ${own.join(", ")}: current value is ${shard}`);
}

function show(context: CommandContext, summary: LogSummary): void {
  const { output } = context;
  output.object({ ...summary });
  const { shard, segments, snapshots, first, last, synced, leaseEpoch, cutBytes, corrupt, vshards } = summary;
  const range = last < first ? "empty" : `positions ${formatCount(first)} to ${formatCount(last)}`;
  const known = synced < last ? `, known to be synced up to ${formatCount(synced)}` : "";
  output.line(
    `Shard ${shard}: ${range}${known}; ${segments} segments, ${snapshots.length} snapshots, lease epoch ${leaseEpoch}.`,
  );
  if (cutBytes > 0) output.line(`  a torn tail of ${formatBytes(cutBytes)}, which the next start cuts off`);
  if (corrupt !== undefined) output.line(`  ${describeDamage(corrupt)}`);
  if (!context.flag("vshards") || vshards.length === 0) return;
  const columns = ["vshard", "first LSN", "last LSN", "effects", "restores", "bytes"].map((title) => ({
    title,
    align: "right" as const,
  }));
  const rows = vshards.map(({ vshard, firstLsn, lastLsn, effects, restores, bytes }) =>
    [vshard, firstLsn, lastLsn, effects, restores, bytes].map(formatCount),
  );
  output.line(formatTable(columns, rows, { columns: output.columns }));
}

/** One phrase for people. */
export function describeDamage({ position, vshard, lsn, gone }: NonNullable<LogSummary["corrupt"]>): string {
  if (gone === true) return "gone: all of its files are missing";
  return `damaged at position ${position}${lsn === undefined ? "" : `, LSN ${lsn} of vshard ${vshard}`}`;
}
