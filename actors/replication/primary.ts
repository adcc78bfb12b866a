/**
 * The vshards whose primary a shard is: gives LSNs to their writes, keeps their logs, and brings the copies on other shards level.
 *
 * Order of a write: everything is checked; head published; entry in the log; applied here; own LSN published; sent to the copies;
 * answered when enough of them have applied it. So no copy has what its primary may not have, and a head without its LSN tells a
 * successor that its rows may hold half a write. It takes them as they are (the write was never acknowledged) and fills the copies.
 *
 * Invariant: an LSN is never given out twice, also not by a successor: it goes on above the head in the replica table.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { Timer } from "../../src/runtime/scheduler.ts";
import { MemoryLog } from "../../src/store/memory-log.ts";
import { NO_SHARD, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import type { HeldReply, ReplicatedEngine, SnapshotPart } from "../engine.ts";
import type { CopiesOptions } from "./copies.ts";
import { answer, expire, OwnedVshard, type WaitingWrite } from "./owned-vshard.ts";
import { ReplicaLink, type ReplicaLinkOptions } from "./replica-link.ts";
import { MESSAGE_OVERHEAD_BYTES } from "./replica-messages.ts";
import { type EffectLog, type PendingEffect, PendingWrite, type ReplicatedWrites } from "./replicated-write.ts";

/** What a primary works with. */
export interface PrimaryOptions
  extends CopiesOptions,
    Pick<ReplicaLinkOptions, "clock" | "scheduler" | "requestTimeoutMs" | "requester"> {
  readonly incarnation: number;
  /** Bytes of all logs of this shard; a copy that lacks more gets a snapshot. @default 64 MiB */
  readonly logBytes?: number;
  /** Entries of each vshard's log. @default 4096 */
  readonly logEntries?: number;
}

const LOG_BYTES: number = 64 * 1024 * 1024;
/** One vshard may have as much before the others do. */
const MIN_LOG_BYTES: number = 256 * 1024;
/** What an entry takes besides its body, about. */
const ENTRY_BYTES = 256;
/** Part of the limit that may be appended before the logs are measured again. */
const MEASURE_SHARE = 0.125;
/** Part of the time left, and most of it, that is kept for an ERR_QUORUM to reach the caller before he gives up. */
const ANSWER_SHARE = 0.1;
const ANSWER_MS = 50;

export class Primary implements EffectLog, ReplicatedWrites {
  readonly #options: PrimaryOptions;
  readonly #owned: Map<number, OwnedVshard> = new Map();
  readonly #links: Map<number, ReplicaLink> = new Map();
  readonly #waiting: Set<WaitingWrite> = new Set();
  #snapshot: TopologySnapshot | undefined;
  /** Bytes appended since all logs were last measured. */
  #unmeasuredBytes = 0;
  #timer: Timer | undefined;
  #timerAtMs: number = Number.POSITIVE_INFINITY;

