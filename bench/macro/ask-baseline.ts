/** The platform's side of the bench `ask`: two workers reached by `postMessage` and by Comlink. */
import { once } from "node:events";
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import * as Comlink from "comlink";
import type { BaselinePorts } from "./ask-baseline.worker.ts";

interface Rpc {
  echo(value: number): number;
  flood(messages: number): { elapsedMs: number; count: number; sum: number };
}

/** Two baseline workers; the first is talked to, the second receives from the first. */
export class Baseline {
  readonly #workers: Worker[] = [];
  readonly #ports: MessagePort[] = [];
  readonly #raw: MessagePort;
  readonly #oneWay: MessagePort;
  readonly #rpc: Comlink.Remote<Rpc>;
  #answered: (value: number) => void = () => undefined;

  constructor() {
    const between = new MessageChannel();
    const [raw, rpc, oneWay] = this.#start(between.port1, undefined);
    this.#start(undefined, between.port2);
    this.#raw = raw;
    this.#oneWay = oneWay;
    this.#rpc = Comlink.wrap<Rpc>(rpc);
    raw.on("message", (value: number) => this.#answered(value));
  }

  async online(): Promise<void> {
    await this.call(0); // messages wait for the worker to load
  }

  /** A postMessage round trip. */
  post(value: number): Promise<number> {
    return new Promise((resolve) => {
      this.#answered = resolve;
      this.#raw.postMessage(value);
    });
  }

  /** A Comlink call. */
  call(value: number): Promise<number> {
    return this.#rpc.echo(value);
  }

  /** One-way messages of a small object from this thread. @returns ms until the worker had handled all of them */
  async flood(messages: number): Promise<number> {
    const done = once(this.#oneWay, "message") as Promise<[{ count: number; sum: number }]>;
    this.#oneWay.postMessage({ expect: messages });
    const started = performance.now();
    for (let quantity = 0; quantity < messages; quantity++) this.#oneWay.postMessage({ sku: "tea", quantity });
    const [totals] = await done;
    const elapsedMs = performance.now() - started;
    checkTotals(totals, messages);
    return elapsedMs;
  }

  /** The same between the two workers. */
  async floodAcross(messages: number): Promise<number> {
    const { elapsedMs, ...totals } = await this.#rpc.flood(messages);
    checkTotals(totals, messages);
    return elapsedMs;
  }

  async close(): Promise<void> {
    for (const port of this.#ports) port.close();
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  #start(outward: MessagePort | undefined, inward: MessagePort | undefined): [MessagePort, MessagePort, MessagePort] {
    const channels = [new MessageChannel(), new MessageChannel(), new MessageChannel()] as const;
    const [raw, rpc, oneWay] = channels;
    const workerData: BaselinePorts = { raw: raw.port2, rpc: rpc.port2, oneWay: inward ?? oneWay.port2, outward };
    const transferList = [raw.port2, rpc.port2, inward ?? oneWay.port2, ...(outward === undefined ? [] : [outward])];
    this.#workers.push(new Worker(new URL("./ask-baseline.worker.js", import.meta.url), { workerData, transferList }));
    this.#ports.push(raw.port1, rpc.port1, oneWay.port1);
    return [raw.port1, rpc.port1, oneWay.port1];
  }
}

function checkTotals(totals: { readonly count: number; readonly sum: number }, messages: number): void {
  if (totals.count !== messages || totals.sum !== (messages * (messages - 1)) / 2)
    throw new Error(`postMessage delivered ${totals.count} of ${messages} messages`);
}
