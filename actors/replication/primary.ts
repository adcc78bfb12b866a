/**
 * The vshards whose primary a shard is: gives LSNs to their writes, keeps their logs, and brings the copies on other shards level.
 *
 * Order of a write: everything is checked; head published; entry in the log; applied here; own LSN published; sent to the copies;
 * answered when enough of them have applied it. So no copy has what its primary may not have, and a head without its LSN tells a
 * successor that its rows may hold half a write. It takes them as they are (the write was never acknowledged) and fills the copies.
 *
 * A node that starts again has lost all this, and a shard that another one's vshards are given to never had it: they get it from the
 * copies first (refill.ts), and serve none of these vshards before. One that a newer map gives to another shard is left at once; what
 * waits for its copies is in doubt.
 *
 * Invariant: an LSN is never given out twice, also not by a successor: it goes on above the head in the replica table, or when there is none
 * of this term above all that the terms before can have given out. A write is acknowledged only while the node's lease is good.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { MemoryLog } from "../../src/store/memory-log.ts";
import { baseLsn, nodeIncarnationOf } from "../../src/topology/member.ts";
import { sameMap, type TopologySnapshot, vshardOfHash } from "../../src/topology/snapshot.ts";
import type { HeldReply } from "../engine.ts";
import { partsOf } from "../snapshot-parts.ts";
import { Arrivals, peersOf } from "./arrivals.ts";
import { answer, OwnedVshard } from "./owned-vshard.ts";
import { PRIMARY_ACTS, type PrimaryActKind, tellActs, telling } from "./primary-acts.ts";
import type { PrimaryOptions } from "./primary-options.ts";
import { ReplicaLink } from "./replica-link.ts";
import { MESSAGE_OVERHEAD_BYTES, type ReplicaSource, sourceOf } from "./replica-messages.ts";
import {
  type EffectLog,
  effectEntry,
  type PendingEffect,
  PendingWrite,
  type ReplicatedWrites,
} from "./replicated-write.ts";
import { Unsettled } from "./unsettled.ts";
import { notLogged, WaitingAnswers } from "./waiting-answers.ts";

const LOG_BYTES: number = 64 * 1024 * 1024;
/** One vshard may have as much before the others do. */
const MIN_LOG_BYTES: number = 256 * 1024;
/** What an entry takes besides its body, about. */
const ENTRY_BYTES = 256;
/** Part of the limit that may be appended before the logs are measured again. */
const MEASURE_SHARE = 0.125;
/** Stands for an LSN without a write. */
const NOTHING = { type: 0, collection: 0, body: new Uint8Array(0) } as const;

export class Primary implements EffectLog, ReplicatedWrites {
  readonly #options: PrimaryOptions;
  readonly #owned: Map<number, OwnedVshard> = new Map();
  readonly #links: Map<number, ReplicaLink> = new Map();
  readonly #waiting: WaitingAnswers;
  readonly #unsettled: Unsettled;
  readonly #refill: Arrivals;
  readonly #source: ReplicaSource;
  #snapshot: TopologySnapshot | undefined;
  /** Bytes appended since all logs were last measured. */
  #unmeasuredBytes = 0;

