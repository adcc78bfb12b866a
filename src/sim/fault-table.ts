/**
 * What there is to know of each kind of fault: how it comes about, how often, how much and how long, in a sentence.
 *
 * Invariant: a kind is either drawn at opportunities or begun at times, never both; `size` is in `[0, 1)` for all, and this
 * table says what it scales. Nothing else in the simulator has numbers of its own about faults.
 * Source: the union of FoundationDB, TigerBeetle's VOPR, turmoil, madsim and Jepsen, and the faults of shared memory.
 */
import { FAULT_KINDS, type FaultKind } from "./fault-types.ts";

/** What the `targets` of a timed fault name, in that order. */
export type FaultScope = "message" | "nodes" | "link" | "node" | "power" | "worker" | "disk" | "nats";

export interface FaultDescription {
  /** `drawn`: at an opportunity, with a probability. `timed`: so many a simulated minute. */
  readonly form: "drawn" | "timed";
  readonly scope: FaultScope;
  /** Probability per opportunity, or number per simulated minute of the whole cluster. What `"all"` and a list of names mean. */
  readonly defaultRate: number;
  /** What one opportunity is (drawn), or what the targets are (timed). */
  readonly where: string;
  /** What `size` means; it is 0 where it means nothing. */
  readonly size: string;
  /** Shortest and longest duration of a timed fault in ms, `[0, 0]` for one that does not end or is over at once. */
  readonly durationMs: readonly [number, number];
  /** What {@link FaultDescription.size} scales, in the unit that `size` names; 0 where it is none. */
  readonly scale: number;
  /** For people: what happens. */
  readonly sentence: string;
}

const SHARE = "share of the scale";

function drawn(scope: FaultScope, defaultRate: number, where: string, size: string, scale: number, sentence: string) {
  return { form: "drawn", scope, defaultRate, where, size, durationMs: [0, 0], scale, sentence } as const;
}

function timed(
  scope: FaultScope,
  defaultRate: number,
  where: string,
  durationMs: readonly [number, number],
  sentence: string,
  size = "nothing",
  scale = 0,
) {
  return { form: "timed", scope, defaultRate, where, size, durationMs, scale, sentence } as const;
}

const PACKET = "a packet, at n0>n1 for a frame of a connection and at n0~n1 for a datagram";
const CRASHED_WRITE = "an unsynced write when its node crashes, at n0/disk";

