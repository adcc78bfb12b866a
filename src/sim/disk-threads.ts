/**
 * Who uses a simulated disk: one process at a time, with its threads, and what becomes of operations in flight when one of these dies.
 *
 * Invariant: an operation has its effect at some time between call and answer, or never. It never settles once its thread is dead. A thread's death
 * leaves each of its operations in flight to chance, as the kernel has some of them already: they happen in their time, and the thread's end is told
 * after that, as that of a real thread is. A killed process is the same with all of its threads, at once; where the power fails, none happens.
 */
import { ShardloomError } from "../errors.ts";
import type { Random } from "../runtime/random.ts";
import type { DiskCost } from "./disk-process.ts";
import type { FaultInjector } from "./fault-types.ts";
import type { Loop } from "./loop-types.ts";

/** A thread as a disk knows it. */
export interface DiskThread {
  /** Where faults of its operations are drawn: "n0/w1". */
  readonly name: string;
  /** Where answers arrive. */
  readonly loop: Loop;
  /** Ends it, at an operation of its own; absent: it dies with its process alone. */
  readonly die?: (reason: Error) => void;
  /** Whether it may die now; a shard whose workers die one after the other is given up, and that is no fault of a disk. @default true */
  readonly mayDie?: () => boolean;
}

/** What operations need of their disk. */
export interface OperationHost {
  readonly site: string;
  readonly loop: Loop;
  readonly faults: FaultInjector;
  /** Decides what becomes of what is in flight. */
  readonly fates: Random;
  latencyUs(cost: DiskCost): { readonly untilEffectUs: number; readonly untilAnswerUs: number };
}

interface InFlight {
  readonly effectUs: number;
  readonly effect: () => unknown;
  cancelled: boolean;
}

/** Below it the operation at which a thread dies does not happen. */
const BEFORE = 0.5;

/** A thread of a process that has a disk. */
export class AttachedThread {
  readonly #host: OperationHost;
  readonly #thread: DiskThread;
  readonly #inFlight: Set<InFlight> = new Set();
  #alive = true;

  constructor(host: OperationHost, thread: DiskThread) {
    this.#host = host;
    this.#thread = thread;
  }

  get name(): string {
    return this.#thread.name;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Runs an operation: it has its effect at some time between call and answer. */
  perform<T>(operation: string, path: string, cost: DiskCost, effect: () => T): Promise<T> {
    if (!this.#alive) return new Promise(() => undefined);
    return new Promise((resolve, reject) => {
      const { loop, site } = this.#host;
      const startUs = loop.nowUs;
      const { untilEffectUs, untilAnswerUs } = this.#host.latencyUs(cost);
      const flight: InFlight = { effectUs: startUs + untilEffectUs, effect, cancelled: false };
      this.#inFlight.add(flight);
      loop.at(flight.effectUs, () => {
        this.#inFlight.delete(flight);
        if (flight.cancelled) return;
        const death = this.#alive ? this.#drawDeath() : undefined;
        if (death !== undefined && death < BEFORE) return this.#dieAt(operation, path);
        loop.trace("disk", site, `${operation} ${path}`);
        const answer = outcome(effect, resolve, reject);
        if (death !== undefined) return this.#dieAt(operation, path);
        this.#thread.loop.at(startUs + untilAnswerUs, () => {
          if (this.#alive) answer();
        });
      });
    });
  }

  /**
   * The thread is dead; its process goes on.
   *
   * @returns how long, in µs, until nothing of it happens any more
   */
  detach(): number {
    if (!this.#alive) return 0;
    this.#alive = false;
    const { loop, fates } = this.#host;
    let untilUs = 0;
    for (const flight of this.#inFlight) {
      flight.cancelled = fates.float() < 0.5;
      if (!flight.cancelled) untilUs = Math.max(untilUs, flight.effectUs - loop.nowUs);
    }
    return untilUs;
  }

  /** Its process was killed: some of what is in flight happens, now. */
  kill(): void {
    const { fates } = this.#host;
    const flights = this.#end().sort((one, other) => one.effectUs - other.effectUs);
    for (const { effect } of flights) if (fates.float() < 0.5) attempt(effect);
  }

  /** The power failed: nothing of it happens any more. */
  lose(): void {
    this.#end();
  }

  /** @returns what was in flight, and does not happen in its time */
  #end(): InFlight[] {
    this.#alive = false;
    const flights = [...this.#inFlight].filter(({ cancelled }) => !cancelled);
    for (const flight of flights) flight.cancelled = true;
    this.#inFlight.clear();
    return flights;
  }

  #drawDeath(): number | undefined {
    const { die, mayDie } = this.#thread;
    if (die === undefined || mayDie?.() === false) return undefined;
    return this.#host.faults.draw("worker-io-crash", this.#thread.name)?.size;
  }

  #dieAt(operation: string, path: string): void {
    this.#thread.die?.(new Error(`the thread died at: ${operation} ${path}`));
  }
}

/** Runs an effect. @returns what settles its promise */
function outcome<T>(effect: () => T, resolve: (value: T) => void, reject: (error: ShardloomError) => void): () => void {
  try {
    const value = effect();
    return () => resolve(value);
  } catch (error) {
    return () => reject(ShardloomError.from(error));
  }
}

function attempt(effect: () => unknown): void {
  try {
    effect();
  } catch {
    // Nobody is left to be told.
  }
}