  constructor(options: PrimaryOptions) {
    this.#options = options;
    this.#unsettled = new Unsettled(options);
    const { shard, incarnation, scheduler, nowMs, log, lease } = options;
    this.#waiting = new WaitingAnswers({
      scheduler,
      nowMs,
      log,
      ...(lease === undefined ? {} : { lease }),
      onExpired: () => {
        for (const owned of this.#owned.values()) owned.dropAnswered();
      },
    });
    this.#source = sourceOf(shard, incarnation, () => this.#snapshot?.mapVersion ?? 1);
    this.#refill = new Arrivals(options, this.#source, {
      onLeft: (vshard) => this.#leave(vshard),
      onFilled: (vshard, lsn, exact) => this.#filled(vshard, lsn, exact),
    });
    this.#refresh();
  }

  /** Vshards that this shard has not got yet, see refill.ts: they can be neither read nor written here. */
  get refilling(): ReadonlySet<number> {
    this.#refresh();
    return this.#refill.left;
  }

  mapChanged(): void {
    this.#refresh();
  }

  get maxBodyBytes(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const peer of this.#links.keys()) {
      const limit = this.#options.requester(peer)?.maxPayloadBytes;
      if (limit !== undefined) least = Math.min(least, limit);
    }
    return least - MESSAGE_OVERHEAD_BYTES;
  }

  begin(acks: number, deadlineAtMs: number): PendingWrite {
    this.#refresh();
    return new PendingWrite(this, acks, deadlineAtMs);
  }

  get isWhole(): boolean {
    return this.#refill.left.size === 0;
  }

  assertHere(hash: number): void {
    this.#refill.assertHere(vshardOfHash(this.#options.topology.current(), hash));
  }

  assertWritable(vshard: number, acks: number): void {
    this.assertHere(vshard);
    const owned = this.#owned.get(vshard);
    if (owned === undefined) {
      const rule = `one whose primary shard ${this.#options.shard} is`;
      throw invalidArgument("write", "vshard", rule, vshard);
    }
    const copies = owned.copies.size + 1;
    if (acks > copies) throw invalidArgument("write", "acks", `at most the ${copies} copies of vshard ${vshard}`, acks);
  }

  append(
    effects: readonly PendingEffect[],
    onPublished?: () => void,
  ): { readonly lsns: readonly number[]; readonly position: number } {
    const { log } = this.#options;
    log?.assertRoom(effects.reduce((sum, { body }) => sum + body.length + ENTRY_BYTES, 0));
    const lsns = effects.map((effect) => this.#append(effect));
    if (PRIMARY_ACTS.hasSubscribers) this.#teller("append", new Set(effects.map(({ vshard }) => vshard)))();
    onPublished?.();
    if (log === undefined) return { lsns, position: 0 };
    const entries = effects.map((effect, at) => effectEntry(effect, lsns[at] as number, this.#termOf(effect.vshard)));
    const position = log.append(entries);
    for (const { vshard } of effects) this.#unsettled.written(this.#owned.get(vshard) as OwnedVshard, position);
    return { lsns, position };
  }

  #append({ vshard, type, collection, body }: PendingEffect): number {
    const { table, nowMs } = this.#options;
    const { log, copies } = this.#owned.get(vshard) as OwnedVshard;
    const atMs = nowMs();
    const lsn = log.head + 1;
    for (const [peer, copy] of copies)
      if (copy.acked === lsn - 1 || lsn === 1) table.publishMissing(vshard, peer, lsn, atMs);
    this.#publishHead(vshard, lsn, atMs);
    log.append({ type, collection, body }, atMs);
    if (copies.size === 0) log.truncateBelow(lsn + 1);
    this.#unmeasuredBytes += body.length + ENTRY_BYTES;
    this.#boundLogs();
    return lsn;
  }

  stateOf(vshard: number): { readonly lsn: number; readonly position: number } {
    const owned = this.#owned.get(vshard) as OwnedVshard;
    return { lsn: owned.log.head, position: owned.undurable };
  }

  mustWait({ written, acks, position }: PendingWrite): boolean {
    return written !== undefined && (acks > 1 || position > (this.#options.log?.durable ?? 0));
  }

  /** The shard's log has come further, or has failed. */
  logChanged(): void {
    this.#unsettled.logChanged();
    this.#waiting.logChanged();
  }

  /** Bytes of all logs. Cost: O(vshards). */
  get loggedBytes(): number {
    let sum = 0;
    for (const { log } of this.#owned.values()) sum += log.byteLength + ENTRY_BYTES * (log.head + 1 - log.first);
    return sum;
  }

  /** Measures all logs now and then; while they are too long together, each forgets its older half. */
  #boundLogs(): void {
    const { logBytes = LOG_BYTES } = this.#options;
    if (this.#unmeasuredBytes < logBytes * MEASURE_SHARE) return;
    this.#unmeasuredBytes = 0;
    while (this.loggedBytes > logBytes * (1 - MEASURE_SHARE))
      for (const { log } of this.#owned.values())
        log.truncateBelow(log.first + Math.ceil((log.head + 1 - log.first) / 2));
  }

  commit(write: PendingWrite, held: HeldReply | undefined, body: Uint8Array | undefined): void {
    const { written } = write;
    if (written === undefined) return;
    const { table, shard } = this.#options;
    const { acks, deadlineAtMs } = write;
    const heard = held !== undefined && PRIMARY_ACTS.hasSubscribers;
    const owed = heard ? telling(held, this.#teller("acknowledge", written.vshards)) : held;
    const waiting = owed && this.#waiting.add("write", acks, owed, body ?? new Uint8Array(0), deadlineAtMs);
    for (const [at, vshard] of written.vshards.entries()) {
      const owned = this.#owned.get(vshard) as OwnedVshard;
      const lsn = written.lsns[at] as number;
      table.publishApplied(vshard, shard, lsn, owned.log.at(lsn)?.atMs ?? 0);
      for (const peer of owned.copies.keys()) this.#links.get(peer)?.wake(owned);
      if (acks > 1) this.#expect(owned, lsn, acks);
      if (waiting !== undefined) owned.wait(lsn, acks, waiting);
    }
    if (waiting !== undefined && this.#waiting.untilDurable(waiting, write.position) && waiting.open === 0)
      answer(waiting);
    for (const link of this.#links.values()) link.pump();
  }

  /** A peer has another worker: brings its copies level. */
  peerAttached(shard: number): void {
    this.#refresh();
    this.#refill.peerAttached(shard);
    const link = this.#links.get(shard);
    if (link === undefined) return;
    link.attached();
    link.pump(); // also if nothing was written: a copy in a new life has to be told so
  }

  /** Brings all copies level with what this shard's predecessor left; it may have died while it told one that there is nothing. */
  start(): void {
    for (const owned of this.#owned.values()) this.#unsettled.found(owned);
    this.#refill.start();
    if (this.#options.incarnation > 1 || this.#anyWritten()) for (const link of this.#links.values()) link.pump();
  }

  close(): void {
    this.#refill.close();
    for (const link of this.#links.values()) link.close();
    this.#waiting.close();
  }

  #anyWritten(): boolean {
    for (const { log } of this.#owned.values()) if (log.head > 0) return true;
    return false;
  }

  get hasUnsettled(): boolean {
    return !this.#unsettled.isEmpty;
  }

  isSettled(vshards: Uint8Array | undefined): boolean {
    return this.#unsettled.isSettled(vshards);
  }

  settle(vshards: Uint8Array | undefined, held: HeldReply, body: Uint8Array, deadlineAtMs: number): void {
    const waiting = this.#waiting.add("read", this.#options.acks, held, body, deadlineAtMs);
    const position = this.#unsettled.wait(vshards, waiting);
    if (position === Number.POSITIVE_INFINITY) {
      this.#waiting.fail(waiting, notLogged(this.#options.shard));
      return;
    }
    if (this.#waiting.untilDurable(waiting, position) && waiting.open === 0) answer(waiting);
  }

  /** Strong reads wait until an LSN has its copies. */
  #expect(owned: OwnedVshard, lsn: number, acks: number): void {
    owned.expect(lsn, acks);
    this.#unsettled.look(owned);
  }

  #onAcked(owned: OwnedVshard, peer: number): void {
    const acked = owned.copies.get(peer)?.acked ?? -1;
    const missing = owned.log.at(acked + 1);
    if (missing !== undefined) this.#options.table.publishMissing(owned.vshard, peer, missing.lsn, missing.atMs);
    owned.onAcked();
    this.#unsettled.look(owned);
  }

  /** Takes a new topology in: which vshards are this shard's, and who holds their copies. */
  #refresh(): void {
    const { topology, shard } = this.#options;
    const snapshot = topology.current();
    if (snapshot === this.#snapshot) return;
    const changed = this.#snapshot === undefined || !sameMap(this.#snapshot, snapshot);
    this.#snapshot = snapshot;
    if (!changed || (snapshot.replicationFactor === 1 && this.#options.log === undefined)) return;
    this.#refill.want(snapshot);
    const held = new Map<number, OwnedVshard[]>();
    for (let vshard = 0; vshard < snapshot.vshards; vshard++) {
      if (snapshot.owners[vshard] !== shard) {
        this.#leave(vshard);
        continue;
      }
      if (this.#refill.left.has(vshard)) {
        for (const peer of peersOf(snapshot, vshard)) held.set(peer, held.get(peer) ?? []); // links are there when it is back
        continue;
      }
      const owned = this.#own(vshard);
      const peers = peersOf(snapshot, vshard);
      for (const peer of owned.copies.keys()) if (!peers.includes(peer)) owned.copies.delete(peer);
      for (const peer of peers) {
        const list = held.get(peer);
        if (list === undefined) held.set(peer, [owned]);
        else list.push(owned);
      }
    }
    for (const peer of new Set([...held.keys(), ...this.#links.keys()]))
      this.#linkTo(peer).assign(held.get(peer) ?? []);
    this.#refill.ask();
    for (const link of this.#links.values()) link.pump();
  }

  /** Another shard is the primary of a vshard, or this one is in another term: what waits for its copies is in doubt. */
  #leave(vshard: number): void {
    const gone = this.#owned.get(vshard);
    if (gone === undefined) return;
    this.#unsettled.delete(gone);
    this.#owned.delete(vshard);
    gone.giveUp();
  }

  /** A vshard is back: its copies are to have what this one has, whatever they have had. */
  #filled(vshard: number, lsn: number, exact: boolean): void {
    const { nowMs, topology } = this.#options;
    // What was written and not found is gone; its LSNs may still be known somewhere, and are not used again.
    const head = Math.max(baseLsn(this.#termOf(vshard)), lsn + 1);
    this.#publishHead(vshard, head, nowMs());
    this.#options.onLevel?.(vshard);
    const owned = this.#own(vshard, { from: exact ? lsn : head, to: head });
    // What was here is in the log already, under the LSN that it had.
    const isLogged = exact && this.#options.isLogged?.(vshard) !== false && this.#logsHead(vshard, head);
    if (!isLogged) this.#options.onRefilled?.(vshard, head);
    this.#unsettled.found(owned);
    for (const peer of peersOf(topology.current(), vshard)) {
      const link = this.#linkTo(peer);
      link.add(owned);
      link.pump();
    }
  }

  /** Logs that what a vshard has stands for another LSN. @returns whether the log takes it now */
  #logsHead(vshard: number, head: number): boolean {
    try {
      this.#options.log?.append([effectEntry({ ...NOTHING, vshard }, head, this.#termOf(vshard))]);
      return true;
    } catch (error) {
      if (!ShardloomError.is(error)) throw error;
      return false;
    }
  }

  /** Says what is done as primary in the terms that are known now, when it is. */
  #teller(kind: PrimaryActKind, vshards: Iterable<number>): () => void {
    const terms = this.#snapshot?.terms;
    return () => tellActs(kind, this.#options.shard, vshards, terms);
  }

  #publishHead(vshard: number, lsn: number, atMs: number): void {
    const { table, shard } = this.#options;
    table.publishHead(vshard, lsn, atMs, shard, this.#snapshot?.terms[vshard]);
  }

  /** Where nobody counts terms the life of the node is one. */
  #termOf(vshard: number): number {
    return Math.max(this.#snapshot?.terms[vshard] ?? 1, nodeIncarnationOf(this.#options.incarnation));
  }

  /** @param filled Which LSN it was found at, and goes on from, when it has just come here. @default what a predecessor has left */
  #own(vshard: number, filled?: { readonly from: number; readonly to: number }): OwnedVshard {
    const known = this.#owned.get(vshard);
    if (known !== undefined) return known;
    const { table, shard, topology, nowMs, acks, logBytes = LOG_BYTES, logEntries: maxEntries } = this.#options;
    const { vshards, shards } = topology.current();
    const left = table.hasOwnHead(vshard) ? table.recoverHead(vshard) : 0;
    const found = filled?.from ?? Math.max(left, table.appliedLsn(vshard, shard), 0);
    const base = filled?.to ?? baseLsn(this.#termOf(vshard));
    // What a life before had under way may have LSNs above the last one that is known: they are not used again.
    const head = Math.max(found, base);
    const maxBytes = Math.max(MIN_LOG_BYTES, Math.floor(logBytes / Math.ceil(vshards / shards)));
    const owned = new OwnedVshard(
      vshard,
      new MemoryLog({ head, maxBytes, ...(maxEntries === undefined ? {} : { maxEntries }) }),
      head > found ? { from: found, to: head } : undefined,
    );
    // What a predecessor left is the state at its head, see above.
    this.#publishHead(vshard, head, nowMs());
    table.publishApplied(vshard, shard, head, nowMs());
    this.#owned.set(vshard, owned);
    // Whether its copies have all of that is known when they have said so.
    if (head > 0) this.#expect(owned, head, Math.min(acks, peersOf(topology.current(), vshard).length + 1));
    return owned;
  }

  #linkTo(peer: number): ReplicaLink {
    const known = this.#links.get(peer);
    if (known !== undefined) return known;
    const { engines } = this.#options;
    const link = new ReplicaLink({
      ...this.#options,
      peer,
      source: this.#source,
      snapshot: (vshard) => partsOf(engines, vshard, this.maxBodyBytes),
      isOpen: ({ type, collection }) => engines.some((engine) => engine.types.includes(type) && engine.has(collection)),
      onAcked: (owned, from) => this.#onAcked(owned, from),
    });
    this.#links.set(peer, link);
    return link;
  }
}