/** Every kind, described. */
export const FAULT_TABLE: Readonly<Record<FaultKind, FaultDescription>> = {
  drop: drawn(
    "message",
    0.01,
    PACKET,
    "nothing",
    0,
    "A packet is lost; on a connection it is sent again after a while.",
  ),
  delay: drawn("message", 0.02, PACKET, `${SHARE}, in ms`, 250, "A packet takes up to a quarter of a second longer."),
  reorder: drawn(
    "message",
    0.01,
    PACKET,
    `${SHARE}, in ms`,
    10,
    "A packet is overtaken by later ones; a connection waits for it.",
  ),
  duplicate: drawn(
    "message",
    0.01,
    PACKET,
    `${SHARE}, in ms: how far behind the copy is`,
    50,
    "A datagram arrives twice; a connection drops the second.",
  ),
  corrupt: drawn(
    "message",
    0.0005,
    PACKET,
    "which bit of the packet",
    1,
    "One bit of a packet is flipped and no checksum below notices.",
  ),
  "partition-one-way": timed(
    "nodes",
    0.6,
    "the node that is not heard any more, then those that do not hear it",
    [500, 20_000],
    "Packets of one node do not reach some others; theirs reach it.",
  ),
  partition: timed(
    "nodes",
    0.6,
    "the nodes of one side; the other side are all others",
    [500, 20_000],
    "The cluster falls into two parts that do not reach each other.",
  ),
  "partition-ring": timed(
    "nodes",
    0.3,
    "all nodes in the order of the ring",
    [500, 20_000],
    "Every node reaches only its two neighbours in a ring.",
  ),
  "partition-bridge": timed(
    "nodes",
    0.3,
    "the bridge, then the nodes of one side; the other side are all others",
    [500, 20_000],
    "Two parts of the cluster do not reach each other, but one node reaches both.",
  ),
  clog: timed(
    "link",
    2,
    "sender, receiver",
    [100, 4000],
    "A link holds all packets of one direction, then lets them go.",
  ),
  crash: timed(
    "node",
    0.6,
    "the node",
    [200, 15_000],
    "A node dies with all its memory and starts again with its disk.",
  ),
  lose: timed("node", 0.02, "the node", [0, 0], "A node dies and never comes back."),
  pause: timed("node", 1, "the node", [50, 8000], "All threads of a node stand still for a while."),
  "clock-step": timed(
    "node",
    0.5,
    "the node",
    [0, 0],
    "A node's clock jumps forwards, as after a suspended machine.",
    `${SHARE}, in ms`,
    5000,
  ),
  "clock-drift": timed(
    "node",
    0.5,
    "the node",
    [1000, 60_000],
    "A node's clock runs too fast or too slow for a while.",
    "in [0, 0.5) too slow, in [0.5, 1) too fast: twice the distance to 0.5 is the share of the scale, in parts per million",
    50_000,
  ),
  "clock-skew": timed(
    "node",
    1,
    "the node",
    [0, 0],
    "A node's clock starts ahead of all others.",
    `${SHARE}, in ms`,
    3_600_000,
  ),
  "disk-torn": drawn(
    "disk",
    0.3,
    CRASHED_WRITE,
    "which sectors are kept",
    1,
    "Some sectors of a write survive a crash.",
  ),
  "disk-lost-write": drawn(
    "disk",
    0.5,
    "an unsynced write or change of a name when its node crashes, at n0/disk",
    "from 0.5 on the file has the size that the write gave it all the same",
    1,
    "A write that was not synced is gone after a crash.",
  ),
  "disk-misdirected": drawn(
    "disk",
    0.0001,
    "a write when it is synced, at n0/disk",
    "where on the disk",
    1,
    "A write lands at another place of its disk.",
  ),
  "disk-full": timed("disk", 0.2, "the disk, n0/disk", [500, 10_000], "Writes to a disk fail as it is full."),
  "disk-slow": timed(
    "disk",
    0.6,
    "the disk, n0/disk",
    [500, 20_000],
    "Every operation of a disk takes longer.",
    `${SHARE}: how many times as long`,
    100,
  ),
  "disk-bit-rot": drawn(
    "disk",
    0.0001,
    "a read, at n0/disk",
    "which bit of what is read",
    1,
    "A bit of a file has flipped.",
  ),
  "disk-sync-failed": drawn(
    "disk",
    0.001,
    "a sync of a file, at n0/disk",
    "which sectors are on disk, and whether reads still see the others",
    1,
    "A sync fails; some of what it was to make durable is lost, and a later sync does not know.",
  ),
  "worker-crash": timed("worker", 1, "the worker, n0/w1", [0, 0], "A worker thread dies; shared memory stays."),
  "worker-slow": timed(
    "worker",
    1,
    "the worker, n0/w1",
    [200, 10_000],
    "Everything a worker does takes longer.",
    `${SHARE}: how many times as long`,
    50,
  ),
  "wake-dropped": drawn(
    "worker",
    0.002,
    "a notify of the doorbell, at n0/w1",
    "nothing",
    0,
    "A parked thread is not woken.",
  ),
  "wake-spurious": drawn(
    "worker",
    0.01,
    "a thread that parks, at n0/w1",
    `${SHARE}, in ms: when`,
    20,
    "A parked thread wakes without being rung for.",
  ),
  "region-torn": timed(
    "worker",
    0.5,
    "the worker, n0/w1",
    [0, 0],
    "A worker dies in the middle of writing a cell of a region.",
    "which cell, among those that a writer could be in",
    1,
  ),
  "ring-corrupt": timed(
    "worker",
    0.2,
    "the worker, n0/w1",
    [0, 0],
    "A word of an unread record in a ring of a worker is damaged.",
    "which of the rings",
    1,
  ),
  "nats-frozen": timed("nats", 0.5, "nats", [200, 10_000], "The log service answers nothing for a while."),
  "nats-restarted": timed(
    "nats",
    0.3,
    "nats",
    [0, 0],
    "The log service starts again; connections and answers under way are gone.",
  ),
  "nats-late-apply": drawn(
    "nats",
    0.01,
    "a request that changes something, at nats",
    `${SHARE}, in ms`,
    3000,
    "The log service applies a publish after its client gave up.",
  ),
  "node-kill": timed(
    "node",
    0.6,
    "the node",
    [200, 15_000],
    "The process of a node dies and starts again; its machine goes on, with all that was written in its cache.",
  ),
  "cluster-crash": timed(
    "power",
    0.3,
    "nodes in the order in which they start again, the last one when the fault ends",
    [500, 15_000],
    "The power of all nodes fails at once; each starts again with its disk.",
  ),
  "disk-read-only": timed(
    "disk",
    0.2,
    "the disk, n0/disk",
    [500, 10_000],
    "Writes to a disk fail as nothing on it may be changed.",
  ),
  "worker-io-crash": drawn(
    "worker",
    0.0005,
    "an operation of a worker on the disk of its node, at n0/w1",
    "below 0.5 the operation does not happen any more",
    1,
    "A worker thread dies at an operation of its disk; shared memory stays.",
  ),
};

/** The kinds of one form, in the order of {@link FAULT_KINDS}. */
export function kindsOf(form: FaultDescription["form"]): FaultKind[] {
  return FAULT_KINDS.filter((kind) => FAULT_TABLE[kind].form === form);
}
