/**
 * When acknowledged writes may be gone: when more went wrong than copies and disks together can make good.
 *
 * Invariant: it errs on the side of the cluster by whole nodes alone: a node whose disk was damaged, or is lost, may have nothing any more; one that
 * lost power has all but what was not synced. Where fewer nodes than a write is acknowledged by may lack it, it must be there.
 */
import type { Fault, FaultKind } from "./fault-types.ts";
import type { WorldDurability } from "./world-types.ts";

/** What may take from a disk what was synced to it. */
const TAKES_SYNCED: readonly FaultKind[] = ["lose", "disk-misdirected", "disk-bit-rot"];
/** What may take from it what was only written, too. */
const TAKES_WRITTEN: readonly FaultKind[] = [...TAKES_SYNCED, "crash", "cluster-crash", "disk-sync-failed"];
/** What may take from it what is written a little later. */
const TAKES_PROMISED: readonly FaultKind[] = [...TAKES_WRITTEN, "node-kill"];

const TAKES: Readonly<Record<WorldDurability, readonly FaultKind[]>> = {
  none: [],
  memory: TAKES_PROMISED,
  os: TAKES_WRITTEN,
  fsync: TAKES_SYNCED,
};

/** Crashes of single nodes, each of which has all again from its copies before the next one: the plan sees to that. */
const ONE_BY_ONE: readonly FaultKind[] = ["crash", "node-kill"];

/**
 * Whether acknowledged writes may be gone.
 *
 * @param faults Those that hit.
 * @param acks How many nodes hold each acknowledged write.
 */
export function mayForget(faults: readonly Fault[], durability: WorldDurability, acks: number): boolean {
  const takes = faults.filter(({ kind }) => TAKES[durability].includes(kind));
  const lasting = new Set(takes.filter(({ kind }) => !ONE_BY_ONE.includes(kind)).flatMap(nodesOf));
  // Where something lasts, a single crash elsewhere adds to it.
  const isOneMore =
    lasting.size > 0 && takes.some((fault) => ONE_BY_ONE.includes(fault.kind) && isElsewhere(fault, lasting));
  return lasting.size + (isOneMore ? 1 : 0) >= acks;
}

function isElsewhere(fault: Fault, nodes: ReadonlySet<string>): boolean {
  return nodesOf(fault).some((node) => !nodes.has(node));
}

function nodesOf(fault: Fault): string[] {
  const places = "targets" in fault ? fault.targets : [fault.site];
  return places.map((place) => place.split("/")[0] as string);
}
