/**
 * A world of disks and a NATS stand-in without clusters: runs a workload's operations while nodes crash, and judges the history.
 *
 * What the real world does with a node is here a disk that crashes and is mounted again.
 */
import type { Cluster } from "../../src/cluster.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { Disk } from "../../src/runtime/disk.ts";
import { SimDisk } from "../../src/sim/disk.ts";
import type { Fault, FaultInjector, FaultRates, TimedFault } from "../../src/sim/fault-types.ts";
import type { HistoryEntry, HistoryType, Violation } from "../../src/sim/history-types.ts";
import { createFaultInjector } from "../../src/sim/injector.ts";
import { SimNats } from "../../src/sim/nats.ts";
import type { NatsClient } from "../../src/sim/nats-client.ts";
import type { Operation, Workload } from "../../src/sim/workload-types.ts";
import { SteppedLoop, schedulerOf } from "./stepped-loop.ts";

export interface MiniOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly durationMs: number;
  readonly rates: FaultRates;
  /** Crashes (targets: nodes), and what disks and NATS know. */
  readonly timed?: readonly TimedFault[];
  /** What a process gets for a disk. @default the disk */
  readonly wrap?: (disk: Disk) => Disk;
}

export interface MiniResult {
  readonly history: readonly HistoryEntry[];
  readonly violations: readonly Violation[];
  readonly faults: readonly Fault[];
  readonly disks: readonly SimDisk[];
}

interface Node {
  readonly name: string;
  readonly disk: SimDisk;
  /** Undefined while it is down. */
  up: { readonly disk: Disk; readonly nats: NatsClient } | undefined;
  /** Called when it goes down or comes up. */
  readonly changed: Set<() => void>;
}

export async function runMini(workload: Workload, options: MiniOptions): Promise<MiniResult> {
  const world = new MiniWorld(options);
  return world.run(workload);
}

class MiniWorld {
  readonly #options: MiniOptions;
  readonly #loop: SteppedLoop;
  readonly #faults: FaultInjector;
  readonly #nats: SimNats;
  readonly #nodes: readonly Node[];
  readonly #history: HistoryEntry[] = [];

  constructor(options: MiniOptions) {
    this.#options = options;
    this.#loop = new SteppedLoop(options.seed);
    this.#faults = createFaultInjector(options.rates, (name) => this.#loop.stream(name), options.timed ?? []);
    this.#nats = new SimNats({ loop: this.#loop, faults: this.#faults });
    this.#nodes = Array.from({ length: options.nodes }, (_, index) => {
      const name = `n${index}`;
      const disk = new SimDisk({ node: name, loop: this.#loop, faults: this.#faults });
      return { name, disk, up: undefined, changed: new Set() };
    });
  }

  async run(workload: Workload): Promise<MiniResult> {
    const { nodes, durationMs } = this.#options;
    for (const node of this.#nodes) this.#start(node);
    for (const fault of this.#faults.timed) this.#loop.at(fault.atMs * 1000, () => this.#begin(fault));
    const operations = workload.generate(this.#loop.stream("workload"), { nodes, durationMs });
    const processes = [...new Set(operations.map(({ process }) => process))];
    const clients = processes.map((process) =>
      this.#process(
        workload,
        operations.filter((operation) => operation.process === process),
      ),
    );
    await this.#loop.runUntil(durationMs * 1000);
    this.#faults.quiet();
    this.#nats.heal();
    for (const { disk } of this.#nodes) disk.heal();
    await this.#loop.finish(Promise.all(clients));
    // Whatever is still only in a cache must not be what the check sees.
    for (const node of this.#nodes) this.#stop(node);
    for (const node of this.#nodes) this.#start(node);
    const view = this.#nodes.map(({ name, up }) => ({
      name,
      disk: up?.disk as Disk,
      state: undefined,
      cluster: NO_CLUSTER,
      scheduler: schedulerOf(this.#loop),
    }));
    const given = { history: this.#history, faults: this.#faults.injected, mayForget: false, lost: [], nodes: view };
    const violations = await this.#loop.finish(Promise.resolve(workload.check(given)));
    const disks = this.#nodes.map(({ disk }) => disk);
    return { history: this.#history, violations, faults: this.#faults.injected, disks };
  }

  #begin(fault: TimedFault): void {
    this.#faults.began(fault);
    this.#nats.begin(fault);
    for (const node of this.#nodes) {
      if (fault.targets.includes(node.disk.site)) node.disk.begin(fault);
      if (fault.kind !== "crash" || !fault.targets.includes(node.name) || node.up === undefined) continue;
      this.#stop(node);
      this.#loop.at(this.#loop.nowUs + fault.durationMs * 1000, () => this.#start(node));
    }
  }

  #start(node: Node): void {
    const disk = node.disk.mount();
    node.up = { disk: this.#options.wrap?.(disk) ?? disk, nats: this.#nats.connect(node.name) };
    for (const changed of [...node.changed]) changed();
  }

  #stop(node: Node): void {
    node.disk.crash();
    this.#nats.disconnect(node.name);
    node.up = undefined;
    for (const changed of [...node.changed]) changed();
  }

  async #process(workload: Workload, operations: readonly Operation[]): Promise<void> {
    for (const operation of operations) {
      await this.#sleep(operation.afterMs);
      const node = this.#nodes[operation.process % this.#nodes.length] as Node;
      while (node.up === undefined) await this.#change(node);
      this.#record("invoke", operation, operation.value);
      const { disk, nats } = node.up;
      const { process } = operation;
      const work = workload.invoke(operation, {
        node: node.name,
        process,
        cluster: NO_CLUSTER,
        state: undefined,
        disk,
        nats,
        scheduler: schedulerOf(this.#loop),
      });
      try {
        const answer = await Promise.race([work, this.#change(node).then(() => DOWN)]);
        if (answer === DOWN) this.#record("info", operation, operation.value, "ERR_WORKER_LOST");
        else this.#record("ok", operation, answer);
      } catch (error) {
        const type = workload.failed?.(error) === true ? "fail" : "info";
        this.#record(type, operation, operation.value, ShardloomError.from(error).code);
      }
    }
  }

  #record(type: HistoryType, { f, process }: Operation, value: unknown, error?: string): void {
    const entry = { type, f, process, time: Math.round(this.#loop.nowUs * 1000), index: this.#history.length, value };
    this.#history.push(error === undefined ? entry : { ...entry, error });
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.#loop.at(this.#loop.nowUs + ms * 1000, resolve);
    });
  }

  #change(node: Node): Promise<void> {
    return new Promise((resolve) => {
      const changed = (): void => {
        node.changed.delete(changed);
        resolve();
      };
      node.changed.add(changed);
    });
  }
}

const DOWN = Symbol("down");
const NO_CLUSTER = undefined as unknown as Cluster;
