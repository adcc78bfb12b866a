/**
 * From a primary to one shard that holds copies of its vshards: asks what the copies have, follows with entries, and sends a snapshot
 * where the log no longer has what a copy lacks.
 *
 * Invariant: entries of a vshard are sent in the order of their LSNs. What is on its way is bounded (messages, bytes); a slow peer
 * makes its entries wait in the log, and falls back to a snapshot when the log forgets them. Any failure makes all that is known of
 * the peer unknown: it is asked again, after a pause.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import type { Timer } from "../../src/runtime/scheduler.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { REPLICA_APPEND, REPLICA_SNAPSHOT, REPLICA_STATUS } from "../../src/wire/message-types.ts";
import type { SnapshotPart } from "../engine.ts";
import type { KnownCopy, OwnedVshard, Transfer } from "./owned-vshard.ts";
import type { PeerRequester, ReplicaLinkOptions } from "./replica-link-options.ts";
import {
  type AskedCopy,
  appendMessage,
  COPY,
  type CopyStatus,
  entryBytes,
  MESSAGE_OVERHEAD_BYTES,
  PART,
  readCopies,
  snapshotMessage,
  statusesIn,
  statusMessage,
  type VshardEntry,
} from "./replica-messages.ts";

/** Messages with entries that may be unanswered. */
const WINDOW = 4;
/** Bytes of entries in one message, if so many fit one, unless one entry alone is larger. */
const MESSAGE_BYTES: number = 64 * 1024;
/** Pause before a peer that failed is asked again; it doubles up to the most with every failure in a row. */
const RETRY_MS = 20;
const MAX_RETRY_MS = 1_000;

/** Stands for an effect on a collection that was dropped since: the copy only counts its LSN. */
const NOTHING: Uint8Array = new Uint8Array(0);

export class ReplicaLink {
  readonly #options: ReplicaLinkOptions;
  /** The vshards that the peer holds copies of. */
  readonly #vshards: Map<number, OwnedVshard> = new Map();
  /** Those with entries that were not sent yet. */
  readonly #dirty: Set<OwnedVshard> = new Set();
  readonly #wanted: Set<OwnedVshard> = new Set();
  /** Those that the peer cannot take yet, as a collection is not open there: tried again after a pause, which keeps no other waiting. */
  readonly #postponed: Set<OwnedVshard> = new Set();
  /** Those that were added since the peer was asked. */
  readonly #unasked: Set<OwnedVshard> = new Set();
  #resume: Timer | undefined;
  #resumedAtMs: number = Number.NEGATIVE_INFINITY;
  #postponeMs: number = RETRY_MS;
  #state: "unknown" | "asked" | "known" = "unknown";
  #inFlight = 0;
  #transfer: Transfer | undefined;
  #transfers = 0;
  /** Grows with every failure: answers to what was sent before mean nothing. */
  #generation = 0;
  #retry: Timer | undefined;
  #pauseMs: number = RETRY_MS;

  constructor(options: ReplicaLinkOptions) {
    this.#options = options;
  }

