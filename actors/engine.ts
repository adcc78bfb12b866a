/**
 * What an engine is: a set of message handlers that live in one shard actor, on that shard's thread.
 *
 * Contract: a handler reads the request in place, and either throws a ShardloomError (which becomes the error reply) or
 * claims its reply once and writes it in place. It never claims before the last thing that can throw, never awaits, and
 * never keeps a reference to request or reply memory after it returns.
 */
import type { Arena } from "../native-bridge/arena.ts";
import type { Doorbell } from "../native-bridge/doorbell.ts";
import type { Kernels } from "../native-bridge/kernels.ts";
import type { RegionTable } from "../native-bridge/region-table.ts";
import type { TaskBoard } from "../native-bridge/task-board.ts";
import type { ShardloomError } from "../src/errors.ts";
import type { Payload, ReplyFrame } from "../src/routing/requester.ts";
import type { Disk } from "../src/runtime/disk.ts";

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
  /** The way to other shards' workers. @default there is none, as in tests of one engine */
  readonly peers?: EnginePeers;
  /** Absolute path, for native libraries, of the directory that {@link IndexStorage} names; undefined: they keep nothing on disk. */
  readonly indexDirectory?: string;
}

/** What an engine asks of its peers. */
export interface EnginePeers {
  /** Of this worker; higher than those of its shard's workers before. */
  readonly incarnation: number;
  /** The longest payload of a request to a shard's worker, and of its reply; 0 while there is no way to it. */
  maxPayloadBytes(shard: number): number;
  /** Sends a request to the worker of another shard; every failure is a rejection. `decode` runs while the reply is in place. */
  ask<T>(
    shard: number,
    type: number,
    payload: Payload,
    decode: (frame: ReplyFrame) => T,
    timeoutMs: number,
  ): Promise<T>;
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
   * The write concerns the document with this hash of its id, whether it has an effect or not.
   *
   * @throws {ShardloomError} `ERR_UNAVAILABLE` while its vshard is on its way here: a delete could miss it.
   */
  touch(hash: number): void;
  /**
   * Adds an effect; the body is kept, and must not be written to any more.
   *
   * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, or `ERR_INVALID_ARGUMENT` when this shard is not the vshard's primary.
   */
  add(vshard: number, type: number, collection: number, body: Uint8Array): void;
  /** Gives every effect its LSN. From here on the write happens: nothing may fail after it. */
  publish(): void;
  /** Of a write with a key; undefined: it has none. */
  readonly keyed?: KeyedWrite | undefined;
}

/** What a write with a key, which may be a repetition, knows of the vshards that it concerns. */
export interface KeyedWrite {
  /** Takes an item of the write in. @returns whether its vshard has seen the write before: then the item is left out. */
  repeats(vshard: number): boolean;
  /** The same of an item that was taken in. */
  hasSeen(vshard: number): boolean;
  /** Tells of an item that is not left out whether it changes what is there: for the answer that a repetition gets. */
  note(vshard: number, changes: boolean): void;
  /** How many items that are left out changed something when the write came first. */
  readonly changedBefore: number;
  /** The vshard of an id, by its hash. */
  vshardOf(hash: number): number;
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
  /** Whether a collection is open on this shard. */
  has(collection: number): boolean;
  /**
   * Applies an effect; once or several times makes no difference. One on a collection that was dropped does nothing.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION` when the collection is not open yet.
   */
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
  /**
   * A hash of all that a vshard holds, in every collection: ids, versions, contents. The same on every copy that holds the same, in whatever
   * order it came. Cost: reads every row of the vshard.
   */
  contentHash(vshard: number): bigint;
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

/** Where the time of a held reply went, in us: to its own work, and to that of others before it began. */
export interface HeldTimes {
  readonly serviceUs: number;
  readonly queueUs: number;
}

/** A reply that is owed. Ends with exactly one `send` or `fail`; a second one is ignored. */
export interface HeldReply {
  /** Whether the caller has given up; an answer costs its room all the same, so that the slot is freed. */
  readonly cancelled: boolean;
  /** @param times What it took since the reply was held, in us. @default the answer tells no times */
  send(lengthBytes: number, write: (memory: WireMemory, offset: number) => void, times?: HeldTimes): void;
  fail(error: unknown): void;
}

export type EngineHandler = (request: EngineRequest, reply: EngineReply) => void;

/** Another worker of the node, as far as it may help. */
export interface PeerWorker {
  readonly board: TaskBoard;
  readonly bell: Doorbell;
}

/** Where engines keep what they have derived. */
export interface IndexStorage {
  readonly disk: Disk;
  /** Of this shard alone, and there already. */
  readonly directory: string;
}

/** What became of one collection's saved index. */
export interface LoadedIndex {
  readonly collection: number;
  /** Documents that need not be indexed again. */
  readonly loaded: number;
  /** Why a file that is there was not taken. */
  readonly error?: ShardloomError;
}

export interface Engine {
  /** By message type number. */
  readonly handlers: ReadonlyMap<number, EngineHandler>;
  /** Undefined: the engine's data has one copy, whatever the cluster's replication factor. */
  readonly replicated?: ReplicatedEngine;
  /**
   * Opens a collection as the node's directory has it, without a message; nothing when it is open with these options already. What is
   * applied to it before `loadIndexes`, or the first slice of `background`, is not indexed yet.
   *
   * @param options As the engine has resolved them.
   */
  open?(collection: number, options: unknown): void;
  /**
   * Writes what was derived from the documents at great cost, so that {@link loadIndexes} has it. Calls of the two must not overlap; the shard
   * may serve meanwhile, but native parts hold its thread.
   *
   * @throws {ShardloomError} As disks do; then older files may be left, or such as will not be taken.
   */
  saveIndexes?(storage: IndexStorage): Promise<void>;
  /** Takes what was saved, as far as it fits the documents that are there now; the rest is derived anew, as without it. */
  loadIndexes?(storage: IndexStorage): Promise<readonly LoadedIndex[]>;
  /** One slice of background work of about `budgetMs`; true when more is left. */
  background?(budgetMs: number): boolean;
  /** A turn of work that goes on by messages between shards, after each round of them. @returns whether anything was done */
  turn?(nowMs: number): boolean;
  /** When `turn` is due at the latest, in ms; infinity: when a message comes. */
  dueAtMs?(): number;
  /** The worker of another shard was lost; one is there, with its board and its bell when it is of this node. */
  peerLost?(shard: number): void;
  peerBack?(shard: number, there: PeerWorker | undefined): void;
  /** Gives private memory back. Registered regions stay: they outlive the engine, and `vector.drop` frees them. */
  close(): void;
}
