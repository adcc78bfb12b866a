/**
 * What a shard has to send to its peers for collaborative searches: messages of one round in one envelope, and what a full ring makes wait.
 *
 * ```
 *  envelope   entries, back to back: i32 collection | i32 bytes | message, padded with zeros to 4
 * ```
 *
 * Invariant: messages to one peer leave in order. What waits is bounded by bytes: while {@link CotraOutbox.congested} nothing should be made
 * that can wait, and beyond the limit a message is refused, which its search has to be told. Messages to a peer that is lost are dropped.
 */
import { ShardloomError } from "../../../src/errors.ts";
import type { MemoryViews, Payload, Requester } from "../../../src/routing/requester.ts";
import { PRIORITY, VSHARD_LISTED } from "../../../src/wire/envelope-layout.ts";
import { VECTOR_COTRA } from "../../../src/wire/message-types.ts";
import type { EngineRequest } from "../../engine.ts";
import { corrupt } from "./message-bytes.ts";

/** The way to a peer. */
export type PeerSender = Pick<Requester, "tell" | "queued" | "maxPayloadBytes">;

/** Bytes that wait for one peer from which on a shard makes no new ones, and beyond which they are refused. */
export const CONGESTED_BYTES: number = 1024 * 1024;
const MAX_WAITING_BYTES: number = 16 * 1024 * 1024;
/** Most bytes of one envelope: the receiver begins while more is on its way. */
const ENVELOPE_LIMIT_BYTES: number = 32 * 1024;
const ENTRY_BYTES = 8;

interface Waiting {
  readonly collection: number;
  readonly bytes: Uint8Array;
}

interface Peer {
  readonly messages: Waiting[];
  byteLength: number;
}

export class CotraOutbox {
  /** Envelopes, messages dropped as their peer is lost, and messages refused. */
  readonly counters = { envelopes: 0, dropped: 0, refused: 0 };
  readonly #sender: (peer: number) => PeerSender | undefined;
  readonly #peers = new Map<number, Peer>();
  #waiting = 0;

  constructor(sender: (peer: number) => PeerSender | undefined) {
    this.#sender = sender;
  }

  /** Messages that wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Whether so much waits for a peer that nothing should be added. */
  get congested(): boolean {
    for (const { byteLength } of this.#peers.values()) if (byteLength >= CONGESTED_BYTES) return true;
    return false;
  }

  /** Largest message that a peer can be sent; 0 when it is no peer. */
  limitBytes(to: number): number {
    return Math.max(0, (this.#sender(to)?.maxPayloadBytes ?? 0) - ENTRY_BYTES - 3);
  }

  /** Takes a message. @returns False when it cannot be sent: it is too long, or too much waits */
  add(to: number, collection: number, bytes: Uint8Array): boolean {
    let peer = this.#peers.get(to);
    if (peer === undefined) {
      peer = { messages: [], byteLength: 0 };
      this.#peers.set(to, peer);
    }
    const sender = this.#sender(to);
    if (sender === undefined) {
      this.counters.dropped++;
      return true;
    }
    if (bytes.length > this.limitBytes(to) || peer.byteLength + bytes.length > MAX_WAITING_BYTES) {
      this.counters.refused++;
      return false;
    }
    peer.messages.push({ collection, bytes });
    peer.byteLength += entryBytes(bytes);
    this.#waiting++;
    return true;
  }

  /** Sends what rings have room for. @returns Whether anything left */
  flush(): boolean {
    if (this.#waiting === 0) return false;
    let sent = false;
    for (const [to, peer] of this.#peers) if (peer.messages.length > 0 && this.#flushTo(to, peer)) sent = true;
    return sent;
  }

  /** Forgets what waits for a peer: it is lost. */
  drop(to: number): void {
    const peer = this.#peers.get(to);
    if (peer === undefined) return;
    this.counters.dropped += peer.messages.length;
    this.#waiting -= peer.messages.length;
    this.#peers.delete(to);
  }

  #flushTo(to: number, peer: Peer): boolean {
    let sent = false;
    while (peer.messages.length > 0) {
      const sender = this.#sender(to);
      if (sender === undefined) {
        this.drop(to);
        return sent;
      }
      // One envelope waits in the sender's own queue, so that room in the ring wakes this thread; the others wait here.
      if (sender.queued > 0) return sent;
      const most = Math.min(ENVELOPE_LIMIT_BYTES, sender.maxPayloadBytes);
      const envelope = new Envelope(peer.messages, most);
      peer.messages.splice(0, envelope.count);
      peer.byteLength -= envelope.byteLength;
      this.#waiting -= envelope.count;
      sent = true;
      try {
        sender.tell(VECTOR_COTRA, VSHARD_LISTED, PRIORITY.NORMAL, envelope)?.catch(() => undefined); // lost: as below
        this.counters.envelopes++;
      } catch (error) {
        if (!ShardloomError.is(error)) throw error;
        this.counters.dropped += envelope.count; // the peer is lost, which this shard is about to be told
      }
    }
    return sent;
  }
}

/** As many of the messages as fit, the first always. */
class Envelope implements Payload {
  readonly byteLength: number;
  readonly count: number;
  readonly #messages: readonly Waiting[];

  constructor(messages: readonly Waiting[], most: number) {
    let byteLength = 0;
    let count = 0;
    for (const { bytes } of messages) {
      if (count > 0 && byteLength + entryBytes(bytes) > most) break;
      byteLength += entryBytes(bytes);
      count++;
    }
    this.byteLength = byteLength;
    this.count = count;
    this.#messages = messages.slice(0, count);
  }

  write({ bytes: target, i32 }: MemoryViews, offset: number): void {
    let at = offset;
    for (const { collection, bytes } of this.#messages) {
      i32[at >>> 2] = collection;
      i32[(at >>> 2) + 1] = bytes.length;
      target.set(bytes, at + ENTRY_BYTES);
      at += entryBytes(bytes);
    }
  }
}

/**
 * Calls back for each message of an envelope; the bytes are valid during the call.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` for what is no envelope; messages before it were given.
 */
export function readEnvelope(
  { bytes, i32, offset, length }: EngineRequest,
  each: (collection: number, bytes: Uint8Array) => void,
): void {
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const byteLength = at + ENTRY_BYTES <= end ? (i32[(at >>> 2) + 1] as number) : -1;
    const next = at + ENTRY_BYTES + ((byteLength + 3) & ~3);
    if (byteLength < 0 || next > end) throw corrupt("an envelope must end with a message");
    each(i32[at >>> 2] as number, bytes.subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + byteLength));
    at = next;
  }
}

function entryBytes(bytes: Uint8Array): number {
  return ENTRY_BYTES + ((bytes.length + 3) & ~3);
}
