/** Actors that the workloads of worlds talk to. */
import { defineActor } from "../../src/index.ts";

export const counter = defineActor({
  name: "counter",
  init: () => ({ count: 0 }),
  handlers: {
    add(state, amount: number) {
      state.count += amount;
      return state.count;
    },
  },
});
