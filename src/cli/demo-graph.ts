/**
 * The second act of the demo: PageRank over the packages that npm has installed.
 *
 * Invariant: the ranks are those of the public API; they add up to 1, or the run fails.
 */
import type { Cluster } from "../cluster.ts";
import { ShardloomError } from "../errors.ts";
import type { CommandContext } from "./command.ts";
import { findNodeModules } from "./corpus.ts";
import { type DependencyGraph, readDependencyGraph } from "./dependency-graph.ts";
import { formatTable } from "./table.ts";
import { formatCount, formatSeconds } from "./units.ts";

const SHOWN = 6;
const TOLERANCE = 1e-9;

/** Ranks packages by who depends on them. Where there is no lock file it says so, and nothing else. */
export async function showDependencies(cluster: Cluster, { output, signal }: CommandContext): Promise<void> {
  const found = await readDependencyGraph(await findNodeModules()).catch((error: unknown) => {
    if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return undefined;
    throw error;
  });
  if (found === undefined) {
    output.line("There is no lock file whose dependencies could be ranked.\n");
    return;
  }
  const { packages, dependencies } = found;
  const graph = await cluster.graph("dependencies");
  await graph.load([{ vertices: packages, edges: dependencies }], { signal });
  const started = performance.now();
  await using ranks = await graph.pageRank({ tolerance: TOLERANCE, signal });
  const elapsedMs = performance.now() - started;
  const ranked = [...(await ranks.toMap())].sort(([, a], [, b]) => b - a).slice(0, SHOWN);
  output.line(
    `PageRank of the ${formatCount(packages.length)} packages and ${formatCount(dependencies.length)} dependencies in the lock file: ${ranks.supersteps} supersteps in ${formatSeconds(elapsedMs / 1000)}.`,
  );
  const rows = ranked.map(([key, rank]) => [rank.toFixed(4), String(key), dependentsOf(found, String(key))]);
  output.line(
    formatTable(
      [{ title: "rank", align: "right" }, { title: "package" }, { title: "dependents", align: "right" }],
      rows,
      { columns: output.columns },
    ),
  );
  output.line();
  output.object({
    event: "ranked",
    packages: packages.length,
    dependencies: dependencies.length,
    supersteps: ranks.supersteps,
    elapsedMs,
    ranks: ranked.map(([key, rank]) => ({ package: key, rank })),
  });
}

function dependentsOf({ dependencies }: DependencyGraph, name: string): string {
  return formatCount(dependencies.filter(({ target }) => target === name).length);
}
