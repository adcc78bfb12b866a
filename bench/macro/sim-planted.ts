/**
 * A client with a planted bug, for the bench of shrinking: a read that fails is answered with what its node saw last.
 *
 * Invariant: without faults it is the register workload; with them its strong reads go stale, which a linearizability check must find.
 */
import type { Operation, OperationContext, Workload, WorkloadRef } from "../../src/sim/workload-types.ts";
import { createRegisterWorkload, type RegisterOptions } from "../../src/sim/workloads/register-workload.ts";

/** Names {@link createPlantedWorkload}. */
export function plantedWorkload(options: RegisterOptions): WorkloadRef {
  return { module: import.meta.url, export: createPlantedWorkload.name, options };
}

/** Registers read through a cache that hides errors. */
export function createPlantedWorkload(options: RegisterOptions): Workload {
  const registers = createRegisterWorkload(options);
  const seen = new Map<string, unknown>();
  return {
    ...registers,
    name: "planted",
    async invoke(operation: Operation, context: OperationContext) {
      const [key] = operation.value as readonly [string];
      const place = `${context.node} ${key}`;
      try {
        const answer = await registers.invoke(operation, context);
        seen.set(place, answer);
        return answer;
      } catch (error) {
        const known = seen.get(place);
        if (operation.f === "write" || known === undefined) throw error;
        return known; // the bug
      }
    },
  };
}
