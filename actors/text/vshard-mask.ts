/**
 * Which vshards a planned request is to be answered for.
 *
 * Invariant: a request that names none is answered for all documents of the shard.
 */
import type { EngineRequest } from "../engine.ts";

/** By vshard: not 0 = its documents are asked for. Undefined: all are. */
export type VshardMask = Uint8Array | undefined;

/** The mask of a request; valid as long as the request is. */
export function maskOf(request: EngineRequest): VshardMask {
  return (request as EngineRequest & { readonly mask?: VshardMask }).mask;
}
