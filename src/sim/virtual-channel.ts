/**
 * A control channel between two simulated threads: what Comlink over a message port is between real ones.
 *
 * Invariant: calls arrive in the order in which they were made, and so do answers; both are copied, and errors keep class and code. Calls
 * that are open when the other side dies never settle by themselves: the caller ends the connection, as in production.
 */
import { ShardloomError } from "../errors.ts";
import type { ControlConnection } from "../plane/control-rpc.ts";
import type { ControlChannel } from "../plane/platform.ts";
import type { Random } from "../runtime/random.ts";
import { decodeErrorAt, encodeError } from "../wire/error-codec.ts";
import { cloneForThread } from "./clone.ts";
import type { WorldLoop } from "./loop.ts";
import type { SimThread } from "./threads.ts";

/** Time of a message between two threads of a process, in µs. */
const LEAST_US = 20;
const SPREAD_US = 200;

type Outcome = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: Uint8Array };

interface Call {
  readonly method: string;
  readonly args: unknown[];
  readonly answer: (outcome: Outcome) => void;
}

/** One direction: later messages do not overtake earlier ones. */
class Lane {
  readonly #loop: WorldLoop;
  readonly #random: Random;
  #lastUs = 0;

  constructor(loop: WorldLoop, random: Random) {
    this.#loop = loop;
    this.#random = random;
  }

  post(to: SimThread, callback: () => void): void {
    const drawnUs = this.#loop.nowUs + LEAST_US + (this.#random.u32() % SPREAD_US);
    this.#lastUs = Math.max(drawnUs, this.#lastUs + 1);
    to.post(this.#lastUs - this.#loop.nowUs, "message", callback);
  }
}

/** Both ends of a channel. The object itself is its port: it goes to the worker by reference. */
export class VirtualChannel implements ControlChannel {
  readonly #there: Lane;
  readonly #back: Lane;
  readonly #caller: SimThread;
  #server: { readonly thread: SimThread; readonly api: object } | undefined;
  /** Calls from before there was somebody to take them. */
  #early: Call[] = [];
  #closed = false;

  constructor(loop: WorldLoop, random: Random, caller: SimThread) {
    this.#there = new Lane(loop, random);
    this.#back = new Lane(loop, random);
    this.#caller = caller;
  }

  get port(): unknown {
    return this;
  }

  connect<T>(afterPost: () => void): ControlConnection<T> {
    const open = new Set<(error: ShardloomError) => void>();
    let ended: ShardloomError | undefined;
    const call = (method: string, args: unknown[]): Promise<unknown> => {
      if (ended !== undefined) return Promise.reject(ended);
      return new Promise((resolve, reject) => {
        open.add(reject);
        const answer = (outcome: Outcome): void => {
          if (!open.delete(reject)) return;
          if (outcome.ok) resolve(outcome.value);
          else reject(decodeErrorAt(outcome.error, 0, outcome.error.length));
        };
        this.#send({ method, args: cloneForThread(args), answer });
        afterPost();
      });
    };
    const remote = new Proxy(
      {},
      { get: (_, method) => (method === "then" ? undefined : (...args: unknown[]) => call(String(method), args)) },
    );
    return {
      remote: remote as ControlConnection<T>["remote"],
      end: (error) => {
        if (ended !== undefined) return;
        ended = error;
        for (const reject of open) reject(error);
        open.clear();
        this.#closed = true;
      },
    };
  }

  /** Serves the methods of `api` on a thread. @returns what ends that */
  serve(thread: SimThread, api: object): () => void {
    this.#server = { thread, api };
    for (const call of this.#early.splice(0)) this.#send(call);
    return () => {
      this.#server = undefined;
      this.#closed = true;
    };
  }

  #send(call: Call): void {
    if (this.#closed) return;
    if (this.#server === undefined) this.#early.push(call);
    else this.#there.post(this.#server.thread, () => void this.#serve(call));
  }

  async #serve({ method, args, answer }: Call): Promise<void> {
    if (this.#server === undefined) return;
    const outcome = await perform(this.#server.api, method, args);
    if (!this.#closed) this.#back.post(this.#caller, () => answer(outcome));
  }
}

async function perform(api: object, method: string, args: unknown[]): Promise<Outcome> {
  try {
    const target = (api as Record<string, unknown>)[method];
    if (typeof target !== "function" || !Object.hasOwn(api, method))
      throw new ShardloomError("ERR_UNKNOWN_MESSAGE", `Cannot call ${method} as the worker serves no such method`);
    return { ok: true, value: cloneForThread(await (target as (...args: unknown[]) => unknown).apply(api, args)) };
  } catch (error) {
    return { ok: false, error: encodeError(ShardloomError.from(error)) };
  }
}
