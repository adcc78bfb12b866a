/**
 * `Atomics.waitAsync` and `Atomics.notify` of a world: who waits at which word, and when a wake arrives.
 *
 * Invariant: a waiter belongs to the thread that waits, and its wake is an event of that thread, some µs after the notify. A wake of a dead
 * thread is nothing. `Atomics.wait` would stop the whole world, so it is trapped (traps.ts): simulated workers always say that their event loop has
 * something open, which makes them park in `waitAsync`.
 * Wakes are dropped on threads that somebody watches over, workers: a main thread that sleeps for ever is a dead process, and looks like one.
 * Divergence: memory is sequentially consistent here, as events are whole; what weaker orders allow is for the explorer.
 */
import { ShardloomError } from "../errors.ts";
import type { Random } from "../runtime/random.ts";
import { FAULT_TABLE } from "./fault-table.ts";
import type { FaultInjector } from "./fault-types.ts";
import type { WorldLoop } from "./loop.ts";
import { SimThread } from "./threads.ts";

/** Time from a notify to its thread's waking, in µs: most are short, one in some is late as on a machine with too few cores. */
const LEAST_WAKE_US = 2;
const SPREAD_WAKE_US = 20;
const LATE_WAKE_EVERY = 64;
const LATE_WAKE_US = 1_000;

interface Waiter {
  readonly thread: SimThread;
  readonly wake: (outcome: "ok" | "timed-out") => void;
  done: boolean;
}

/** What `Atomics.waitAsync` returns. */
interface AsyncWait {
  readonly async: boolean;
  readonly value: string | Promise<string>;
}

interface AtomicsFunctions {
  waitAsync(words: Int32Array, index: number, value: number, timeoutMs?: number): AsyncWait;
  notify(words: Int32Array, index: number, count?: number): number;
}

/** The waiting rooms of one world. */
export class VirtualAtomics {
  readonly #loop: WorldLoop;
  readonly #faults: Pick<FaultInjector, "draw">;
  readonly #random: Random;
  readonly #rooms: WeakMap<ArrayBufferLike, Map<number, Waiter[]>> = new WeakMap();

  constructor(loop: WorldLoop, faults: Pick<FaultInjector, "draw">) {
    this.#loop = loop;
    this.#faults = faults;
    this.#random = loop.stream("atomics");
  }

  /** Takes the place of the platform's functions. @returns puts them back */
  install(): () => void {
    const target = Atomics as unknown as Record<keyof AtomicsFunctions, unknown>;
    const { waitAsync, notify } = target;
    const functions: AtomicsFunctions = {
      waitAsync: (words, index, value, timeoutMs) => this.waitAsync(words, index, value, timeoutMs),
      notify: (words, index, count) => this.notify(words, index, count),
    };
    Object.assign(target, functions);
    return () => {
      Object.assign(target, { waitAsync, notify });
    };
  }

  waitAsync(words: Int32Array, index: number, value: number, timeoutMs: number = Number.POSITIVE_INFINITY): AsyncWait {
    const thread = this.#thread();
    if (Atomics.load(words, index) !== value) return { async: false, value: "not-equal" };
    if (timeoutMs <= 0) return { async: false, value: "timed-out" };
    const promise = new Promise<string>((resolve) => {
      const waiter: Waiter = { thread, wake: resolve, done: false };
      this.#room(words, index).push(waiter);
      if (timeoutMs < Number.POSITIVE_INFINITY)
        thread.runtime.scheduler.after(timeoutMs, () => this.#leave(words, index, waiter, "timed-out"));
      const spurious = this.#faults.draw("wake-spurious", thread.name);
      if (spurious !== undefined)
        thread.post(1 + spurious.size * FAULT_TABLE["wake-spurious"].scale * 1000, "wake", () =>
          this.#leave(words, index, waiter, "ok"),
        );
    });
    return { async: true, value: promise };
  }

  notify(words: Int32Array, index: number, count: number = Number.POSITIVE_INFINITY): number {
    const room = this.#rooms.get(words.buffer)?.get(words.byteOffset + index * Int32Array.BYTES_PER_ELEMENT);
    let woken = 0;
    while (room !== undefined && room.length > 0 && woken < count) {
      const waiter = room.shift() as Waiter;
      if (waiter.thread.dead) continue;
      waiter.done = true;
      woken++;
      if (waiter.thread.supervised && this.#faults.draw("wake-dropped", waiter.thread.name) !== undefined) continue;
      waiter.thread.post(this.#latencyUs(), "wake", () => waiter.wake("ok"));
    }
    return woken;
  }

  /** A wait ends without a notify. */
  #leave(words: Int32Array, index: number, waiter: Waiter, outcome: "ok" | "timed-out"): void {
    if (waiter.done) return;
    waiter.done = true;
    const room = this.#room(words, index);
    room.splice(room.indexOf(waiter), 1);
    waiter.wake(outcome);
  }

  #room(words: Int32Array, index: number): Waiter[] {
    let rooms = this.#rooms.get(words.buffer);
    if (rooms === undefined) {
      rooms = new Map();
      this.#rooms.set(words.buffer, rooms);
    }
    const offset = words.byteOffset + index * Int32Array.BYTES_PER_ELEMENT;
    let room = rooms.get(offset);
    if (room === undefined) {
      room = [];
      rooms.set(offset, room);
    }
    return room;
  }

  #latencyUs(): number {
    const drawn = this.#random.u32();
    return drawn % LATE_WAKE_EVERY === 0
      ? (drawn >>> 8) % LATE_WAKE_US
      : LEAST_WAKE_US + ((drawn >>> 8) % SPREAD_WAKE_US);
  }

  #thread(): SimThread {
    const { current } = this.#loop;
    if (current instanceof SimThread) return current;
    throw new ShardloomError("ERR_INTERNAL", "Cannot wait at a word as no thread of a node runs");
  }
}
