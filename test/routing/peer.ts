/** A peer on a real thread and a client plane that is connected to it. */
import { Worker } from "node:worker_threads";
import { type BridgeOptions, createBridge } from "../../native-bridge/bridge.ts";
import { DOORBELL_BYTES } from "../../native-bridge/doorbell.ts";
import type { ShardloomError } from "../../src/errors.ts";
import { ClientPlane } from "../../src/plane/client-plane.ts";
import { createWorkerBlock } from "../../src/plane/worker-block.ts";
import type { MemoryViews, Payload, PendingRequest, Requester, RequesterStats } from "../../src/routing/requester.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { LocalTopology } from "../../src/topology/topology-source.ts";

/** What the peer does with a request. */
export const OP = { ECHO: 0, NEVER: 1, FAIL: 2, HOLD: 3, RELEASE: 4, DELAY: 5 } as const;
export const GATE = { SHUT: 0, OPEN: 1, STOP: 2 } as const;

/** What the worker is given. */
export interface PeerMemory {
  readonly bridge: SharedArrayBuffer;
  readonly block: SharedArrayBuffer;
  readonly client: SharedArrayBuffer;
  readonly gate: SharedArrayBuffer;
}

/** An answer of the peer. */
export interface Answer {
  readonly value: number;
  /** Messages that the peer had handled, this one included. */
  readonly count: number;
  /** Whether the values ≥ 0 have come in ascending order so far. */
  readonly inOrder: boolean;
}

/** Message type of all of them. */
const TYPE = 1;

class Body implements Payload {
  readonly byteLength: number;
  readonly #op: number;
  readonly #value: number;

  constructor(op: number, value: number, byteLength = 8) {
    this.#op = op;
    this.#value = value;
    this.byteLength = byteLength;
  }

  write(target: MemoryViews, offset: number): void {
    target.i32[offset >> 2] = this.#op;
    target.i32[(offset >> 2) + 1] = this.#value;
  }
}

/** Both ends. */
export class Peer {
  readonly plane: ClientPlane;
  readonly requester: Requester;
  readonly worker: Worker;
  readonly #gate: Int32Array;

  constructor(options: BridgeOptions = {}, spinLimitUs = 50) {
    const gate = new SharedArrayBuffer(8 + DOORBELL_BYTES);
    this.#gate = new Int32Array(gate);
    const topology = new LocalTopology(createSnapshot({ shards: 1, vshards: 1 }));
    this.plane = new ClientPlane({
      name: "test",
      clock: systemClock,
      scheduler: systemScheduler,
      topology,
      spinLimitUs,
    });
    const memory: PeerMemory = {
      bridge: createBridge(options),
      block: createWorkerBlock(),
      client: this.plane.block,
      gate,
    };
    this.worker = new Worker(new URL("./peer.worker.js", import.meta.url), { workerData: memory });
    this.plane.attach(0, memory.bridge, memory.block);
    this.requester = this.plane.requester(0);
  }

  open(): void {
    Atomics.store(this.#gate, 0, GATE.OPEN);
    Atomics.notify(this.#gate, 0);
  }

  /** Shuts the gate; after it has resolved the peer takes no message. */
  async shut(): Promise<void> {
    Atomics.store(this.#gate, 0, GATE.SHUT);
    const rounds = Atomics.load(this.#gate, 1);
    while (Atomics.load(this.#gate, 1) < rounds + 2) await new Promise((resolve) => setImmediate(resolve));
  }

  /** An ask and the handle to cancel it by. */
  start(
    op: number,
    value: number,
    timeoutMs = 20_000,
    byteLength = 8,
  ): { readonly pending: PendingRequest; readonly answer: Promise<Answer> } {
    let pending!: PendingRequest;
    const answer = new Promise<Answer>((resolve, reject) => {
      const sink = {
        onReply: ({ i32, offset }: { readonly i32: Int32Array; readonly offset: number }): void => {
          const [answered = -1, count = -1, inOrder] = i32.subarray(offset >> 2);
          resolve({ value: answered, count, inOrder: inOrder === 1 });
        },
        onFailure: (error: ShardloomError): void => reject(error),
      };
      pending = this.requester.request(
        TYPE,
        0,
        1,
        systemClock.nowMs() + timeoutMs,
        new Body(op, value, byteLength),
        sink,
      );
    });
    answer.catch(() => undefined);
    return { pending, answer };
  }

  ask(op: number, value: number, timeoutMs?: number, byteLength?: number): Promise<Answer> {
    return this.start(op, value, timeoutMs, byteLength).answer;
  }

  tell(value: number): Promise<void> | undefined {
    const waiting = this.requester.tell(TYPE, 0, 1, new Body(OP.ECHO, value));
    waiting?.catch(() => undefined);
    return waiting;
  }

  /** The counters, when their sums hold; throws when they do not. */
  stats(): RequesterStats {
    const stats = this.plane.stats();
    const open = this.requester.pending;
    const { accepted, told, replied, failed, timedOut, cancelled, sent, unsent } = stats;
    if (accepted !== told + replied + failed + timedOut + cancelled + open)
      throw new Error(`outcomes do not add up: ${JSON.stringify({ ...stats, open })}`);
    if (sent !== accepted - unsent - this.requester.queued)
      throw new Error(`records do not add up: ${JSON.stringify({ ...stats, queued: this.requester.queued })}`);
    return stats;
  }

  async close(): Promise<void> {
    this.plane.close();
    Atomics.store(this.#gate, 0, GATE.STOP);
    Atomics.notify(this.#gate, 0);
    await this.worker.terminate();
  }
}
