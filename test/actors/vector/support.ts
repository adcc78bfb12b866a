/** An engine in an arena of its own, called through the wire codec as a coordinator would, and the naive model it must equal. */

import { Packr } from "msgpackr";
import type { Engine, EngineContext, EngineReply, EngineRequest, WireMemory } from "../../../actors/engine.ts";
import {
  DROP_REQUEST_BYTES,
  OPEN_REQUEST_BYTES,
  writeDropRequest,
  writeOpenRequest,
} from "../../../actors/vector/collection-requests.ts";
import { createVectorEngine, type VectorRecovery } from "../../../actors/vector/vector-engine.ts";
import { resolveVectorOptions, type VectorCollectionOptions } from "../../../actors/vector/vector-options.ts";
import {
  type DeleteReply,
  type OpenReply,
  type QueryHits,
  readCountReply,
  readDeleteReply,
  readGetReply,
  readOpenReply,
  readSearchReply,
  readStatusReply,
  readUpsertReply,
  type StoredVector,
  type UpsertReply,
  type VectorShardStatus,
} from "../../../actors/vector/vector-replies.ts";
import {
  filterRequestBytes,
  INCLUDE,
  idsRequestBytes,
  SEARCH_EXACT,
  SEARCH_GRAPH,
  searchRequestBytes,
  type UpsertItem,
  upsertRequestBytes,
  writeFilterRequest,
  writeIdsRequest,
  writeSearchRequest,
  writeUpsertRequest,
} from "../../../actors/vector/vector-requests.ts";
import { Arena, createArena } from "../../../native-bridge/arena.ts";
import { compileKernels, Kernels } from "../../../native-bridge/kernels.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { RegionTable } from "../../../native-bridge/region-table.ts";
import type { VectorId } from "../../../src/store/id-codec.ts";
import { hashId } from "../../../src/topology/stable-hash.ts";
import {
  VECTOR_COUNT,
  VECTOR_DELETE,
  VECTOR_DROP,
  VECTOR_GET,
  VECTOR_OPEN,
  VECTOR_SEARCH,
  VECTOR_STATUS,
  VECTOR_UPSERT,
} from "../../../src/wire/message-types.ts";

const MODULE = compileKernels();
const packr = new Packr({ useRecords: false });

export function pack(value: unknown): Uint8Array {
  return Uint8Array.from(packr.pack(value));
}

