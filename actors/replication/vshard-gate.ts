/**
 * Decides which of the vshards that a planned request names this shard may answer for, and why not the others.
 *
 * Reads: the shard holds a copy, and the copy is as fresh as the request demands. Strong reads and writes: it is the primary. Where
 * nothing is replicated every vshard of the shard is its own, and whole requests pass without a look at any of them.
 *
 * Invariant: a set of vshards that is given out never changes, and the same set is the same object while it is asked for often:
 * engines may remember what they know of it by identity.
 */
import type { ReplicaTable } from "../../src/topology/replica-table.ts";
import { holdsCopy, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import type { TopologySource } from "../../src/topology/topology-source.ts";
import {
  CONSISTENCY,
  REFUSAL,
  type RefusalCode,
  type RefusedVshard,
  type RoutedReader,
  SCOPE,
} from "../../src/wire/routed-codec.ts";

/** Sets that are kept for the next request with the same one. */
const MAX_SETS = 32;
const NOTHING: readonly RefusedVshard[] = [];

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
  #known: Roles | undefined;
  /** By hash of their bytes, in order of use, the least recent first. */
  readonly #sets: Map<number, Uint8Array> = new Map();
  /** 1 for each vshard that the request at hand may have an answer for. */
  #asked: Uint8Array = new Uint8Array(0);
  #accepted = 0;
  #scope: "whole" | "primary" | "some" = "whole";
  #refused: RefusedVshard[] = [];

  constructor(shard: number, topology: TopologySource, table: ReplicaTable) {
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

  /** Looks at a request. After it, `refused` and `accepted` speak of this request. */
  admit(routed: RoutedReader): void {
    const roles = this.#roles();
    if (this.#refused.length > 0) this.#refused = []; // a held reply may still have the last one
    if (routed.scope !== SCOPE.LISTED && roles.snapshot.replicationFactor === 1) {
      this.#scope = "whole";
      return;
    }
    if (routed.scope === SCOPE.PRIMARY) {
      this.#scope = "primary"; // the primary is as fresh as can be: nothing is refused
      return;
    }
    this.#asked.fill(0);
    this.#accepted = 0;
    if (routed.scope === SCOPE.LISTED) {
      for (let i = 0; i < routed.count; i++) this.#ask(roles.snapshot, routed, routed.vshard(i));
    } else {
      for (let i = 0; i < roles.held.length; i++) this.#ask(roles.snapshot, routed, roles.held[i] as number);
    }
    if (routed.minCount > 0) this.#askBehind(routed, roles.snapshot);
    this.#scope = this.#refused.length === 0 && this.#accepted === roles.held.length ? "whole" : "some";
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
    if (snapshot.owners[vshard] === this.#shard) return undefined; // the primary is as fresh as can be
    const { consistency } = routed;
    if (consistency === CONSISTENCY.STRONG || consistency === CONSISTENCY.WRITE) return REFUSAL.NOT_OWNER;
    if (!holdsCopy(snapshot, this.#shard, vshard)) return REFUSAL.NOT_OWNER;
    if (this.#table.appliedLsn(vshard, this.#shard) < 0) return REFUSAL.SYNCING;
    if (consistency !== CONSISTENCY.BOUNDED_STALENESS) return undefined;
    const lag = this.#table.lag(vshard, this.#shard);
    return lag !== undefined && lag.lagMs <= routed.maxStalenessMs ? undefined : REFUSAL.STALE;
  }

  /** Takes back vshards whose copy here has not applied what the session has seen. */
  #askBehind(routed: RoutedReader, snapshot: TopologySnapshot): void {
    for (let i = 0; i < routed.minCount; i++) {
      const vshard = routed.minVshard(i);
      if (this.#asked[vshard] !== 1 || snapshot.owners[vshard] === this.#shard) continue;
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
