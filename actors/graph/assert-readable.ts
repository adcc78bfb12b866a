/**
 * Whether a peer's region can be read: before it is pulled from, and after, as what was pulled counts only if it is the same region still.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS, statusName, type Verbs } from "../../native-bridge/verbs.ts";
import { ShardloomError } from "../../src/errors.ts";

/** @throws {ShardloomError} `ERR_REGION_ACCESS`, retryable: the peer's worker was replaced. */
export function assertReadable(verbs: Verbs, ref: RegionRef): void {
  const begun = verbs.beginInPlace(ref);
  const status = begun === STATUS.SUCCESS ? verbs.endInPlace() : begun;
  if (status === STATUS.SUCCESS) return;
  throw new ShardloomError(
    "ERR_REGION_ACCESS",
    `Cannot pull from peer as its region is not readable: ${statusName(status)}`,
    {
      details: { status: statusName(status) },
      retryable: true,
    },
  );
}
