/**
 * Datagrams that nodes send each other to be known alive and to tell how far their copies are.
 *
 * Little-endian.
 *
 * ```
 *   0  u32 magic | u32 hash of all that follows
 *   8  u8 kind | u8 nameBytes | u16 0 | u32 incarnation of the sender | f64 sequence, counts what it has sent to this peer
 *  24  f64 t0: when the ping was sent, on the clock of who sent it; a pong gives it back
 *  ping  32  f64 version of the peer's samples that the sender has whole, -1: none | u32 peer's incarnation that it is of | u32 0
 *        48  name
 *  pong  32  f64 sequence of the ping | f64 version | f64 base: all changes from base to version are in the parts
 *        56  u32 mapEpoch | u16 part | u16 parts | u16 shards | u16 samples | u32 incarnation of who sent the ping
 *        72  (u16 shard | u8 state | u8 0 | u32 incarnation)[shards] | (u32 index | f64 lsn)[samples] | name
 * ```
 *
 * A sample's index is the place of a copy in the map's list of copies; of a primary its LSN is the head. -1: unknown.
 *
 * Invariant: what was damaged on its way, cut short or lengthened is no message; every number that is read is in its range.
 */
import { MAX_COPIES, MAX_SHARDS, MAX_VSHARDS, MEMBER_STATE } from "./snapshot.ts";
import { hashBytes } from "./stable-hash.ts";

/** State of a shard, as its node sees it. */
export interface ToldShard {
  readonly shard: number;
  /** See `MEMBER_STATE`. */
  readonly state: number;
  readonly incarnation: number;
}

/** How far a copy is. */
export interface ToldSample {
  /** Place of the copy in `TopologySnapshot.copies`. */
  readonly index: number;
  readonly lsn: number;
}

interface Heartbeat {
  /** Name of the sender. */
  readonly name: string;
  readonly incarnation: number;
  readonly sequence: number;
  readonly t0: number;
}

/** Asks a node for a sign of life and for samples. */
export interface Ping extends Heartbeat {
  readonly kind: "ping";
  readonly have: number;
  readonly haveOf: number;
}

/** One part of a node's answer. */
export interface Pong extends Heartbeat {
  readonly kind: "pong";
  /** Sequence of the ping, and the life that sent it. */
  readonly answers: number;
  readonly answersOf: number;
  readonly version: number;
  readonly base: number;
  readonly mapEpoch: number;
  readonly part: number;
  readonly parts: number;
  readonly shards: readonly ToldShard[];
  readonly samples: readonly ToldSample[];
}

const MAGIC = 0x4248_4c53;
const KIND = { PING: 1, PONG: 2 } as const;
const PING_BYTES = 48;
const PONG_BYTES = 72;
export const SHARD_BYTES = 8;
export const SAMPLE_BYTES = 12;
/** Longest name of a node, in bytes. */
const MAX_NAME_BYTES = 255;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Bytes that a pong has for shards and samples when it may be so long. */
export function pongRoom(maxBytes: number, name: string): number {
  return maxBytes - PONG_BYTES - encoder.encode(name).length;
}

export function encodePing(ping: Ping): Uint8Array {
  const name = encoder.encode(ping.name);
  const bytes = new Uint8Array(PING_BYTES + name.length);
  const view = writeHeader(bytes, KIND.PING, name, ping);
  view.setFloat64(32, ping.have, true);
  view.setUint32(40, ping.haveOf, true);
  bytes.set(name, PING_BYTES);
  return sealed(bytes, view);
}

export function encodePong(pong: Pong): Uint8Array {
  const { shards, samples } = pong;
  const name = encoder.encode(pong.name);
  const bytes = new Uint8Array(PONG_BYTES + SHARD_BYTES * shards.length + SAMPLE_BYTES * samples.length + name.length);
  const view = writeHeader(bytes, KIND.PONG, name, pong);
  view.setFloat64(32, pong.answers, true);
  view.setFloat64(40, pong.version, true);
  view.setFloat64(48, pong.base, true);
  view.setUint32(56, pong.mapEpoch, true);
  for (const [at, value] of [pong.part, pong.parts, shards.length, samples.length].entries())
    view.setUint16(60 + 2 * at, value, true);
  view.setUint32(68, pong.answersOf, true);
  let at = PONG_BYTES;
  for (const { shard, state, incarnation } of shards) {
    view.setUint16(at, shard, true);
    view.setUint8(at + 2, state);
    view.setUint32(at + 4, incarnation, true);
    at += SHARD_BYTES;
  }
  for (const { index, lsn } of samples) {
    view.setUint32(at, index, true);
    view.setFloat64(at + 4, lsn, true);
    at += SAMPLE_BYTES;
  }
  bytes.set(name, at);
  return sealed(bytes, view);
}