  constructor(options: PrimaryOptions) {
    this.#options = options;
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

  assertWritable(vshard: number, acks: number): void {
    const owned = this.#owned.get(vshard);
    if (owned === undefined) {
      const rule = `one whose primary shard ${this.#options.shard} is`;
      throw invalidArgument("write", "vshard", rule, vshard);
    }
    const copies = owned.copies.size + 1;
    if (acks > copies) throw invalidArgument("write", "acks", `at most the ${copies} copies of vshard ${vshard}`, acks);
  }

  append({ vshard, type, collection, body }: PendingEffect): number {
    const { table, nowMs } = this.#options;
    const { log, copies } = this.#owned.get(vshard) as OwnedVshard;
    const atMs = nowMs();
    const lsn = log.head + 1;
    for (const [peer, copy] of copies)
      if (copy.acked === lsn - 1 || lsn === 1) table.publishMissing(vshard, peer, lsn, atMs);
    table.publishHead(vshard, lsn, atMs);
    log.append({ type, collection, body }, atMs);
    this.#unmeasuredBytes += body.length + ENTRY_BYTES;
    this.#boundLogs();
    return lsn;
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
    const waiting = held === undefined ? undefined : this.#wait(write, held, body ?? new Uint8Array(0));
    for (const [at, vshard] of written.vshards.entries()) {
      const owned = this.#owned.get(vshard) as OwnedVshard;
      const lsn = written.lsns[at] as number;
      table.publishApplied(vshard, shard, lsn, owned.log.at(lsn)?.atMs ?? 0);
      for (const peer of owned.copies.keys()) this.#links.get(peer)?.wake(owned);
      if (waiting !== undefined) owned.wait(lsn, waiting);
    }
    if (waiting?.open === 0) answer(waiting);
    for (const link of this.#links.values()) link.pump();
  }

  /** A peer has another worker: brings its copies level. */
  peerAttached(shard: number): void {
    this.#refresh();
    const link = this.#links.get(shard);
    if (link === undefined) return;
    link.attached();
    if (this.#anyWritten()) link.pump();
  }

  /** Brings all copies level with what this shard's predecessor left. */
  start(): void {
    if (this.#anyWritten()) for (const link of this.#links.values()) link.pump();
  }

  close(): void {
    this.#timer?.cancel();
    for (const link of this.#links.values()) link.close();
    for (const write of this.#waiting)
      if (write.open > 0)
        write.held.fail(new ShardloomError("ERR_CLOSED", "Cannot wait for copies as the shard is closed"));
    this.#waiting.clear();
  }

  #anyWritten(): boolean {
    for (const { log } of this.#owned.values()) if (log.head > 0) return true;
    return false;
  }

  #wait(write: PendingWrite, held: HeldReply, body: Uint8Array): WaitingWrite {
    const { nowMs } = this.#options;
    const left = write.deadlineAtMs - nowMs();
    const answerByMs =
      write.deadlineAtMs === 0
        ? Number.POSITIVE_INFINITY
        : write.deadlineAtMs - Math.min(ANSWER_MS, Math.max(0, left) * ANSWER_SHARE);
    // biome-ignore format: one line
    const waiting: WaitingWrite = { acks: write.acks, held: this.#noting(held, () => waiting), body, answerByMs, open: 0 };
    this.#waiting.add(waiting);
    this.#alarm(answerByMs);
    return waiting;
  }

  /** Takes an answered write off the list. */
  #noting(held: HeldReply, write: () => WaitingWrite): HeldReply {
    return {
      get cancelled() {
        return held.cancelled;
      },
      send: (lengthBytes, fill) => {
        this.#waiting.delete(write());
        held.send(lengthBytes, fill);
      },
      fail: (error) => {
        this.#waiting.delete(write());
        held.fail(error);
      },
    };
  }

  #alarm(atMs: number): void {
    if (atMs >= this.#timerAtMs) return;
    const { scheduler, nowMs } = this.#options;
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = scheduler.timer(Math.max(0, atMs - nowMs()), () => this.#expire());
  }

  #expire(): void {
    const nowMs = this.#options.nowMs();
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    let next = Number.POSITIVE_INFINITY;
    for (const write of [...this.#waiting]) {
      if (write.answerByMs <= nowMs) expire(write);
      else next = Math.min(next, write.answerByMs);
    }
    for (const owned of this.#owned.values()) owned.dropAnswered();
    if (next !== Number.POSITIVE_INFINITY) this.#alarm(next);
  }

  #onAcked(owned: OwnedVshard, peer: number): void {
    const acked = owned.copies.get(peer)?.acked ?? -1;
    const missing = owned.log.at(acked + 1);
    if (missing !== undefined) this.#options.table.publishMissing(owned.vshard, peer, missing.lsn, missing.atMs);
    owned.onAcked();
  }

  /** Takes a new topology in: which vshards are this shard's, and who holds their copies. */
  #refresh(): void {
    const { topology, shard } = this.#options;
    const snapshot = topology.current();
    if (snapshot === this.#snapshot) return;
    const changed = this.#snapshot === undefined || !sameCopies(this.#snapshot, snapshot);
    this.#snapshot = snapshot;
    if (!changed || snapshot.replicationFactor === 1) return;
    const held = new Map<number, OwnedVshard[]>();
    for (let vshard = 0; vshard < snapshot.vshards; vshard++) {
      if (snapshot.owners[vshard] !== shard) {
        this.#owned.delete(vshard);
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
  }

  #own(vshard: number): OwnedVshard {
    const known = this.#owned.get(vshard);
    if (known !== undefined) return known;
    const { table, shard, topology, nowMs, logBytes = LOG_BYTES, logEntries: maxEntries } = this.#options;
    const { vshards, shards } = topology.current();
    const head = Math.max(table.recoverHead(vshard), table.appliedLsn(vshard, shard), 0);
    const maxBytes = Math.max(MIN_LOG_BYTES, Math.floor(logBytes / Math.ceil(vshards / shards)));
    const owned = new OwnedVshard(
      vshard,
      new MemoryLog({ head, maxBytes, ...(maxEntries === undefined ? {} : { maxEntries }) }),
    );
    // What a predecessor left is the state at its head, see above.
    table.publishHead(vshard, head, nowMs());
    table.publishApplied(vshard, shard, head, nowMs());
    this.#owned.set(vshard, owned);
    return owned;
  }

  #linkTo(peer: number): ReplicaLink {
    const known = this.#links.get(peer);
    if (known !== undefined) return known;
    const { shard, incarnation, engines } = this.#options;
    const link = new ReplicaLink({
      ...this.#options,
      peer,
      source: { shard, incarnation },
      snapshot: (vshard) => partsOf(engines, vshard, this.maxBodyBytes),
      onAcked: (owned, from) => this.#onAcked(owned, from),
    });
    this.#links.set(peer, link);
    return link;
  }
}

/** The parts of all engines, one after the other. */
function partsOf(
  engines: readonly ReplicatedEngine[],
  vshard: number,
  maxBodyBytes: number,
): () => SnapshotPart | undefined {
  const sources = engines.map((engine) => engine.snapshot(vshard, maxBodyBytes));
  return () => {
    for (let source = sources[0]; source !== undefined; source = sources[0]) {
      const part = source();
      if (part !== undefined) return part;
      sources.shift();
    }
    return undefined;
  };
}

function peersOf({ copies, replicationFactor }: TopologySnapshot, vshard: number): number[] {
  const list = copies.subarray(vshard * replicationFactor + 1, (vshard + 1) * replicationFactor);
  return [...list].filter((peer) => peer !== NO_SHARD);
}

function sameCopies(a: TopologySnapshot, b: TopologySnapshot): boolean {
  return (
    a.copies === b.copies ||
    (a.copies.length === b.copies.length && a.copies.every((peer, at) => peer === b.copies[at]))
  );
}
