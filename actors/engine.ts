/**
 * What an engine is: a set of message handlers that live in one shard actor, on that shard's thread.
 *
 * Contract: a handler reads the request in place, and either throws a ShardloomError (which becomes the error reply) or
 * claims its reply once and writes it in place. It never claims before the last thing that can throw, never awaits, and
 * never keeps a reference to request or reply memory after it returns.
 */
import type { Arena } from "../native-bridge/arena.ts";
import type { Kernels } from "../native-bridge/kernels.ts";
import type { RegionTable } from "../native-bridge/region-table.ts";

/** What a worker host gives its engines. Everything that is not pure computation comes in through this. */
export interface EngineContext {
  /** Index of the shard, and owner of the regions that its engines register. */
  readonly workerIndex: number;
  readonly arena: Arena;
  readonly regions: RegionTable;
  readonly kernels: Kernels;
  readonly nowMs: () => number;
  readonly randomU32: () => number;
  /** Marks the heartbeat `native` while the call runs, so that a long native call is not taken for a hung thread. */
  readonly native: <T>(call: () => T) => T;
}

/** Views over the memory that a request lies in or a reply is written to. */
export interface WireMemory {
  readonly bytes: Uint8Array;
  readonly i32: Int32Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
}

/** A request, valid during the handler call only. `offset` is a multiple of 8. */
export interface EngineRequest extends WireMemory {
  readonly offset: number;
  readonly length: number;
  /**
   * 1 for each vshard that a read is to be answered for; undefined: every row of the shard. The same set is the same object while
   * it is asked for often, and never changes. Made when it is first read: handlers that are given ids look at `partial` first.
   */
  readonly vshards?: Uint8Array | undefined;
  /** Whether vshards that the request names get no answer. */
  readonly partial?: boolean;
  /** Where a write that is replicated tells its effects, after it was checked and before the first byte changes. */
  readonly effects?: WriteEffects | undefined;
}

/** The effects of one write on the vshards that it concerns, as other copies will apply them. */
export interface WriteEffects {
  /** The largest body that copies can be sent. */
  readonly maxBodyBytes: number;
  /**
   * Adds an effect; the body is kept, and must not be written to any more.
   *
   * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, or `ERR_INVALID_ARGUMENT` when this shard is not the vshard's primary.
   */
  add(vshard: number, type: number, collection: number, body: Uint8Array): void;
  /** Gives every effect its LSN. From here on the write happens: nothing may fail after it. */
  publish(): void;
}

/** An effect that was written elsewhere and is to be applied here. Memory is valid during the call only. */
export interface ReceivedEffect extends WireMemory {
  readonly vshard: number;
  /** Message type whose effect it is. */
  readonly type: number;
  readonly collection: number;
  /** A multiple of 8. */
  readonly offset: number;
  readonly length: number;
}

/** A part of what a vshard holds, as an effect. */
export interface SnapshotPart {
  readonly type: number;
  readonly collection: number;
  readonly body: Uint8Array;
}

/** What an engine can do whose data has copies. Handlers of its write types tell their effects. */
export interface ReplicatedEngine {
  /** Message types of its effects. */
  readonly types: readonly number[];
  /** Applies an effect; once or several times makes no difference. One on a collection that is gone does nothing. */
  apply(effect: ReceivedEffect): void;
  /**
   * Everything that a vshard holds, as effects; each call goes on where the last one ended. The data may change between two calls:
   * what is missed or given too old is in effects that were published since the first call.
   *
   * @returns a function that gives the next part, undefined after the last
   */
  snapshot(vshard: number, maxBodyBytes: number): () => SnapshotPart | undefined;
  /** From here on, until `endRestore`, effects on the vshard tell all that it is to hold. */
  beginRestore(vshard: number): void;
  /** Removes what no effect since `beginRestore` has written. */
  endRestore(vshard: number): void;
}

/** Where the reply goes. `offset` is a multiple of 8 and is valid after `claim`, as are the views. */
export interface EngineReply extends WireMemory {
  /** The longest reply that can be claimed. */
  readonly limitBytes: number;
  /** Reserves exactly this many bytes. Once per request. */
  claim(lengthBytes: number): void;
  readonly offset: number;
  /** Answers later instead: nothing may be claimed after it, and the handler may return. Undefined for a tell. */
  hold(): HeldReply | undefined;
}

/** A reply that is owed. Ends with exactly one `send` or `fail`; a second one is ignored. */
export interface HeldReply {
  /** Whether the caller has given up; an answer costs its room all the same, so that the slot is freed. */
  readonly cancelled: boolean;
  send(lengthBytes: number, write: (memory: WireMemory, offset: number) => void): void;
  fail(error: unknown): void;
}

export type EngineHandler = (request: EngineRequest, reply: EngineReply) => void;

export interface Engine {
  /** By message type number. */
  readonly handlers: ReadonlyMap<number, EngineHandler>;
  /** Undefined: the engine's data has one copy, whatever the cluster's replication factor. */
  readonly replicated?: ReplicatedEngine;
  /** One slice of background work of about `budgetMs`; true when more is left. */
  background?(budgetMs: number): boolean;
  /** Gives private memory back. Registered regions stay: they outlive the engine, and `vector.drop` frees them. */
  close(): void;
}
