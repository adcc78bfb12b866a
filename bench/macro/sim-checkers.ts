/**
 * Part of bench `sim`: how fast the checkers decide (D6), and whether they see what is wrong (D6b).
 *
 * Histories are made here: clients against one true object, each operation taken at one moment between its ends, so that they are valid;
 * a planted violation is one read that answers what was overwritten long before it began.
 */
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { History } from "../../src/sim/history.ts";
import type { HistoryEntry } from "../../src/sim/history-types.ts";
import { linearizable } from "../../src/sim/linearizability.ts";
import { checkListAppend } from "../../src/sim/list-append.ts";
import { register } from "../../src/sim/register-model.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchReport, median, sized, toRow } from "../harness/harness.ts";

const CLIENTS = 10;
/** Keys and operations of the transactions that are judged. */
const LISTS = 50;
const TXN_LENGTH = 4;

const below = (random: Random, count: number): number => Math.floor(random.float() * count);

/** Clients that overlap. @param take runs one operation on the truth: `[f, argument, answer]` */
function overlap(random: Random, operations: number, draw: () => { f: string; value: unknown; take(): unknown }) {
  const history = new History();
  const open = new Map<number, { take(): unknown; taken: boolean; answer?: unknown }>();
  for (let left = operations; left > 0 || open.size > 0; ) {
    const process = below(random, CLIENTS);
    const operation = open.get(process);
    if (operation === undefined) {
      if (left-- <= 0) continue;
      const { f, value, take } = draw();
      history.invoke(process, f, value);
      open.set(process, { take, taken: false });
    } else if (!operation.taken) {
      operation.answer = operation.take();
      operation.taken = true;
    } else {
      history.ok(process, operation.answer);
      open.delete(process);
    }
  }
  return history.entries;
}

function registerHistory(random: Random, operations: number): readonly HistoryEntry[] {
  let state: number | null = null;
  let next = 0;
  return overlap(random, operations, () => {
    if (random.float() < 0.5) return { f: "read", value: null, take: () => state };
    const value = next++;
    return {
      f: "write",
      value,
      take: () => {
        state = value;
        return value;
      },
    };
  });
}

function appendHistory(random: Random, txns: number): readonly HistoryEntry[] {
  const lists = new Map<number, number[]>();
  let next = 0;
  return overlap(random, txns, () => {
    const asked = Array.from({ length: TXN_LENGTH }, () => {
      // Few transactions touch a key before the next keys come, as lists would grow without bound.
      const key = below(random, LISTS) + LISTS * Math.floor(next / (LISTS * 20));
      return random.float() < 0.5 ? (["append", key, next++] as const) : (["r", key, null] as const);
    });
    const take = (): unknown =>
      asked.map(([f, key, element]) => {
        const list = lists.get(key) ?? [];
        lists.set(key, list);
        if (f === "r") return [f, key, [...list]];
        list.push(element);
        return [f, key, element];
      });
    return { f: "txn", value: asked, take };
  });
}

/** The history with one read of what was overwritten long before. */
function withStaleRead(entries: readonly HistoryEntry[], random: Random): readonly HistoryEntry[] {
  const reads = entries.filter(({ type, f, value }) => type === "ok" && f === "read" && Number(value) > 4 * CLIENTS);
  const victim = reads[below(random, reads.length)];
  if (victim === undefined) throw new Error("the history has no read that could be stale");
  return entries.map((entry) => (entry === victim ? { ...entry, value: Number(entry.value) - 4 * CLIENTS } : entry));
}

/** D6 and D6b. */
export function measureCheckers({ mode, seed, goals, log }: BenchContext): BenchReport {
  const random = createSeededRandom(seed);
  const perClient = sized(mode, 20, 1_000, 1_000);
  const rounds = sized(mode, 2, 5, 15);
  const [decidedMs, txnRate]: [number[], number[]] = [[], []];
  let [planted, caught] = [0, 0];
  for (let round = 0; round < rounds; round++) {
    const history = registerHistory(random, CLIENTS * perClient);
    let started = performance.now();
    const { verdict } = linearizable(history, register());
    decidedMs.push(performance.now() - started);
    if (verdict !== "linearizable") throw new Error(`a valid history was found ${verdict}`);
    planted++;
    if (linearizable(withStaleRead(history, random), register()).verdict === "not linearizable") caught++;
    const txns = appendHistory(random, sized(mode, 200, 10_000, 20_000));
    started = performance.now();
    const { valid, transactions, edges } = checkListAppend(txns);
    txnRate.push((transactions / (performance.now() - started)) * 1_000);
    if (!valid || edges === 0) throw new Error("a serial history of appends was refused, or nothing was compared");
  }
  log(`checkers: ${median(decidedMs).toFixed(0)} ms, ${caught} of ${planted} planted violations`);
  return {
    rows: [
      toRow(`linearizability, ${CLIENTS} x ${perClient} of a key`, "shardloom", "ms", decidedMs),
      toRow("list-append, strict serializability", "shardloom", "txn/s", txnRate),
    ],
    goals: [judge(goals, "D6", median(decidedMs) / 1_000), judge(goals, "D6b", caught / planted)],
    notes: [`D6: ${rounds} histories of ${CLIENTS * perClient} operations on one key, half of them writes`],
  };
}
