/**
 * Control-plane calls over Comlink, with the three things that it lacks.
 *
 * 1. A call that is open when its worker dies settles: every call races the worker's end.
 * 2. Errors keep class, code and details: the serving side answers with an outcome, encoded by `error-codec`.
 * 3. A worker parked in `Atomics.wait` notices: every call rings its doorbell after posting.
 *
 * Never on the data plane.
 */

import type { MessagePort } from "node:worker_threads";
import * as Comlink from "comlink";
import { ShardloomError } from "../errors.ts";
import { decodeErrorAt, encodeError } from "../wire/error-codec.ts";

type AsyncMethods<T> = {
  readonly [K in keyof T]: T[K] extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never;
};

type Outcome = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: Uint8Array };

interface Served {
  call(method: string, args: unknown[]): Promise<Outcome>;
}

/** A typed connection to the other side's methods. */
export interface ControlConnection<T> {
  readonly remote: AsyncMethods<T>;
  /** Fails every open and later call with `error`. Idempotent. */
  end(error: ShardloomError): void;
}

/** Serves the methods of `api` on a port, until the port is closed. */
export function serveControl<T extends object>(port: MessagePort, api: T): void {
  const served: Served = {
    async call(method, args) {
      try {
        const target = (api as Record<string, unknown>)[method];
        if (typeof target !== "function" || !Object.hasOwn(api, method)) {
          throw new ShardloomError("ERR_UNKNOWN_MESSAGE", `Cannot call ${method} as the worker serves no such method`);
        }
        return { ok: true, value: await (target as (...args: unknown[]) => unknown).apply(api, args) };
      } catch (error) {
        return { ok: false, error: encodeError(ShardloomError.from(error)) };
      }
    },
  };
  Comlink.expose(served, port);
}

/**
 * Connects to a worker's control methods.
 *
 * @param afterPost Called after each call was posted, to ring the worker's doorbell.
 * @param alive What keeps this thread alive: the port as it is, or the port while a call is open, and nothing otherwise.
 */
export function connectControl<T>(
  port: MessagePort,
  afterPost: () => void,
  alive: "port" | "calls" = "port",
): ControlConnection<T> {
  const served = Comlink.wrap<Served>(port);
  const open = new Set<(error: ShardloomError) => void>();
  let ended: ShardloomError | undefined;

  function call(method: string, args: unknown[]): Promise<unknown> {
    if (ended !== undefined) return Promise.reject(ended);
    return new Promise((resolve, reject) => {
      if (alive === "calls" && open.size === 0) port.ref();
      open.add(reject);
      const settle = (act: () => void): void => {
        open.delete(reject);
        if (alive === "calls" && open.size === 0) port.unref();
        act();
      };
      served.call(method, args).then(
        (outcome) =>
          settle(() =>
            outcome.ok ? resolve(outcome.value) : reject(decodeErrorAt(outcome.error, 0, outcome.error.length)),
          ),
        (error: unknown) => settle(() => reject(ShardloomError.from(error))),
      );
      afterPost();
    });
  }

  const remote = new Proxy({} as AsyncMethods<T>, {
    get: (_, method) => (method === "then" ? undefined : (...args: unknown[]) => call(String(method), args)),
  });
  return {
    remote,
    end(error) {
      if (ended !== undefined) return;
      ended = error;
      for (const reject of open) reject(error);
      open.clear();
      served[Comlink.releaseProxy]();
      port.close();
    },
  };
}
