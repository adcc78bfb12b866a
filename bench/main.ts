/**
 * `node dist/bench/main.js <name|all> [--smoke|--quick|--full] [--json FILE]`: runs benches by name; quick is what they do unless told. Bench
 * `vector-search` also takes `--data FILE`, `--queries FILE`, `--truth FILE`, `--rows N` and `--html FILE`; bench `embed` the first two and `--rows N`, bench `graph`
 * takes `--data FILE`.
 *
 * A missed goal is printed as missed and exits 0; a bench that did not exercise what it claims exits 1.
 * A new bench adds one line to {@link BENCHES}.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { readGoals } from "./harness/goals.ts";
import type { Bench, BenchMode } from "./harness/harness.ts";
import { toJson, toTable } from "./harness/report.ts";

/** The registry: name → the module whose `bench` export it is, loaded only when asked for. */
export const BENCHES: Readonly<Record<string, () => Promise<{ readonly bench: Bench }>>> = {
  ring: () => import("./micro/ring.ts"),
  route: () => import("./micro/route.ts"),
  ask: () => import("./macro/ask.ts"),
  read: () => import("./micro/read.ts"),
  kernels: () => import("./micro/kernels.ts"),
  embed: () => import("./macro/embed.ts"),
  search: () => import("./macro/search.ts"),
  barrier: () => import("./macro/barrier.ts"),
  gather: () => import("./macro/gather.ts"),
  text: () => import("./macro/text.ts"),
  sim: () => import("./macro/sim.ts"),
  durable: () => import("./macro/durable.ts"),
  graph: () => import("./macro/graph.ts"),
  wire: () => import("./macro/wire.ts"),
  "vector-search": () => import("./macro/vector-search.ts"),
};

const USAGE = `usage: bench <${Object.keys(BENCHES).join("|")}|all> [--smoke|--quick|--full] [--json FILE] [--seed N]`;

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      smoke: { type: "boolean" },
      quick: { type: "boolean" },
      full: { type: "boolean" },
      json: { type: "string" },
      seed: { type: "string" },
      data: { type: "string" },
      queries: { type: "string" },
      truth: { type: "string" },
      rows: { type: "string" },
      html: { type: "string" },
    },
  });
  const names = positionals[0] === "all" ? Object.keys(BENCHES) : positionals;
  if (names.length === 0 || names.some((name) => !Object.hasOwn(BENCHES, name))) {
    process.stderr.write(`${USAGE}\n`);
    return 2;
  }
  const mode: BenchMode = values.smoke === true ? "smoke" : values.full === true ? "full" : "quick";
  const seed = Number(values.seed ?? 1);
  const { data, queries, truth, html } = values;
  const rows = values.rows === undefined ? undefined : Number(values.rows);
  const results: Record<string, unknown>[] = [];
  for (const name of names) {
    const load = BENCHES[name] as () => Promise<{ readonly bench: Bench }>;
    const { bench } = await load();
    const report = await bench.run({
      mode,
      seed,
      goals: readGoals(),
      inputs: { data, queries, truth, rows, html },
      log: (line) => process.stderr.write(`${line}\n`),
    });
    if (report.rows.length === 0) throw new Error(`bench ${name} measured nothing`);
    results.push(toJson(name, mode, seed, report));
    process.stdout.write(`${toTable(name, report)}\n`);
  }
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify(results.length === 1 ? results[0] : results, null, 1)}\n`);
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`bench failed: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
}
