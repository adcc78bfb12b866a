/**
 * Metadata (payloads and filters) ↔ msgpack bytes: plain maps, no records, so that any shard reads them without a table.
 */
import { Packr } from "msgpackr";
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { VectorId } from "./id-codec.ts";

/** Plain data by name. */
export type Metadata = Readonly<Record<string, unknown>>;

const packr = new Packr({ useRecords: false, encodeUndefinedAsNil: false });

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the payload is no plain object. */
export function assertMetadata(value: unknown, id: VectorId): void {
  if (typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value)) return;
  throw invalidArgument(`upsert ${JSON.stringify(id)}`, "payload", "a plain object", value);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when a value cannot be encoded. */
export function encodeMetadata(value: Metadata, name: string): Uint8Array {
  try {
    return packr.pack(value);
  } catch (error) {
    throw new ShardloomError("ERR_INVALID_ARGUMENT", `Cannot encode ${name} as it must be plain data: current value is ${describeValue(value)}`, { cause: error });
  }
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the bytes are no encoded object. */
export function decodeMetadata(bytes: Uint8Array): Metadata {
  try {
    return packr.unpack(bytes) as Metadata;
  } catch (error) {
    throw new ShardloomError("ERR_CORRUPT", `Cannot decode payload of ${bytes.length} bytes`, { cause: error });
  }
}
