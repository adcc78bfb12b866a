/**
 * The loop of a world: everything that will happen, in one queue, and one thing at a time with all its consequences.
 *
 * Invariant: an event runs, then every microtask that it set off, then the next event; two events of one instant run in an order that the
 * seed draws. So the seed decides the run. An event belongs to an owner, which may hold it back (a busy or paused thread) or
 * drop it (a dead one); what runs, runs as its owner's until the next event.
 * Source: FoundationDB's simulator and tokio-rs/turmoil. Divergence: one heap for all nodes, as promises of all of them share
 * one queue of microtasks; the real event loop is turned in batches, see real-loop.ts.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { createSeededRandom, type Random } from "../runtime/random.ts";
import { EventHeap } from "./event-heap.ts";
import type { Loop, LoopTimer } from "./loop-types.ts";
import { type RealLoop, realLoop } from "./real-loop.ts";
import { hashText, Trace } from "./trace.ts";

/** Events between two looks at the real clock and at abort signals. */
const BATCH_EVENTS = 512;
/** Events of one instant after which time is taken to stand still for ever. */
const INSTANT_LIMIT = 5_000_000;

/** Whom events belong to. */
export interface Owner {
  readonly name: string;
  /** The name as the trace counts it. */
  readonly word: number;
  /**
   * Called when an event's time has come.
   * @returns what to run now: the event, or one that the owner had held back; nothing when the owner keeps or drops it
   */
  admit(event: LoopEvent): LoopEvent | undefined;
  /** An event of this owner, or what it set off, threw. */
  failed(error: unknown): void;
}

/** One thing that will happen. */
export class LoopEvent implements LoopTimer {
  readonly owner: Owner;
  readonly kind: number;
  readonly callback: () => void;
  cancelled = false;
  readonly #heap: EventHeap<LoopEvent>;
  queued = true;

  constructor(heap: EventHeap<LoopEvent>, owner: Owner, kind: number, callback: () => void) {
    this.#heap = heap;
    this.owner = owner;
    this.kind = kind;
    this.callback = callback;
  }

  cancel(): void {
    if (this.cancelled) return;
    this.cancelled = true;
    if (this.queued) this.#heap.noteCancelled();
  }
}

/** How a loop is made. */
export interface WorldLoopOptions {
  readonly seed: number;
  /** Recorded events to keep. @default 0 */
  readonly keepTrace?: number;
  /** @default the platform's */
  readonly real?: RealLoop;
}

/** How far {@link WorldLoop.run} goes. */
export interface LoopRunOptions {
  readonly signal?: AbortSignal;
  /** Real time after which the run is given up. @default never */
  readonly wallLimitMs?: number;
  /** Called after each batch of events. */
  readonly onBatch?: () => void;
}

/** A {@link Loop} with what its world needs to drive it. */
export class WorldLoop implements Loop {
  readonly seed: number;
  readonly #heap: EventHeap<LoopEvent> = new EventHeap();
  readonly #order: Random;
  readonly #trace: Trace;
  readonly #real: RealLoop;
  readonly #world: Owner;
  readonly #eventWord: number;
  #nowUs = 0;
  #events = 0;
  #instantEvents = 0;
  #current: Owner;
  #untilUs = 0;
  #stopped = false;
  #running = false;
  #inEvent = false;
  #failure: ShardloomError | undefined;
  readonly #step: () => void = () => this.#next();

