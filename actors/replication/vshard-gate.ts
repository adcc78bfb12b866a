/**
 * Decides which of the vshards that a planned request names this shard may answer for, and why not the others.
 *
 * Reads: the shard holds a copy, and the copy is as fresh as the request demands. Strong reads and writes: it is the primary. A primary
 * that has to get a vshard first answers for it when it has it. While
 * the node's lease is over it may not be primary any more: then it answers neither strong reads nor writes, and other reads as a copy that
 * may be as stale as the lease is old. Where nothing is replicated every vshard of the shard is its own, and whole requests pass without a look at any of them.
 *
 * Invariant: a set of vshards that is given out never changes, and the same set is the same object while it is asked for often:
 * engines may remember what they know of it by identity.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { LeaseWords } from "../../src/topology/lease-words.ts";
import { baseLsn } from "../../src/topology/member.ts";
import type { ReplicaTable } from "../../src/topology/replica-table.ts";
import { holdsCopy, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import type { TopologySource } from "../../src/topology/topology-source.ts";
import {
  CONSISTENCY,
  type LsnList,
  REFUSAL,
  type RefusalCode,
  type RefusedVshard,
  type RoutedReader,
  SCOPE,
} from "../../src/wire/routed-codec.ts";
import { PRIMARY_ACTS, tellActs } from "./primary-acts.ts";

/** Sets that are kept for the next request with the same one. */
const MAX_SETS = 32;
const NOTHING: readonly RefusedVshard[] = [];
const ALWAYS: Pick<LeaseWords, "isValid" | "lapsedMs" | "isGranted"> = {
  isValid: true,
  lapsedMs: 0,
  isGranted: false,
};

/** What one topology makes of this shard. */
interface Roles {
  readonly snapshot: TopologySnapshot;
  /** 1 for each vshard whose primary it is. */
  readonly primary: Uint8Array;
  /** Vshards that it holds a copy of, ascending. */
  readonly held: Uint16Array;
}

export class VshardGate {
  readonly #shard: number;
  readonly #topology: TopologySource;
  readonly #table: ReplicaTable;
  readonly #primary: { readonly refilling: ReadonlySet<number> };
  readonly #lease: Pick<LeaseWords, "isValid" | "lapsedMs" | "isGranted">;
  #known: Roles | undefined;
  /** By hash of their bytes, in order of use, the least recent first. */
  readonly #sets: Map<number, Uint8Array> = new Map();
  /** 1 for each vshard that the request at hand may have an answer for. */
  #asked: Uint8Array = new Uint8Array(0);
  #accepted = 0;
  #scope: "whole" | "primary" | "some" = "whole";
  #refused: RefusedVshard[] = [];
  #stalenessMs = 0;

  /**
   * @param refilling Vshards whose primary this shard is and that it has not got yet; read at every request. @default none
   * @param lease Of the node. @default it never ends
   */
  constructor(
    shard: number,
    topology: TopologySource,
    table: ReplicaTable,
    refilling: { readonly refilling: ReadonlySet<number> } = { refilling: new Set() },
    lease: Pick<LeaseWords, "isValid" | "lapsedMs" | "isGranted"> = ALWAYS,
  ) {
    this.#lease = lease;
    this.#primary = refilling;
    this.#shard = shard;
    this.#topology = topology;
    this.#table = table;
  }

  /** Vshards of the request at hand that it gets no answer for. */
  get refused(): readonly RefusedVshard[] {
    return this.#refused.length === 0 ? NOTHING : this.#refused;
  }

