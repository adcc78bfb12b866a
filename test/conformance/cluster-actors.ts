/** Actors that the conformance suite of clusters talks to. */
import { defineActor } from "../../src/index.ts";

export const ledger = defineActor({
  name: "ledger",
  init: () => ({ total: 0 }),
  handlers: {
    add(state, amount: number) {
      state.total += amount;
      return state.total;
    },
    fail(_state, reason: string): never {
      throw new RangeError(reason);
    },
  },
});
