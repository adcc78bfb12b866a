/** worker_threads entry point of the platform's side: echoes messages, serves Comlink, counts one-way messages, floods a peer. */
import { type MessagePort, workerData } from "node:worker_threads";
import * as Comlink from "comlink";

/** Ports of one baseline worker. */
export interface BaselinePorts {
  readonly raw: MessagePort;
  readonly rpc: MessagePort;
  /** One-way messages in; an acknowledgement with the totals out, once all have come. */
  readonly oneWay: MessagePort;
  /** Towards a second worker's `oneWay`. */
  readonly outward: MessagePort | undefined;
}

/** The small object that stands for a message. */
export interface SmallObject {
  readonly sku: string;
  readonly quantity: number;
}

const ports = workerData as BaselinePorts;
ports.raw.on("message", (value: unknown) => ports.raw.postMessage(value));

let count = 0;
let sum = 0;
let expected = 0;
ports.oneWay.on("message", (message: SmallObject | { readonly expect: number }) => {
  if ("expect" in message) {
    expected = message.expect;
    count = 0;
    sum = 0;
    return;
  }
  sum += message.quantity;
  if (++count === expected) ports.oneWay.postMessage({ count, sum });
});

Comlink.expose(
  {
    echo: (value: number): number => value,
    /** Floods the second worker; resolves with the time until it had everything. */
    flood: (messages: number): Promise<{ elapsedMs: number; count: number; sum: number }> => {
      const { outward } = ports;
      if (outward === undefined) throw new Error("Cannot flood without a second worker");
      return new Promise((resolve) => {
        outward.once("message", (totals: { count: number; sum: number }) =>
          resolve({ elapsedMs: performance.now() - started, ...totals }),
        );
        outward.postMessage({ expect: messages });
        const started = performance.now();
        for (let quantity = 0; quantity < messages; quantity++) outward.postMessage({ sku: "tea", quantity });
      });
    },
  },
  ports.rpc,
);
