/**
 * A filter as a thread applies it that reads documents by itself.
 *
 * Invariant: two filters of one key let the same documents pass. Bytes that are no msgpack count as no payload, as everywhere.
 */
import { decodeMetadata, encodeMetadata, type Metadata } from "../../src/store/metadata-codec.ts";
import { compileFilter } from "./filter.ts";

/** Whether a document passes, by the bytes of its payload. */
export type Accepts = (payload: Uint8Array | undefined) => boolean;

export interface PayloadFilter {
  readonly key: string;
  readonly accepts: Accepts;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming what is wrong. */
export function payloadFilter(filter: Metadata): PayloadFilter {
  const predicate = compileFilter(filter);
  const key = Buffer.from(encodeMetadata(filter, "filter")).toString("latin1");
  const accepts: Accepts = (payload) => {
    try {
      return predicate(payload === undefined ? undefined : decodeMetadata(payload));
    } catch {
      return predicate(undefined); // as everywhere: one bad document must not fail a search
    }
  };
  return { key, accepts };
}
