/**
 * Drives the links of a node: takes what local threads ask of other nodes, in bounded batches, and sleeps.
 *
 * Invariant: a run is scheduled or the doorbell is armed, so no request published before or after is missed; nothing polls and no timer
 * runs. Between two batches the event loop has a turn. Answers that frames bring are published once the stack has unwound.
 *
 * Thread: the node's control thread.
 */
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { LinkCalls } from "./link-calls.ts";

/** Records taken from one bridge before the next one has its turn. */
const DRAIN_LIMIT = 64;

/** One doorbell and the asking halves of all links. */
export class LinkPump {
  /** The doorbell that local threads ring. */
  readonly block: SharedArrayBuffer = new SharedArrayBuffer(DOORBELL_BYTES);
  readonly #bell: Doorbell = new Doorbell(this.block);
  readonly #scheduler: Scheduler;
  readonly #calls: readonly LinkCalls[];
  #scheduled = false;
  #flushing = false;
  #armed = false;
  #closed = false;
  readonly #run = this.#turn.bind(this);
  readonly #onRung: () => void = () => {
    this.#armed = false;
    this.kick();
  };

  constructor(scheduler: Scheduler, calls: readonly LinkCalls[]) {
    this.#scheduler = scheduler;
    this.#calls = calls;
  }

  /** There may be something to take. */
  readonly kick: () => void = () => {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    this.#scheduler.defer(this.#run);
  };

  /** Answers were written. */
  readonly dirty: () => void = () => {
    if (this.#flushing || this.#closed) return;
    this.#flushing = true;
    this.#scheduler.defer(() => {
      this.#flushing = false;
      this.#flush();
    });
  };

  close(): void {
    this.#flush();
    this.#closed = true;
  }

  #turn(): void {
    this.#scheduled = false;
    if (this.#closed) return;
    let taken = 0;
    for (const calls of this.#calls) taken += calls.drain(DRAIN_LIMIT);
    this.#flush();
    if (taken === 0) this.#park();
    else this.#again();
  }

  #again(): void {
    this.#scheduled = true;
    this.#scheduler.turn(this.#run);
  }

  #park(): void {
    if (this.#armed) return;
    const ticket = this.#bell.prepareWait();
    if (this.#calls.some((calls) => calls.hasWork())) {
      this.#bell.cancelWait();
      this.#again();
      return;
    }
    const woken = this.#bell.waitAsync(ticket);
    if (woken === undefined) {
      this.#again();
      return;
    }
    this.#armed = true;
    void woken.then(this.#onRung);
  }

  #flush(): void {
    for (const calls of this.#calls) calls.flush();
  }
}
