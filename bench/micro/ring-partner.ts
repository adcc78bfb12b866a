/**
 * Starts the second thread of a ring bench and its control block.
 *
 * Invariant: between samples the partner sleeps in Atomics.wait on the round word, so that it burns no core while another
 * side runs; it counts what it did, and a case reads that count to prove that a second thread was at work.
 */
import { Worker } from "node:worker_threads";

/** Words of the control block, int32. */
export const CONTROL = { ROUND: 0, STARTED: 32, DONE: 64, RECORDS: 96, STOP: 128 } as const;
/** Doubles of the control block, after the words: the checksum of the last sample. */
export const CONTROL_SUM = 128;
export const CONTROL_BYTES = 2048;

export type Role =
  | "consume"
  | "echo"
  | "atomics-echo"
  | "wait-echo"
  | "post-echo"
  | "policy-echo"
  | "busy"
  | "ringbuf-consume";

export interface PartnerInput {
  readonly role: Role;
  readonly control: SharedArrayBuffer;
  readonly memory: SharedArrayBuffer;
  /** Byte offsets of request ring, reply ring. */
  readonly requests: number;
  readonly replies: number;
  readonly records: number;
  readonly payloadBytes: number;
  readonly policy: Policy;
  /** Core to pin the thread to. */
  readonly core: number | "any";
}

/** How a thread waits: polls up to so many µs and then parks, or adapts. */
export type Policy = { readonly kind: "fixed"; readonly spinUs: number } | { readonly kind: "adaptive" };

export class Partner {
  readonly control: Int32Array;
  readonly sums: Float64Array;
  readonly worker: Worker;
  readonly #online: Promise<unknown>;

  constructor(input: Partial<PartnerInput> & { readonly role: Role }) {
    const control = new SharedArrayBuffer(CONTROL_BYTES);
    this.control = new Int32Array(control);
    this.sums = new Float64Array(control);
    const workerData: PartnerInput = {
      memory: new SharedArrayBuffer(8),
      requests: 0,
      replies: 0,
      records: 0,
      payloadBytes: 0,
      policy: { kind: "fixed", spinUs: 0 },
      core: "any",
      ...input,
      control,
    };
    this.worker = new Worker(new URL("./ring.worker.js", import.meta.url), { workerData });
    this.#online = new Promise((resolve, reject) => {
      this.worker.once("message", resolve);
      this.worker.once("error", reject);
    });
    // A partner that dies later must fail the bench, not leave it polling.
    this.worker.on("error", (error) => {
      process.stderr.write(`ring bench: partner ${input.role} died: ${error.stack}\n`);
      process.exit(1);
    });
  }

  /** Waits until the thread runs. */
  async online(): Promise<void> {
    await this.#online;
  }

  /** Starts one sample and polls until the partner is at it. */
  begin(): void {
    const { control } = this;
    Atomics.store(control, CONTROL.STARTED, 0);
    Atomics.store(control, CONTROL.DONE, 0);
    Atomics.add(control, CONTROL.ROUND, 1);
    Atomics.notify(control, CONTROL.ROUND);
    this.#poll(CONTROL.STARTED);
  }

  /** Polls until the partner has ended its sample. */
  end(): void {
    this.#poll(CONTROL.DONE);
  }

  #poll(word: number): void {
    const giveUpUs = nowUs() + 30_000_000;
    while (Atomics.load(this.control, word) === 0) ensure(nowUs() < giveUpUs, "the partner does not answer");
  }

  async close(): Promise<void> {
    Atomics.store(this.control, CONTROL.STOP, 1);
    Atomics.add(this.control, CONTROL.ROUND, 1);
    Atomics.notify(this.control, CONTROL.ROUND);
    await this.worker.terminate();
  }
}

/** Clock in µs on one scale for all threads. */
export function nowUs(): number {
  return (performance.timeOrigin + performance.now()) * 1000;
}

/** Clock in µs of this thread alone: the common scale has steps of 0.25 µs. */
export function localUs(): number {
  return performance.now() * 1000;
}

/** Fails a case that did not do what it claims. */
export function ensure(condition: boolean, what: string): void {
  if (!condition) throw new Error(`void: ${what}`);
}

/** Lets the other core have the cache line for a moment: some 50 ns of nothing. */
export function backOff(turns: number): number {
  let sink = 0;
  for (let turn = 0; turn < turns; turn++) sink = (sink + turn) | 0;
  return sink;
}
