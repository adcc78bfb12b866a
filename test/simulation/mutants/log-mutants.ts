/**
 * Planted defects of the segment log.
 *
 * Invariant: see `mutant.ts`.
 */
import type { Mutant } from "./mutant.ts";

const LOST = "no acknowledged write lost";
const NO_DAMAGE = "damage is of the disk";

/** Of what is written, when it counts as durable, and what a crash leaves. */
export const LOG_MUTANTS: readonly Mutant[] = [
  {
    id: "log-durable-when-written",
    what: "a group counts as durable when it has been written: a loss of power takes what was acknowledged",
    patches: [
      {
        file: "src/store/group-commit",
        from: "await this.#writer.sync();\n        this.#settle();",
        to: "this.#settle();",
      },
    ],
    scene: "logs",
    rules: [LOST, NO_DAMAGE],
  },
  {
    id: "log-syncs-again",
    what: "a sync that failed is tried again in place: the second one succeeds, and what the first one lost is not on the disk",
    patches: [
      {
        file: "src/store/segment-writer",
        from: "await this.#active?.file.sync();",
        to: "await this.#active?.file.sync().catch(() => this.#active?.file.sync());",
      },
    ],
    scene: "failing",
    rules: [LOST, NO_DAMAGE],
  },
  {
    id: "log-segment-without-name",
    what: "the name of a new segment is not synced: a loss of power takes the segment with all that is in it",
    patches: [{ file: "src/store/segment-writer", from: "await disk.syncDirectory(directory);\n", to: "" }],
    scene: "logs",
    rules: [LOST, NO_DAMAGE, "order kept"],
  },
  {
    id: "log-truncates-too-far",
    what: "truncation takes the segment too in which the position is: frames are gone that nobody gave up",
    patches: [
      {
        file: "src/store/segment-log",
        from: "(this.#firsts[1] ?? Number.POSITIVE_INFINITY) <= position)",
        to: "(this.#firsts[1] ?? Number.POSITIVE_INFINITY) <= position + 40)",
      },
    ],
    scene: "logs",
    rules: [LOST, "nothing forgotten unasked", "reads are of the log"],
  },
];
