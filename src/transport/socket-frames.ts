/**
 * What the two sides of a session over sockets tell each other on its own connection, and first on every connection of a stream.
 *
 * ```
 *  OPEN      u8 version                          dialler, first on the session's connection
 *  ACCEPT    token                               the answer
 *  ATTACH    token | u32 stream | u8 direction   dialler, first on a stream's connection; the stream's bytes follow, without frames
 *  INVITE    u32 stream | u8 direction           the accepting side has a stream: the dialler is to connect for it
 *  RESET     u32 stream | u8 code
 *  DATAGRAM  bytes
 *  CLOSE     u16 code | reason as UTF-8
 *  END       u32 stream | u32 low, u32 high: all bytes that were written to it
 * ```
 *
 * Invariant: what a decoder returns was whole; anything else throws. Numbers are part of the wire format. A direction is the opener's.
 */
import { ShardloomError } from "../errors.ts";
import { frameBytes, readU32, writeU32 } from "./frame.ts";
import { type CloseInfo, MAX_DATAGRAM_BYTES } from "./session.ts";
import { encodeReason } from "./session-life.ts";

export const SOCKET_FRAME = {
  OPEN: 1,
  ACCEPT: 2,
  ATTACH: 3,
  INVITE: 4,
  RESET: 5,
  DATAGRAM: 6,
  CLOSE: 7,
  END: 8,
} as const;

/** Names of the protocol in the TLS handshake (ALPN): whoever speaks another one gets no connection. */
export const SOCKET_PROTOCOLS: readonly string[] = ["shardloom/1"];
const VERSION = 1;
export const TOKEN_BYTES = 16;
/** Longest first frame. */
export const MAX_FIRST_BYTES = 64;
/** Longest frame of the session's connection. */
export const MAX_CONTROL_BYTES: number = MAX_DATAGRAM_BYTES;

/** What opens a stream. */
export interface StreamOpening {
  readonly id: number;
  readonly direction: "both" | "send";
}

export function openFrame(): Uint8Array {
  return frameBytes(SOCKET_FRAME.OPEN, Uint8Array.of(VERSION));
}

/** @throws {ShardloomError} `ERR_VERSION_MISMATCH` */
export function checkOpen(payload: Uint8Array): void {
  if (payload.length === 1 && payload[0] === VERSION) return;
  throw new ShardloomError(
    "ERR_VERSION_MISMATCH",
    `Cannot accept session as its version must be ${VERSION}: current value is ${payload[0]}`,
  );
}

export function acceptFrame(token: Uint8Array): Uint8Array {
  return frameBytes(SOCKET_FRAME.ACCEPT, token);
}

export function attachFrame(token: Uint8Array, opening: StreamOpening): Uint8Array {
  const payload = new Uint8Array(TOKEN_BYTES + 5);
  payload.set(token);
  writeOpening(payload, TOKEN_BYTES, opening);
  return frameBytes(SOCKET_FRAME.ATTACH, payload);
}

export function decodeAttach(payload: Uint8Array): StreamOpening & { readonly token: Uint8Array } {
  checkLength(payload, TOKEN_BYTES + 5);
  return { token: payload.subarray(0, TOKEN_BYTES), ...readOpening(payload, TOKEN_BYTES) };
}

export function inviteFrame(opening: StreamOpening): Uint8Array {
  const payload = new Uint8Array(5);
  writeOpening(payload, 0, opening);
  return frameBytes(SOCKET_FRAME.INVITE, payload);
}

export function decodeInvite(payload: Uint8Array): StreamOpening {
  checkLength(payload, 5);
  return readOpening(payload, 0);
}

export function resetFrame(id: number, code: number): Uint8Array {
  const payload = new Uint8Array(5);
  writeU32(payload, 0, id);
  payload[4] = code;
  return frameBytes(SOCKET_FRAME.RESET, payload);
}

export function decodeReset(payload: Uint8Array): { readonly id: number; readonly code: number } {
  checkLength(payload, 5);
  return { id: readU32(payload, 0), code: payload[4] as number };
}

export function endFrame(id: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(12);
  writeU32(payload, 0, id);
  writeU32(payload, 4, bytes >>> 0);
  writeU32(payload, 8, Math.floor(bytes / 2 ** 32));
  return frameBytes(SOCKET_FRAME.END, payload);
}

export function decodeEnd(payload: Uint8Array): { readonly id: number; readonly bytes: number } {
  checkLength(payload, 12);
  return { id: readU32(payload, 0), bytes: readU32(payload, 4) + readU32(payload, 8) * 2 ** 32 };
}

export function closeFrame({ code, reason }: CloseInfo): Uint8Array {
  const text = encodeReason(reason);
  const payload = new Uint8Array(2 + text.length);
  payload[0] = code;
  payload[1] = code >>> 8;
  payload.set(text, 2);
  return frameBytes(SOCKET_FRAME.CLOSE, payload);
}

export function decodeClose(payload: Uint8Array): CloseInfo {
  if (payload.length < 2) throw malformed(2, payload.length);
  const code = (payload[0] as number) | ((payload[1] as number) << 8);
  return { code, reason: new TextDecoder().decode(payload.subarray(2)) };
}

function writeOpening(target: Uint8Array, offset: number, { id, direction }: StreamOpening): void {
  writeU32(target, offset, id);
  target[offset + 4] = direction === "both" ? 0 : 1;
}

function readOpening(bytes: Uint8Array, offset: number): StreamOpening {
  const direction = bytes[offset + 4] as number;
  if (direction > 1) throw new ShardloomError("ERR_CORRUPT", `Cannot open stream as its direction is ${direction}`);
  return { id: readU32(bytes, offset), direction: direction === 0 ? "both" : "send" };
}

function checkLength(payload: Uint8Array, length: number): void {
  if (payload.length !== length) throw malformed(length, payload.length);
}

function malformed(length: number, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read frame as it must have ${length} bytes: current value is ${value}`,
  );
}
