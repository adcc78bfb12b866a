/**
 * Planted defects of clusters that keep their data: when a write counts as durable, what a start reads, what the log forgets.
 *
 * Invariant: see `mutant.ts`.
 * Source: Pillai et al., OSDI 2014, and Alagappan et al., FAST 2018: what real logs and their recovery got wrong. One of them was in
 * this program, and its worlds found it.
 */
import type { Mutant } from "./mutant.ts";

const ORDER = "linearizable";
const CONVERGES = "converges";
const INDEX = "index equals documents";

/** Of logs, snapshots and starts. */
export const DURABLE_MUTANTS: readonly Mutant[] = [
  {
    id: "answered-before-synced",
    what: "the log of a shard is opened as one that is not synced before it answers",
    patches: [
      { file: "actors/storage/durable-state", from: "durability: storage.durability,", to: 'durability: "os",' },
    ],
    scene: "outages",
    rules: [ORDER],
  },
  {
    id: "answered-before-logged",
    what: "a write is answered when the copies have it in memory, and the log comes later",
    patches: [
      {
        file: "actors/replication/waiting-answers",
        from: "if (log === undefined || log.durable >= position)",
        to: "if (position >= 0)",
      },
      {
        file: "actors/replication/copies",
        from: "const { durable = 0, failure } = log ?? {};",
        to: "const { head: durable = 0, failure } = log ?? {};",
      },
    ],
    scene: "outages",
    rules: [ORDER],
  },
  {
    id: "half-loaded-memory-adopted",
    what: "a worker takes over what its predecessor had loaded from disk when it died, as if that were all",
    patches: [
      {
        file: "actors/shard-host",
        from: "Atomics.load(new Int32Array(storage.loaded), shard) === 1",
        to: "true",
      },
    ],
    scene: "alone",
    rules: [ORDER, INDEX],
  },
  {
    id: "restore-without-its-end",
    what: "what a worker adopts is written to the log, but not that it is whole",
    patches: [
      {
        file: "actors/storage/durable-state",
        from: "return { ...NOTHING, kind: LOG_ENTRY.RESTORE_END,",
        to: "return { ...NOTHING, kind: LOG_ENTRY.RESTORE_PART,",
      },
    ],
    scene: "adopted",
    rules: [ORDER],
  },
  {
    id: "replay-skips-one",
    what: "the log is replayed from the second frame after the snapshot",
    patches: [
      {
        file: "actors/storage/durable-state",
        from: "await replay({ log, states, engines }, position + 1)",
        to: "await replay({ log, states, engines }, position + 2)",
      },
    ],
    scene: "short-lives",
    rules: [ORDER],
  },
  {
    id: "memory-counts-as-logged",
    what: "a worker that follows a dead one shows what it finds in memory before its log has it",
    patches: [{ file: "actors/replication/unsettled", from: "this.#options.loggedAt?.(vshard) ?? 0", to: "0" }],
    scene: "unkept",
    rules: [ORDER],
  },
  {
    id: "torn-tail-replayed",
    what: "a record counts that was torn, as long as its header is whole",
    patches: [
      {
        file: "src/store/segment-recovery",
        from: "|| !isWhole(bytes, end, record))",
        to: ")",
      },
    ],
    scene: "torn-tails",
    rules: [ORDER, CONVERGES],
  },
];