  /** The peer holds copies of these, and of no others. */
  assign(vshards: readonly OwnedVshard[]): void {
    this.#vshards.clear();
    for (const owned of vshards) {
      this.#vshards.set(owned.vshard, owned);
      if (!owned.copies.has(this.#options.peer))
        owned.copies.set(this.#options.peer, { acked: -1, sent: 0, mode: "unknown" });
    }
    this.reset();
  }

  /** The peer holds a copy of one more, which has to be filled, unless it has just what this shard began with. */
  add(owned: OwnedVshard): void {
    const copy: KnownCopy = { acked: -1, sent: 0, mode: "unknown" };
    this.#vshards.set(owned.vshard, owned);
    owned.copies.set(this.#options.peer, copy);
    if (owned.rebase.to > 0) this.#unasked.add(owned);
    else this.#want(owned, copy);
  }

  /** The peer has another worker: it is asked at once. */
  attached(): void {
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#pauseMs = RETRY_MS;
    this.reset();
  }

  /** What is known of the peer is to be asked anew. */
  reset(): void {
    this.#generation++;
    this.#state = "unknown";
    this.#inFlight = 0;
    this.#transfer = undefined;
    this.#wanted.clear();
    this.#dirty.clear();
    this.#postponed.clear();
    this.#unasked.clear();
    for (const owned of this.#vshards.values()) this.#copy(owned).mode = "unknown";
  }

  /** A vshard has a new entry. */
  wake(owned: OwnedVshard): void {
    if (this.#copy(owned).mode === "follow" && !this.#postponed.has(owned)) this.#dirty.add(owned);
  }

  /** Sends what may be sent now. */
  pump(): void {
    const requester = this.#options.requester(this.#options.peer);
    if (requester === undefined || this.#retry !== undefined || this.#vshards.size === 0) return;
    try {
      if (this.#state === "unknown") this.#ask(requester);
      if (this.#state !== "known") return;
      if (this.#unasked.size > 0) this.#askAdded(requester);
      while (this.#inFlight < WINDOW && this.#dirty.size > 0 && this.#append(requester));
      if (this.#transfer === undefined && this.#wanted.size > 0) this.#begin(requester);
    } catch (error) {
      this.#refused(error);
    }
  }

  /** Asks what the copies have, as many at a time as an answer has room for: replies have as much as requests. */
  #ask(requester: PeerRequester, from = 0): void {
    const vshards = Array.from(this.#vshards.values(), askedOf);
    const end = from + statusesIn(requester.maxPayloadBytes);
    this.#state = "asked";
    this.#request(
      requester,
      REPLICA_STATUS,
      statusMessage(this.#options.source, vshards.slice(from, end)),
      (copies) => {
        for (const status of copies) this.#learn(status);
        if (end < vshards.length) {
          this.#ask(requester, end);
          return;
        }
        this.#state = "known";
        this.#pauseMs = RETRY_MS;
        this.pump();
      },
    );
  }

  /** Asks about those that were added, beside what goes on. */
  #askAdded(requester: PeerRequester): void {
    const added = [...this.#unasked].slice(0, statusesIn(requester.maxPayloadBytes));
    for (const owned of added) this.#unasked.delete(owned);
    this.#request(requester, REPLICA_STATUS, statusMessage(this.#options.source, added.map(askedOf)), (copies) => {
      for (const status of copies) this.#learn(status);
      this.pump();
    });
  }

  /** The first look at a copy: follow it, or fill it. */
  #learn({ vshard, state, lsn }: CopyStatus): void {
    const owned = this.#vshards.get(vshard);
    if (owned === undefined) return;
    const copy = this.#copy(owned);
    const { head, first } = owned.log;
    if (state !== COPY.VALID || lsn > head || lsn + 1 < first) {
      this.#want(owned, copy);
      return;
    }
    copy.mode = "follow";
    copy.sent = lsn;
    this.#acked(owned, copy, lsn);
    if (lsn < head) this.#dirty.add(owned);
  }

  /** @returns whether a message was sent */
  #append(requester: PeerRequester): boolean {
    const entries: VshardEntry[] = [];
    const last = new Map<OwnedVshard, number>();
    const limit = Math.min(MESSAGE_BYTES, requester.maxPayloadBytes - MESSAGE_OVERHEAD_BYTES);
    let bytes = 0;
    for (const owned of this.#dirty) {
      const copy = this.#copy(owned);
      const { log, vshard } = owned;
      if (copy.sent + 1 < log.first) {
        this.#want(owned, copy);
        continue;
      }
      for (let entry = log.at(copy.sent + 1); entry !== undefined; entry = log.at(copy.sent + 1)) {
        if (entries.length > 0 && bytes + entryBytes(entry) > limit) break;
        entries.push({ vshard, entry: this.#options.isOpen(entry) ? entry : { ...entry, body: NOTHING } });
        bytes += entryBytes(entry);
        copy.sent = entry.lsn;
        last.set(owned, entry.lsn);
      }
      const full = copy.sent < log.head;
      if (!full || last.has(owned)) this.#dirty.delete(owned);
      if (full) this.#dirty.add(owned); // behind the others: one with a backlog must not keep them waiting
      if (full || bytes >= limit) break;
    }
    if (entries.length === 0) return false;
    this.#inFlight++;
    this.#request(requester, REPLICA_APPEND, appendMessage(this.#options.source, entries), (copies) => {
      this.#inFlight--;
      for (const status of copies) this.#onAppended(status, last);
      this.pump();
    });
    return true;
  }

  #onAppended({ vshard, state, lsn }: CopyStatus, last: ReadonlyMap<OwnedVshard, number>): void {
    const owned = this.#vshards.get(vshard);
    if (owned === undefined) return;
    const copy = this.#copy(owned);
    if (copy.mode !== "follow") return;
    if (state !== COPY.VALID && state !== COPY.REPLAYING) {
      this.#want(owned, copy);
      return;
    }
    if (state === COPY.VALID) this.#acked(owned, copy, lsn);
    if (lsn >= (last.get(owned) ?? 0)) return;
    copy.sent = lsn; // it lacks an entry before those, or cannot apply one of them yet
    this.#postpone(owned);
  }

  #postpone(owned: OwnedVshard): void {
    this.#dirty.delete(owned);
    this.#wanted.delete(owned);
    this.#postponed.add(owned);
    if (this.#resume !== undefined) return;
    const { clock, scheduler } = this.#options;
    const again = clock.nowMs() - this.#resumedAtMs < MAX_RETRY_MS;
    this.#postponeMs = again ? Math.min(MAX_RETRY_MS, 2 * this.#postponeMs) : RETRY_MS;
    this.#resume = scheduler.timer(this.#postponeMs, () => {
      this.#resume = undefined;
      this.#resumedAtMs = clock.nowMs();
      for (const each of this.#postponed) (this.#copy(each).mode === "follow" ? this.#dirty : this.#wanted).add(each);
      this.#postponed.clear();
      this.pump();
    });
  }

  #acked(owned: OwnedVshard, copy: KnownCopy, lsn: number): void {
    if (lsn <= copy.acked) return;
    copy.acked = lsn;
    this.#options.onAcked(owned, this.#options.peer);
  }

  #want(owned: OwnedVshard, copy: KnownCopy): void {
    copy.mode = "snapshot";
    copy.acked = -1;
    this.#dirty.delete(owned);
    this.#wanted.add(owned);
  }

  #begin(requester: PeerRequester): void {
    const [owned] = this.#wanted;
    if (owned === undefined) return;
    this.#wanted.delete(owned);
    const startLsn = owned.log.head;
    const next = this.#options.snapshot(owned.vshard);
    this.#transfer = { owned, number: ++this.#transfers, startLsn, next, sequence: 0 };
    this.#sendPart(requester, this.#transfer, PART.BEGIN, undefined);
  }

  #sendPart(
    requester: PeerRequester,
    transfer: Transfer,
    part: (typeof PART)[keyof typeof PART],
    content: SnapshotPart | undefined,
  ): void {
    const { owned, number, startLsn } = transfer;
    const message = snapshotMessage(this.#options.source, {
      vshard: owned.vshard,
      transfer: number,
      sequence: transfer.sequence++,
      part,
      startLsn,
      endLsn: owned.log.head,
      type: content?.type ?? 0,
      collection: content?.collection ?? 0,
      body: content?.body ?? new Uint8Array(0),
    });
    this.#request(requester, REPLICA_SNAPSHOT, message, ([status]) => {
      if (status === undefined || this.#transfer !== transfer) return;
      if (part === PART.END) this.#ended(transfer, status);
      else if (status.state === COPY.RESTORING) this.#sendNext(transfer);
      else this.#again(transfer);
      this.pump();
    });
  }

