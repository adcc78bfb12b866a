/** Workloads that the tests of worlds run. */

import { ShardloomError } from "../../src/errors.ts";
import type { VectorCollection } from "../../src/index.ts";
import type { HistoryEntry, Violation } from "../../src/sim/history-types.ts";
import { linearizable } from "../../src/sim/linearizability.ts";
import { keyValue } from "../../src/sim/register-model.ts";
import type { Operation, Workload } from "../../src/sim/workload-types.ts";
import { counter } from "./probe-actors.ts";

interface RegisterOptions {
  readonly processes?: number;
  readonly keys?: number;
  readonly pauseMs?: number;
}

/** Registers: writes and reads of single documents, each value written once, and a counting actor. */
export function registers({ processes = 3, keys = 4, pauseMs = 200 }: RegisterOptions = {}): Workload {
  return {
    name: "registers",
    actors: [new URL("./probe-actors.js", import.meta.url)],
    generate(random, { durationMs }) {
      const operations: Operation[] = [];
      for (let process = 0; process < processes; process++) {
        for (let atMs = 0; atMs < durationMs; ) {
          const afterMs = Math.floor(random.float() * pauseMs * 2);
          atMs += afterMs;
          const drawn = random.u32() % 10;
          const key = random.u32() % keys;
          const f = drawn < 4 ? "write" : drawn < 8 ? "read" : "add";
          operations.push({ process, f, value: f === "write" ? [key, operations.length + 1] : [key, null], afterMs });
        }
      }
      return operations;
    },
    open: (cluster) => cluster.vectors("registers", { dimensions: 2, metric: "l2" }),
    async invoke({ f, value }, { cluster, state }) {
      const collection = state as VectorCollection;
      const [key, written] = value as [number, number | null];
      if (f === "add") return [key, await cluster.actor(counter, `k${key}`).add(1)];
      if (f === "write") {
        await collection.upsert([{ id: key, vector: [1, written as number], payload: { value: written } }]);
        return value;
      }
      const document = await collection.get(key);
      return [key, (document?.payload as { value: number } | undefined)?.value ?? null];
    },
    check: ({ history }) => check(history),
  };
}

/** Whether single documents are registers, with whatever a crash may do to them. */
function check(history: readonly HistoryEntry[]): readonly Violation[] {
  return linearizable(
    history.filter(({ f }) => f !== "add"),
    keyValue(),
  ).violations;
}

type Sabotage =
  | "generate"
  | "invoke"
  | "check"
  | "open"
  | "never"
  | "cyclic"
  | "violation"
  | "malformed"
  | "refused"
  | "endless";

/** One operation a process, and one thing that goes wrong in the workload itself. */
export function sabotage({ how }: { readonly how: Sabotage }): Workload {
  const fail = (where: Sabotage): void => {
    if (how === where) throw new RangeError(`planted in ${where}`);
  };
  return {
    name: "sabotage",
    generate() {
      fail("generate");
      return [0, 1].map((process) => ({ process, f: "poke", value: process, afterMs: 10 + 10 * process }));
    },
    async open() {
      fail("open");
    },
    async invoke({ value }) {
      fail("invoke");
      if (how === "never") await new Promise(() => undefined);
      if (how === "endless") for (;;);
      if (how === "cyclic") return () => value;
      if (how === "refused") throw new ShardloomError("ERR_OVERLOADED", "planted");
      return value;
    },
    failed: (error) => ShardloomError.is(error) && error.code === "ERR_OVERLOADED",
    check({ history }) {
      fail("check");
      if (how === "malformed") return [{ rule: "planted", message: "without entries" } as never];
      return how === "violation" ? [{ rule: "planted", message: "as asked", entries: history.slice(0, 1) }] : [];
    },
  };
}
