/**
 * Planted defects of graphs: what was sent and what is read, what a lost worker's run goes on from, what a removed vertex leaves behind.
 *
 * Invariant: see `mutant.ts`.
 */
import type { Mutant } from "./mutant.ts";

const ANSWERS = "answers are those of the reference";
/** What the runtime's own invariants say: mass and counts. */
const CAUSE = "nothing fails without a cause";

/** Of runs over graphs, and of changes between them. */
export const GRAPH_MUTANTS: readonly Mutant[] = [
  {
    id: "one-outbox",
    what: "what is sent is written where others still read what was sent before",
    patches: [
      {
        file: "actors/graph/shard-run",
        from: "view.outbox = this.#outboxes[superstep & 1];",
        to: "view.outbox = this.#outboxes[0];",
      },
      {
        file: "actors/graph/shard-run",
        from: "const place = algorithm.fields + ((superstep - 1) & 1);",
        to: "const place = algorithm.fields;",
      },
      {
        file: "actors/graph/shard-run",
        from: "const outbox = this.#outboxes[(superstep - 1) & 1];",
        to: "const outbox = this.#outboxes[0];",
      },
    ],
    scene: "graphs",
    rules: [ANSWERS],
  },
  {
    id: "removals-of-others-unseen",
    what: "a shard builds its adjacency anew when its own edges have changed, not when a vertex of another was removed",
    patches: [
      {
        file: "actors/graph/edge-store",
        from: "removals.stamp === this.stamp && this.built(rows) !== undefined",
        to: "this.built(rows) !== undefined",
      },
      {
        file: "actors/graph/shard-graph",
        from: "shards.every(same) && removals === this.edges.stamp",
        to: "shards.every(same)",
      },
    ],
    scene: "graphs",
    rules: [ANSWERS],
  },
  {
    id: "reductions-begin-anew",
    what: "a run that goes on after a lost worker has forgotten what the superstep that it goes on from came to",
    patches: [
      {
        file: "actors/graph/run-driver",
        from: "let totals = this.#kept.get(after);",
        to: "let totals;",
      },
    ],
    scene: "graph-losses",
    rules: [ANSWERS, CAUSE],
  },
  {
    id: "saved-for-nothing",
    what: "a run whose worker was lost begins anew, although it was saved",
    patches: [
      {
        file: "actors/graph/run-driver",
        from: "return Math.max(-1, ...common);",
        to: "return -1;",
      },
    ],
    scene: "graph-losses",
    rules: ["a run goes on from what was saved"],
  },
  {
    id: "shards-do-not-wait",
    what: "between two supersteps of one order a shard waits for peers that have told it of any superstep at all",
    patches: [
      {
        file: "actors/graph/superstep-series",
        from: "told.every((shard) => shard?.superstep === superstep)",
        to: "told.every((shard) => shard !== undefined)",
      },
    ],
    scene: "graphs",
    rules: [ANSWERS],
  },
  {
    id: "successor-forgets-removals",
    what: "a lost worker's successor has vertices again that were removed",
    patches: [
      {
        file: "actors/graph/vertex-table",
        from: "if (this.#gone !== undefined)\n            this.#setRemoved(",
        to: "if (this.#gone !== undefined)\n            this.#gone.fill(0), this.#setRemoved(",
      },
    ],
    scene: "graph-losses",
    rules: [ANSWERS],
  },
];
