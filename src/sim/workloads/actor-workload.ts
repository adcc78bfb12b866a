/**
 * Actors: clients append numbers to virtual actors, by asks and by tells; each answer is the whole list of the activation.
 *
 * Rules: nothing is delivered twice; what was acknowledged stays in the lists of its activation; lists of one activation only grow; tells of one
 * client to one actor arrive in the order in which they were sent; and of two activations of one actor the older never answers again once the newer has.
 * A worker's death ends an activation: the next begins with an empty list, which is what actors without storage promise.
 */
import { type ActorDefinition, defineActor } from "../../actor/define-actor.ts";
import { invalidArgument } from "../../errors.ts";
import type { Operation, Workload, WorkloadRef } from "../workload-types.ts";
import { judgeActors } from "./actor-rules.ts";
import { certainlyRefused } from "./failures.ts";
import { below, type LoadOptions, spread } from "./spread.ts";

/** State of the actor: its activation, and what it was given. */
interface Notes {
  /** Key of the first message of the activation: no other activation has the same. */
  activation: number;
  readonly list: number[];
}

/** Collects numbers. */
export const notebook: ActorDefinition<
  Notes,
  {
    append: (state: Notes, value: number) => { activation: number; list: number[] };
    note: (state: Notes, value: number) => void;
    read: (state: Notes, asked: number) => { activation: number; list: number[] };
  }
> = defineActor({
  name: "simulated-notebook",
  init: (): Notes => ({ activation: 0, list: [] }),
  handlers: {
    append(state: Notes, value: number) {
      if (state.activation === 0) state.activation = value;
      state.list.push(value);
      return { activation: state.activation, list: [...state.list] };
    },
    note(state: Notes, value: number): void {
      if (state.activation === 0) state.activation = value;
      state.list.push(value);
    },
    read(state: Notes, asked: number) {
      if (state.activation === 0) state.activation = asked;
      return { activation: state.activation, list: [...state.list] };
    },
  },
});

/** Options of {@link actorWorkload}. */
export interface ActorWorkloadOptions extends LoadOptions {
  /** Actors that are asked, `1..10^4`. @default 4 */
  readonly actors?: number;
  /** Deadline of each ask in simulated ms. @default 5000 */
  readonly timeoutMs?: number;
}

/** Asks and tells of actors. */
export function actorWorkload(options: ActorWorkloadOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createActorWorkload", options };
}

/** The workload itself, made inside a world by its reference. @public */
export function createActorWorkload(options: ActorWorkloadOptions = {}): Workload {
  const { actors = 4, timeoutMs = 5000 } = options;
  if (!Number.isInteger(actors) || actors < 1 || actors > 10_000)
    throw invalidArgument("create actor workload", "actors", "an integer in [1, 10000]", actors);
  let next = 1;
  return {
    name: "actors",
    actors: [new URL(import.meta.url)],
    generate: (random, shape) =>
      spread(random, shape, options, (stream) => {
        const f = ["append", "tell", "read"][below(stream, 3)] as string;
        return { f, value: [`a${below(stream, actors)}`, next++] };
      }),
    async invoke({ f, value }: Operation, { cluster }) {
      const [key, number] = value as readonly [string, number];
      const actor = cluster.actor(notebook, key);
      if (f === "tell") {
        await actor.tell.note(number);
        return [key, number];
      }
      const answer = await (f === "append" ? actor.append(number, { timeoutMs }) : actor.read(number, { timeoutMs }));
      return [key, answer];
    },
    failed: certainlyRefused,
    check: ({ history }) => judgeActors(history),
  };
}
