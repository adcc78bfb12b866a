/**
 * What the kernels' module and {@link Kernels} share: the control block of a scan in scratch memory, and the functions of the module.
 *
 * Invariant: offsets and signatures equal those of the AssemblyScript sources (distance.as.ts, batch.as.ts, edges.as.ts, metric.as.ts, hash.as.ts).
 */

// Control block of a scan, as int32 words; offsets equal those in distance.as.ts.
export const WORD_METRIC = 0;
export const WORD_ELEMENT = 1;
export const WORD_DIMENSIONS = 2;
export const WORD_QUERY = 3;
export const WORD_QUERY_INVERSE_NORM = 4;
export const WORD_LIMIT = 5;
export const WORD_COUNT = 6;
export const WORD_HITS = 7;
export const WORD_UNREAD_COUNT = 8;
export const WORD_UNREAD_LIMIT = 9;
export const WORD_UNREAD = 10;
export const WORD_RETRIES = 11;
export const WORD_SKIP_MASK = 12;
export const WORD_BITMAP = 13;
export const WORD_SCORED = 14;
// While documents are hashed, which no scan overlaps: the result, then the head of the document at hand.
export const WORD_HASH = 0;
export const WORD_HEAD = 2;
export const QUERY_OFFSET = 320; // 64 control bytes + 16 block entries of 16 bytes

export interface KernelExports {
  distance(metric: number, element: number, a: number, b: number, dimensions: number): number;
  inverseNorm(element: number, a: number, dimensions: number): number;
  scanCells(scan: number, cells: number, stride: number, from: number, to: number, rowBase: number): void;
  offerCell(scan: number, cell: number, row: number): number;
  scoreCell(scan: number, cell: number): number;
  sortHits(scan: number): number;
  distances(
    metric: number,
    element: number,
    dimensions: number,
    query: number,
    queryInverseNorm: number,
    base: number,
    stride: number,
    offsetInRecord: number,
    ids: number,
    count: number,
    out: number,
  ): void;
  distancesAt(
    metric: number,
    element: number,
    dimensions: number,
    query: number,
    queryInverseNorm: number,
    offsetInRecord: number,
    records: number,
    count: number,
    out: number,
  ): void;
  pullSum(into: number, offsets: number, targets: number, values: number, from: number, to: number): void;
  hashDocument(
    out: number,
    head: number,
    headBytes: number,
    a: number,
    aBytes: number,
    b: number,
    bBytes: number,
  ): void;
  addDocument(sum: number, head: number, headBytes: number, a: number, aBytes: number, b: number, bBytes: number): void;
}
