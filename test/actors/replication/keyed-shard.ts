/** Vectors and keys of one shard, called as its planned requests call them, in memory that a successor can take over. */
import type { EngineReply, WireMemory } from "../../../actors/engine.ts";
import { createIdempotencyEngine, type IdempotencyEngine } from "../../../actors/replication/idempotency-engine.ts";
import { KeyedEffects } from "../../../actors/replication/keyed-effects.ts";
import {
  type EffectLog,
  NO_LOG,
  type PendingEffect,
  PendingWrite,
} from "../../../actors/replication/replicated-write.ts";
import { OPEN_REQUEST_BYTES, writeOpenRequest } from "../../../actors/vector/collection-requests.ts";
import { createVectorEngine, type VectorEngine } from "../../../actors/vector/vector-engine.ts";
import { resolveVectorOptions } from "../../../actors/vector/vector-options.ts";
import {
  readDeleteReply,
  readGetReply,
  readOpenReply,
  readUpsertReply,
} from "../../../actors/vector/vector-replies.ts";
import {
  INCLUDE,
  idsRequestBytes,
  upsertRequestBytes,
  writeIdsRequest,
  writeUpsertRequest,
} from "../../../actors/vector/vector-requests.ts";
import { hashId } from "../../../src/topology/stable-hash.ts";
import { VECTOR_DELETE, VECTOR_GET, VECTOR_OPEN, VECTOR_UPSERT } from "../../../src/wire/message-types.ts";
import { makeContext, wireMemory } from "../vector/support.ts";

const COLLECTION = 1;
const OPTIONS = { dimensions: 2, metric: "l2" } as const;
/** As {@link import("../vector/support.ts").toItem} places ids. */
const vshardOf = (hash: number): number => hash & 7;

export interface KeyedShardOptions {
  readonly memory: WebAssembly.Memory;
  readonly seed?: number;
  /** Address of the collection's root: the shard takes over what a dead one left. */
  readonly root?: number;
  readonly nowMs?: () => number;
  /** Where effects go. */
  readonly log?: EffectLog;
}

export class KeyedShard {
  readonly keys: IdempotencyEngine;
  readonly vectors: VectorEngine;
  readonly root: number;
  /** Effects that were done again when it took over. */
  readonly redone: number;
  readonly #log: EffectLog;
  readonly #nowMs: () => number;

  constructor({ memory, seed = 1, root, nowMs = () => performance.now(), log = NO_LOG }: KeyedShardOptions) {
    const context = { ...makeContext(memory, 0, seed), nowMs };
    this.#log = log;
    this.#nowMs = nowMs;
    const adopted =
      root === undefined
        ? undefined
        : new Map(context.regions.adopt(0, 0).map((region) => [region.address, region] as const));
    this.keys = createIdempotencyEngine(context, () => [this.vectors.replicated], adopted);
    this.vectors = createVectorEngine(
      context,
      adopted && {
        collections: [{ collectionId: COLLECTION, options: OPTIONS, rootAddress: root as number }],
        adopted: [...adopted.values()],
      },
    );
    this.redone = this.keys.redo();
    this.root = root ?? this.#open();
  }

  /** @param part Part of the call. */
  upsert(values: ReadonlyMap<number, number>, key?: string, part = 0): { count: number; inserted: number } {
    const items = [...values].map(([id, value]) => {
      const hash = hashId(id);
      return { id, hash, vshard: vshardOf(hash), vector: [value, id], payload: undefined };
    });
    const { count, inserted } = this.#call(
      VECTOR_UPSERT,
      upsertRequestBytes(2, items),
      (m, at) => writeUpsertRequest(m, at, COLLECTION, 2, items),
      readUpsertReply,
      this.#write(VECTOR_UPSERT, key, part),
    );
    return { count, inserted };
  }

  delete(ids: readonly number[], key?: string, part = 0): number {
    return this.#call(
      VECTOR_DELETE,
      idsRequestBytes(ids),
      (m, at) => writeIdsRequest(m, at, COLLECTION, ids, ids.map(hashId)),
      readDeleteReply,
      this.#write(VECTOR_DELETE, key, part),
    ).deleted;
  }

  /** Values by id; ids that are not there are left out. */
  values(ids: readonly number[]): Map<number, number> {
    const found = this.#call(
      VECTOR_GET,
      idsRequestBytes(ids),
      (m, at) => writeIdsRequest(m, at, COLLECTION, ids, ids.map(hashId), INCLUDE.VECTOR),
      readGetReply,
    );
    return new Map(
      ids.flatMap((id, at) => {
        const vector = found[at]?.vector;
        return vector === undefined ? [] : [[id, vector[0] as number] as const];
      }),
    );
  }

  #open(): number {
    const write = (m: WireMemory, at: number): void =>
      writeOpenRequest(m, at, COLLECTION, resolveVectorOptions(OPTIONS));
    return this.#call(VECTOR_OPEN, OPEN_REQUEST_BYTES, write, readOpenReply).root.address;
  }

  #write(type: number, key: string | undefined, part: number): PendingWrite {
    const pending = new PendingWrite(this.#log, 1, 0);
    if (key !== undefined)
      pending.keyed = new KeyedEffects({
        table: this.keys.table,
        name: { type, collection: COLLECTION, part, key },
        nowMs: this.#nowMs,
        vshardOf,
        assertWritable: (vshard) => pending.assertWritable(vshard),
      });
    return pending;
  }

  #call<T>(
    type: number,
    bytes: number,
    write: (m: WireMemory, at: number) => void,
    read: (m: WireMemory, at: number, length: number) => T,
    effects?: PendingWrite,
  ): T {
    const memory = wireMemory(bytes + 64);
    write(memory, 16);
    const reply = new Reply();
    const request = { ...memory, offset: 16, length: bytes, ...(effects === undefined ? {} : { effects }) };
    this.vectors.handlers.get(type)?.(request, reply);
    effects?.keyed?.end();
    return read(reply, 0, reply.length);
  }
}

/** Effects by vshard, as a log has them. */
export class EffectTape implements EffectLog {
  readonly maxBodyBytes: number = 2 ** 20;
  readonly effects: PendingEffect[] = [];

  readonly isWhole: boolean = true;

  assertWritable(): void {
    // every vshard is
  }

  assertHere(): void {
    // all of them are
  }

  append(effects: readonly PendingEffect[], onPublished?: () => void): ReturnType<EffectLog["append"]> {
    onPublished?.();
    this.effects.push(...effects);
    return { lsns: effects.map(() => this.effects.length), position: 0 };
  }

  stateOf(): ReturnType<EffectLog["stateOf"]> {
    return { lsn: this.effects.length, position: 0 };
  }
}

class Reply implements EngineReply {
  readonly limitBytes = 2 ** 20;
  readonly offset = 0;
  bytes: Uint8Array = new Uint8Array(0);
  i32: Int32Array = new Int32Array(0);
  f32: Float32Array = new Float32Array(0);
  f64: Float64Array = new Float64Array(0);
  length = 0;

  hold(): undefined {
    return undefined;
  }

  claim(lengthBytes: number): void {
    this.length = lengthBytes;
    Object.assign(this, wireMemory(lengthBytes));
  }
}