/** mulberry32 */
export function randomFrom(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Views over shared memory, as rings have them. */
export function wireMemory(byteLength: number): WireMemory {
  const buffer = new SharedArrayBuffer((byteLength + 7) & ~7);
  return {
    bytes: new Uint8Array(buffer),
    i32: new Int32Array(buffer),
    f32: new Float32Array(buffer),
    f64: new Float64Array(buffer),
  };
}

export function makeContext(memory: WebAssembly.Memory, workerIndex = 0, seed = 1): EngineContext {
  const arena = new Arena(memory);
  const random = randomFrom(seed);
  const randomU32 = (): number => Math.floor(random() * 2 ** 32);
  return {
    workerIndex,
    arena,
    regions: new RegionTable(arena, workerIndex, randomU32),
    kernels: new Kernels(MODULE, arena, 65_536, workerIndex),
    nowMs: () => performance.now(),
    randomU32,
    native: (call) => call(),
  };
}

export interface Document {
  readonly id: VectorId;
  readonly vector: ArrayLike<number>;
  readonly payload?: unknown;
}

export interface SearchOptions {
  readonly ef?: number;
  readonly exact?: boolean;
  readonly viaGraph?: boolean;
  readonly filter?: unknown;
  readonly includePayload?: boolean;
  readonly includeVector?: boolean;
}

export function toItem(document: Document): UpsertItem {
  const payload = document.payload === undefined ? undefined : pack(document.payload);
  return {
    id: document.id,
    hash: hashId(document.id),
    vshard: hashId(document.id) & 63,
    vector: document.vector,
    payload,
  };
}

/** A shard with its engine on this thread. */
export class Bed {
  readonly memory: WebAssembly.Memory;
  readonly context: EngineContext;
  readonly engine: Engine;

  constructor(
    options: {
      memory?: WebAssembly.Memory;
      capacityBytes?: number;
      recover?: VectorRecovery;
      workerIndex?: number;
      seed?: number;
      native?: EngineContext["native"];
      indexDirectory?: string;
    } = {},
  ) {
    this.memory = options.memory ?? createArena({ capacityBytes: options.capacityBytes ?? 64 * 1024 * 1024 });
    const context = makeContext(this.memory, options.workerIndex ?? 0, options.seed ?? 1);
    const { native = context.native, indexDirectory } = options;
    this.context = { ...context, native, ...(indexDirectory === undefined ? {} : { indexDirectory }) };
    this.engine = createVectorEngine(this.context, options.recover);
  }

  /** One message, through memory on both sides, at offsets that are not 0. */
  call<T>(
    type: number,
    bytes: number,
    write: (m: WireMemory, offset: number) => void,
    read: (m: WireMemory, offset: number, length: number) => T,
  ): T {
    const memory = wireMemory(bytes + 64);
    write(memory, 16);
    return this.send(type, { ...memory, offset: 16, length: bytes }, read);
  }

  send<T>(type: number, request: EngineRequest, read: (m: WireMemory, offset: number, length: number) => T): T {
    const handler = this.engine.handlers.get(type);
    if (handler === undefined) throw new Error(`no handler for ${type}`);
    const reply = new TestReply();
    handler(request, reply);
    return read(reply, reply.offset, reply.length);
  }

  /** @param graph Root of the graph of the shard's node. @default there is none */
  open(options: VectorCollectionOptions, collectionId = 1, graph?: RegionRef): OpenReply {
    return this.call(
      VECTOR_OPEN,
      OPEN_REQUEST_BYTES,
      (m, o) => writeOpenRequest(m, o, collectionId, resolveVectorOptions(options), false, graph),
      readOpenReply,
    );
  }

  upsert(dimensions: number, documents: readonly Document[], collectionId = 1): UpsertReply {
    const items = documents.map(toItem);
    const bytes = upsertRequestBytes(dimensions, items);
    return this.call(
      VECTOR_UPSERT,
      bytes,
      (m, o) => writeUpsertRequest(m, o, collectionId, dimensions, items),
      readUpsertReply,
    );
  }

  get(
    ids: readonly VectorId[],
    flags: number = INCLUDE.PAYLOAD | INCLUDE.VECTOR,
    collectionId = 1,
  ): (StoredVector | undefined)[] {
    return this.call(
      VECTOR_GET,
      idsRequestBytes(ids),
      (m, o) => writeIdsRequest(m, o, collectionId, ids, ids.map(hashId), flags),
      readGetReply,
    );
  }

  delete(ids: readonly VectorId[], collectionId = 1): DeleteReply {
    return this.call(
      VECTOR_DELETE,
      idsRequestBytes(ids),
      (m, o) => writeIdsRequest(m, o, collectionId, ids, ids.map(hashId)),
      readDeleteReply,
    );
  }

  count(filter?: unknown, collectionId = 1): number {
    const bytes = filter === undefined ? undefined : pack(filter);
    return this.call(
      VECTOR_COUNT,
      filterRequestBytes(bytes),
      (m, o) => writeFilterRequest(m, o, collectionId, bytes),
      readCountReply,
    );
  }

  status(collectionId = 1): VectorShardStatus {
    return this.call(
      VECTOR_STATUS,
      filterRequestBytes(),
      (m, o) => writeFilterRequest(m, o, collectionId),
      readStatusReply,
    );
  }

  drop(collectionId = 1, undo = false): number {
    return this.call(
      VECTOR_DROP,
      DROP_REQUEST_BYTES,
      (m, o) => writeDropRequest(m, o, collectionId, undo),
      readCountReply,
    );
  }

  searchAll(
    queries: readonly ArrayLike<number>[],
    k: number,
    options: SearchOptions = {},
    collectionId = 1,
  ): QueryHits[] {
    const dimensions = queries[0]?.length ?? 1;
    const flat = new Float32Array(queries.length * dimensions);
    for (const [index, query] of queries.entries()) flat.set(query, index * dimensions);
    const flags =
      (options.includePayload ? INCLUDE.PAYLOAD : 0) |
      (options.includeVector ? INCLUDE.VECTOR : 0) |
      (options.exact ? SEARCH_EXACT : 0) |
      (options.viaGraph ? SEARCH_GRAPH : 0);
    const filter = options.filter === undefined ? undefined : pack(options.filter);
    const request = { collectionId, k, ef: options.ef ?? 0, flags, queries: flat, dimensions, filter };
    return this.call(
      VECTOR_SEARCH,
      searchRequestBytes(request),
      (m, o) => writeSearchRequest(m, o, request),
      readSearchReply,
    );
  }

  search(query: ArrayLike<number>, k: number, options: SearchOptions = {}): QueryHits {
    return this.searchAll([query], k, options)[0] as QueryHits;
  }

  /** Runs background work to its end. */
  settle(): void {
    for (let slice = 0; this.engine.background?.(50); slice++)
      if (slice > 100_000) throw new Error("background work does not end");
  }
}

class TestReply implements EngineReply {
  limitBytes = 2 ** 20;
  bytes: Uint8Array = new Uint8Array(0);
  i32: Int32Array = new Int32Array(0);
  f32: Float32Array = new Float32Array(0);
  f64: Float64Array = new Float64Array(0);
  offset = 24;
  length = -1;
  /** Engines of vectors answer at once. */
  hold(): undefined {
    throw new Error("not held here");
  }

  claim(lengthBytes: number): void {
    if (this.length >= 0) throw new Error("claimed twice");
    this.length = lengthBytes;
    const memory = wireMemory(lengthBytes + 24);
    memory.bytes.fill(0xa5);
    this.bytes = memory.bytes;
    this.i32 = memory.i32;
    this.f32 = memory.f32;
    this.f64 = memory.f64;
  }
}

/** Distance in float64, by the definitions of the metrics. */
export function plainDistance(metric: string, a: ArrayLike<number>, b: ArrayLike<number>): number {
  let l2 = 0;
  let dot = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    const x = Math.fround(a[i] as number);
    const y = Math.fround(b[i] as number);
    l2 += (x - y) ** 2;
    dot += x * y;
    aa += x * x;
    bb += y * y;
  }
  if (metric === "l2") return l2;
  if (metric === "inner-product") return 1 - dot;
  return aa === 0 || bb === 0 ? 1 : Math.max(0, 1 - dot / Math.sqrt(aa * bb));
}
