/**
 * Messages of the exchange of centroid tables between shards: plain values under the value codec; the reply is the list of a peer's answers.
 *
 * Invariant: what a peer sent is checked here as far as its shape goes, and by the exchange for the rest: nothing of it is believed.
 */
import { ShardloomError } from "../../../src/errors.ts";
import type { Payload, ReplyFrame } from "../../../src/routing/requester.ts";
import { createValueCodec, type ValueCodec } from "../../../src/wire/value-codec.ts";
import type { EngineReply, EngineRequest } from "../../engine.ts";
import type { ExchangeMessage } from "../routing/centroid-exchange.ts";

/** What a message takes besides the bytes of tables. */
export const EXCHANGE_OVERHEAD_BYTES = 512;

const codec: ValueCodec = createValueCodec();

interface Envelope {
  readonly collection: number;
  readonly message: ExchangeMessage;
}

export function exchangePayload(collection: number, message: ExchangeMessage): Payload {
  const envelope: Envelope = { collection, message };
  const body = codec.encode(envelope).slice();
  return { byteLength: body.length, write: (target, offset) => target.bytes.set(body, offset) };
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
export function readExchange(m: EngineRequest): Envelope {
  const value = codec.decode(m.bytes, m.offset, m.length) as Partial<Envelope> | undefined;
  const message = value?.message;
  if (typeof value !== "object" || value === null || !Number.isInteger(value.collection) || !isMessage(message))
    throw corrupt();
  return { collection: value.collection as number, message };
}

export function writeExchangeReply(reply: EngineReply, answers: readonly ExchangeMessage[]): void {
  const body = codec.encode(answers);
  reply.claim(body.length);
  reply.bytes.set(body, reply.offset);
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
export function readExchangeReply(m: ReplyFrame): readonly ExchangeMessage[] {
  const value = codec.decode(m.bytes, m.offset, m.length);
  if (!Array.isArray(value) || !value.every(isMessage)) throw corrupt();
  return value;
}

function isMessage(value: unknown): value is ExchangeMessage {
  if (typeof value !== "object" || value === null) return false;
  const { kind, from, to, stamps, shards, bytes, shard, checksum, at, total } = value as Record<string, unknown>;
  if (!Number.isInteger(from) || !Number.isInteger(to)) return false;
  switch (kind) {
    case "offer":
      return Array.isArray(stamps) && stamps.every(isStamp);
    case "request":
      return Array.isArray(shards) && shards.every(Number.isInteger);
    case "table":
      return bytes instanceof Uint8Array;
    case "part":
      return bytes instanceof Uint8Array && [shard, checksum, at, total].every(Number.isSafeInteger);
    case "rest":
      return [shard, checksum, at].every(Number.isSafeInteger);
    default:
      return false;
  }
}

function isStamp(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const { shard, epoch, version, checksum } = value as Record<string, unknown>;
  return [shard, epoch, version, checksum].every(Number.isSafeInteger);
}

function corrupt(): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", "Cannot decode exchange message as it must be one");
}
