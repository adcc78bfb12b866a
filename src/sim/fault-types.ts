/**
 * Faults as data: what can go wrong in a world, where, and when.
 *
 * Invariant: a run is its seed, its operations and its list of faults; the same three give the same run.
 */

/** Every kind of fault, by the name that users write. */
export const FAULT_KINDS = [
  // per message between nodes
  "drop",
  "delay",
  "reorder",
  "duplicate",
  "corrupt",
  // links, for a while
  "partition-one-way",
  "partition",
  "partition-ring",
  "partition-bridge",
  "clog",
  // nodes
  "crash",
  "lose",
  "pause",
  // clocks of nodes
  "clock-step",
  "clock-drift",
  "clock-skew",
  // disks
  "disk-torn",
  "disk-lost-write",
  "disk-misdirected",
  "disk-full",
  "disk-slow",
  "disk-bit-rot",
  "disk-sync-failed",
  // threads and shared memory of a node
  "worker-crash",
  "worker-slow",
  "wake-dropped",
  "wake-spurious",
  "region-torn",
  "ring-corrupt",
  // the stand-in for NATS
  "nats-frozen",
  "nats-restarted",
  "nats-late-apply",
  // of clusters that keep their data; behind all others, which so keep their places in the swarm of a seed
  "node-kill",
  "cluster-crash",
  "disk-read-only",
  "worker-io-crash",
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];

/** A fault at an opportunity: the `ordinal`-th time (from 0) that `site` could have had this kind. */
export interface DrawnFault {
  readonly kind: FaultKind;
  /** Where: "n0>n1" for a frame, "n2/disk", "n2/w1". */
  readonly site: string;
  readonly ordinal: number;
  /** How much of it, in `[0, 1)`; what that means is the kind's: a share of the longest delay, which byte, ... */
  readonly size: number;
}

/** A fault that begins at a time. */
export interface TimedFault {
  readonly kind: FaultKind;
  readonly atMs: number;
  /** How long it lasts; what heals by itself (a step, a crash without restart) has 0. */
  readonly durationMs: number;
  /** Names of nodes (or worker sites) that it is about, in an order that the kind defines. */
  readonly targets: readonly string[];
  readonly size: number;
}

export type Fault = DrawnFault | TimedFault;

/** Rates that users give. Drawn kinds: probability per opportunity. Timed kinds: expected number per simulated minute. */
export type FaultRates = Readonly<Partial<Record<FaultKind, number>>>;

/** What users write: nothing, everything, a random subset with random rates per seed, or rates by name. */
export type FaultsOption = "none" | "all" | "swarm" | readonly FaultKind[] | FaultRates;

/** The opportunities of one kind at one site: made once, kept, and drawn from on hot paths. */
export interface FaultPoint {
  /** Whether this opportunity has the fault. Cost: a comparison where it has not. */
  draw(): DrawnFault | undefined;
}

/** Decides at every opportunity, and keeps what hit. */
export interface FaultInjector {
  /** Whether this opportunity has the fault, and how much of it. Cheap when the kind is off; else a look-up of the site. */
  draw(kind: FaultKind, site: string): DrawnFault | undefined;
  /** The handle for many draws: `point(kind, site).draw()` is `draw(kind, site)`, and both count the same ordinals. */
  point(kind: FaultKind, site: string): FaultPoint;
  /** Faults that begin at a time. */
  readonly timed: readonly TimedFault[];
  /** What has hit so far, timed ones included once they began. */
  readonly injected: readonly Fault[];
  /** A timed fault has begun. */
  began(fault: TimedFault): void;
  /** No more faults from now on: the phase in which everything must heal. */
  quiet(): void;
}
