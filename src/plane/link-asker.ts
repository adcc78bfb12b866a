/**
 * The node's side of one bridge on which a local thread asks a shard of another node.
 *
 * Invariant: a slot of the bridge has at most one open call; a request that takes a slot whose call is open shows that the asker has
 * given that call up.
 *
 * Thread: the node's control thread.
 */
import { BridgeServer } from "../../native-bridge/bridge.ts";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { writeEnvelope } from "../wire/envelope.ts";
import {
  ENVELOPE_BYTES,
  FLAG_ERROR,
  FLAG_REPLY,
  NO_DEADLINE_MS,
  PRIORITY,
  VSHARD_LISTED,
} from "../wire/envelope-layout.ts";

/** A request that has left this node and has no outcome yet. */
export interface LinkCall {
  readonly id: number;
  readonly asker: LinkAsker;
  readonly type: number;
  readonly slot: number;
  readonly sequence: number;
}

/** Receives one record of a bridge; the memory is valid only during the call. */
export type TakeRecord = (
  asker: LinkAsker,
  type: number,
  offset: number,
  length: number,
  slot: number,
  sequence: number,
) => void;

/** One local thread and one remote shard. */
export class LinkAsker {
  readonly name: string;
  readonly shard: number;
  readonly server: BridgeServer;
  readonly #calls: (LinkCall | undefined)[];
  readonly #take: (type: number, offset: number, length: number, slot: number, sequence: number) => void;

  constructor(name: string, shard: number, bridge: SharedArrayBuffer, block: SharedArrayBuffer, take: TakeRecord) {
    this.name = name;
    this.shard = shard;
    this.server = new BridgeServer(bridge, new Doorbell(block));
    this.#calls = new Array<LinkCall | undefined>(this.server.creditMessages).fill(undefined);
    this.#take = (type, offset, length, slot, sequence) => take(this, type, offset, length, slot, sequence);
  }

  /** Takes up to `limit` records. @returns how many, or a code of the ring */
  drain(limit: number): number {
    return this.server.drainRequests(this.#take, limit);
  }

  /** The open call of a slot. */
  callAt(slot: number): LinkCall | undefined {
    return this.#calls[slot];
  }

  begin(call: LinkCall): void {
    this.#calls[call.slot] = call;
  }

  end(call: LinkCall): void {
    if (this.#calls[call.slot] === call) this.#calls[call.slot] = undefined;
  }

  /** Every call without an outcome. */
  open(): LinkCall[] {
    return this.#calls.filter((call) => call !== undefined);
  }

  /** Whether the asker still waits for the answer. */
  wants({ slot, sequence }: LinkCall): boolean {
    return !this.server.isCancelled(slot, sequence);
  }

  /** Writes a reply, envelope and all. @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` */
  reply(type: number, slot: number, sequence: number, envelope: Uint8Array): void {
    const { server } = this;
    server.claimReply(type, envelope.length, slot, sequence);
    server.replyBytes.set(envelope, server.replyOffset);
    server.commitReply();
  }

  /** Writes an encoded error as the reply. */
  fail(type: number, slot: number, sequence: number, error: Uint8Array): void {
    const { server, shard } = this;
    const length = Math.min(error.length, server.maxReplyBytes - ENVELOPE_BYTES);
    server.claimReply(type, ENVELOPE_BYTES + length, slot, sequence);
    const origin = { node: 0, shard, incarnation: 0 };
    // biome-ignore format: one call, one line of what and one of where
    writeEnvelope(server.replyI32, server.replyOffset, origin, type, FLAG_REPLY | FLAG_ERROR, PRIORITY.NORMAL, sequence,
      VSHARD_LISTED, VSHARD_LISTED, 0, 0, 0, length);
    server.replyBytes.set(error.subarray(0, length), server.replyOffset + ENVELOPE_BYTES);
    server.commitReply();
  }
}

/** What is left of a deadline, in ms; at most 0 when it has passed. A sender's clock may read a little ahead of ours. */
export function remainingMs(deadlineMs: number, sentAtUs: number, nowMs: number): number {
  if (deadlineMs === NO_DEADLINE_MS) return NO_DEADLINE_MS;
  const waitedUs = (((nowMs * 1000) % 0x1_0000_0000) - sentAtUs) >>> 0;
  return waitedUs > 0x8000_0000 ? deadlineMs : Math.ceil(deadlineMs - waitedUs / 1000);
}
