/**
 * CompletionQueue: results of posted work requests, in posting order, until they are polled.
 *
 * Invariant: it never overruns. A full queue refuses, so that `post` stops before it executes what it could not report.
 * Local to one thread; fixed arrays, so nothing is allocated after construction.
 * Source: verbs completion queues. Divergence: a full queue holds the sender back, where hardware raises an asynchronous error.
 */
import { invalidArgument } from "../src/errors.ts";

/** The result of one work request. */
export interface Completion {
  /** The request's id. */
  id: number;
  /** One of OPCODE, or what the request had in its place. */
  opcode: number;
  /** One of STATUS. */
  status: number;
  /** Bytes moved; 0 unless the status is SUCCESS. */
  byteLength: number;
  /** For atomics the old value, else 0. */
  value: number;
}

/** Bounded FIFO of completions. */
export class CompletionQueue {
  readonly capacity: number;
  readonly #ids: Float64Array;
  readonly #opcodes: Int32Array;
  readonly #statuses: Int32Array;
  readonly #lengths: Float64Array;
  readonly #values: Int32Array;
  #head = 0;
  #size = 0;

  constructor(capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > 65_536) {
      throw invalidArgument("create completion queue", "completionCapacity", "an integer from 1 to 65536", capacity);
    }
    this.capacity = capacity;
    this.#ids = new Float64Array(capacity);
    this.#opcodes = new Int32Array(capacity);
    this.#statuses = new Int32Array(capacity);
    this.#lengths = new Float64Array(capacity);
    this.#values = new Int32Array(capacity);
  }

  get size(): number {
    return this.#size;
  }

  isFull(): boolean {
    return this.#size === this.capacity;
  }

  /** Appends one. The caller has checked {@link isFull}. */
  push(id: number, opcode: number, status: number, byteLength: number, value: number): void {
    const at = (this.#head + this.#size) % this.capacity;
    this.#ids[at] = id;
    this.#opcodes[at] = opcode;
    this.#statuses[at] = status;
    this.#lengths[at] = byteLength;
    this.#values[at] = value;
    this.#size++;
  }

  /** Moves up to `limit` completions into `out[0 …]`, reusing the objects that are there. Returns how many. */
  poll(out: Completion[], limit: number): number {
    if (!Array.isArray(out)) throw invalidArgument("poll", "out", "an array", out);
    const count = Math.min(this.#size, limit);
    for (let index = 0; index < count; index++) {
      const at = this.#head;
      let slot = out[index];
      if (slot === undefined) {
        slot = { id: 0, opcode: 0, status: 0, byteLength: 0, value: 0 };
        out[index] = slot;
      }
      slot.id = this.#ids[at] as number;
      slot.opcode = this.#opcodes[at] as number;
      slot.status = this.#statuses[at] as number;
      slot.byteLength = this.#lengths[at] as number;
      slot.value = this.#values[at] as number;
      this.#head = at + 1 === this.capacity ? 0 : at + 1;
      this.#size--;
    }
    return count;
  }
}
