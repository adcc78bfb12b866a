/**
 * Brings vshards to a primary that is to serve them and has not served them in this term: as its memory is gone, or as they were another
 * shard's before. Asks the shards that hold copies of them how far they are, and takes each vshard from the copy that is furthest, its own
 * counted.
 *
 * A write that was acknowledged by a majority of n copies is on more than n/2 of them. So once n/2 of them, rounded up, have told what they
 * have, one of these has it. A copy that has nothing may have lost its memory, and with it that write: it is no witness, so that then all
 * are waited for. Until then nothing is decided, and a vshard that is not back yet is neither read nor written here. The asking itself ends
 * what the primary before had under way: from then on copies refuse its entries.
 *
 * Nor is a copy a witness whose node has started anew and that says that it may have acknowledged what it had in memory only, before the vshard's
 * primary has brought it level (copies.ts).
 *
 * Nor is a copy a witness that has died with this node and was level by its memory only: until a majority is known to be level in this life of the
 * node, all of its shards that hold one are waited for, unless they are given up.
 *
 * What a copy has is told as an LSN that its rows are not behind. One that was being filled has mixed rows, each of them as it was at
 * that LSN or newer: if it is the furthest, it is taken as it is.
 *
 * Invariant: a vshard leaves `left` whole, once for each time that it is added. One transfer is under way at a time; whatever fails is begun anew after a pause.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import type { Timer } from "../../src/runtime/scheduler.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { REPLICA_FETCH, REPLICA_STATUS } from "../../src/wire/message-types.ts";
import type { ReplicatedEngine } from "../engine.ts";
import type { OwnCopy } from "./copies-options.ts";
import type { PeerRequester, ReplicaLinkOptions } from "./replica-link-options.ts";
import {
  type CopyStatus,
  fetchMessage,
  PART,
  readCopies,
  readFetched,
  statusesIn,
  statusMessage,
} from "./replica-messages.ts";

/** What a refill works with. */
export interface RefillOptions
  extends Pick<ReplicaLinkOptions, "source" | "clock" | "scheduler" | "requestTimeoutMs" | "requester"> {
  /** The vshards to bring back at first. */
  readonly vshards: ReadonlyMap<number, Wanted>;
  readonly engines: readonly ReplicatedEngine[];
  /** The rows of a vshard are about to be filled from elsewhere: until it is back they mix old and new. */
  readonly onFilling?: (vshard: number) => void;
  /** A vshard is back: its rows are not behind this LSN, and are those that were here, of just this LSN, if `exact`. */
  readonly onFilled: (vshard: number, lsn: number, exact: boolean) => void;
  /**
   * Whether a copy, or with -1 what is here, may lack what it has acknowledged: it died together with this node, and did not wait for its disk
   * as its primary was on the node too. @default none may
   */
  readonly isUnsure?: (vshard: number, peer: number, lsn: number) => boolean;
  /** Whether a shard is on another node. @default none is */
  readonly isRemote?: (shard: number) => boolean;
  /** Whether a shard is given up. @default none is */
  readonly isGone?: (shard: number) => boolean;
  /** Whether a shard is known not to answer now, as it has lost its worker since: whoever makes this one primary has waited for the next one. @default none is */
  readonly isAway?: (shard: number) => boolean;
}

/** A vshard to bring back. */
export interface Wanted {
  /** The shards that hold its other copies. */
  readonly peers: readonly number[];
  /** What is here of it. */
  readonly own: OwnCopy;
}

/** Pause before what failed is tried again; it doubles up to the most with every failure in a row. */
const RETRY_MS = 20;
const MAX_RETRY_MS = 1_000;
/** How long copies are waited for that are not needed, as they may be further than the others. */
const GRACE_MS = 500;

/** A vshard on its way from a copy. */
interface Transfer {
  readonly vshard: number;
  readonly peer: number;
  readonly lsn: number;
  readonly number: number;
  sequence: number;
}

export class Refill {
  readonly #options: RefillOptions;
  readonly #left: Set<number> = new Set();
  readonly #wanted: Map<number, Wanted> = new Map();
  /** Until when copies are waited for that are not needed. */
  readonly #graceUntilMs: Map<number, number> = new Map();
  /** What the copies of a vshard have answered, by vshard and shard. */
  readonly #heard: Map<number, Map<number, CopyStatus>> = new Map();
  readonly #asking: Set<number> = new Set();
  #transfer: Transfer | undefined;
  #transfers = 0;
  /** Grows with every new worker of a peer: what was asked of the last one means nothing. */
  readonly #generations: Map<number, number> = new Map();
  #retry: Timer | undefined;
  #pauseMs: number = RETRY_MS;
  #started = false;
  #closed = false;

  constructor(options: RefillOptions) {
    this.#options = options;
    for (const [vshard, wanted] of options.vshards) this.add(vshard, wanted);
  }

  /** Vshards that are not back yet. */
  get left(): ReadonlySet<number> {
    return this.#left;
  }

