/** Bench `ring`: goals R1 to R6 of the rings, the doorbell and the idle strategy. */
import { type GoalResult, judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchContext,
  type BenchReport,
  type BenchRow,
  interleave,
  ratioOf,
  sized,
} from "../harness/harness.ts";
import { compileNative } from "../harness/native.ts";
import { CALLER_CORE, pinThread } from "../harness/pin.ts";
import { parkedCases, spinningCases, wakesAtLoad } from "./ring-latency.ts";
import { measureHeapDelta } from "./ring-memory.ts";
import { throughputCases } from "./ring-throughput.ts";
import { waitingRows } from "./ring-waiting.ts";

async function run(context: BenchContext): Promise<BenchReport> {
  const notes: string[] = [];
  const rows: BenchRow[] = [];
  const goals: GoalResult[] = [];
  const program = compileNative((line) => notes.push(line));
  // Caller here and partner on the next core, in C++ as in JavaScript; free again for the waiting policies.
  const pinned = pinThread(CALLER_CORE);
  notes.push(
    pinned ? "throughput and round trips: the two sides are pinned to cores 0 and 1" : "threads are not pinned",
  );
  try {
    context.log("ring: throughput");
    const throughput = throughputCases(program);
    notes.push(...throughput.notes);
    rows.push(...(await interleave(throughput.cases, sized(context.mode, 11, 201, 1001))));
    const native = rows.find((row) => row.case === "64B" && row.side === "c++");
    if (native !== undefined) {
      const note = native.median > 6 ? `void: the C++ ring took ${native.median.toFixed(1)} ns > 6 ns` : undefined;
      goals.push(judge(context.goals, "R1", ratioOf(rows, "64B-batched", "shardloom", "c++", "64B"), note));
      goals.push(judge(context.goals, "R2", ratioOf(rows, "64B-each", "shardloom", "c++", "64B"), note));
    }
    const large = rows.find((row) => row.case === "4KB");
    goals.push(judge(context.goals, "R6b", large === undefined ? Number.NaN : 4096 / large.median));
    context.log("ring: round trips");
    rows.push(...(await interleave(spinningCases(program), sized(context.mode, 5, 101, 401))));
    const baseline = program === undefined ? "js atomics" : "c++";
    goals.push(judge(context.goals, "R3", ratioOf(rows, "spinning", "shardloom", baseline), `against ${baseline}`));
  } finally {
    program?.dispose();
  }
  context.log("ring: parked");
  rows.push(...(await interleave(parkedCases(sized(context.mode, 5, 20, 50)), sized(context.mode, 2, 10, 20))));
  pinThread("any");
  goals.push(judge(context.goals, "R4", ratioOf(rows, "parked", "shardloom", "postMessage", "quiet round trip")));
  goals.push(judge(context.goals, "R4b", await wakesAtLoad(sized(context.mode, 20_000, 200_000, 1_000_000))));
  context.log("ring: heap");
  const heap = measureHeapDelta(10_000_000);
  goals.push(
    judge(
      context.goals,
      "R6",
      heap.heapBytes / heap.messages,
      `${heap.heapBytes} bytes over ${heap.messages} messages, ${heap.collections} collections`,
    ),
  );
  const waiting = await waitingRows(context.mode, context.log);
  rows.push(...waiting.rows);
  goals.push(judge(context.goals, "R5", waiting.worst, `worst at ${waiting.where}`));
  return { rows, goals, notes };
}

export const bench: Bench = { name: "ring", run };
