/**
 * Planted defects of leases themselves: until when a primary that nobody reaches may serve.
 *
 * A primary that sleeps is lost to the others, and wakes up as what it was. It learns what has become of it from its peers, or from what the store
 * tells, which may come late; the lease alone keeps it from answering until then. So none of these may depend on news of the map.
 *
 * Invariant: see `mutant.ts`.
 * Source: Gray and Cheriton, "Leases", SOSP 1989, section 2.
 */
import type { Patch } from "../../support/mutated.ts";
import type { Mutant } from "./mutant.ts";

const ORDER = "linearizable";

/** What a store tells of changes may leave some out: here those of the map. */
const NO_NEWS: Patch = { file: "src/plane/map-keeper", from: "if (key === MAP_KEY)", to: "if (key === undefined)" };

/** Of a primary that was asleep, or counts its time wrongly. */
export const LEASE_MUTANTS: readonly Mutant[] = [
  {
    id: "lease-not-looked-at",
    what: "a primary answers strong reads as long as its map says that it is one, whatever has become of its lease",
    patches: [
      NO_NEWS,
      {
        file: "actors/replication/vshard-gate",
        from: "get #isServing() {\n        return this.#lease.isValid;",
        to: "get #isServing() {\n        return true;",
      },
      {
        file: "actors/replication/vshard-gate",
        from: "(refilling.size === 0 && this.#lease.isValid)",
        to: "(refilling.size === 0)",
      },
    ],
    scene: "sleeper",
    rules: [ORDER],
  },
  {
    id: "lease-without-end",
    what: "who holds a lease holds it until somebody says otherwise: threads do not look at the time",
    patches: [
      NO_NEWS,
      { file: "src/topology/lease-words", from: "return leftMs > 0 ? 0 : 1 - leftMs;", to: "return 0;" },
    ],
    scene: "sleeper",
    rules: [ORDER],
  },
  {
    id: "lease-counted-too-long",
    what: "the holder of a lease counts longer than the others wait",
    patches: [
      NO_NEWS,
      {
        file: "src/topology/lease",
        from: "sentAtMs + this.#options.leaseMs);",
        to: "sentAtMs + 4 * this.#options.leaseMs);",
      },
    ],
    scene: "sleeper",
    rules: [ORDER],
  },
  {
    id: "demoted-still-acknowledges",
    what: "a primary that stood still until another has taken over answers what its copies have meanwhile said that they have",
    patches: [
      {
        file: "actors/replication/waiting-answers",
        from: 'if (kind === "write" && this.#options.lease?.isValid === false)',
        to: "if (kind === undefined)",
      },
    ],
    scene: "late-answers",
    rules: [ORDER, "one primary acts per vshard and epoch"],
  },
];
