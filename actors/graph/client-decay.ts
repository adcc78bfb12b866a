/**
 * Decay of edges: weights become smaller from tick to tick, and edges whose weight has become too small go.
 *
 * Invariant: every decay has a number, and a shard does one of a number once, by naming one block of memory instead of another: so it is
 * asked again after a worker was lost, and no weight decays twice.
 */
import type { TickBarrier } from "../../src/actor/tick-barrier.ts";
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { GRAPH_DECAY, GRAPH_STATUS } from "../../src/wire/message-types.ts";
import { type CallOptions, checkedTimeout } from "../call-options.ts";
import { askAll, asOfNow, type GraphHandle } from "./client-calls.ts";
import { plainRef } from "./graph-messages.ts";
import type { DecayReply, DecayRequest } from "./run-messages.ts";

const DEFAULT_PHASE = "decay";
const DEFAULT_TIMEOUT_MS = 30_000;
const PAUSE_MS = 20;
const MAX_NUMBER = 2 ** 32 - 1;
/** Runs that compute, and workers that are replaced, are waited for. */
const AGAIN: ReadonlySet<string> = new Set([
  "ERR_OVERLOADED",
  "ERR_WORKER_LOST",
  "ERR_REGION_ACCESS",
  "ERR_UNAVAILABLE",
]);

/** How weights decay. */
export interface DecayRule {
  /** Part of every weight that is lost, in `[0, 1]`. */
  readonly rate: number;
  /** Edges go whose weight, whatever its sign, is less than this afterwards; at least 0. @default 0: none */
  readonly pruneBelow?: number;
}

/** Options of `Graph.decay`. `timeoutMs` is for all of it: runs that compute over the graph are waited for. @default 30000 */
export interface DecayOptions extends DecayRule, CallOptions {
  /** Its number, above those before, so that the same decay may be asked for again; `1..2^32 - 1`. @default one more than the last */
  readonly number?: number;
}

/** What a decay has done. */
export interface DecayResult {
  readonly number: number;
  /** Edges that are left. */
  readonly edges: number;
  /** Edges that went; of a shard that had done it before its worker was replaced, none. */
  readonly pruned: number;
}

/** Options of `Graph.decayOnTicks`. */
export interface TickDecayOptions extends DecayRule {
  /** Phase of the barrier in which weights decay. @default "decay" */
  readonly phase?: string;
  /** Name of the graph as a member of the barrier. @default "graph/" and the graph's name */
  readonly member?: string;
  /** Longest time of one decay, in ms. @default 30000 */
  readonly timeoutMs?: number;
  /** Called after every decay. */
  readonly onDecay?: (result: DecayResult, tick: number) => void;
}

/** A graph that decays on the ticks of a barrier. */
export interface TickDecay {
  /** The first tick in which it decays. */
  readonly since: number;
  /** Resolves when it was stopped; rejects with what has ended it: then the barrier has lost its member. */
  readonly done: Promise<void>;
  /** Leaves the barrier. What has begun is finished. */
  stop(): Promise<void>;
}

/** Lets weights decay once. @param kept Where the number of the decay is kept, for whoever asks for the same again */
export async function decayEdges(
  handle: GraphHandle,
  options: DecayOptions,
  kept: { number?: number | undefined } = {},
): Promise<DecayResult> {
  const { rate, pruneBelow: below = 0 } = checkRule(handle, options);
  const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options;
  const { coordinator, collection } = handle;
  const endMs = coordinator.nowMs() + checkedTimeout(timeoutMs);
  const { number = kept.number } = options;
  if (number !== undefined && !(Number.isInteger(number) && number >= 1 && number <= MAX_NUMBER))
    throw invalidArgument("decay weights", "number", `an integer between 1 and ${MAX_NUMBER}`, number);
  for (;;) {
    const call = { timeoutMs: Math.max(1, endMs - coordinator.nowMs()), ...(signal === undefined ? {} : { signal }) };
    try {
      kept.number ??= number ?? 1 + (await lastOf(handle, call));
      const request: DecayRequest = {
        collection,
        roots: handle.roots().map(plainRef),
        number: kept.number,
        factor: 1 - rate,
        below,
      };
      const shards = await askAll<DecayReply>(handle, GRAPH_DECAY, () => request, call);
      const sum = (of: (reply: DecayReply) => number): number => shards.reduce((total, reply) => total + of(reply), 0);
      return { number: kept.number, edges: sum(({ edges }) => edges), pruned: sum(({ pruned }) => pruned) };
    } catch (error) {
      const { code } = ShardloomError.from(error);
      if (!AGAIN.has(code) || coordinator.nowMs() + PAUSE_MS >= endMs) throw error;
      await coordinator.pause(PAUSE_MS);
      handle.assertOpen();
    }
  }
}

