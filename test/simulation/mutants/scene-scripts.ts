/**
 * What goes wrong in scenes that leave nothing to chance: lists of faults that lead, in nearly every world, to where a planted defect shows.
 *
 * Invariant: plain data; times are in simulated ms since the start of the workload.
 */
import type { Fault } from "../../../src/sim/fault-types.ts";

/** A node is cut off, and crashes before anybody has heard of what it was told meanwhile. */
export function cutOffAndCrashed(): Fault[] {
  const targets = ["n0"];
  return [
    { kind: "partition", atMs: 1_500, durationMs: 2_500, targets, size: 0.5 },
    { kind: "crash", atMs: 2_700, durationMs: 500, targets, size: 0.5 },
  ];
}

/**
 * Two nodes, one after the other, die and come back while the only copy that they reach was cut off before, and lacks what was acknowledged meanwhile.
 */
export function heardByTheWrongOne(): Fault[] {
  return [0, 1].flatMap((node): Fault[] => {
    const atMs = 2_000 + node * 19_000; // by then the other has its memory back
    const [dies, lags, knows] = [node, (node + 1) % 3, (node + 2) % 3].map((each) => `n${each}`) as [
      string,
      string,
      string,
    ];
    return [
      { kind: "partition", atMs, durationMs: 2_000, targets: [lags], size: 0 },
      { kind: "crash", atMs: atMs + 1_900, durationMs: 300, targets: [dies], size: 0 },
      { kind: "partition", atMs: atMs + 1_950, durationMs: 3_000, targets: [knows], size: 0 },
    ];
  });
}

/**
 * A worker dies while its node's disk takes nothing: its successor has in memory what is on no other disk but one. Then that memory goes, and whoever
 * else had it comes back last.
 */
export function keptInMemory(): Fault[] {
  return [
    { kind: "crash", atMs: 0, durationMs: 2_700, targets: ["n1"], size: 0 },
    { kind: "disk-read-only", atMs: 900, durationMs: 2_000, targets: ["n0/disk"], size: 0 },
    { kind: "worker-crash", atMs: 1_200, durationMs: 0, targets: ["n0/w0"], size: 0 },
    { kind: "crash", atMs: 2_290, durationMs: 300, targets: ["n0"], size: 0 },
    { kind: "node-kill", atMs: 2_600, durationMs: 2_000, targets: ["n2"], size: 0 },
  ];
}

/** The power of all nodes fails again and again while their disks are slow, and takes everything that was not synced. */
export function outages(): Fault[] {
  const nodes = ["n0", "n1", "n2"];
  const failures = Array.from({ length: 4 }, (_, at): Fault => {
    const targets = [...nodes.slice(at % 3), ...nodes.slice(0, at % 3)];
    return { kind: "cluster-crash", atMs: 700 + 1_200 * at, durationMs: 150, targets, size: 0 };
  });
  const perNode = nodes.flatMap((node): Fault[] => [
    { kind: "disk-slow", atMs: 0, durationMs: 60_000, targets: [`${node}/disk`], size: 0.3 },
    ...Array.from(
      { length: 400 },
      (_, ordinal): Fault => ({ kind: "disk-lost-write", site: `${node}/disk`, ordinal, size: 0 }),
    ),
  ]);
  return [...failures, ...perNode];
}

/** A node is lost for so long that another takes over: the one that was cut off before, as the third stands still. It lacks what was acknowledged. */
export function overtaken(): Fault[] {
  return [
    { kind: "partition", atMs: 2_000, durationMs: 4_500, targets: ["n1"], size: 0 },
    { kind: "crash", atMs: 3_950, durationMs: 6_000, targets: ["n0"], size: 0 },
    { kind: "pause", atMs: 4_200, durationMs: 2_300, targets: ["n2"], size: 0 },
  ];
}

