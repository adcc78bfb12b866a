/**
 * About what share of a collection's documents a filter lets pass, from a sample that is read in the shards' memory.
 *
 * Invariant: never 0: what no document of the sample passed may still be passed by some. Estimates are for choosing, not for answers.
 */
import { STATUS } from "../../../native-bridge/status.ts";
import type { Accepts } from "../payload-filter.ts";
import type { RowReader } from "../row-reader.ts";
import type { ShardView } from "../shard-view.ts";

const SAMPLE = 256;

/** @param views Current ones. */
export function estimateSelectivity(rows: RowReader, views: readonly ShardView[], accepts: Accepts): number {
  let seen = 0;
  let passing = 0;
  const total = views.reduce((sum, view) => sum + Math.max(0, view.rowsUsedNow()), 0);
  const step = Math.max(1, Math.floor(total / SAMPLE));
  for (const view of views) {
    for (let row = step >> 1; row < view.rowsUsedNow(); row += step) {
      let payload: Uint8Array | undefined;
      const status = rows.read(view, row, (cell, record) => {
        payload = rows.copyStored(cell, record, view.dimensions, false, true).payload;
      });
      if (status !== STATUS.SUCCESS) continue;
      seen++;
      if (accepts(payload)) passing++;
    }
  }
  return (passing + 0.5) / (seen + 1);
}
