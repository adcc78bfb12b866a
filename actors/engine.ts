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
  /** One slice of background work of about `budgetMs`; true when more is left. */
  background?(budgetMs: number): boolean;
  /** Gives private memory back. Registered regions stay: they outlive the engine, and `vector.drop` frees them. */
  close(): void;
}
