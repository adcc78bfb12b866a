/**
 * Planted defects of the segment log.
 *
 * Invariant: see `mutant.ts`.
 */
import type { Mutant } from "./mutant.ts";

const LOST = "no acknowledged write lost";
const NO_DAMAGE = "damage is of the disk";
const OVERTAKEN = "who was overtaken appends nothing";

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
  {
    id: "log-takes-fenced-off-writers",
    what: "a log appends what a writer of a former lease epoch brings: one that was overtaken and does not know it writes on",
    patches: [
      {
        file: "src/store/segment-log",
        from: 'if (leaseEpoch < this.leaseEpoch)\n            throw staleWriter("lease epoch", leaseEpoch, this.leaseEpoch);\n        const bytes',
        to: "const bytes",
      },
    ],
    scene: "logs",
    rules: [OVERTAKEN],
  },
  {
    id: "log-compares-no-head",
    what: "a log appends behind whatever is there, where its writer says behind what he knows",
    patches: [
      { file: "src/store/segment-log", from: "if (expectedHead !== this.head)", to: "if (expectedHead > this.head)" },
    ],
    scene: "logs",
    rules: [OVERTAKEN],
  },
  {
    id: "log-forgets-its-fence",
    what: "a fence counts before it is on the disk: a loss of power takes it, and who was fenced off writes again",
    patches: [
      {
        file: "src/store/group-commit",
        from: "this.#mark();\n        return this.settled();",
        to: "return Promise.resolve();",
      },
    ],
    scene: "logs",
    rules: [OVERTAKEN],
  },
];
