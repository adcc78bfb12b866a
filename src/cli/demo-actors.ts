/** The actors of `shardloom demo`, loaded into its workers by URL. */
import { type ActorDefinition, defineActor } from "../actor/define-actor.ts";

/** Holds its thread, as a badly written handler does, or answers at once. */
export const blocker: ActorDefinition<
  object,
  { block: (state: object, milliseconds: number) => number; echo: (state: object, value: number) => number }
> = defineActor({
  name: "blocker",
  init: () => ({}),
  handlers: {
    block(_: object, milliseconds: number): number {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
      return milliseconds;
    },
    echo(_: object, value: number): number {
      return value;
    },
  },
});
