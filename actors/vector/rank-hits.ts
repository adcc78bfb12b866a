/**
 * Takes the first hits of a finished scan in the total order (score, id).
 *
 * The kernel orders by (score, row), and rows follow the order of insertion, so rows of equal score are ordered again by id
 * here; then an answer depends neither on insertion order nor on how many shards share the collection.
 * Invariant: the scan holds every row of the score at the limit, which the caller has seen to.
 * Cost: nothing but comparisons of neighbours unless scores are equal; then the ids of the equal rows are decoded.
 */
import type { Kernels } from "../../native-bridge/kernels.ts";
import { compareIds } from "../../src/routing/merge.ts";
import type { VectorId } from "../../src/store/id-codec.ts";

/** Where ranked rows go. */
export interface RankedRows {
  push(row: number, score: number): void;
}

/** @param count Hits of the scan. @param limit Hits wanted. */
export function rankHits(
  kernels: Kernels,
  idOf: (row: number) => VectorId,
  count: number,
  limit: number,
  out: RankedRows,
): void {
  const end = Math.min(count, limit);
  for (let hit = 0; hit < end; ) {
    const score = kernels.hitDistance(hit);
    let next = hit + 1;
    while (next < count && kernels.hitDistance(next) === score) next++;
    if (next === hit + 1) out.push(kernels.hitRow(hit), score);
    else for (const { row } of tied(kernels, idOf, hit, next).slice(0, end - hit)) out.push(row, score);
    hit = next;
  }
}

function tied(
  kernels: Kernels,
  idOf: (row: number) => VectorId,
  from: number,
  to: number,
): { row: number; id: VectorId }[] {
  const rows = Array.from({ length: to - from }, (_, at) => kernels.hitRow(from + at));
  return rows.map((row) => ({ row, id: idOf(row) })).sort((a, b) => compareIds(a.id, b.id));
}
