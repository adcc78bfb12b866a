/**
 * Planted defects of leases and promotion: who becomes primary, of what, and until when the one before him may serve.
 *
 * Invariant: see `mutant.ts`.
 */
import type { Mutant } from "./mutant.ts";

const ORDER = "linearizable";
const CONVERGES = "converges";
const ONE_ACTIVATION = "one activation of an actor";
const ACTS = "one primary acts per vshard and epoch";

/** Of nodes that take over from others. */
export const PROMOTION_MUTANTS: readonly Mutant[] = [
  {
    id: "promoted-without-asking",
    what: "a shard that becomes a primary serves what it has itself, and asks no other copy",
    patches: [
      {
        file: "actors/replication/arrivals",
        from: "if (snapshot.owners[vshard] !== shard || table.hasOwnHead(vshard))",
        to: "if (snapshot.owners[vshard] !== shard || term > 0)",
      },
    ],
    scene: "overtaken",
    rules: [ORDER, CONVERGES],
  },
  {
    id: "promoted-with-its-own",
    what: "a shard that becomes a primary keeps its own copy, however far the others say that they are",
    patches: [{ file: "actors/replication/refill", from: "if (lsn > Math.max(0, furthest.lsn))", to: "if (lsn < -1)" }],
    scene: "overtaken",
    rules: [ORDER, CONVERGES],
  },
  {
    id: "hosted-beyond-its-term",
    what: "a shard to which a vshard comes back goes on with the actors that it hosted before, beside what others were told meanwhile",
    patches: [{ file: "actors/tenure", from: "if (before.mapVersion === now.mapVersion)", to: "if (before !== now)" }],
    scene: "tenures",
    rules: [ONE_ACTIVATION],
  },
  {
    id: "session-forgets-what-it-saw",
    what: "a session takes in what it has written, and not how new that was what it has read",
    patches: [
      { file: "actors/planned-read", from: "this.#session?.merge(vshard, written.lsns[at]);", to: "continue;" },
    ],
    scene: "seen",
    rules: ["session reads never go back"],
  },
  {
    id: "session-shown-unsettled",
    what: "a session is shown what a primary alone has, and misses it when that is not the primary any more",
    patches: [
      {
        file: "actors/planned-requests",
        from: "const settled = isSession ||",
        to: "const settled =",
      },
    ],
    scene: "seen-alone",
    rules: ["session reads never go back"],
  },
  {
    id: "writes-begun-without-a-lease",
    what: "a node whose lease is over gives LSNs to writes; as nobody acknowledges them, no client is told anything wrong",
    patches: [
      {
        file: "actors/replication/vshard-gate",
        from: "if (routed.consistency === CONSISTENCY.WRITE)\n            this.assertServing();",
        to: "",
      },
    ],
    scene: "awakened",
    rules: [ACTS],
  },
  {
    id: "nobody-takes-over",
    what: "nobody looks whether leases of others are over: what a node that is gone is primary of has none any more",
    patches: [
      {
        file: "src/plane/map-keeper",
        from: "this.#every(leaseMs / LOOKS_PER_LEASE, () => this.#look());",
        to: "",
      },
    ],
    scene: "minority",
    rules: ["converges"],
  },
];