  /** The set of the request at hand, 1 for each vshard that is answered for; undefined: all that this shard holds. */
  accepted(): Uint8Array | undefined {
    if (this.#scope === "whole") return undefined;
    return this.#scope === "primary" ? this.#known?.primary : this.#canonical(this.#asked);
  }

  /** The LSN that each vshard of the request at hand has come to here: what is read of it is no newer. */
  shown(): LsnList {
    const accepted = this.accepted();
    const held = this.#known?.held ?? new Uint16Array(0);
    const vshards = accepted === undefined ? held : held.filter((vshard) => accepted[vshard] === 1);
    const list = { vshards, lsns: new Float64Array(vshards.length) };
    this.showMore(list);
    return list;
  }

  /** The same when it was read later. */
  showMore({ vshards, lsns }: LsnList): void {
    for (const [at, vshard] of vshards.entries()) {
      const lsn = Math.max(this.#table.appliedLsn(vshard, this.#shard), this.#table.headBy(vshard, this.#shard));
      if (lsn > (lsns[at] as number)) lsns[at] = lsn;
    }
  }

  /**
   * How far what the request at hand is answered with may be behind the primaries, in ms, as of its admission: what is read later is no
   * staler than that. 0: this shard is the primary of all of it, or its copies lack nothing; infinity: unknown. Within the bound of a
   * request that has one.
   */
  get stalenessMs(): number {
    return this.#stalenessMs;
  }

  /** Looks at a request. After it, `refused` and `accepted` speak of this request. */
  admit(routed: RoutedReader): void {
    const { refilling } = this.#primary; // before the roles: what is newly a primary's is in it
    if (routed.consistency === CONSISTENCY.WRITE) this.assertServing();
    const roles = this.#roles();
    this.#stalenessMs = 0;
    if (this.#refused.length > 0) this.#refused = []; // a held reply may still have the last one
    if (routed.scope !== SCOPE.LISTED && roles.snapshot.replicationFactor === 1) {
      this.#scope = "whole";
      return;
    }
    // The primary is as fresh as can be: nothing is refused. A write is, whole, where it begins, while something is missing.
    const whole = (refilling.size === 0 && this.#lease.isValid) || routed.consistency === CONSISTENCY.WRITE;
    if (routed.scope === SCOPE.PRIMARY && whole) {
      this.#scope = "primary";
      return;
    }
    this.#asked.fill(0);
    this.#accepted = 0;
    if (routed.scope === SCOPE.LISTED) {
      for (let i = 0; i < routed.count; i++) this.#ask(roles.snapshot, routed, routed.vshard(i));
    } else if (routed.scope === SCOPE.PRIMARY) {
      for (const [vshard, primary] of roles.primary.entries())
        if (primary === 1) this.#ask(roles.snapshot, routed, vshard);
    } else {
      for (let i = 0; i < roles.held.length; i++) this.#ask(roles.snapshot, routed, roles.held[i] as number);
    }
    if (routed.minCount > 0) this.#askBehind(routed, roles.snapshot);
    const { consistency } = routed;
    if (consistency === CONSISTENCY.SESSION || consistency === CONSISTENCY.EVENTUAL) this.#measure(roles);
    this.#scope = this.#refused.length === 0 && this.#accepted === roles.held.length ? "whole" : "some";
  }

  /** Whether leases are granted, so that a strong read must look again when it is done, however late that is. */
  get isLeased(): boolean {
    return this.#lease.isGranted;
  }

  /**
   * A strong read is done: until now it was the primary that read.
   *
   * @throws {ShardloomError} `ERR_STALE_EPOCH` when there is another map than the request was admitted under; as `assertServing`.
   */
  assertStill(): void {
    this.assertServing();
    const { mapVersion } = this.#topology.current();
    if (mapVersion === this.#known?.snapshot.mapVersion) return this.noteRead();
    throw new ShardloomError(
      "ERR_STALE_EPOCH",
      `Cannot answer strong read as the map must be what it was when it began: current value is version ${mapVersion}`,
    );
  }

  /** The strong read that was admitted last has read, as the primary. */
  noteRead(): void {
    if (!PRIMARY_ACTS.hasSubscribers || this.#known === undefined) return;
    const { owners, terms } = this.#known.snapshot;
    const accepted = this.accepted();
    const read = Array.from(owners.keys()).filter(
      (vshard) => owners[vshard] === this.#shard && (accepted === undefined || accepted[vshard] === 1),
    );
    tellActs("read", this.#shard, read, terms);
  }

  /** Whether it is the primary of what the map says. What has one copy is nobody else's, and leases are only granted where its log may be. */
  get #isServing(): boolean {
    return this.#lease.isValid;
  }

  /** @throws {ShardloomError} `ERR_UNAVAILABLE` when the node's lease is over: another one may be the primary by now. */
  assertServing(): void {
    if (this.#isServing) return;
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot serve as a primary as the lease of shard ${this.#shard}'s node must be good: it is over`,
      { details: { shard: this.#shard, written: false } },
    );
  }

  #ask(snapshot: TopologySnapshot, routed: RoutedReader, vshard: number): void {
    const reason = vshard < snapshot.vshards ? this.#refusal(snapshot, routed, vshard) : REFUSAL.NOT_OWNER;
    if (reason !== undefined) {
      this.#refused.push({ vshard, reason });
    } else if (this.#asked[vshard] === 0) {
      this.#asked[vshard] = 1;
      this.#accepted++;
    }
  }

  #refusal(snapshot: TopologySnapshot, routed: RoutedReader, vshard: number): RefusalCode | undefined {
    const { consistency } = routed;
    // The primary is as fresh as can be, once it has everything and while it is the primary.
    if (snapshot.owners[vshard] === this.#shard) {
      if (consistency !== CONSISTENCY.WRITE && this.#primary.refilling.has(vshard)) return REFUSAL.SYNCING;
      if (consistency === CONSISTENCY.STRONG && !this.#isServing) return REFUSAL.SYNCING; // its caller waits, or looks elsewhere
      const stale = consistency === CONSISTENCY.BOUNDED_STALENESS && this.#lease.lapsedMs > routed.maxStalenessMs;
      return stale ? REFUSAL.STALE : undefined;
    }
    if (consistency === CONSISTENCY.STRONG || consistency === CONSISTENCY.WRITE) return REFUSAL.NOT_OWNER;
    if (!holdsCopy(snapshot, this.#shard, vshard)) return REFUSAL.NOT_OWNER;
    const applied = this.#table.appliedLsn(vshard, this.#shard);
    if (applied < 0) return REFUSAL.SYNCING;
    // What a copy has of former terms may be what nobody else has, if it was the primary then: the present one has not confirmed it.
    if (consistency === CONSISTENCY.SESSION && applied < baseLsn(snapshot.terms[vshard] as number))
      return REFUSAL.BEHIND;
    if (consistency !== CONSISTENCY.BOUNDED_STALENESS) return undefined;
    const staleness = this.#table.stalenessMs(vshard, this.#shard);
    if (staleness > routed.maxStalenessMs) return REFUSAL.STALE;
    this.#stalenessMs = Math.max(this.#stalenessMs, staleness);
    return undefined;
  }

  /** The most that a copy of the set may be behind, for requests that are answered however much that is. */
  #measure({ snapshot, held }: Roles): void {
    for (const vshard of held) {
      if (this.#asked[vshard] !== 1 || snapshot.owners[vshard] === this.#shard) continue;
      this.#stalenessMs = Math.max(this.#stalenessMs, this.#table.stalenessMs(vshard, this.#shard));
    }
  }

  /** Takes back vshards whose copy here has not applied what the session has seen. */
  #askBehind(routed: RoutedReader, snapshot: TopologySnapshot): void {
    for (let i = 0; i < routed.minCount; i++) {
      const vshard = routed.minVshard(i);
      if (this.#asked[vshard] !== 1) continue;
      if (snapshot.owners[vshard] === this.#shard && this.#lease.isValid) continue;
      if (this.#table.appliedLsn(vshard, this.#shard) >= routed.minLsn(i)) continue;
      this.#asked[vshard] = 0;
      this.#accepted--;
      this.#refused.push({ vshard, reason: REFUSAL.BEHIND });
    }
  }

  #roles(): Roles {
    const snapshot = this.#topology.current();
    if (this.#known?.snapshot === snapshot) return this.#known;
    const all = Array.from({ length: snapshot.vshards }, (_, vshard) => vshard);
    this.#asked = new Uint8Array(snapshot.vshards);
    this.#known = {
      snapshot,
      primary: this.#canonical(Uint8Array.from(snapshot.owners, (owner) => (owner === this.#shard ? 1 : 0))),
      held: Uint16Array.from(all.filter((vshard) => holdsCopy(snapshot, this.#shard, vshard))),
    };
    return this.#known;
  }

  /** The kept set that is equal to this one, or a copy that is kept from now on. */
  #canonical(set: Uint8Array): Uint8Array {
    let hash = 0;
    for (let vshard = 0; vshard < set.length; vshard++) hash = (Math.imul(hash, 31) + (set[vshard] as number)) | 0;
    const known = this.#sets.get(hash);
    this.#sets.delete(hash);
    const kept = known !== undefined && sameSet(known, set) ? known : set.slice();
    this.#sets.set(hash, kept);
    if (this.#sets.size > MAX_SETS) this.#sets.delete(this.#sets.keys().next().value as number);
    return kept;
  }
}

function sameSet(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
