/**
 * Bench `durable` (issue 5): the log under writes, and what stands on it.
 *
 * Invariant: each part measures alone, after the one before has ended, and brings its own rows, goals and notes. `SHARDLOOM_PARTS` names
 * those to run, with commas between, when not all are wanted.
 */
import type { Bench, BenchContext, BenchReport } from "../harness/harness.ts";
import { measureSegmentLog } from "../micro/segment-log.ts";
import { measureFailover } from "./durable-failover.ts";
import { measureQuorum } from "./durable-quorum.ts";
import { measureReads } from "./durable-reads.ts";
import { measureRestart } from "./durable-restart.ts";
import { measureUpserts } from "./durable-upsert.ts";

/** The parts, in the order of the goals. */
const PARTS: Readonly<Record<string, (context: BenchContext) => Promise<BenchReport>>> = {
  log: measureSegmentLog,
  upsert: measureUpserts,
  reads: measureReads,
  quorum: measureQuorum,
  restart: measureRestart,
  failover: measureFailover,
};

export const bench: Bench = {
  name: "durable",
  run: async (context) => {
    const wanted = process.env["SHARDLOOM_PARTS"]?.split(",") ?? Object.keys(PARTS);
    const reports: BenchReport[] = [];
    for (const name of wanted) {
      const part = PARTS[name];
      if (part === undefined) throw new Error(`durable bench: no part ${name} among ${Object.keys(PARTS).join(", ")}`);
      reports.push(await part(context));
    }
    return {
      rows: reports.flatMap(({ rows }) => rows),
      goals: reports.flatMap(({ goals }) => goals),
      notes: reports.flatMap(({ notes }) => notes),
    };
  },
};
