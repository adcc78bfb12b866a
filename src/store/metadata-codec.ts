/**
 * Metadata (payloads and filters) ↔ msgpack bytes: plain maps, no records, so that any shard reads them without a table.
 *
 * Invariant: what is accepted comes back equal: null, undefined, booleans, numbers, strings, 64-bit bigints, arrays and plain
 * objects of these. Anything else (dates, maps, sets, bytes, class instances, functions) is refused with its path, since it
 * would come back as something else and no filter could match it.
 */
import { Packr } from "msgpackr";
import { describeValue, ShardloomError } from "../errors.ts";
import type { VectorId } from "./id-codec.ts";

/** Plain data by name. */
export type Metadata = Readonly<Record<string, unknown>>;

const packr = new Packr({ useRecords: false, encodeUndefinedAsNil: false });
/** Deepest nesting of a payload; a cycle meets it. */
const MAX_DEPTH = 64;
const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;

/** Most bytes of a payload, encoded. */
export const MAX_PAYLOAD_BYTES: number = 64 * 1024;

/**
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the part that is no plain data, `ERR_RECORD_TOO_LARGE` above
 *   {@link MAX_PAYLOAD_BYTES}.
 */
export function encodePayload(payload: Metadata, id: VectorId): Uint8Array {
  const encoded = encodeMetadata(payload, "payload", { id });
  const { length: byteLength } = encoded;
  if (byteLength <= MAX_PAYLOAD_BYTES) return encoded;
  throw new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot use payload of ${describeValue(id)} as it must take at most ${MAX_PAYLOAD_BYTES} bytes: current value is ${byteLength}`,
    { details: { id, byteLength, limit: MAX_PAYLOAD_BYTES } },
  );
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the part that is no plain data. */
export function encodeMetadata(value: Metadata, name: string, details: { readonly id?: VectorId } = {}): Uint8Array {
  const found = isPlainObject(value) ? findUnplain(value, 0) : { path: "", value };
  if (found === undefined) return packr.pack(value);
  const path = `${name}${found.path}`;
  const shown = typeof found.value === "function" ? "a function" : describeValue(found.value);
  throw new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot encode ${name} as ${path} must be plain data nested at most ${MAX_DEPTH} deep: current value is ${shown}`,
    { details: { path, value: shown, ...details } },
  );
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the bytes are no encoded object. */
export function decodeMetadata(bytes: Uint8Array): Metadata {
  try {
    return packr.unpack(bytes) as Metadata;
  } catch (error) {
    throw new ShardloomError("ERR_CORRUPT", `Cannot decode payload of ${bytes.length} bytes`, { cause: error });
  }
}

function findUnplain(value: unknown, depth: number): { path: string; value: unknown } | undefined {
  if (typeof value === "function" || typeof value === "symbol") return { path: "", value };
  if (typeof value === "bigint") return value < INT64_MIN || value > UINT64_MAX ? { path: "", value } : undefined;
  if (typeof value !== "object" || value === null) return undefined;
  if (depth === MAX_DEPTH) return { path: "", value };
  if (Array.isArray(value)) {
    for (let at = 0; at < value.length; at++) {
      const found = findUnplain(value[at], depth + 1);
      if (found !== undefined) return { path: `[${at}]${found.path}`, value: found.value };
    }
    return undefined;
  }
  if (!isPlainObject(value)) return { path: "", value };
  for (const key of Object.keys(value)) {
    const found = key === "__proto__" ? { path: "", value: key } : findUnplain(value[key], depth + 1);
    if (found !== undefined) return { path: `.${key}${found.path}`, value: found.value };
  }
  return undefined;
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
