/** Actors that are members of barriers, for the cluster tests. */

import type { PhaseResult } from "../../../src/actor/tick-barrier.ts";
import { defineActor } from "../../../src/index.ts";

/** How one member walks through the ticks of a barrier. */
export interface Walk {
  readonly barrier: string;
  readonly members: readonly string[];
  readonly ticks: number;
  /** Makes members come at different times; 0: as soon as they can. */
  readonly seed: number;
}

/** What members saw, to be compared between threads. */
export interface Walked {
  readonly results: readonly PhaseResult[];
  readonly releases: number;
}

interface Walkable {
  readonly phases: readonly string[];
  arrive(member: string, phase: string, options?: { readonly round?: number }): Promise<PhaseResult>;
  currentTick(): Promise<number>;
}

/** Walks members side by side, each with its own hesitation. @throws when one is released out of order */
export async function walk(barrier: Walkable, { members, ticks, seed }: Walk): Promise<Walked> {
  const from = await barrier.currentTick();
  let releases = 0;
  const results: PhaseResult[] = [];
  const one = async (member: string, at: number): Promise<void> => {
    let state = seed * 31 + at + 1;
    for (let tick = from; tick < from + ticks; tick++) {
      for (const phase of barrier.phases) {
        if (seed !== 0) {
          state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
          if (state % 97 === 0) await new Promise((resolve) => setImmediate(resolve));
          else if (state % 7 === 0) await Promise.resolve();
        }
        const result = await barrier.arrive(member, phase);
        if (result.round !== tick || result.phase !== phase)
          throw new Error(`${member} was released from ${result.phase} of ${result.round} at ${phase} of ${tick}`);
        releases++;
        if (at === 0) results.push(result);
      }
    }
  };
  await Promise.all(members.map(one));
  return { results, releases };
}

/** A member, or several, on a worker. */
export const walker = defineActor({
  name: "walker",
  init: () => ({ ticks: [] as string[], failing: -1 }),
  handlers: {
    async join(_, walk: Walk, context) {
      const barrier = await context.barrier(walk.barrier);
      for (const member of walk.members) await barrier.join(member);
      return barrier.tick;
    },
    async walk(_, order: Walk, context) {
      const { results, releases } = await walk(await context.barrier(order.barrier), order);
      return { releases, last: results.at(-1) };
    },
    async arrive(_, message: { barrier: string; member: string; phase: string; round: number }, context) {
      const barrier = await context.barrier(message.barrier);
      return barrier.arrive(message.member, message.phase, { round: message.round });
    },
    /** Waits longer than it may. */
    async wait(_, message: { barrier: string; member: string; timeoutMs: number }, context) {
      const barrier = await context.barrier(message.barrier, { phases: ["p"], waitTimeoutMs: message.timeoutMs });
      return barrier.arrive(message.member, "p");
    },
    /** Joins, walks a few ticks, leaves, again and again. */
    async visit(_, message: { barrier: string; member: string; visits: number }, context) {
      const barrier = await context.barrier(message.barrier);
      let releases = 0;
      for (let visit = 0; visit < message.visits; visit++) {
        const first = await barrier.join(message.member);
        for (let tick = first; tick < first + (visit % 3); tick++)
          for (const phase of barrier.phases) {
            await barrier.arrive(message.member, phase, { round: tick });
            releases++;
          }
        await barrier.leave(message.member);
      }
      return releases;
    },
    exit(_, code: number) {
      process.exit(code);
    },
    failAt(state, tick: number) {
      state.failing = tick;
    },
    log(state) {
      return state.ticks;
    },
    sense(state, { tick }: { tick: number }) {
      state.ticks.push(`sense ${tick}`);
    },
    act(state, { tick }: { tick: number }) {
      if (tick === state.failing) throw new RangeError(`failed at ${tick}`);
      state.ticks.push(`act ${tick}`);
    },
    decay(state, { tick }: { tick: number }) {
      state.ticks.push(`decay ${tick}`);
    },
  },
});
