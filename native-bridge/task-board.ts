/**
 * A board in shared memory on which one worker puts up tasks that any other worker of its node may take over.
 *
 * ```
 *  board   i32 tasks that are ready (a hint) | zeros to 64, then the slots
 *  slot    i32 state | 15 words of the owner | words in (u32[64]) | words out (f64[64]) | bytes (4096)
 *  state   sequence << 13 | thief << 3 | free 0, ready 1, taken 2, done 3, abandoned 4
 * ```
 *
 * Invariant: a slot is written by its owner while it is free, and by its thief while it is taken. Only the owner takes it from ready or done to
 * free; only the thief that took it to done. A task that its owner is tired of waiting for is *abandoned*: its thief finds another state
 * than it left, and frees the slot; when the thief has died, the owner does. So a thief that is slow, or dies, costs time and a slot, and never
 * writes into another task. The board belongs to one incarnation of its worker: a successor has another one.
 * Source: the idea of Chase and Lev's deque, without the deque: tasks are alike, so nobody cares which one is taken.
 */
export const TASK_WORDS = 64;
export const TASK_BYTES = 4096;
const TASK_SLOTS = 32;
const TASK_HEAD_WORDS = 15;
const HEAD_BYTES = 64;
const IN_BYTES: number = HEAD_BYTES;
const OUT_BYTES: number = IN_BYTES + TASK_WORDS * 4;
const QUERY_BYTES: number = OUT_BYTES + TASK_WORDS * 8;
const SLOT_BYTES: number = QUERY_BYTES + TASK_BYTES;
/** Bytes of one board; zeroed memory is an empty board. */
export const TASK_BOARD_BYTES: number = HEAD_BYTES + TASK_SLOTS * SLOT_BYTES;

const FREE = 0;
const READY = 1;
const TAKEN = 2;
const DONE = 3;
const ABANDONED = 4;
const STATE = 7;
const THIEF_SHIFT = 3;
const THIEF_MASK = 0x3ff;
const SEQUENCE_SHIFT = 13;

/** One slot as typed arrays. */
export interface TaskSlot {
  readonly index: number;
  /** Shape: `Int32Array[15]`. */
  readonly head: Int32Array;
  readonly in: Uint32Array;
  readonly out: Float64Array;
  readonly bytes: Uint8Array;
}

/** A handle on a board: one of its owner, one of each other worker. */
export class TaskBoard {
  readonly #memory: SharedArrayBuffer;
  readonly #byteOffset: number;
  readonly #words: Int32Array;
  readonly #slots: TaskSlot[] = [];
  #sequence = 0;

  /** @param byteOffset A multiple of 64. */
  constructor(memory: SharedArrayBuffer, byteOffset: number) {
    this.#memory = memory;
    this.#byteOffset = byteOffset;
    this.#words = new Int32Array(memory, byteOffset, TASK_BOARD_BYTES >> 2);
  }

  /** Whether there may be something to take. */
  get mayHaveTasks(): boolean {
    return Atomics.load(this.#words, 0) > 0;
  }

  /** Owner: a slot to fill, undefined when all are in use. It is put up by {@link put}. */
  free(): TaskSlot | undefined {
    for (let index = 0; index < TASK_SLOTS; index++)
      if ((Atomics.load(this.#words, stateWord(index)) & STATE) === FREE) return this.#slot(index);
    return undefined;
  }

  /** Owner: puts a filled slot up. */
  put({ index }: TaskSlot): void {
    this.#sequence++;
    Atomics.add(this.#words, 0, 1);
    Atomics.store(this.#words, stateWord(index), (this.#sequence << SEQUENCE_SHIFT) | READY); // publishes the slot
  }

  /** Owner: takes a task back that nobody has taken. @returns Whether it is the owner's again */
  takeBack({ index }: TaskSlot): boolean {
    if (!this.#change(index, READY, FREE)) return false;
    Atomics.sub(this.#words, 0, 1);
    return true;
  }

  /** Owner: whether a task is done; its `out` may be read until {@link release}. */
  isDone({ index }: TaskSlot): boolean {
    return (Atomics.load(this.#words, stateWord(index)) & STATE) === DONE; // acquires what the thief wrote
  }

  /** Owner: frees the slot of a task that is done. */
  release({ index }: TaskSlot): void {
    Atomics.store(this.#words, stateWord(index), FREE);
  }

  /** Owner: gives up waiting for a task that was taken. @returns False when it is done */
  abandon({ index }: TaskSlot): boolean {
    return this.#change(index, TAKEN, ABANDONED);
  }

  /** Owner: frees the slots of abandoned tasks whose thief has died. */
  freeAbandoned(thief: number): void {
    for (let index = 0; index < TASK_SLOTS; index++) this.#change(index, ABANDONED, FREE, thief);
  }

  /** Thief: takes a task, which ends by {@link done}. */
  take(thief: number): TaskSlot | undefined {
    for (let index = TASK_SLOTS - 1; index >= 0; index--) {
      const state = Atomics.load(this.#words, stateWord(index));
      if ((state & STATE) !== READY) continue;
      const taken = (state & (-1 << SEQUENCE_SHIFT)) | ((thief & THIEF_MASK) << THIEF_SHIFT) | TAKEN;
      if (Atomics.compareExchange(this.#words, stateWord(index), state, taken) !== state) continue; // acquires the slot
      Atomics.sub(this.#words, 0, 1);
      return this.#slot(index);
    }
    return undefined;
  }

  /** Thief: a task that it took is done. @returns False when nobody waits for it any more */
  done({ index }: TaskSlot, thief: number): boolean {
    if (this.#change(index, TAKEN, DONE, thief)) return true; // publishes `out`
    this.#change(index, ABANDONED, FREE, thief);
    return false;
  }

  /** Changes the state of a slot, when it is the one that is expected, and of that thief. */
  #change(index: number, from: number, to: number, thief?: number): boolean {
    const at = stateWord(index);
    const state = Atomics.load(this.#words, at);
    if ((state & STATE) !== from) return false;
    if (thief !== undefined && ((state >>> THIEF_SHIFT) & THIEF_MASK) !== (thief & THIEF_MASK)) return false;
    return Atomics.compareExchange(this.#words, at, state, (state & ~STATE) | to) === state;
  }

  /** Made when it is first used: most are not. */
  #slot(index: number): TaskSlot {
    const known = this.#slots[index];
    if (known !== undefined) return known;
    const memory = this.#memory;
    const at = this.#byteOffset + HEAD_BYTES + index * SLOT_BYTES;
    const slot = {
      index,
      head: new Int32Array(memory, at + 4, TASK_HEAD_WORDS),
      in: new Uint32Array(memory, at + IN_BYTES, TASK_WORDS),
      out: new Float64Array(memory, at + OUT_BYTES, TASK_WORDS),
      bytes: new Uint8Array(memory, at + QUERY_BYTES, TASK_BYTES),
    };
    this.#slots[index] = slot;
    return slot;
  }
}

function stateWord(index: number): number {
  return (HEAD_BYTES + index * SLOT_BYTES) >> 2;
}
