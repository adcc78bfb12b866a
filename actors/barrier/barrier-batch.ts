/**
 * Arrivals that share a message, and the waits of their members.
 *
 * Invariant: every wait ends once. The host takes a batch whole or not at all; when it refuses one of several members, each
 * arrival goes again by itself, so that only the one at fault fails.
 */
import type { PhaseResult } from "../../src/actor/tick-barrier.ts";
import type { ShardloomError } from "../../src/errors.ts";
import type { ArrivalBatch } from "./barrier-link.ts";

/** What a batch tells the session that it belongs to. */
export interface BatchOwner {
  complete(tick: number, phase: number, arrived: number, members: number): PhaseResult;
  refused(name: string, error: ShardloomError): void;
  /** The error that the waiting members get. */
  failure(error: ShardloomError): ShardloomError;
  transmit(batch: Batch): void;
}

type Resolve = (result: PhaseResult) => void;
type Reject = (error: ShardloomError) => void;

/** What the promise made last was given; one pair for all, as executors run at once. */
let resolveMade!: Resolve;
let rejectMade!: Reject;
const capture = (resolve: Resolve, reject: Reject): void => {
  resolveMade = resolve;
  rejectMade = reject;
};

/** One message of arrivals. */
export class Batch implements ArrivalBatch {
  readonly tick: number;
  readonly phase: number;
  readonly ids: number[] = [];
  timeoutMs = 0;
  readonly abandoned: boolean = false;
  readonly #owner: BatchOwner;
  readonly #names: string[] = [];
  readonly #resolves: Resolve[] = [];
  readonly #rejects: Reject[] = [];

  constructor(owner: BatchOwner, tick: number, phase: number) {
    this.#owner = owner;
    this.tick = tick;
    this.phase = phase;
  }

  get count(): number {
    return this.ids.length;
  }

  /** @returns the member's wait */
  add(name: string, id: number, timeoutMs: number): Promise<PhaseResult> {
    const wait = new Promise<PhaseResult>(capture);
    this.#push(name, id, timeoutMs, resolveMade, rejectMade);
    return wait;
  }

  released(tick: number, phase: number, arrived: number, members: number): void {
    const result = this.#owner.complete(tick, phase, arrived, members);
    const resolves = this.#resolves;
    for (let at = 0; at < resolves.length; at++) (resolves[at] as Resolve)(result);
  }

  failed(error: ShardloomError): void {
    const refused = error.code === "ERR_INVALID_ARGUMENT";
    if (refused && this.count > 1) {
      this.#split();
      return;
    }
    if (refused) this.#owner.refused(this.#names[0] as string, error);
    const reason = this.#owner.failure(error);
    for (const reject of this.#rejects) reject(reason);
  }

  #split(): void {
    for (const [at, name] of this.#names.entries()) {
      const alone = new Batch(this.#owner, this.tick, this.phase);
      const [resolve, reject] = [this.#resolves[at] as Resolve, this.#rejects[at] as Reject];
      alone.#push(name, this.ids[at] as number, this.timeoutMs, resolve, reject);
      this.#owner.transmit(alone);
    }
  }

  #push(name: string, id: number, timeoutMs: number, resolve: Resolve, reject: Reject): void {
    this.ids.push(id);
    this.#names.push(name);
    this.#resolves.push(resolve);
    this.#rejects.push(reject);
    if (timeoutMs > this.timeoutMs) this.timeoutMs = timeoutMs;
  }
}
