/** A module that draws from chance while it is loaded: what it exports would differ from run to run. */
import type { Workload } from "../../src/sim/workload-types.ts";

const DRAWN: number = Math.random();

export function early(): Workload {
  return {
    name: "early",
    generate: () => [{ process: 0, f: "show", value: DRAWN, afterMs: 1 }],
    invoke: async () => DRAWN,
    check: () => [],
  };
}