  start(): void {
    this.#started = true;
    const untilMs = this.#options.clock.nowMs() + GRACE_MS;
    for (const vshard of this.#left) this.#graceUntilMs.set(vshard, untilMs);
    this.#askAll();
  }

  /** One more is to be brought here, or is to be anew; `ask` begins. */
  add(vshard: number, wanted: Wanted): void {
    this.drop(vshard);
    this.#left.add(vshard);
    this.#wanted.set(vshard, wanted);
    this.#heard.set(vshard, new Map());
    this.#graceUntilMs.set(vshard, this.#options.clock.nowMs() + GRACE_MS);
  }

  /** Another shard is to serve it. */
  drop(vshard: number): void {
    this.#left.delete(vshard);
    this.#wanted.delete(vshard);
    this.#heard.delete(vshard);
    this.#graceUntilMs.delete(vshard);
    if (this.#transfer?.vshard === vshard) this.#transfer = undefined;
  }

  /** Begins what was added. */
  ask(): void {
    if (this.#started && !this.#closed) this.#askAll();
  }

  /** A peer has another worker, perhaps with other memory: it is asked anew. */
  peerAttached(peer: number): void {
    if (this.#left.size === 0) return;
    this.#generations.set(peer, this.#generationOf(peer) + 1);
    this.#asking.delete(peer);
    for (const heard of this.#heard.values()) heard.delete(peer);
    if (this.#transfer?.peer === peer) this.#transfer = undefined;
    this.#ask(peer);
    this.#later(RETRY_MS);
  }

  close(): void {
    this.#closed = true;
    this.#retry?.cancel();
  }

  #askAll(): void {
    const peers = new Set([...this.#left].flatMap((vshard) => this.#peersOf(vshard)));
    for (const peer of peers) this.#ask(peer);
    this.#advance();
  }

  /** Asks a peer about all that it has not answered yet. */
  #ask(peer: number): void {
    if (this.#asking.has(peer)) return;
    const open = [...this.#left].filter(
      (vshard) => this.#peersOf(vshard).includes(peer) && this.#heard.get(vshard)?.has(peer) !== true,
    );
    const requester = this.#options.requester(peer);
    if (open.length === 0) return;
    this.#later(this.#pauseMs);
    if (requester === undefined) return;
    this.#asking.add(peer);
    const vshards = open.slice(0, statusesIn(requester.maxPayloadBytes));
    const asked = vshards.map((vshard) => ({ vshard, from: 0, to: 0, head: -1 }));
    this.#request(peer, requester, REPLICA_STATUS, statusMessage(this.#options.source, asked), (frame) => {
      this.#asking.delete(peer);
      this.#pauseMs = RETRY_MS;
      for (const status of readCopies(frame, frame.offset, frame.length))
        if (vshards.includes(status.vshard)) this.#heard.get(status.vshard)?.set(peer, status);
      this.#ask(peer);
      this.#advance();
    });
  }

  /** Begins the transfer of a vshard of which enough is known; those that no copy has anything of are back at once. */
  #advance(): void {
    if (this.#closed || this.#transfer !== undefined) return;
    for (const vshard of [...this.#left]) {
      const furthest = this.#furthest(vshard);
      if (furthest === undefined) continue;
      if (furthest.peer >= 0) return this.#begin(vshard, furthest.peer, furthest.lsn);
      this.#filled(vshard, Math.max(0, furthest.lsn), furthest.exact);
    }
  }

  /** The copy that is furthest, once enough have answered; its peer is -1 when that is here, or nobody has anything. */
  #furthest(vshard: number): { peer: number; lsn: number; exact: boolean } | undefined {
    const heard = this.#heard.get(vshard) as Map<number, CopyStatus>;
    const { own, peers } = this.#wanted.get(vshard) as Wanted;
    if (own.isFenced === true) return undefined;
    const copies = peers.length + 1;
    const witnesses = [own, ...heard.values()].filter(({ lsn }) => lsn >= 0).length;
    const missing = peers.filter((peer) => !heard.has(peer));
    if (missing.length > 0 && witnesses < copies - Math.floor(copies / 2)) return undefined;
    if (this.#isUnsure(vshard, missing) || this.#isWorthWaiting(vshard, missing)) return undefined;
    let furthest = { peer: -1, lsn: own.lsn, exact: own.exact };
    // A copy with nothing in it is as far as none.
    for (const [peer, { lsn }] of heard) if (lsn > Math.max(0, furthest.lsn)) furthest = { peer, lsn, exact: false };
    return furthest;
  }

  /** Whether too few of those that told what they have are sure to have all that they acknowledged, and one that is missing may have it. */
  #isUnsure(vshard: number, missing: readonly number[]): boolean {
    if (missing.length === 0) return false;
    const { isUnsure, isGone, isRemote } = this.#options;
    const heard = this.#heard.get(vshard) as Map<number, CopyStatus>;
    const { own, peers } = this.#wanted.get(vshard) as Wanted;
    const copies = peers.length + 1;
    const needed = copies - Math.floor(copies / 2);
    const told = [{ ...own, peer: -1 }, ...Array.from(heard, ([peer, status]) => ({ ...status, peer }))];
    const remembering = told.filter((copy) => copy.lsn >= 0 && copy.isUnsure !== true);
    // What another node does not tell now may be all that is left; of what has died with this node nothing but its disk is.
    if (remembering.length < needed && missing.some((peer) => isRemote?.(peer) === true || isGone?.(peer) !== true))
      return true;
    if (isUnsure === undefined || !missing.some((peer) => isUnsure(vshard, peer, 0) && isGone?.(peer) !== true))
      return false;
    return remembering.filter(({ peer, lsn }) => !isUnsure(vshard, peer, lsn)).length < needed;
  }

  /** Copies that are not needed may be further, by writes that a few have acknowledged. */
  #isWorthWaiting(vshard: number, missing: readonly number[]): boolean {
    const { clock, isGone, isAway } = this.#options;
    if (clock.nowMs() >= (this.#graceUntilMs.get(vshard) ?? 0)) return false;
    return missing.some((peer) => isGone?.(peer) !== true && isAway?.(peer) !== true);
  }

  #begin(vshard: number, peer: number, lsn: number): void {
    this.#transfer = { vshard, peer, lsn, number: ++this.#transfers, sequence: 0 };
    this.#options.onFilling?.(vshard);
    // Whatever becomes of it, what is here is not what its LSN stands for any more.
    const wanted = this.#wanted.get(vshard) as Wanted;
    this.#wanted.set(vshard, { ...wanted, own: { ...wanted.own, exact: false } });
    for (const engine of this.#options.engines) engine.beginRestore(vshard);
    this.#fetch(this.#transfer);
  }

  #fetch(transfer: Transfer): void {
    const { vshard, peer, number } = transfer;
    const requester = this.#options.requester(peer);
    if (requester === undefined) return this.#failed(transfer);
    const message = fetchMessage(this.#options.source, { vshard, transfer: number, sequence: transfer.sequence });
    this.#request(peer, requester, REPLICA_FETCH, message, (frame) => {
      if (this.#transfer === transfer) this.#take(transfer, frame);
    });
  }

  #take(transfer: Transfer, frame: ReplyFrame): void {
    const { engines } = this.#options;
    const { vshard, lsn, number } = transfer;
    const part = readFetched(frame, frame.offset, frame.length);
    // It is not what it was when it was chosen.
    if (part.lsn < lsn || part.transfer !== number || part.sequence !== transfer.sequence)
      return this.#failed(transfer);
    transfer.sequence++;
    if (part.part === PART.BODY) {
      engines.find(({ types }) => types.includes(part.type))?.apply({ ...part, vshard });
      this.#fetch(transfer);
      return;
    }
    for (const engine of engines) engine.endRestore(vshard);
    this.#transfer = undefined;
    this.#pauseMs = RETRY_MS;
    this.#filled(vshard, part.lsn, false);
    this.#advance();
  }

  #filled(vshard: number, lsn: number, exact: boolean): void {
    this.drop(vshard);
    if (this.#left.size === 0) this.#endRetry();
    this.#options.onFilled(vshard, lsn, exact);
  }

  /** Nothing that was heard of the vshard counts: its copies are asked again, after a pause. */
  #failed({ vshard }: Transfer): void {
    this.#transfer = undefined;
    if (this.#left.has(vshard)) this.#heard.set(vshard, new Map());
    this.#later(this.#pauseMs);
  }

  #endRetry(): void {
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#pauseMs = RETRY_MS;
  }

  #request(
    peer: number,
    requester: PeerRequester,
    type: number,
    payload: Payload,
    take: (frame: ReplyFrame) => void,
  ): void {
    const { clock, requestTimeoutMs } = this.#options;
    const generation = this.#generationOf(peer);
    const fail = (): void => {
      this.#asking.delete(peer);
      if (this.#transfer?.peer === peer) this.#failed(this.#transfer);
      this.#later(this.#pauseMs);
    };
    const guarded = (act: () => void): void => {
      if (this.#closed || generation !== this.#generationOf(peer)) return;
      try {
        act();
      } catch (error) {
        // It cannot be read, or its collection is not open here yet, or memory is short: a defect of ours is none of these.
        if (!ShardloomError.is(error)) throw error;
        fail();
      }
    };
    const nowMs = clock.nowMs();
    const sink = {
      onReply: (frame: ReplyFrame): void => guarded(() => take(frame)),
      onFailure: (): void => guarded(fail),
    };
    guarded(() => {
      requester.request(type, VSHARD_LISTED, PRIORITY.NORMAL, nowMs + requestTimeoutMs, payload, sink, nowMs);
    });
  }

  /** Looks again after a while, unless it is going to. */
  #later(pauseMs: number): void {
    if (this.#closed || this.#retry !== undefined) return;
    this.#retry = this.#options.scheduler.timer(pauseMs, () => {
      this.#retry = undefined;
      if (this.#left.size === 0) return;
      this.#pauseMs = Math.min(MAX_RETRY_MS, 2 * this.#pauseMs);
      this.#later(this.#pauseMs);
      this.#askAll();
    });
  }

  #peersOf(vshard: number): readonly number[] {
    return this.#wanted.get(vshard)?.peers ?? [];
  }

  #generationOf(peer: number): number {
    return this.#generations.get(peer) ?? 0;
  }
}
