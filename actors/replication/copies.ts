/**
 * The copies that a shard holds of other shards' vshards: takes entries and snapshots from their primaries and applies them.
 *
 * ```
 *  UNKNOWN ──snapshot begins──▶ RESTORING ──it ends──▶ REPLAYING ──its last LSN applied──▶ VALID
 *     any ──another snapshot begins──▶ RESTORING                      VALID ──next entry──▶ VALID
 * ```
 *
 * Invariant: entries are applied in the order of their LSNs, without gaps; what comes twice is applied once. Only a VALID copy says in
 * the replica table what it has applied, so a successor never trusts rows that were half filled. What a worker that died had applied of
 * the next entry stays with its rows: they are the primary's as well, and the entry is applied again.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { ReplicaTable } from "../../src/topology/replica-table.ts";
import { holdsCopy } from "../../src/topology/snapshot.ts";
import type { TopologySource } from "../../src/topology/topology-source.ts";
import { REPLICA_APPEND, REPLICA_SNAPSHOT, REPLICA_STATUS } from "../../src/wire/message-types.ts";
import type { EngineHandler, EngineRequest, ReceivedEffect, ReplicatedEngine } from "../engine.ts";
import {
  answerCopies,
  COPY,
  type CopyState,
  type CopyStatus,
  PART,
  type ReceivedChunk,
  type ReceivedEntry,
  readAppend,
  readSnapshot,
  readSource,
  readStatusVshards,
} from "./replica-messages.ts";

/** What copies are kept with. */
export interface CopiesOptions {
  readonly shard: number;
  readonly topology: TopologySource;
  readonly table: ReplicaTable;
  readonly nowMs: () => number;
  readonly engines: readonly ReplicatedEngine[];
}

interface Copy {
  state: CopyState;
  lsn: number;
  /** LSN from which a replaying copy is whole. */
  endLsn: number;
  transfer: number;
  sequence: number;
}

export class Copies {
  readonly handlers: ReadonlyMap<number, EngineHandler>;
  readonly #options: CopiesOptions;
  readonly #copies: Map<number, Copy> = new Map();
  readonly #engines: Map<number, ReplicatedEngine> = new Map();
  /** Newest worker of each primary's shard that was heard of. */
  readonly #incarnations: Map<number, number> = new Map();

