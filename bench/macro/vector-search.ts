/**
 * Bench `vector-search` (issue 6): one-sided search and the strategies for many shards, against native usearch and plain scatter.
 *
 * Invariant: each part measures alone, after the one before has ended, and brings its own rows, goals, notes and curves. `SHARDLOOM_PARTS`
 * names those to run, with commas between, when not all are wanted. The vectors are those of vector-search-data.ts; what is calibrated is
 * calibrated on vectors of the base, and queries are for measuring alone.
 * The report with plots goes where `--html FILE` says, by default beside the committed results, with an SVG of the same name; a smoke run
 * writes none unless it is asked.
 */
import { existsSync } from "node:fs";
import type { Bench, BenchContext } from "../harness/harness.ts";
import { measureCotra } from "./vector-search-cotra.ts";
import { onlyAbove, type PartReport, RECALL } from "./vector-search-curve.ts";
import { loadVectorSet, type VectorSet } from "./vector-search-data.ts";
import { measureFilters } from "./vector-search-filters.ts";
import { measureOneSided } from "./vector-search-one-sided.ts";
import { writePlots } from "./vector-search-plot.ts";
import { measureRouting } from "./vector-search-routing.ts";
import { closeShards } from "./vector-search-shards.ts";
import { measureThreads } from "./vector-search-threads.ts";

/** The parts, in the order of the goals. */
const PARTS: Readonly<Record<string, (context: BenchContext, set: VectorSet) => Promise<PartReport>>> = {
  "one-sided": measureOneSided,
  threads: measureThreads,
  filters: measureFilters,
  cotra: measureCotra,
  routing: measureRouting,
};

const RESULTS = "bench/results";

export const bench: Bench = {
  name: "vector-search",
  run: async (context) => {
    const wanted = process.env["SHARDLOOM_PARTS"]?.split(",") ?? Object.keys(PARTS);
    const set = await loadVectorSet(context);
    const reports: PartReport[] = [];
    try {
      for (const name of wanted) {
        const part = PARTS[name];
        if (part === undefined)
          throw new Error(`vector-search bench: no part ${name} among ${Object.keys(PARTS).join(", ")}`);
        context.log(`vector-search: ${name}`);
        reports.push(await part(context, set));
      }
    } finally {
      await closeShards(set);
    }
    const curves = reports.flatMap((part) => part.curves);
    const notes = [
      `${set.name}; ${set.queries.count} queries`,
      ...reports.flatMap((report) => report.notes),
      ...onlyAbove(curves, RECALL),
    ];
    const report = {
      rows: reports.flatMap(({ rows }) => rows),
      goals: reports.flatMap(({ goals }) => goals),
      notes,
    };
    const standard = context.mode !== "smoke" && existsSync(RESULTS) ? `${RESULTS}/vector-search.html` : undefined;
    const html = context.inputs.html ?? standard;
    if (html !== undefined) {
      for (const file of writePlots(html, set.name, curves, report)) context.log(`vector-search: wrote ${file}`);
    }
    return report;
  },
};
