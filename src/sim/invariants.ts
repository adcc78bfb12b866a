/**
 * Rules that the system itself must keep, whatever clients asked: answers tell what is missing, messages are accounted for, copies agree,
 * every vshard has one primary, by the maps and by what shards do.
 *
 * Invariant: each rule is a function of plain records to violations; it looks at nothing else, so that a test can show that it fails.
 * Rules about what clients saw are in `history-invariants.ts`.
 */
import type { Completeness } from "../routing/gather.ts";
import { Findings } from "./findings.ts";
import type { HistoryEntry, Violation } from "./history-types.ts";
import { canonicalJson } from "./plain-json.ts";

/** An answer that was gathered from several shards. */
export interface GatherRecord {
  /** Who asked what, for people. */
  readonly what: string;
  /** As the answer carries it; outcomes may be left out. */
  readonly completeness: Omit<Completeness, "outcomes"> & { readonly outcomes?: readonly unknown[] };
  /** What a complete answer must have held and this one does not. */
  readonly missing: readonly unknown[];
  readonly entries?: readonly HistoryEntry[];
}

/** A gather that misses something says so, and its counts add up. */
export function gathersTellWhatIsMissing(gathers: Iterable<GatherRecord>): readonly Violation[] {
  const findings = new Findings("gathers tell what is missing");
  for (const { what, completeness, missing, entries } of gathers) {
    const { planned, answered, empty, failed, timedOut, unavailable, stale, complete, vshards, outcomes } =
      completeness;
    const sum = answered + failed + timedOut + unavailable + stale;
    const add = (text: string): void => findings.add(`${what}: ${text}`, entries);
    if (complete && missing.length > 0)
      add(`complete, and yet ${missing.length} are missing: ${missing.slice(0, 3).map(canonicalJson).join(", ")}`);
    if (sum !== planned) add(`${planned} parts were planned and ${sum} have an outcome`);
    if (outcomes !== undefined && outcomes.length !== planned)
      add(`${planned} parts were planned and ${outcomes.length} are listed`);
    if (complete !== (answered === planned))
      add(`${answered} of ${planned} parts answered, and complete is ${complete}`);
    if (complete && vshards.answered !== vshards.planned)
      add(`complete, and yet ${vshards.answered} of ${vshards.planned} vshards answered`);
    if (empty > answered || vshards.answered > vshards.planned) add("more answered than there are");
  }
  return findings.violations;
}

/** What became of the messages of one sender. */
export interface MessageCounts {
  readonly where: string;
  readonly sent: number;
  readonly delivered: number;
  /** Refused with an error that the sender was told. */
  readonly rejected: number;
  /** Put to the dead letters. */
  readonly dead: number;
  /** Sent when a connection or node was lost: perhaps delivered. */
  readonly inDoubt: number;
}

/** Every message that was sent was delivered, rejected, dead or in doubt, and none is two of them. */
export function messagesAreConserved(counts: Iterable<MessageCounts>): readonly Violation[] {
  const findings = new Findings("messages are conserved");
  for (const { where, sent, delivered, rejected, dead, inDoubt } of counts) {
    const all = [sent, delivered, rejected, dead, inDoubt];
    const sum = delivered + rejected + dead + inDoubt;
    const terms = `${delivered} delivered + ${rejected} rejected + ${dead} dead + ${inDoubt} in doubt`;
    if (!all.every((count) => Number.isSafeInteger(count) && count >= 0))
      findings.add(`${where}: ${all.join(", ")} are not all counts`);
    else if (sum < sent) findings.add(`${where}: ${sent - sum} of ${sent} messages are lost: ${terms}`);
    else if (sum > sent) findings.add(`${where}: ${sum - sent} messages more than the ${sent} sent: ${terms}`);
  }
  return findings.violations;
}

/** A map of vshards as one node has it. */
export interface MapView {
  readonly node: string;
  readonly mapEpoch: number;
  /** Primary of every vshard. */
  readonly owners: ArrayLike<number>;
}

/** For one epoch of the map all nodes name the same primary of every vshard, at all times: give every snapshot that any had. */
export function onePrimaryPerEpoch(views: Iterable<MapView>): readonly Violation[] {
  const findings = new Findings("one primary per vshard and epoch");
  const first = new Map<number, MapView>();
  for (const view of views) {
    const known = first.get(view.mapEpoch);
    if (known === undefined) {
      // A copy: owners may be a view of shared memory.
      first.set(view.mapEpoch, { ...view, owners: Array.from(view.owners) });
      continue;
    }
    const about = `epoch ${view.mapEpoch}: ${known.node} and ${view.node}`;
    if (known.owners.length !== view.owners.length)
      findings.add(`${about} have ${known.owners.length} and ${view.owners.length} vshards`);
    const differing: number[] = [];
    for (let vshard = 0; vshard < Math.min(known.owners.length, view.owners.length); vshard++)
      if (known.owners[vshard] !== view.owners[vshard]) differing.push(vshard);
    const [vshard] = differing;
    if (vshard !== undefined)
      findings.add(
        `${about} name ${known.owners[vshard]} and ${view.owners[vshard]} as primary of vshard ${vshard}, and differ in ${differing.length}`,
      );
  }
  return findings.violations;
}

/** What a shard did as the primary of a vshard. */
export interface PrimaryDeed {
  /** What it did, for people. */
  readonly what: string;
  readonly vshard: number;
  /** The epoch in which it took itself for the primary: that of the vshard, higher with every primary that it gets. */
  readonly epoch: number;
  readonly shard: number;
}

/**
 * Of each vshard one shard alone acts as primary in an epoch, and nobody in an older one than somebody has acted in before: what leases and fences
 * are for, whether or not a client could have noticed. Give deeds in the order in which they were done; of equal ones that follow each other one will do.
 */
export function onePrimaryActs(deeds: Iterable<PrimaryDeed>): readonly Violation[] {
  const findings = new Findings("one primary acts per vshard and epoch");
  const newest = new Map<number, PrimaryDeed>();
  const told = new Set<string>();
  for (const deed of deeds) {
    const { what, vshard, epoch, shard } = deed;
    const known = newest.get(vshard);
    if (known === undefined || epoch > known.epoch) {
      newest.set(vshard, deed);
      continue;
    }
    if (epoch === known.epoch && shard === known.shard) continue;
    const whose = `${vshard} ${epoch} ${shard}`;
    if (told.has(whose)) continue; // once for each of its lives as primary
    told.add(whose);
    findings.add(
      `vshard ${vshard}: shard ${shard} ${what} in epoch ${epoch} after shard ${known.shard} ${known.what} in epoch ${known.epoch}`,
    );
  }
  return findings.violations;
}