/** A node sleeps until another has taken over, and wakes up as what it was: its peers do not reach it, and who grants leases says nothing. */
export function asleep(): Fault[] {
  return [
    { kind: "partition", atMs: 900, durationMs: 4_600, targets: ["n0"], size: 0 },
    { kind: "pause", atMs: 1_000, durationMs: 2_600, targets: ["n0"], size: 0 },
    { kind: "nats-frozen", atMs: 3_500, durationMs: 2_000, targets: ["nats"], size: 0 },
  ];
}

/** Nodes, one after the other, stand still for so long that others take over, and go on with what they were asked before and meanwhile. */
export function stoodStill(): Fault[] {
  return [0, 1].map((node): Fault => {
    return { kind: "pause", atMs: 1_500 + 4_500 * node, durationMs: 3_800, targets: [`n${node}`], size: 0 };
  });
}

/** What copies answer their primary is held up until it has stood still for so long that another has taken over, and is there when it goes on. */
export function answeredLate(): Fault[] {
  return [0, 1].flatMap((node): Fault[] => {
    const atMs = 1_500 + 4_500 * node;
    const clogs = [1, 2].map((step): Fault => {
      return { kind: "clog", atMs, durationMs: 1_500, targets: [`n${(node + step) % 3}`, `n${node}`], size: 0 };
    });
    return [...clogs, { kind: "pause", atMs: atMs + 60, durationMs: 3_600, targets: [`n${node}`], size: 0 }];
  });
}

/** The power fails again and again while a slow disk has much in hand, of which it keeps some sectors. */
export function tornTails(): Fault[] {
  const site = "n0/disk";
  const crashes = Array.from({ length: 14 }, (_, at): Fault => {
    return { kind: "cluster-crash", atMs: 600 + 500 * at, durationMs: 100, targets: ["n0"], size: 0 };
  });
  const torn = Array.from({ length: 400 }, (_, ordinal): Fault => {
    return { kind: "disk-torn", site, ordinal, size: ((ordinal * 37) % 100) / 100 };
  });
  return [...crashes, { kind: "disk-slow", atMs: 0, durationMs: 60_000, targets: [site], size: 0.2 }, ...torn];
}

/** A worker dies while its disk takes nothing: its successor logs what is in memory. Soon after the process dies, and the log is all there is. */
export function adopted(): Fault[] {
  return [0, 1, 2].flatMap((round): Fault[] => {
    const atMs = 800 + round * 3_000;
    return [
      { kind: "disk-read-only", atMs, durationMs: 900, targets: ["n0/disk"], size: 0 },
      { kind: "worker-crash", atMs: atMs + 300, durationMs: 0, targets: ["n0/w0"], size: 0 },
      { kind: "crash", atMs: atMs + 1_500, durationMs: 200, targets: ["n0"], size: 0 },
    ];
  });
}

/** A process dies every few writes. */
export function shortLives(): Fault[] {
  return Array.from({ length: 12 }, (_, at): Fault => {
    return { kind: "crash", atMs: 300 + 450 * at, durationMs: 100, targets: ["n0"], size: 0 };
  });
}

/** Most that a clock steps by in one fault, in ms; so many of them at one moment are an hour. */
const STEPS_OF_AN_HOUR = 720;

/**
 * Clocks of nodes that differ by an hour from the start and step by an hour: one node ahead of the others, then all others ahead of it, which is then as
 * far behind them.
 */
export function hoursApart(): Fault[] {
  const step = (node: string, atMs: number): Fault[] =>
    Array.from({ length: STEPS_OF_AN_HOUR }, () => {
      return { kind: "clock-step", atMs, durationMs: 0, targets: [node], size: 0.9999 };
    });
  return [
    { kind: "clock-skew", atMs: 0, durationMs: 0, targets: ["n1"], size: 0.9999 },
    ...step("n0", 2_000),
    ...step("n1", 6_000),
    ...step("n2", 6_000),
  ];
}

/** Every node in turn is gone for long enough that another one has what it was primary of, and gets it back later. */
export function takenAndGivenBack(): Fault[] {
  return [0, 1, 2].map((node): Fault => {
    return { kind: "pause", atMs: 1_500 + 8_000 * node, durationMs: 3_500, targets: [`n${node}`], size: 0 };
  });
}
