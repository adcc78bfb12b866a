/**
 * Things that fall due on one thread, behind one timer: hedges, pauses before retries, looks at vshards that are waited
 * for.
 *
 * Most entries are taken out before their time, as most requests are answered before they would be hedged: taking out
 * costs a few comparisons and touches no timer unless nothing is left.
 *
 * Invariant: while an entry waits, exactly one timer is set, for the first entry's time or earlier; while none waits,
 * none is.
 */
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";

/** Something that falls due. It is in at most one queue, at most once. */
export interface Due {
  /** Written by the queue only. */
  dueAtMs: number;
  /** Place in the queue, -1 outside. Written by the queue only. */
  dueIndex: number;
  /** Called once at its time; it has left the queue. */
  onDue(nowMs: number): void;
  /** Called instead when the queue is closed. */
  onQueueClosed(): void;
}

/** A timer that comes later than this says that the thread was busy with something else. */
const LATE_MS = 3;

/** A binary heap of what is due, with one timer. */
export class DueQueue {
  readonly #clock: Clock;
  readonly #scheduler: Scheduler;
  readonly #heap: Due[] = [];
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  /** The timer was late and is set once more. */
  #held = false;
  readonly #onTimer: () => void = () => this.#run();

  constructor(clock: Clock, scheduler: Scheduler) {
    this.#clock = clock;
    this.#scheduler = scheduler;
  }

  /** Entries that wait. */
  get size(): number {
    return this.#heap.length;
  }

  /** Puts in an entry that is in no queue. */
  add(entry: Due, atMs: number, nowMs: number): void {
    entry.dueAtMs = atMs;
    this.#siftUp(entry, this.#heap.length);
    if (atMs < this.#timerAtMs) this.#arm(atMs, nowMs);
  }

  /** Takes an entry out; harmless when it is not in. */
  remove(entry: Due): void {
    const at = entry.dueIndex;
    if (at < 0) return;
    const heap = this.#heap;
    entry.dueIndex = -1;
    const last = heap.pop() as Due;
    if (last !== entry) {
      const parent = (at - 1) >> 1;
      if (at > 0 && (heap[parent] as Due).dueAtMs > last.dueAtMs) this.#siftUp(last, at);
      else this.#siftDown(last, at);
    }
    if (heap.length === 0) this.#disarm();
  }

  /** Empties the queue and tells every entry. */
  close(): void {
    const entries = this.#heap.splice(0);
    this.#disarm();
    for (const entry of entries) entry.dueIndex = -1;
    for (const entry of entries) entry.onQueueClosed();
  }

  #run(): void {
    const nowMs = this.#clock.nowMs();
    const lateMs = nowMs - this.#timerAtMs;
    this.#timer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    this.#held = lateMs > LATE_MS && !this.#held;
    // A thread that was asleep itself has replies to read first: timers come before them, and would call everybody slow.
    if (this.#held) return this.#arm(nowMs, nowMs);
    for (let first = this.#heap[0]; first !== undefined && first.dueAtMs <= nowMs; first = this.#heap[0]) {
      this.remove(first);
      first.onDue(nowMs);
    }
    const next = this.#heap[0];
    if (next !== undefined && next.dueAtMs < this.#timerAtMs) this.#arm(next.dueAtMs, nowMs);
  }

  #arm(atMs: number, nowMs: number): void {
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    // Whole milliseconds, upwards: the platform cuts fractions off and would fire too early, for nothing.
    this.#timer = this.#scheduler.timer(Math.max(0, Math.ceil(atMs - nowMs)), this.#onTimer);
  }

  #disarm(): void {
    this.#timer?.cancel();
    this.#held = false;
    this.#timer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #siftUp(entry: Due, from: number): void {
    const heap = this.#heap;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as Due;
      if (above.dueAtMs <= entry.dueAtMs) break;
      heap[at] = above;
      above.dueIndex = at;
      at = parent;
    }
    heap[at] = entry;
    entry.dueIndex = at;
  }

  #siftDown(entry: Due, from: number): void {
    const heap = this.#heap;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      const right = heap[child + 1];
      if (right !== undefined && right.dueAtMs < (heap[child] as Due).dueAtMs) child++;
      const below = heap[child] as Due;
      if (entry.dueAtMs <= below.dueAtMs) break;
      heap[at] = below;
      below.dueIndex = at;
      at = child;
    }
    heap[at] = entry;
    entry.dueIndex = at;
  }
}
