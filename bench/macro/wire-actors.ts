/** The actor of the bench `wire`, loaded into its clusters by URL and run on the receiving thread as well. */
import { type ActorDefinition, defineActor } from "../../src/index.ts";

/** Counts what it is told, so that a bench can prove that every message came. */
export interface MirrorState {
  count: number;
}

/** Gives back what it is asked, counts what it is told. */
export const mirror: ActorDefinition<
  MirrorState,
  {
    echo: (state: MirrorState, body: Uint8Array) => Uint8Array;
    take: (state: MirrorState, body: Uint8Array) => void;
    total: (state: MirrorState) => number;
  }
> = defineActor({
  name: "mirror",
  init: (): MirrorState => ({ count: 0 }),
  handlers: {
    echo(_: MirrorState, body: Uint8Array): Uint8Array {
      return body;
    },
    take(state: MirrorState, body: Uint8Array): void {
      if (body.length === 64) state.count++;
    },
    total(state: MirrorState): number {
      return state.count;
    },
  },
});
