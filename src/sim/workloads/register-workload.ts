/**
 * Registers: clients read and write a few keys of a replicated collection; what they were told must fit one order.
 *
 * Which rule holds depends on the consistency that is asked for: `strong` reads must be linearizable per key; under `session` a client
 * sees its own writes and never goes back; `bounded-staleness` answers are never older than the bound; `eventual` only
 * invents nothing. After the run every key is read strongly, and acknowledged writes must be there.
 */
import type { Cluster } from "../../cluster.ts";
import { invalidArgument, ShardloomError } from "../../errors.ts";
import type { Acks } from "../../routing/call-defaults.ts";
import { CONSISTENCIES, type Consistency } from "../../routing/plan.ts";
import type { Session } from "../../topology/session.ts";
import type { Violation } from "../history-types.ts";
import type { Operation, OperationContext, Workload, WorkloadRef, WorldView } from "../workload-types.ts";
import { certainlyRefused } from "./failures.ts";
import { type FinalRead, judgeRegisters } from "./register-rules.ts";
import {
  openRegisters,
  REGISTER_ENGINES,
  type ReadCall,
  type RegisterEngine,
  type RegisterStore,
} from "./register-store.ts";
import { below, type LoadOptions, spread } from "./spread.ts";

/** Options of {@link registerWorkload}. */
export interface RegisterOptions extends LoadOptions {
  /** Keys that are read and written, `1..10^5`. @default 8 */
  readonly keys?: number;
  /** What keeps them. @default "vector" */
  readonly engine?: RegisterEngine;
  /** Share of writes, in `[0, 1]`. @default 0.5 */
  readonly writes?: number;
  /** What reads ask for. @default "strong" */
  readonly consistency?: Consistency;
  /** Bound of `bounded-staleness`, in ms. @default 2000 */
  readonly maxStalenessMs?: number;
  /** Copies that acknowledge a write. @default "quorum" */
  readonly acks?: Acks;
  /** Deadline of each operation in simulated ms. @default 5000 */
  readonly timeoutMs?: number;
}

/** Reads and writes of registers. */
export function registerWorkload(options: RegisterOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createRegisterWorkload", options };
}

/** No copy is left that may answer. */
const LEFT_NOBODY: ReadonlySet<string> = new Set(["ERR_UNAVAILABLE", "ERR_STALE_REPLICA"]);

/** Whether no copy may answer at the consistency that was asked for. */
function isUnavailable(error: unknown): boolean {
  return ShardloomError.is(error) && LEFT_NOBODY.has(error.code);
}

/** The workload itself, made inside a world by its reference. @public */
export function createRegisterWorkload(options: RegisterOptions = {}): Workload {
  const { keys = 8, writes = 0.5, consistency = "strong", acks = "quorum", timeoutMs = 5000 } = options;
  const { maxStalenessMs = 2000, engine = "vector" } = options;
  const action = "create register workload";
  if (!Number.isInteger(keys) || keys < 1 || keys > 100_000)
    throw invalidArgument(action, "keys", "an integer in [1, 100000]", keys);
  if (!(writes >= 0 && writes <= 1)) throw invalidArgument(action, "writes", "a number in [0, 1]", writes);
  if (!CONSISTENCIES.includes(consistency))
    throw invalidArgument(action, "consistency", `one of ${CONSISTENCIES.join(", ")}`, consistency);
  if (!REGISTER_ENGINES.includes(engine))
    throw invalidArgument(action, "engine", `one of ${REGISTER_ENGINES.join(", ")}`, engine);
  const shared = consistency === "strong";
  const clientsOf = (nodes: number): number => options.clients ?? nodes;
  const sessions = new Map<number, Session>();
  let next = 1;

  const sessionOf = ({ cluster, process }: OperationContext): Session => {
    const known = sessions.get(process) ?? cluster.session();
    sessions.set(process, known);
    return known;
  };

  const write = async ([key, value]: readonly [string, number], context: OperationContext): Promise<unknown> => {
    const session = consistency === "session" ? { session: sessionOf(context) } : {};
    await (context.state as RegisterStore).write(key, value, { acks, timeoutMs, ...session });
    return [key, value];
  };

  const read = async (key: string, context: OperationContext): Promise<unknown> => {
    const session = consistency === "session" ? { session: sessionOf(context) } : {};
    const call: ReadCall = { consistency, maxStalenessMs, timeoutMs, ...session };
    const [value = null] = await (context.state as RegisterStore).read([key], call);
    return [key, value];
  };

  return {
    name: "register",
    generate: (random, shape) =>
      spread(random, shape, options, (stream, process) => {
        const number = below(stream, keys);
        // Where no order over all clients is promised, each key has one writer, whose order everybody can be judged by.
        const own = `k${number - (number % clientsOf(shape.nodes)) + process}`;
        if (stream.float() < writes) return { f: "write", value: [shared ? `k${number}` : own, next++] };
        return { f: "read", value: [consistency === "session" ? own : `k${number}`, null] };
      }),
    open: (cluster: Cluster) => openRegisters(cluster, engine),
    invoke: ({ f, value }: Operation, context) => {
      const [key, number] = value as readonly [string, number];
      return f === "write" ? write([key, number], context) : read(key, context);
    },
    failed: certainlyRefused,
    async check({ history, nodes, lost, mayForget }) {
      const ids = [...new Set(history.map(({ value }) => (value as readonly [string])[0]))];
      // Copies are not promoted: with a node that is lost for good go the strong answers of the vshards whose primary it had, and
      // nobody levels their other copies.
      const isLost = lost.length > 0;
      const { finals, unreadable } = await readFinals(nodes, ids, isLost, mayForget);
      return [...unreadable, ...judgeRegisters(history, finals, { consistency, maxStalenessMs, mayForget })];
    },
  };
}

/**
 * What every node reads of all keys at last.
 *
 * @param isLost Some copies are gone for good, and some keys may have nobody who answers.
 * @param mayForget What is gone may have been all that was left of some: then those are waited for.
 */
async function readFinals(
  nodes: WorldView["nodes"],
  ids: readonly string[],
  isLost: boolean,
  mayForget: boolean,
): Promise<{ readonly finals: readonly FinalRead[]; readonly unreadable: readonly Violation[] }> {
  const finals: FinalRead[] = [];
  const unreadable: Violation[] = [];
  const groups = isLost ? ids.map((id) => [id]) : [ids];
  const levels = isLost ? (["strong"] as const) : (["strong", "eventual"] as const);
  for (const { name: node, state } of nodes) {
    const store = state as RegisterStore;
    for (const consistency of levels) {
      for (const some of groups) {
        try {
          const values = await store.read(some, { consistency });
          const found = isLost ? {} : { found: await store.find(ids.length + 1, { consistency }) };
          finals.push({ node, consistency, ids: some, values, ...found });
        } catch (error) {
          if (!ShardloomError.is(error)) throw error;
          if (isLost && (isUnavailable(error) || (mayForget && error.code === "ERR_TIMEOUT"))) continue;
          const message = `${node} cannot read all keys (${consistency}): ${error.code}, ${error.message}`;
          unreadable.push({ rule: "readable after heal", message, entries: [] });
        }
      }
    }
  }
  return { finals, unreadable };
}