  constructor(options: CopiesOptions) {
    this.#options = options;
    for (const engine of options.engines) for (const type of engine.types) this.#engines.set(type, engine);
    this.handlers = new Map<number, EngineHandler>([
      [REPLICA_APPEND, (request, reply) => answerCopies(reply, this.#append(request))],
      [REPLICA_STATUS, (request, reply) => answerCopies(reply, this.#status(request))],
      [REPLICA_SNAPSHOT, (request, reply) => answerCopies(reply, [this.#snapshot(request)])],
    ]);
    this.#claimEmpty();
  }

  /** A copy of a vshard that was never written to has all of it. */
  #claimEmpty(): void {
    const { shard, topology, table } = this.#options;
    const snapshot = topology.current();
    if (snapshot.replicationFactor === 1) return;
    for (let vshard = 0; vshard < snapshot.vshards; vshard++) {
      if (!holdsCopy(snapshot, shard, vshard) || snapshot.owners[vshard] === shard) continue;
      const empty = table.recoverHead(vshard) === 0 && table.appliedLsn(vshard, shard) < 0;
      if (empty && !table.isSyncing(vshard, shard)) table.publishApplied(vshard, shard, 0, 0);
    }
  }

  #append(request: EngineRequest): CopyStatus[] {
    this.#assertSource(request);
    const touched = new Set<number>();
    readAppend(request, (entry) => {
      this.#assertPrimary(request, entry.vshard);
      touched.add(entry.vshard);
      this.#applyNext(entry);
    });
    return Array.from(touched, (vshard) => this.#statusOf(vshard));
  }

  #applyNext(entry: ReceivedEntry): void {
    const { shard, table } = this.#options;
    const copy = this.#copy(entry.vshard);
    if ((copy.state !== COPY.VALID && copy.state !== COPY.REPLAYING) || entry.lsn !== copy.lsn + 1) return;
    this.#apply(entry);
    copy.lsn = entry.lsn;
    if (copy.state === COPY.REPLAYING && copy.lsn >= copy.endLsn) copy.state = COPY.VALID;
    if (copy.state === COPY.VALID) table.publishApplied(entry.vshard, shard, copy.lsn, entry.atMs);
  }

  #status(request: EngineRequest): CopyStatus[] {
    this.#assertSource(request);
    return readStatusVshards(request).map((vshard) => this.#statusOf(vshard));
  }

  #snapshot(request: EngineRequest): CopyStatus {
    this.#assertSource(request);
    const chunk = readSnapshot(request);
    this.#assertPrimary(request, chunk.vshard);
    const copy = this.#copy(chunk.vshard);
    if (chunk.part === PART.BEGIN) {
      this.#begin(copy, chunk);
    } else if (copy.state === COPY.RESTORING && copy.transfer === chunk.transfer && copy.sequence === chunk.sequence) {
      if (chunk.part === PART.BODY) this.#apply(chunk);
      else this.#end(copy, chunk);
    } else {
      // A part of a transfer that this worker knows nothing of: the primary begins again.
      return { vshard: chunk.vshard, state: COPY.UNKNOWN, lsn: 0 };
    }
    copy.sequence++;
    return this.#statusOf(chunk.vshard);
  }

  #begin(copy: Copy, { vshard, transfer }: ReceivedChunk): void {
    const { shard, table, engines } = this.#options;
    table.publishSyncing(vshard, shard); // before the first row changes
    copy.state = COPY.RESTORING;
    copy.transfer = transfer;
    copy.sequence = 0;
    copy.lsn = 0;
    for (const engine of engines) engine.beginRestore(vshard);
  }

  #end(copy: Copy, { vshard, startLsn, endLsn }: ReceivedChunk): void {
    const { shard, table, engines } = this.#options;
    for (const engine of engines) engine.endRestore(vshard);
    copy.lsn = startLsn;
    copy.endLsn = endLsn;
    copy.state = startLsn >= endLsn ? COPY.VALID : COPY.REPLAYING;
    // Nobody told when that was appended, and what it lacks may be older than this moment.
    if (copy.state === COPY.VALID) table.publishApplied(vshard, shard, copy.lsn, 0);
  }

  #apply(effect: ReceivedEffect): void {
    const engine = this.#engines.get(effect.type);
    if (engine === undefined) {
      throw new ShardloomError("ERR_UNKNOWN_MESSAGE", `Cannot apply effect as type ${effect.type} has no engine`);
    }
    engine.apply(effect);
  }

  #statusOf(vshard: number): CopyStatus {
    const { state, lsn } = this.#copy(vshard);
    return { vshard, state, lsn };
  }

  /** What is known of a copy; of a predecessor's, what the table says. */
  #copy(vshard: number): Copy {
    const known = this.#copies.get(vshard);
    if (known !== undefined) return known;
    const applied = this.#options.table.appliedLsn(vshard, this.#options.shard);
    const copy: Copy = {
      state: applied < 0 ? COPY.UNKNOWN : COPY.VALID,
      lsn: Math.max(0, applied),
      endLsn: 0,
      transfer: -1,
      sequence: 0,
    };
    this.#copies.set(vshard, copy);
    return copy;
  }

  /** Refuses what a primary's worker sent before it was replaced. */
  #assertSource(request: EngineRequest): void {
    const { shard, incarnation } = readSource(request);
    const newest = this.#incarnations.get(shard) ?? 0;
    if (incarnation < newest) throw refused(`its sender must be worker ${newest} of shard ${shard}`, incarnation);
    this.#incarnations.set(shard, incarnation);
  }

  #assertPrimary(request: EngineRequest, vshard: number): void {
    const snapshot = this.#options.topology.current();
    const { shard } = readSource(request);
    if (snapshot.owners[vshard] !== shard)
      throw refused(`the primary of vshard ${vshard} must be its sender`, snapshot.owners[vshard]);
    if (!holdsCopy(snapshot, this.#options.shard, vshard))
      throw refused(`shard ${this.#options.shard} must hold a copy of vshard ${vshard}`, snapshot.topologyEpoch);
  }
}

function refused(rule: string, value: unknown): ShardloomError {
  return new ShardloomError("ERR_STALE_EPOCH", `Cannot replicate as ${rule}: current value is ${String(value)}`);
}
