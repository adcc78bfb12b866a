/**
 * Barriers: each client is a member of one tick barrier and arrives at its phases, sometimes ahead, sometimes twice or
 * when it is over.
 *
 * Rules: a phase is complete only when as many different members as it says have arrived at it, and all of them have; nobody is sent
 * back, or arrives at what is over; and where nothing went wrong nobody waits in vain.
 */
import type { PhaseResult, TickBarrier } from "../../actor/tick-barrier.ts";
import type { Cluster } from "../../cluster.ts";
import { ShardloomError } from "../../errors.ts";
import type { Operation, Workload, WorkloadRef } from "../workload-types.ts";
import { judgeBarrier } from "./barrier-rules.ts";
import { below, type LoadOptions, spread } from "./spread.ts";

/** Options of {@link barrierWorkload}. */
export interface BarrierWorkloadOptions extends LoadOptions {
  /** How long a member waits for the others, in simulated ms: less than the time after which a world says that an operation waits for ever. @default 20000 */
  readonly timeoutMs?: number;
}

/** Arrivals at a tick barrier. */
export function barrierWorkload(options: BarrierWorkloadOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createBarrierWorkload", options };
}

/** What a member was told; `late` of a tick that it had passed before. */
type Arrival = PhaseResult & { readonly late?: true };

const PHASES = ["compute", "commit"] as const;
const KINDS = ["step", "step", "ahead", "twice", "late"] as const;
/** A phase that lasts longer has lost the members that it waits for. */
const PHASE_DEADLINE_MS = 60_000;

/** The workload itself, made inside a world by its reference. @public */
export function createBarrierWorkload(options: BarrierWorkloadOptions = {}): Workload {
  const { timeoutMs = 20_000 } = options;
  let least = 1;
  /** The handle of each node's life; one that failed is opened anew, as its barrier may be gone with its host. */
  const handles = new WeakMap<Cluster, Promise<TickBarrier>>();
  /** The handle that a process has joined through. */
  const joined = new Map<number, TickBarrier>();

  const open = (cluster: Cluster): Promise<TickBarrier> => {
    const known = handles.get(cluster);
    if (known !== undefined) return known;
    const opening = cluster.barrier("ticks", {
      phases: PHASES,
      minMembers: least,
      lossPolicy: "shrink",
      phaseDeadlineMs: PHASE_DEADLINE_MS,
    });
    handles.set(cluster, opening);
    opening.catch(() => handles.delete(cluster));
    return opening;
  };

  const arrive = async (f: string, name: string, process: number, barrier: TickBarrier): Promise<Arrival[]> => {
    if (joined.get(process) !== barrier) await barrier.join(name);
    joined.set(process, barrier);
    const wait = { timeoutMs };
    if (f === "ahead") return Promise.all(PHASES.map((phase) => barrier.arrive(name, phase, wait)));
    const first = await barrier.arrive(name, PHASES[0], wait);
    const again = { ...wait, round: first.round };
    const arrival = barrier.arrive(name, PHASES[1], again);
    // Who says it twice has arrived no more than once; the second may come too late.
    if (f === "twice") barrier.arrive(name, PHASES[1], again).catch(() => undefined);
    const results = [first, await arrival];
    if (f !== "late") return results;
    const late = await barrier.arrive(name, PHASES[0], again).catch(() => undefined);
    return late === undefined ? results : [...results, { ...late, late: true }];
  };

  return {
    name: "barrier",
    generate: (random, shape) => {
      least = Math.min(options.clients ?? shape.nodes, shape.nodes);
      return spread(random, shape, options, (stream) => ({
        f: KINDS[below(stream, KINDS.length)] as string,
        value: null,
      }));
    },
    // Who hosts it may be lost for good: then nobody opens it, and a node that begins meanwhile serves all the same.
    open: (cluster) => open(cluster).catch(() => undefined),
    async invoke({ f }: Operation, { process, cluster }) {
      try {
        return await arrive(f, `m${process}`, process, await open(cluster));
      } catch (error) {
        joined.delete(process); // whatever became of the tick: join again
        handles.delete(cluster);
        // Lost by the others, or out of step after a wait that was given up: that is no answer, and no defect.
        if (ShardloomError.is(error) && error.code === "ERR_INVALID_ARGUMENT")
          throw new ShardloomError("ERR_BARRIER", error.message, { cause: error });
        throw error;
      }
    },
    check: ({ history, faults }) => judgeBarrier(history, new Set(faults.map(({ kind }) => kind))),
  };
}