/** @returns undefined for anything that was not sent as it is */
export function decodeHeartbeat(bytes: Uint8Array): Ping | Pong | undefined {
  if (bytes.length < PING_BYTES) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== hashBytes(bytes, 8, bytes.length))
    return undefined;
  const kind = view.getUint8(8);
  const header = {
    name: readName(bytes, view.getUint8(9)),
    incarnation: view.getUint32(12, true),
    sequence: view.getFloat64(16, true),
    t0: view.getFloat64(24, true),
  };
  if (!isCount(header.sequence) || !Number.isFinite(header.t0)) return undefined;
  if (kind === KIND.PING) return decodePing(view, header);
  return kind === KIND.PONG && bytes.length >= PONG_BYTES ? decodePong(view, header) : undefined;
}

type Header = Omit<Heartbeat, "name"> & { readonly name: string | undefined };

function decodePing(view: DataView, { name, ...header }: Header): Ping | undefined {
  const have = view.getFloat64(32, true);
  if (name === undefined || view.byteLength !== PING_BYTES + view.getUint8(9)) return undefined;
  if (have !== -1 && !isCount(have)) return undefined;
  return { kind: "ping", name, ...header, have, haveOf: view.getUint32(40, true) };
}

function decodePong(view: DataView, { name, ...header }: Header): Pong | undefined {
  const [answers, version, base] = [32, 40, 48].map((at) => view.getFloat64(at, true)) as [number, number, number];
  const [part, parts, shardCount, sampleCount] = [60, 62, 64, 66].map((at) => view.getUint16(at, true)) as [
    number,
    number,
    number,
    number,
  ];
  const bytes = PONG_BYTES + SHARD_BYTES * shardCount + SAMPLE_BYTES * sampleCount + view.getUint8(9);
  if (name === undefined || view.byteLength !== bytes || part >= parts) return undefined;
  if (!isCount(answers) || !isCount(version) || (base !== -1 && !isCount(base)) || base > version) return undefined;
  const shards = Array.from({ length: shardCount }, (_, i): ToldShard => {
    const at = PONG_BYTES + SHARD_BYTES * i;
    return {
      shard: view.getUint16(at, true),
      state: view.getUint8(at + 2),
      incarnation: view.getUint32(at + 4, true),
    };
  });
  const samples = Array.from({ length: sampleCount }, (_, i): ToldSample => {
    const at = PONG_BYTES + SHARD_BYTES * shardCount + SAMPLE_BYTES * i;
    return { index: view.getUint32(at, true), lsn: view.getFloat64(at + 4, true) };
  });
  if (!shards.every(isToldShard) || !samples.every(isSample)) return undefined;
  const mapEpoch = view.getUint32(56, true);
  const answersOf = view.getUint32(68, true);
  return { kind: "pong", name, ...header, answers, answersOf, version, base, mapEpoch, part, parts, shards, samples };
}

function writeHeader(bytes: Uint8Array, kind: number, name: Uint8Array, heartbeat: Heartbeat): DataView {
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint8(8, kind);
  view.setUint8(9, Math.min(name.length, MAX_NAME_BYTES));
  view.setUint32(12, heartbeat.incarnation, true);
  view.setFloat64(16, heartbeat.sequence, true);
  view.setFloat64(24, heartbeat.t0, true);
  return view;
}

function sealed(bytes: Uint8Array, view: DataView): Uint8Array {
  view.setUint32(4, hashBytes(bytes, 8, bytes.length), true);
  return bytes;
}

function readName(bytes: Uint8Array, length: number): string | undefined {
  if (length > bytes.length - PING_BYTES) return undefined;
  try {
    return decoder.decode(bytes.slice(bytes.length - length));
  } catch {
    return undefined; // not UTF-8
  }
}

function isToldShard({ shard, state }: ToldShard): boolean {
  return shard < MAX_SHARDS && state <= MEMBER_STATE.REMOVED;
}

function isSample({ index, lsn }: ToldSample): boolean {
  return index < MAX_VSHARDS * MAX_COPIES && (lsn === -1 || isCount(lsn));
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}
