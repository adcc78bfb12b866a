/** When acknowledged writes may be gone, and when never: by what hit, what is kept, and how many nodes have each write. */
import { expect, it } from "vitest";
import type { Fault, FaultKind } from "../../src/sim/fault-types.ts";
import { mayForget } from "../../src/sim/forgetting.ts";
import type { WorldDurability } from "../../src/sim/world-types.ts";

const timed = (kind: FaultKind, ...targets: string[]): Fault => ({ kind, atMs: 1, durationMs: 1, targets, size: 0 });
const drawn = (kind: FaultKind, site: string): Fault => ({ kind, site, ordinal: 1, size: 0.5 });
const rot = (node: string): Fault => drawn("disk-bit-rot", `${node}/disk`);
const ALL = ["n0", "n1", "n2"];

it.each<[string, readonly Fault[], WorldDurability, number, boolean]>([
  ["nothing", [], "memory", 1, false],
  ["anything where nothing is kept", [rot("n0"), timed("lose", "n1")], "none", 1, false],
  ["power of all under fsync", [timed("cluster-crash", ...ALL)], "fsync", 2, false],
  ["power of all under os", [timed("cluster-crash", ...ALL)], "os", 2, true],
  ["power of too few under os", [timed("cluster-crash", "n0")], "os", 2, false],
  ["a process under os, after power", [timed("cluster-crash", "n0"), timed("node-kill", "n1")], "os", 2, false],
  ["a process under memory, after power", [timed("cluster-crash", "n0"), timed("node-kill", "n1")], "memory", 2, true],
  ["crashes one by one", [timed("crash", "n0"), timed("crash", "n1"), timed("node-kill", "n2")], "memory", 2, false],
  ["a crash of the node that is damaged", [rot("n0"), timed("crash", "n0")], "os", 2, false],
  ["a crash of another", [rot("n0"), timed("crash", "n1")], "os", 2, true],
  ["a crash of another under fsync", [rot("n0"), timed("crash", "n1")], "fsync", 2, false],
  ["damage twice at one node", [rot("n0"), rot("n0"), drawn("disk-misdirected", "n0/disk")], "fsync", 2, false],
  ["damage at two nodes", [rot("n0"), drawn("disk-misdirected", "n1/disk")], "fsync", 2, true],
  ["damage at two of three that have each write", [rot("n0"), timed("lose", "n1")], "fsync", 3, false],
  ["damage where one node has it", [rot("n0")], "fsync", 1, true],
  ["syncs that failed under fsync", ALL.map((node) => drawn("disk-sync-failed", `${node}/disk`)), "fsync", 2, false],
  ["syncs that failed under os", ALL.map((node) => drawn("disk-sync-failed", `${node}/disk`)), "os", 2, true],
])("%s", (_, faults, durability, acks, expected) => {
  expect(mayForget(faults, durability, acks)).toBe(expected);
});