  #sendNext(transfer: Transfer): void {
    const requester = this.#options.requester(this.#options.peer);
    if (requester === undefined) return;
    try {
      const content = transfer.next();
      this.#sendPart(requester, transfer, content === undefined ? PART.END : PART.BODY, content);
    } catch (error) {
      this.#refused(error);
    }
  }

  #ended(transfer: Transfer, { state, lsn }: CopyStatus): void {
    const { owned, startLsn } = transfer;
    const copy = this.#copy(owned);
    if ((state !== COPY.VALID && state !== COPY.REPLAYING) || startLsn + 1 < owned.log.first) {
      this.#again(transfer);
      return;
    }
    this.#transfer = undefined;
    copy.mode = "follow";
    copy.sent = lsn;
    if (state === COPY.VALID) this.#acked(owned, copy, lsn);
    if (lsn < owned.log.head) this.#dirty.add(owned);
  }

  #again({ owned }: Transfer): void {
    this.#transfer = undefined;
    this.#want(owned, this.#copy(owned));
    this.#postpone(owned);
  }

  #request(
    requester: PeerRequester,
    type: number,
    payload: Payload,
    take: (copies: readonly CopyStatus[]) => void,
  ): void {
    const generation = this.#generation;
    const nowMs = this.#options.clock.nowMs();
    const deadlineAtMs = nowMs + this.#options.requestTimeoutMs;
    const sink = {
      onReply: (frame: ReplyFrame): void => {
        if (generation !== this.#generation) return;
        try {
          take(readCopies(frame, frame.offset, frame.length));
        } catch (error) {
          this.#refused(error);
        }
      },
      onFailure: (): void => {
        if (generation === this.#generation) this.#failed();
      },
    };
    requester.request(type, VSHARD_LISTED, PRIORITY.NORMAL, deadlineAtMs, payload, sink, nowMs);
  }

  /** A message that cannot be sent, or an answer that cannot be read, says nothing of the copies. */
  #refused(error: unknown): void {
    if (!ShardloomError.is(error)) throw error; // a defect of ours
    this.#failed();
  }

  #failed(): void {
    this.reset();
    const pauseMs = this.#pauseMs;
    this.#pauseMs = Math.min(MAX_RETRY_MS, 2 * pauseMs);
    this.#retry ??= this.#options.scheduler.timer(pauseMs, () => {
      this.#retry = undefined;
      this.pump();
    });
  }

  #copy(owned: OwnedVshard): KnownCopy {
    return owned.copies.get(this.#options.peer) as KnownCopy;
  }

  /** Ends what waits for a later time. */
  close(): void {
    this.#generation++;
    this.#retry?.cancel();
    this.#resume?.cancel();
    this.#vshards.clear();
  }
}

function askedOf({ vshard, rebase, log }: OwnedVshard): AskedCopy {
  return { vshard, ...rebase, head: log.head };
}
