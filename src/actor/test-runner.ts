/**
 * A world of one actor system, for tests of actors: virtual time, seeded randomness, no threads.
 *
 * Invariant: every message and every answer is encoded and decoded on its way, though it need not be, so that an actor which
 * works here works across threads; errors lose exactly what they lose there.
 * Source: Effect's `TestRunner`.
 */

import { ShardloomError } from "../errors.ts";
import { createSeededRandom } from "../runtime/random.ts";
import { type Cancel, createVirtualTime, type VirtualTime } from "../runtime/scheduler.ts";
import { errorFromValue, errorToValue } from "../wire/error-codec.ts";
import { createValueCodec, type ValueCodec } from "../wire/value-codec.ts";
import { type ActorRef, type ActorSend, type AskOptions, createActorRef } from "./actor-ref.ts";
import { type ActorSystem, type ActorSystemOptions, createActorSystem } from "./actor-system.ts";
import type { AnyActorDefinition } from "./define-actor.ts";
import type { ReplySink } from "./delivery.ts";

/** Options of a test runner. */
export interface TestRunnerOptions extends Pick<ActorSystemOptions, "onEscalation" | "onDeadLetter"> {
  /** @default 1 */
  readonly seed?: number;
}

/** A running world. */
export interface TestRunner {
  readonly system: ActorSystem;
  readonly time: VirtualTime;
  readonly send: ActorSend;
  /** The address of an actor, used from outside. */
  actor<D extends AnyActorDefinition>(definition: D, key: string): ActorRef<D>;
  /** Lets time pass: timers fire, idle actors rest. */
  advance(durationMs: number): Promise<void>;
}

/** Creates a world with these actors. */
export function createTestRunner(
  definitions: readonly AnyActorDefinition[],
  options: TestRunnerOptions = {},
): TestRunner {
  const { seed = 1, ...hooks } = options;
  const time = createVirtualTime(1000);
  const codec = createValueCodec();
  const send = new LoopSend(time, codec);
  const random = createSeededRandom(seed);
  const system = createActorSystem({
    definitions,
    clock: time.clock,
    scheduler: time.scheduler,
    random,
    send,
    codec,
    ...hooks,
  });
  send.system = system;
  return {
    system,
    time,
    send,
    actor: (definition, key) => createActorRef(definition, key, send),
    advance: async (durationMs) => {
      await time.advance(durationMs);
      while (system.sweep(time.clock.nowMs()) > 0);
      await time.settle();
    },
  };
}

interface OpenAsk {
  resolve(value: unknown): void;
  reject(error: ShardloomError): void;
  readonly stopWaiting: Cancel;
}

/** Sends to the system of the same world, as a plane would to another thread. */
class LoopSend implements ActorSend, ReplySink {
  system!: ActorSystem;
  readonly #time: VirtualTime;
  readonly #codec: ValueCodec;
  readonly #open: Map<number, OpenAsk> = new Map();
  #token = 0;

  constructor(time: VirtualTime, codec: ValueCodec) {
    this.#time = time;
    this.#codec = codec;
  }

  async ask(
    actorName: string,
    key: string,
    handler: string,
    message: unknown,
    options: AskOptions = {},
  ): Promise<unknown> {
    const { timeoutMs = Infinity, signal } = options;
    if (signal?.aborted === true) throw new ShardloomError("ERR_ABORTED", "The ask was aborted");
    if (!(timeoutMs > 0)) throw new ShardloomError("ERR_TIMEOUT", "The ask timed out");
    const bytes = this.#codec.encode(message);
    const requestToken = ++this.#token;
    const answer = this.#expect(requestToken, timeoutMs, signal);
    const deadlineAtMs = timeoutMs === Infinity ? 0 : this.#time.clock.nowMs() + timeoutMs;
    this.system.deliver({ actorName, key, handler, bytes, ask: true, deadlineAtMs, senderId: 0, requestToken }, this);
    return answer;
  }

  async tell(actorName: string, key: string, handler: string, message: unknown): Promise<void> {
    const bytes = this.#codec.encode(message);
    const { rejected } = this.system.counters();
    this.system.deliver(
      { actorName, key, handler, bytes, ask: false, deadlineAtMs: 0, senderId: 0, requestToken: 0 },
      this,
    );
    if (this.system.counters().rejected > rejected) throw new ShardloomError("ERR_OVERLOADED", "The mailbox is full");
  }

  value(_senderId: number, requestToken: number, value: unknown): void {
    const copy = this.#codec.decode(this.#codec.encode(value));
    this.#close(requestToken)?.resolve(copy);
  }

  error(_senderId: number, requestToken: number, error: ShardloomError): void {
    const copy = this.#codec.decode(this.#codec.encode(errorToValue(error)));
    this.#close(requestToken)?.reject(errorFromValue(copy));
  }

  #expect(requestToken: number, timeoutMs: number, signal: AbortSignal | undefined): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const giveUp = (code: "ERR_TIMEOUT" | "ERR_ABORTED"): void => {
        if (code === "ERR_ABORTED") this.system.cancel(0, requestToken);
        this.#close(requestToken)?.reject(new ShardloomError(code, "The ask was given up"));
      };
      const onAbort = (): void => giveUp("ERR_ABORTED");
      const stopTimer =
        timeoutMs === Infinity ? undefined : this.#time.scheduler.after(timeoutMs, () => giveUp("ERR_TIMEOUT"));
      signal?.addEventListener("abort", onAbort);
      const stopWaiting = (): void => {
        stopTimer?.();
        signal?.removeEventListener("abort", onAbort);
      };
      this.#open.set(requestToken, { resolve, reject, stopWaiting });
    });
  }

  #close(requestToken: number): OpenAsk | undefined {
    const ask = this.#open.get(requestToken);
    this.#open.delete(requestToken);
    ask?.stopWaiting();
    return ask;
  }
}
