/** Example: an actor of one's own. Give its module's URL to `Cluster.start`; every worker loads it. */
import { defineActor } from "../../src/index.ts";

export const cart = defineActor({
  name: "cart",
  init: () => ({ items: new Map<string, number>() }),
  handlers: {
    add(state, line: { sku: string; quantity: number }) {
      state.items.set(line.sku, (state.items.get(line.sku) ?? 0) + line.quantity);
      return state.items.size;
    },
    lines: (state) => [...state.items],
  },
});