async function lastOf(handle: GraphHandle, call: CallOptions): Promise<number> {
  const { collection } = handle;
  const shards = await askAll<{ readonly decays: number }>(handle, GRAPH_STATUS, () => ({ collection }), call);
  return Math.max(...shards.map(({ decays }) => decays));
}

/** Makes the graph a member of a barrier: in one phase of every tick its weights decay, in the others it only arrives. */
export async function decayOnTicks(
  handle: GraphHandle,
  barrier: TickBarrier,
  options: TickDecayOptions,
): Promise<TickDecay> {
  const rule = checkRule(handle, options);
  const { phase = DEFAULT_PHASE, member = `graph/${handle.name}`, timeoutMs = DEFAULT_TIMEOUT_MS, onDecay } = options;
  checkedTimeout(timeoutMs);
  if (!barrier.phases.includes(phase))
    throw invalidArgument("decay on ticks", "phase", `one of ${barrier.phases.join(", ")}`, phase);
  const since = await barrier.join(member);
  let stopped = false;
  const run = async (): Promise<void> => {
    for (let round = since; ; round++) {
      await tickBegun(handle, barrier, round, () => stopped);
      for (const next of barrier.phases) {
        if (next === phase) {
          const kept = {};
          const decay = (): Promise<DecayResult> => decayEdges(asOfNow(handle), { ...rule, timeoutMs }, kept);
          const result = await decay().catch((error: unknown) => {
            if (ShardloomError.from(error).code !== "ERR_UNKNOWN_COLLECTION") throw error;
            handle.assertOpen(); // it was moved to other shards, which know whether this decay was done
            return decay();
          });
          onDecay?.(result, round);
        }
        await arrive(barrier, member, next, round);
      }
    }
  };
  const done = run().catch(async (error: unknown) => {
    if (stopped) return;
    await barrier.lose(member, error).catch(() => undefined); // what has ended it is the failure to tell
    throw error;
  });
  done.catch(() => undefined); // whoever does not look at it is told by the barrier
  return {
    since,
    done,
    async stop() {
      stopped = true;
      await barrier.leave(member);
      await done;
    },
  };
}

/** Nobody arrives at the beginning of a tick, so it is looked at. */
async function tickBegun(
  { coordinator }: GraphHandle,
  barrier: TickBarrier,
  round: number,
  isStopped: () => boolean,
): Promise<void> {
  for (;;) {
    const { tick, status } = await barrier.state();
    if (tick > round || (tick === round && status !== "waiting") || isStopped()) return;
    await coordinator.pause(PAUSE_MS);
  }
}

/** However long the others take. */
async function arrive(barrier: TickBarrier, member: string, phase: string, round: number): Promise<void> {
  for (;;) {
    try {
      await barrier.arrive(member, phase, { round });
      return;
    } catch (error) {
      if (ShardloomError.from(error).code !== "ERR_TIMEOUT") throw error;
    }
  }
}

function checkRule({ options }: GraphHandle, { rate, pruneBelow = 0 }: DecayRule): Required<DecayRule> {
  if (!options.weighted) throw invalidArgument("decay weights", "weighted", "true for this graph", false);
  if (!(typeof rate === "number" && rate >= 0 && rate <= 1))
    throw invalidArgument("decay weights", "rate", "a number between 0 and 1", rate);
  if (!(typeof pruneBelow === "number" && pruneBelow >= 0 && pruneBelow < Number.POSITIVE_INFINITY))
    throw invalidArgument("decay weights", "pruneBelow", "a finite number of at least 0", pruneBelow);
  return { rate, pruneBelow };
}
