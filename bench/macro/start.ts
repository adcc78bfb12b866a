/**
 * A5: what a cluster and an idle actor cost, each in a child process of its own, as start-up state matters.
 *
 * Invariant: the child proves what it did (workers ready, activations counted by the workers) or exits with an error.
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { type GoalResult, judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, median, sized, toRow } from "../harness/harness.ts";

const CHILD: string = fileURLToPath(new URL("./start-child.js", import.meta.url));

/** Measures A5a, A5b and A5c. */
export function start(context: BenchContext): { rows: BenchRow[]; goals: GoalResult[] } {
  const { mode, goals } = context;
  const cluster: number[] = [];
  const bare: number[] = [];
  const rounds = sized(mode, 1, 5, 11);
  for (let round = 0; round < rounds; round++) {
    cluster.push(child("cluster", 4));
    bare.push(child("bare", 4));
  }
  const idleBytes = child("idle", sized(mode, 20_000, 100_000, 100_000));
  const growth = child("passivate", sized(mode, 50_000, 1_000_000, 1_000_000));
  return {
    rows: [
      toRow("start of 4 workers", "shardloom", "ms", cluster, "Cluster.start until every worker serves"),
      toRow(
        "start of 4 workers",
        "bare",
        "ms",
        bare,
        "new Worker ×4 until each has imported usearch, msgpackr, comlink, piscina",
      ),
      toRow("idle virtual actor", "shardloom", "bytes", [idleBytes], "workers' heaps after a full collection"),
      toRow(
        "activation after passivation",
        "shardloom",
        "bytes",
        [growth],
        "growth of the workers' heaps per activation",
      ),
    ],
    goals: [
      judge(goals, "A5a", median(cluster) / median(bare)),
      judge(goals, "A5b", idleBytes),
      judge(goals, "A5c", growth),
    ],
  };
}

function child(task: string, size: number): number {
  const output = execFileSync(process.execPath, ["--expose-gc", CHILD, task, String(size)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const value = Number(output.trim());
  if (!Number.isFinite(value)) throw new Error(`${task} printed ${JSON.stringify(output)}`);
  return value;
}
