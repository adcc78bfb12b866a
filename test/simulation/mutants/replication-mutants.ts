/**
 * Planted defects of replication: who may answer a read, when a write is acknowledged, how copies follow and how a lost primary returns.
 *
 * Invariant: see `mutant.ts`.
 * Source: complaints about distributed databases in the project's notes; each was shipped by somebody.
 */
import type { Mutant } from "./mutant.ts";

const ORDER = "linearizable";
const CONVERGES = "converges";
const AUDIT = "audit finds copies equal";

/** Of reads and writes of copies. */
export const REPLICATION_MUTANTS: readonly Mutant[] = [
  {
    id: "strong-read-from-replica",
    what: "a strong read goes to any copy that is fresh enough, and the copy answers it",
    patches: [
      {
        file: "src/routing/eligibility",
        from: 'return rules.consistency === "strong" || rules.strategy === "primary-only";',
        to: 'return rules.strategy === "primary-only";',
      },
      {
        file: "actors/replication/vshard-gate",
        from: "if (consistency === CONSISTENCY.STRONG || consistency === CONSISTENCY.WRITE)",
        to: "if (consistency === CONSISTENCY.WRITE)",
      },
    ],
    scene: "lags",
    rules: [ORDER],
  },
  {
    id: "copies-skip-entries",
    what: "copies count some entries without applying them, and nobody compares their rows: the audit alone is left to see it",
    patches: [
      {
        file: "actors/replication/copies",
        from: "this.#apply(entry);",
        to: "if (entry.lsn % 3 === 0) this.#apply(entry);",
      },
      {
        file: "src/sim/quiet-phase",
        from: "undefined : this.#difference();",
        to: "undefined : undefined;",
      },
    ],
    scene: "calm",
    rules: [AUDIT],
  },
  {
    id: "sample-as-of-receipt",
    what: "what a peer answers counts as known when its answer arrives, not when the question left",
    patches: [
      {
        file: "src/plane/node-heartbeats",
        from: "this.#store(peer, sample, t0);",
        to: "this.#store(peer, sample, clock.nowMs());",
      },
      {
        file: "src/plane/node-heartbeats",
        from: "this.#options.table.publishSampledHead(vshard, head, t0);",
        to: "this.#options.table.publishSampledHead(vshard, head, clock.nowMs());",
      },
    ],
    scene: "stale",
    rules: ["bounded staleness"],
  },
  {
    id: "lag-without-its-age",
    what: "the lag that was seen last counts, however long ago that was",
    patches: [
      {
        file: "src/routing/eligibility",
        from: "Math.max(0, sample.lagMs) + Math.max(0, nowMs - sample.sampledAtMs)",
        to: "Math.max(0, sample.lagMs)",
      },
      {
        file: "src/topology/replica-table",
        from: "return sample.lagMs + Math.max(0, nowMs - sample.sampledAtMs);",
        to: "return sample.lagMs;",
      },
    ],
    scene: "bounded",
    rules: ["bounded staleness"],
  },
  {
    id: "unknown-lag-is-fresh",
    what: "a copy of which nobody knows how old it is may answer",
    patches: [
      {
        file: "src/routing/eligibility",
        from: "if (sample === undefined)\n        return false;",
        to: "if (sample === undefined)\n        return true;",
      },
      {
        file: "src/topology/replica-table",
        from: "return Number.POSITIVE_INFINITY;",
        to: "return 0;",
      },
    ],
    scene: "refilled",
    rules: ["bounded staleness"],
  },
  {
    id: "session-not-looked-at",
    what: "any copy answers under a session, whatever it has applied",
    patches: [
      {
        file: "src/routing/eligibility",
        from: "this.#lag.appliedLsn(vshard, shard) >= leastLsn",
        to: "true",
      },
      {
        file: "actors/replication/vshard-gate",
        from: "if (this.#table.appliedLsn(vshard, this.#shard) >= routed.minLsn(i))",
        to: "if (routed !== undefined)",
      },
    ],
    scene: "sessions",
    rules: ["a session sees its own writes"],
  },
  {
    id: "session-keeps-its-first-lsn",
    what: "a session takes one write of each vshard in, and forgets those that follow",
    patches: [
      { file: "src/topology/session", from: "if (lsn > this.lsnOf(vshard))", to: "if (this.lsnOf(vshard) === 0)" },
    ],
    scene: "sessions",
    rules: ["a session sees its own writes"],
  },
  {
    id: "entries-over-a-gap",
    what: "a link that has sent an entry skips the next, and the copy applies what follows the gap",
    patches: [
      {
        file: "actors/replication/copies",
        from: "|| entry.lsn !== copy.lsn + 1)",
        to: "|| entry.lsn <= copy.lsn)",
      },
      {
        file: "actors/replication/replica-link",
        from: "copy.sent = lsn; // it lacks an entry before those, or cannot apply one of them yet\n        this.#postpone(owned);",
        to: "",
      },
      {
        file: "actors/replication/replica-link",
        from: "if (lsn < head)\n            this.#dirty.add(owned);",
        to: "if (lsn < head) { copy.sent = lsn + 1; this.#dirty.add(owned); }",
      },
    ],
    scene: "breaks",
    rules: [CONVERGES, ORDER, "copies equal after heal"],
  },
  {
    id: "one-copy-not-woken",
    what: "only the first copy is told of a new entry; the others get it when something else makes them ask",
    patches: [
      {
        file: "actors/replication/primary",
        from: "for (const peer of owned.copies.keys())\n                this.#links.get(peer)?.wake(owned);",
        to: "this.#links.get([...owned.copies.keys()][0])?.wake(owned);",
      },
    ],
    scene: "calm",
    rules: [CONVERGES],
  },
  {
    id: "acknowledged-before-copies",
    what: "a write is answered when the primary has it, whatever acks it asked for",
    patches: [
      {
        file: "actors/replication/primary",
        from: "return written !== undefined && (acks > 1 ||",
        to: "return written !== undefined && (acks > 16 ||",
      },
    ],
    scene: "isolated",
    rules: [ORDER],
  },
  {
    id: "quorum-off-by-one",
    what: "the primary counts itself twice among the copies that have a write",
    patches: [{ file: "actors/replication/owned-vshard", from: "let count = 1;", to: "let count = 2;" }],
    scene: "isolated",
    rules: [ORDER],
  },
  {
    id: "strong-read-of-unsettled",
    what: "a strong read shows what no other copy has, and what a crash takes back",
    patches: [
      {
        file: "actors/planned-requests",
        from: "(writes?.hasUnsettled === true || gate.isLeased)",
        to: "gate.isLeased",
      },
    ],
    scene: "isolated",
    rules: [ORDER],
  },
  {
    id: "doubt-called-refusal",
    what: "a write that misses its quorum ends with an error that says that nothing happened, and is there later",
    patches: [
      {
        file: "actors/replication/owned-vshard",
        from: 'waiting.kind === "write" ? "ERR_QUORUM"',
        to: 'waiting.kind === "write" ? "ERR_OVERLOADED"',
      },
    ],
    scene: "cuts",
    rules: [ORDER],
  },
  {
    id: "lost-connection-called-refusal",
    what: "what was under way when a connection broke ends with an error that says that it was never sent",
    patches: [
      {
        file: "src/plane/node-link",
        from: 'new ShardloomError("ERR_WORKER_LOST", `Cannot finish request as the connection',
        to: 'new ShardloomError("ERR_CLOSED", `Cannot finish request as the connection',
      },
    ],
    scene: "breaks",
    rules: [ORDER],
  },
  {
    id: "refill-skipped",
    what: "a node that starts again without its memory serves its vshards as if they were empty",
    patches: [
      {
        file: "actors/replication/arrivals",
        from: "if (term === 1 && nodeIncarnationOf(incarnation) === 1)",
        to: "if (term > 0)",
      },
    ],
    scene: "clogged",
    rules: [ORDER],
  },
  {
    id: "refill-from-last-answer",
    what: "a primary without memory takes its vshards from the copy that answered last, not from the furthest",
    patches: [{ file: "actors/replication/refill", from: "if (lsn > Math.max(0, furthest.lsn))", to: "if (lsn >= 0)" }],
    scene: "clogged",
    rules: [ORDER],
  },
  {
    id: "refill-from-too-few",
    what: "a primary without memory decides when one copy has answered, which may lack what was acknowledged",
    patches: [
      {
        file: "actors/replication/refill",
        from: "witnesses < copies - Math.floor(copies / 2)",
        to: "heard.size < 1",
      },
      { file: "actors/replication/refill", from: "remembering.length < needed &&", to: "remembering.length < 1 &&" },
      { file: "actors/replication/refill", from: "const GRACE_MS = 500;", to: "const GRACE_MS = 0;" },
    ],
    scene: "misled",
    rules: [ORDER],
  },
  {
    id: "lsn-given-out-twice",
    what: "the worker that follows a dead one begins its LSNs anew, and copies seem to have what they never had",
    patches: [
      {
        file: "actors/replication/primary",
        from: "const found = filled?.from ?? Math.max(left, table.appliedLsn(vshard, shard), 0);",
        to: "const found = filled?.from ?? 0;",
      },
    ],
    scene: "revived",
    rules: ["a session sees its own writes"],
  },
  {
    id: "snapshot-keeps-what-is-gone",
    what: "a copy that was filled keeps the rows that its primary has no more",
    patches: [
      {
        file: "actors/vector/vector-copies",
        from: "for (const row of rows)\n                collection.remove(row);",
        to: "",
      },
    ],
    scene: "relapses",
    rules: [CONVERGES, "deleted is gone"],
  },
  {
    id: "delete-not-replicated",
    what: "a delete changes the primary alone",
    patches: [
      {
        file: "actors/vector/vector-copies",
        from: "if (row >= 0)\n            bodies.add(",
        to: "if (row < -1)\n            bodies.add(",
      },
    ],
    scene: "finds",
    rules: [CONVERGES],
  },
  {
    id: "torn-row-kept",
    what: "the worker that follows a dead one does not finish the change that was announced",
    patches: [{ file: "actors/vector/vector-store", from: "if (announced >= 0)", to: "if (announced >= 1e9)" }],
    scene: "torn",
    rules: [CONVERGES, ORDER, "readable after heal"],
  },
];
