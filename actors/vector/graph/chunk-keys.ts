/**
 * Whether a chunk of a graph can be read in place: its key opens a region that holds all of it.
 *
 * Invariant: no key is given twice, so a chunk whose key is good before it was read and after was that chunk all the time.
 */
import type { RegionAccess } from "../../../native-bridge/region-access.ts";
import { ACCESS, type RegionRef } from "../../../native-bridge/region-layout.ts";
import { STATUS } from "../../../native-bridge/status.ts";

/** Whether a key opens a region that holds a whole chunk now; `access` has its entry and stamp then. @returns a status */
export function openChunk(access: RegionAccess, chunk: RegionRef): number {
  const status = access.resolve(chunk, ACCESS.READ);
  if (status !== STATUS.SPANS_CELLS) return status === STATUS.SUCCESS ? STATUS.OUT_OF_BOUNDS : status; // many cells, all inside
  const keyed = access.checkKey(chunk.rkey);
  return keyed !== STATUS.SUCCESS || access.active() ? keyed : STATUS.REGION_REVOKED;
}
