/** The members of the bench `barrier`, on whatever thread they run, and the actor that runs some of them on a worker. */
import type { ActorContext } from "../../src/actor/context.ts";
import type { TickBarrier } from "../../src/actor/tick-barrier.ts";
import { type ActorDefinition, defineActor } from "../../src/index.ts";

export const PHASE = "tick";

/** What every member of the bench is told to do. */
export interface MemberOrder {
  readonly barrier: string;
  readonly members: readonly string[];
  readonly rounds: number;
}

/** What a group of members saw. */
export interface MemberTotals {
  /** Times that a member was released, each after its own wait. */
  readonly released: number;
  /** Sum of the members that had arrived, over all releases. */
  readonly arrived: number;
  readonly elapsedMs: number;
}

/**
 * Runs members for some rounds, each waiting for its own release before it arrives again.
 *
 * @throws {Error} when a member is released from another round than the one that it arrived at.
 */
export async function runMembers(
  barrier: TickBarrier,
  members: readonly string[],
  rounds: number,
): Promise<MemberTotals> {
  let released = 0;
  let arrived = 0;
  const from = await barrier.currentTick();
  const run = async (member: string): Promise<void> => {
    for (let round = from; round < from + rounds; round++) {
      const result = await barrier.arrive(member, PHASE);
      if (result.round !== round) throw new Error(`${member} was released from ${result.round} in round ${round}`);
      released++;
      arrived += result.arrived;
    }
  };
  const started = performance.now();
  await Promise.all(members.map(run));
  return { released, arrived, elapsedMs: performance.now() - started };
}

/** Runs members on its own worker. */
export const group: ActorDefinition<
  object,
  {
    join: (state: object, order: MemberOrder, context: ActorContext) => Promise<void>;
    run: (state: object, order: MemberOrder, context: ActorContext) => Promise<MemberTotals>;
  }
> = defineActor({
  name: "group",
  init: (): object => ({}),
  handlers: {
    async join(_: object, order: MemberOrder, context: ActorContext): Promise<void> {
      const barrier = await context.barrier(order.barrier);
      for (const member of order.members) await barrier.join(member);
    },
    async run(_: object, order: MemberOrder, context: ActorContext): Promise<MemberTotals> {
      return runMembers(await context.barrier(order.barrier), order.members, order.rounds);
    },
  },
});
