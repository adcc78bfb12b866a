/**
 * Fixed binary layouts of the requests that open and drop collections of vectors, both directions.
 *
 * ```
 *  open    i32 collection | dimensions | metric | quantization | connectivity | expansionAdd | expansionSearch | scanRows | 1 (checkOnly) + 2 (index of levels) | strategy |
 *          graph root: u32 address (0 = none) | u32 length | f64 rkey, f64 recall
 *  drop    i32 collection | undo
 * ```
 *
 * Invariant: as in `vector-requests.ts`: readers check the length before they use it (`ERR_CORRUPT`).
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import type { EngineRequest, WireMemory } from "../engine.ts";
import {
  INDEX_NAMES,
  METRIC_NAMES,
  QUANTIZATION_NAMES,
  type ResolvedVectorOptions,
  resolveVectorOptions,
  STRATEGY_NAMES,
} from "./vector-options.ts";
import { corrupt, need } from "./vector-requests.ts";

export const OPEN_REQUEST_BYTES = 64;
export const DROP_REQUEST_BYTES = 8;
const CHECK_ONLY = 1;
const INDEX_FACTOR = 2;

export function writeOpenRequest(
  m: WireMemory,
  offset: number,
  collectionId: number,
  options: ResolvedVectorOptions,
  checkOnly = false,
  graph?: RegionRef,
): void {
  const w = offset >>> 2;
  m.i32[w] = collectionId;
  m.i32[w + 1] = options.dimensions;
  m.i32[w + 2] = METRIC_NAMES.indexOf(options.metric);
  m.i32[w + 3] = QUANTIZATION_NAMES.indexOf(options.quantization);
  m.i32[w + 4] = options.connectivity;
  m.i32[w + 5] = options.expansionAdd;
  m.i32[w + 6] = options.expansionSearch;
  m.i32[w + 7] = options.scanRows;
  m.i32[w + 8] = (checkOnly ? CHECK_ONLY : 0) + INDEX_FACTOR * INDEX_NAMES.indexOf(options.index);
  m.i32[w + 9] = STRATEGY_NAMES.indexOf(options.strategy);
  m.i32[w + 10] = graph?.address ?? 0;
  m.i32[w + 11] = graph?.length ?? 0;
  m.f64[(offset >>> 3) + 6] = graph?.rkey ?? 0;
  m.f64[(offset >>> 3) + 7] = options.recall;
}

/** `checkOnly`: the collection is not to be created. `graph`: the root of the node's graph over it, where its strategy needs one. */
export function readOpenRequest(m: EngineRequest): {
  collectionId: number;
  options: ResolvedVectorOptions;
  checkOnly: boolean;
  graph: RegionRef | undefined;
} {
  need(m, OPEN_REQUEST_BYTES, "open");
  const word = (index: number): number => m.i32[(m.offset >>> 2) + index] as number;
  const metric = METRIC_NAMES[word(2)];
  const quantization = QUANTIZATION_NAMES[word(3)];
  const strategy = STRATEGY_NAMES[word(9)];
  if (metric === undefined || quantization === undefined) throw corrupt("open", "metric or quantization", word(2));
  if (strategy === undefined) throw corrupt("open", "strategy", word(9));
  const index = INDEX_NAMES[word(8) >> 1];
  if (index === undefined) throw corrupt("open", "flags", word(8));
  const options = resolveVectorOptions({
    dimensions: word(1),
    metric,
    quantization,
    strategy,
    index,
    recall: m.f64[(m.offset >>> 3) + 7] as number,
    connectivity: word(4),
    expansionAdd: word(5),
    expansionSearch: word(6),
    scanRows: word(7),
  });
  const address = word(10) >>> 0;
  const rkey = m.f64[(m.offset >>> 3) + 6] as number;
  const graph = address === 0 ? undefined : { address, rkey, length: word(11) >>> 0 };
  return { collectionId: word(0), options, checkOnly: (word(8) & CHECK_ONLY) !== 0, graph };
}

/** @param undo Takes a creation back: the id may be used again. */
export function writeDropRequest(m: WireMemory, offset: number, collectionId: number, undo: boolean): void {
  m.i32[offset >>> 2] = collectionId;
  m.i32[(offset >>> 2) + 1] = undo ? 1 : 0;
}

export function readDropRequest(m: EngineRequest): { collectionId: number; undo: boolean } {
  need(m, DROP_REQUEST_BYTES, "drop");
  return { collectionId: m.i32[m.offset >>> 2] as number, undo: m.i32[(m.offset >>> 2) + 1] === 1 };
}
