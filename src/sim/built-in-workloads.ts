/**
 * Workloads that the command line knows by name.
 *
 * Invariant: each entry's module exports the factory that it names, with options of which all have defaults.
 */
import type { WorkloadRef } from "./workload-types.ts";
import { actorWorkload } from "./workloads/actor-workload.ts";
import { barrierWorkload } from "./workloads/barrier-workload.ts";
import { graphWorkload } from "./workloads/graph-workload.ts";
import { listAppendWorkload } from "./workloads/list-append-workload.ts";
import { logWorkload } from "./workloads/log-workload.ts";
import { natsWorkload } from "./workloads/nats-workload.ts";
import { registerWorkload } from "./workloads/register-workload.ts";
import { searchWorkload } from "./workloads/search-workload.ts";

export const BUILT_IN_WORKLOADS: Readonly<Record<string, WorkloadRef>> = {
  register: registerWorkload(),
  actors: actorWorkload(),
  search: searchWorkload(),
  "list-append": listAppendWorkload(),
  barrier: barrierWorkload(),
  log: logWorkload(),
  nats: natsWorkload(),
  graph: graphWorkload(),
};
