/**
 * Transactions of one key in the shape of Elle: each appends to an actor's list and reads it, or only reads it.
 *
 * The engines have no transactions over several keys, so no history of theirs can have a cycle over two: what the checker can find here are lost,
 * duplicate, reordered and contradicting appends, and cycles with the order of real time.
 *
 * Rule: strictly serializable, by `checkListAppend`. A list lives as long as its actor's activation, so the checker sees each
 * activation as a key of its own; what is in doubt counts for the activation in which it was seen.
 */
import { invalidArgument } from "../../errors.ts";
import { pairCalls } from "../history.ts";
import type { Call, HistoryEntry } from "../history-types.ts";
import { checkListAppend } from "../list-append.ts";
import type { Operation, Workload, WorkloadRef } from "../workload-types.ts";
import { notebook } from "./actor-workload.ts";
import { certainlyRefused } from "./failures.ts";
import { below, type LoadOptions, spread } from "./spread.ts";

/** Options of {@link listAppendWorkload}. */
export interface ListAppendWorkloadOptions extends LoadOptions {
  /** Lists, `1..10^4`. @default 4 */
  readonly keys?: number;
  /** Deadline of each transaction in simulated ms. @default 5000 */
  readonly timeoutMs?: number;
}

type Append = readonly ["append", string, number];
type Read = readonly ["r", string, readonly number[] | null];
type Txn = readonly (Append | Read)[];
interface Answer {
  readonly activation: number;
  readonly txn: Txn;
}

/** Appends and reads of lists, as transactions. */
export function listAppendWorkload(options: ListAppendWorkloadOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createListAppendWorkload", options };
}

/** The workload itself, made inside a world by its reference. @public */
export function createListAppendWorkload(options: ListAppendWorkloadOptions = {}): Workload {
  const { keys = 4, timeoutMs = 5000 } = options;
  if (!Number.isInteger(keys) || keys < 1 || keys > 10_000)
    throw invalidArgument("create list-append workload", "keys", "an integer in [1, 10000]", keys);
  let next = 1;
  return {
    name: "list-append",
    actors: [new URL("./actor-workload.js", import.meta.url)],
    generate: (random, shape) =>
      spread(random, shape, options, (stream) => {
        const key = `l${below(stream, keys)}`;
        const read: Read = ["r", key, null];
        return { f: "txn", value: stream.float() < 0.6 ? [["append", key, next++], read] : [read] };
      }),
    async invoke({ value }: Operation, { cluster, process }): Promise<Answer> {
      const txn = value as Txn;
      const [first] = txn as [Append | Read];
      const [kind, key] = first;
      const actor = cluster.actor(notebook, key);
      // A read may be the first message of an activation, and then names it: its number must be nobody else's.
      const asked = -(process + 1) * 1_000_000 - next++;
      const answer =
        kind === "append" ? await actor.append(first[2], { timeoutMs }) : await actor.read(asked, { timeoutMs });
      return {
        activation: answer.activation,
        txn: txn.map((operation) => (operation[0] === "r" ? ["r", key, answer.list] : operation)),
      };
    },
    failed: certainlyRefused,
    check: ({ history }) => checkListAppend(byActivation(history)).violations,
  };
}

/** The history with keys that name the activation, answers as plain transactions. */
function byActivation(history: readonly HistoryEntry[]): HistoryEntry[] {
  const calls = pairCalls(history);
  const seen = new Map<number, number>();
  for (const call of calls) {
    if (call.outcome !== "ok") continue;
    const { activation, txn } = answerOf(call);
    for (const operation of txn)
      if (operation[0] === "r") for (const number of operation[2] ?? []) seen.set(number, activation);
  }
  const entries = [...history];
  for (const call of calls) {
    const appended = (call.invoke.value as Txn).find((operation): operation is Append => operation[0] === "append");
    const doubt = appended === undefined ? undefined : seen.get(appended[2]);
    const activation = call.outcome === "ok" ? answerOf(call).activation : doubt;
    const named = (txn: Txn): Txn =>
      txn.map(([kind, key, value]) => [kind, `${key}#${activation ?? "unknown"}`, value] as Append | Read);
    entries[call.invoke.index] = { ...call.invoke, value: named(call.invoke.value as Txn) };
    const { completion } = call;
    if (completion === undefined) continue;
    const txn = call.outcome === "ok" ? answerOf(call).txn : (completion.value as Txn);
    entries[completion.index] = { ...completion, value: named(txn) };
  }
  return entries;
}

function answerOf(call: Call): Answer {
  return (call.completion as HistoryEntry).value as Answer;
}
