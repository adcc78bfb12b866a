/**
 * Shards on real threads that answer after as long as a request asks for, and a client plane connected to all of them.
 *
 * A shard sleeps while it serves (`Atomics.wait`), one request after another, so that many shards fit on few cores, and a
 * slow request holds up those behind it as it would in an engine. No cluster: bridges, requesters and the pump only.
 *
 * Invariant: an answer names the shard and repeats the vshards asked for, so that whoever reads it can check both.
 */
import { Worker } from "node:worker_threads";
import { createBridge } from "../../native-bridge/bridge.ts";
import { ShardloomError } from "../../src/errors.ts";
import { ClientPlane } from "../../src/plane/client-plane.ts";
import { createWorkerBlock } from "../../src/plane/worker-block.ts";
import type { ExecutionCall } from "../../src/routing/execution-call.ts";
import type { Decoded } from "../../src/routing/part.ts";
import type { Plan, PlanTarget } from "../../src/routing/plan.ts";
import type { MemoryViews, Payload, PendingRequest, ReplyFrame } from "../../src/routing/requester.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createSnapshot, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import { LocalTopology } from "../../src/topology/topology-source.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";

/** What a worker is given. */
export interface ReplicaMemory {
  readonly shard: number;
  readonly bridge: SharedArrayBuffer;
  readonly block: SharedArrayBuffer;
  readonly client: SharedArrayBuffer;
  /** `i32 stop | i32[shards] requests served` */
  readonly control: SharedArrayBuffer;
}

/** What a shard answered. */
export interface ReplicaAnswer {
  readonly shard: number;
  readonly vshards: readonly number[];
}

const TYPE = 1;
const NONE_REFUSED: readonly never[] = [];

/**
 * Body of a request: `i32 service time in us | i32 count | i32[count] vshards`. The reply: `i32 shard | i32 count |
 * i32[count]`.
 */
class Body implements Payload {
  readonly byteLength: number;
  readonly #serviceUs: number;
  readonly #vshards: Uint16Array;

  constructor(serviceUs: number, vshards: Uint16Array) {
    this.#serviceUs = serviceUs;
    this.#vshards = vshards;
    this.byteLength = 8 + 4 * vshards.length;
  }

  write({ i32 }: MemoryViews, offset: number): void {
    const at = offset >> 2;
    i32[at] = this.#serviceUs;
    i32[at + 1] = this.#vshards.length;
    i32.set(this.#vshards, at + 2);
  }
}

/** The shards and the way to them. */
export class ReplicaStage {
  readonly plane: ClientPlane;
  readonly snapshot: TopologySnapshot;
  readonly #workers: Worker[] = [];
  readonly #control: Int32Array;

  constructor(shape: { readonly shards: number; readonly vshards: number; readonly replicationFactor: number }) {
    this.snapshot = createSnapshot(shape);
    const topology = new LocalTopology(this.snapshot);
    const options = { name: "replicas", clock: systemClock, scheduler: systemScheduler, topology, spinLimitUs: 0 };
    this.plane = new ClientPlane(options);
    const control = new SharedArrayBuffer(4 + 4 * shape.shards);
    this.#control = new Int32Array(control);
    for (let shard = 0; shard < shape.shards; shard++) {
      const block = createWorkerBlock();
      const memory: ReplicaMemory = { shard, bridge: createBridge(), block, client: this.plane.block, control };
      this.#workers.push(new Worker(new URL("./replica.worker.js", import.meta.url), { workerData: memory }));
      this.plane.attach(shard, memory.bridge, block);
    }
  }

  /** Requests that a shard has served. */
  served(shard: number): number {
    return Atomics.load(this.#control, 1 + shard);
  }

  /** A call by a plan; `serviceUs` says how long a shard is to take for a target. */
  call(
    plan: Plan,
    timeoutMs: number,
    serviceUs: (target: PlanTarget) => number,
    overrides: Partial<ExecutionCall<ReplicaAnswer>> = {},
  ): ExecutionCall<ReplicaAnswer> {
    const { plane } = this;
    return {
      plan,
      deadlineAtMs: systemClock.nowMs() + timeoutMs,
      idempotent: true,
      send: (target, header, deadlineAtMs, sink, nowMs) => {
        const body = new Body(serviceUs(target), target.vshards);
        const requester = plane.requester(target.shard);
        return requester.request(TYPE, VSHARD_LISTED, PRIORITY.NORMAL, deadlineAtMs, body, sink, nowMs, header);
      },
      cancel: (shard, pending, error) => void plane.requester(shard).cancel(pending as PendingRequest, error),
      decode,
      ...overrides,
    };
  }

  /** Ends a shard's thread in whatever it is doing. */
  async kill(shard: number): Promise<void> {
    await this.#workers[shard]?.terminate();
    this.plane.lose(shard, new ShardloomError("ERR_WORKER_LOST", `Cannot reach shard ${shard} as it was killed`));
  }

  async close(): Promise<void> {
    this.plane.close();
    Atomics.store(this.#control, 0, 1);
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }
}

function decode({ i32, offset }: ReplyFrame, { shard }: PlanTarget): Decoded<ReplicaAnswer> {
  const at = offset >> 2;
  if (i32[at] !== shard) throw new Error(`shard ${i32[at]} answered for shard ${shard}`);
  const count = i32[at + 1] as number;
  return { answer: { shard, vshards: [...i32.subarray(at + 2, at + 2 + count)] }, items: count, refused: NONE_REFUSED };
}
