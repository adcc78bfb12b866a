/**
 * The shared words of one data-plane worker: its doorbell, its heartbeat, its flags, its progress, its board.
 *
 * Layout: `doorbell (128 B) | heartbeat (128 B) | flags (128 B) | progress (128 B)`, each on cache lines of its own, then the board of tasks that
 * other workers may take over (`native-bridge/task-board.ts`).
 * One block per worker *incarnation*: a replacement gets a new one, so that a quarantined thread that comes back finds
 * only its own, retired words.
 */
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { Heartbeat } from "../../native-bridge/heartbeat.ts";
import { TASK_BOARD_BYTES, TaskBoard } from "../../native-bridge/task-board.ts";

const HEARTBEAT_OFFSET = DOORBELL_BYTES;
const FLAGS_OFFSET = HEARTBEAT_OFFSET + 128;
const PROGRESS_OFFSET = FLAGS_OFFSET + 128;
const BOARD_OFFSET = PROGRESS_OFFSET + 128;
const BLOCK_BYTES = BOARD_OFFSET + TASK_BOARD_BYTES;
const PROGRESS_WORD = PROGRESS_OFFSET >> 2;
const RETIRED_WORD = FLAGS_OFFSET >> 2;

/** Creates the memory of one block, all zero: nobody parked, idle, not retired. */
export function createWorkerBlock(): SharedArrayBuffer {
  return new SharedArrayBuffer(BLOCK_BYTES);
}

/** The board in a worker's block; undefined for the block of a thread that is no worker. */
export function boardOf(memory: SharedArrayBuffer): TaskBoard | undefined {
  return memory.byteLength === BLOCK_BYTES ? new TaskBoard(memory, BOARD_OFFSET) : undefined;
}

/** Handles over one block. Any number of threads may hold them. */
export class WorkerBlock {
  readonly memory: SharedArrayBuffer;
  readonly bell: Doorbell;
  readonly heartbeat: Heartbeat;
  readonly board: TaskBoard;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.bell = new Doorbell(memory, 0);
    this.heartbeat = new Heartbeat(memory, HEARTBEAT_OFFSET);
    this.board = new TaskBoard(memory, BOARD_OFFSET);
    this.#words = new Int32Array(memory);
  }

  /** A handler or a turn of the loop has ended. Called by the worker only; a plain store, seen when it is seen. */
  advance(): void {
    this.#words[PROGRESS_WORD] = (this.#words[PROGRESS_WORD] as number) + 1;
  }

  /** Handlers and loop turns that have ended, wrapping; 0 until the loop begins. */
  get progress(): number {
    return Atomics.load(this.#words, PROGRESS_WORD);
  }

  /** Tells the worker that a replacement has its shard: it must touch nothing shared any more and leave. */
  retire(): void {
    Atomics.store(this.#words, RETIRED_WORD, 1); // publishes
    this.bell.ring();
  }

  /** Whether a replacement has taken over. */
  get retired(): boolean {
    return Atomics.load(this.#words, RETIRED_WORD) !== 0; // acquires
  }
}
