/** The checks of clusters as a workload: every node runs each of them, one after the other. */
import type { Violation } from "../../src/sim/history-types.ts";
import type { Operation, Workload } from "../../src/sim/workload-types.ts";
import { CLUSTER_CHECKS, openFor, tagOf } from "./cluster.ts";

/** @param nodeCount of the world: each node runs every check on collections of its own */
export function clusterChecks({ nodeCount }: { readonly nodeCount: number }): Workload {
  const failures: Violation[] = [];
  return {
    name: "conformance",
    actors: [new URL("./cluster-actors.js", import.meta.url)],
    generate: (_random, { nodes }): readonly Operation[] =>
      Array.from({ length: nodes }, (_, process) =>
        Object.keys(CLUSTER_CHECKS).map((f) => ({ process, f, value: process, afterMs: 10 })),
      ).flat(),
    /** Collections have to be opened on every node: there is no catalog of the whole cluster yet. */
    async open(cluster) {
      for (const [f, check] of Object.entries(CLUSTER_CHECKS))
        for (let process = 0; process < nodeCount; process++) await openFor(check, cluster, tagOf(f, process));
    },
    async invoke({ f, process }, { cluster, node }) {
      const check = CLUSTER_CHECKS[f];
      try {
        await check?.run(cluster, tagOf(f, process));
      } catch (error) {
        failures.push({
          rule: f,
          message: `${node}: ${error instanceof Error ? error.stack : String(error)}`,
          entries: [],
        });
        return "failed";
      }
      return "held";
    },
    check: () => failures,
  };
}