  constructor(options: WorldLoopOptions) {
    this.seed = options.seed;
    this.#order = this.stream("order");
    this.#trace = new Trace(options.keepTrace);
    this.#real = options.real ?? realLoop;
    this.#eventWord = this.#trace.word("event");
    this.#world = {
      name: "world",
      word: this.#trace.word("world"),
      admit: (event) => event,
      failed: (error) => this.fail(error),
    };
    this.#current = this.#world;
  }

  get nowUs(): number {
    return this.#nowUs;
  }

  /** Events that have run. */
  get events(): number {
    return this.#events;
  }

  /** Whose event runs. */
  get current(): Owner {
    return this.#current;
  }

  /** 16 hexadecimal digits over all events so far. */
  get traceHash(): string {
    return this.#trace.hash;
  }

  /** The last recorded events. */
  recorded(): ReturnType<Trace["kept"]> {
    return this.#trace.kept();
  }

  /** A number for a word that events carry. */
  word(text: string): number {
    return this.#trace.word(text);
  }

  at(timeUs: number, callback: () => void): LoopTimer {
    return this.schedule(this.#world, timeUs, this.#eventWord, callback);
  }

  /** An event of some owner's. @param kind A {@link WorldLoop.word} */
  schedule(owner: Owner, timeUs: number, kind: number, callback: () => void): LoopEvent {
    if (!(timeUs < Number.POSITIVE_INFINITY))
      throw invalidArgument("schedule event", "timeUs", "a finite number", timeUs);
    const event = new LoopEvent(this.#heap, owner, kind, callback);
    this.#heap.push(Math.max(this.#nowUs, Math.ceil(timeUs)), this.#order.u32(), event);
    return event;
  }

  stream(name: string): Random {
    return createSeededRandom(Math.imul(this.seed ^ 0x5bf03635, 0x9e3779b1) ^ hashText(name));
  }

  trace(kind: string, where: string, detail?: string | number): void {
    this.#trace.record(this.#nowUs, kind, where, detail);
  }

  /**
   * Makes the rest of a present event of the world an owner's, with all that follows from it. Once an event, as microtasks are of one owner.
   *
   * @returns false when the event is not, or not any more, the world's
   */
  handOver(owner: Owner): boolean {
    if (this.#current !== this.#world || !this.#inEvent) return false;
    this.#current = owner;
    this.#trace.fold(this.#nowUs, this.#eventWord, owner.word, 0);
    return true;
  }

  /** Ends {@link WorldLoop.run} after the present event. */
  stop(): void {
    this.#stopped = true;
  }

  /** Ends {@link WorldLoop.run} with an error; the first one counts. */
  fail(error: unknown): void {
    this.#failure ??= ShardloomError.from(error);
    this.#stopped = true;
  }

  /**
   * Runs events until a time, or until nothing is left, or until {@link WorldLoop.stop}.
   *
   * @returns why it ended
   * @throws {ShardloomError} `ERR_ABORTED`, `ERR_TIMEOUT` when the wall limit has passed, or what {@link WorldLoop.fail} was given.
   */
  async run(untilUs: number, options: LoopRunOptions = {}): Promise<"reached" | "idle" | "stopped"> {
    if (this.#running) throw new ShardloomError("ERR_INTERNAL", "Cannot run loop as it runs already");
    this.#running = true;
    this.#stopped = this.#failure !== undefined;
    this.#untilUs = untilUs;
    const endMs = this.#real.nowMs() + (options.wallLimitMs ?? Number.POSITIVE_INFINITY);
    try {
      while (this.#hasNext()) {
        if (options.signal?.aborted) throw new ShardloomError("ERR_ABORTED", "Cannot finish run as it was aborted");
        if (this.#real.nowMs() > endMs) throw wallLimit(options.wallLimitMs as number, this.#nowUs);
        await this.#batch();
        options.onBatch?.();
      }
    } finally {
      this.#running = false;
      this.#current = this.#world;
    }
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#stopped) return "stopped";
    if (this.#heap.size === 0) return "idle";
    this.#nowUs = Math.max(this.#nowUs, untilUs);
    return "reached";
  }

  #hasNext(): boolean {
    return !this.#stopped && this.#heap.nextTime <= this.#untilUs;
  }

  /** Queues many turns at once: Node runs all microtasks between two of them. */
  #batch(): Promise<void> {
    const { turn } = this.#real;
    for (let at = 0; at < BATCH_EVENTS; at++) turn(this.#step);
    return new Promise((resolve) => turn(resolve));
  }

  /** One event, or nothing once there is none to run. */
  #next(): void {
    while (this.#hasNext()) {
      const timeUs = this.#heap.nextTime;
      const event = this.#heap.pop() as LoopEvent;
      event.queued = false;
      if (event.cancelled) continue;
      if (timeUs > this.#nowUs) {
        this.#nowUs = timeUs;
        this.#instantEvents = 0;
      } else if (++this.#instantEvents > INSTANT_LIMIT) {
        this.fail(new ShardloomError("ERR_INTERNAL", `Cannot go on as time stands still at ${timeUs} us`));
        return;
      }
      const admitted = event.owner.admit(event);
      if (admitted === undefined) continue;
      this.#trace.fold(timeUs, admitted.kind, admitted.owner.word, 0);
      this.#call(admitted);
      return;
    }
  }

  #call(event: LoopEvent): void {
    this.#events++;
    this.#current = event.owner;
    this.#inEvent = true;
    try {
      event.callback();
    } catch (error) {
      event.owner.failed(error);
    }
    this.#inEvent = false;
  }
}

function wallLimit(limitMs: number, nowUs: number): ShardloomError {
  return new ShardloomError(
    "ERR_TIMEOUT",
    `Cannot finish run within ${limitMs} ms of real time: the world has come to ${Math.round(nowUs / 1000)} ms`,
    { details: { limitMs, simulatedMs: nowUs / 1000 } },
  );
}
