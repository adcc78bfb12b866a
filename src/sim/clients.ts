/**
 * The client processes of a run: each runs its operations one after the other, on the node that it lives on.
 *
 * Invariant: a process has one operation open at a time. When its node crashes, what it had open ends as `info`, as nobody knows; it goes on once
 * the node serves again, and not at all when the node is lost. Everything that a client is told is in the history.
 */
import { ShardloomError } from "../errors.ts";
import type { History } from "./history.ts";
import type { WorldLoop } from "./loop.ts";
import type { NodeService } from "./node-service.ts";
import { workloadFailed } from "./workload-run.ts";
import type { Operation, Workload } from "./workload-types.ts";

/** Code under which operations end whose node crashed. */
export const NODE_CRASHED = "ERR_NODE_CRASHED";

/** What clients need. */
export interface ClientsOptions {
  readonly loop: WorldLoop;
  readonly history: History;
  readonly workload: Workload;
  readonly services: readonly NodeService[];
  readonly operations: readonly Operation[];
  /** The workload threw. */
  readonly onFailure: (error: ShardloomError) => void;
  /** No process has anything left to do, nor open. */
  readonly onDone: () => void;
}

interface Process {
  readonly number: number;
  readonly service: NodeService;
  readonly operations: readonly Operation[];
  next: number;
  /** Counts what it began: an answer to an older operation is nobody's. */
  turn: number;
  state: "pausing" | "waiting" | "open" | "done";
}

/** All client processes. */
export class Clients {
  readonly #options: ClientsOptions;
  readonly #processes: readonly Process[];
  readonly #invoked: Map<string, number> = new Map();
  #stopped = false;

  constructor(options: ClientsOptions) {
    this.#options = options;
    const { services, operations } = options;
    const byProcess = new Map<number, Operation[]>();
    for (const operation of operations) {
      const own = byProcess.get(operation.process);
      if (own === undefined) byProcess.set(operation.process, [operation]);
      else own.push(operation);
    }
    this.#processes = [...byProcess].map(([number, own]) => ({
      number,
      service: services[number % services.length] as NodeService,
      operations: own,
      next: 0,
      turn: 0,
      state: "pausing",
    }));
  }

  /** Operations that were begun on a node. */
  invokedOn(node: string): number {
    return this.#invoked.get(node) ?? 0;
  }

  /** Operations that were begun. */
  get invoked(): number {
    let sum = 0;
    for (const count of this.#invoked.values()) sum += count;
    return sum;
  }

  /** Whether nothing is open. */
  get idle(): boolean {
    return this.#processes.every(({ state }) => state !== "open");
  }

  /** Whether nothing is open, and nothing will be. */
  get done(): boolean {
    return this.#processes.every(({ state }) => state === "done");
  }

  start(): void {
    for (const process of this.#processes) this.#pause(process);
    this.#tellDone();
  }

  /** No process begins anything more. */
  stop(): void {
    this.#stopped = true;
    for (const process of this.#processes) if (process.state !== "open") process.state = "done";
  }

  /** A node serves: its processes go on. */
  serving(service: NodeService): void {
    for (const process of this.#processes)
      if (process.service === service && process.state === "waiting") this.#begin(process);
  }

  /** A node is down: nobody knows what became of what its processes had open. */
  down(service: NodeService): void {
    for (const process of this.#processes) {
      if (process.service !== service) continue;
      if (process.state === "open") {
        this.#record("info", process, NODE_CRASHED);
        this.#options.history.info(process.number, NODE_CRASHED);
        this.#pause(process);
      }
      if (service.lost) process.state = "done";
    }
    this.#tellDone();
  }

  /** The next operation, after its pause. */
  #pause(process: Process): void {
    const { loop } = this.#options;
    const operation = process.operations[process.next];
    if (operation === undefined || this.#stopped) {
      process.state = "done";
      return;
    }
    process.state = "pausing";
    loop.at(loop.nowUs + operation.afterMs * 1000, () => {
      if (process.state !== "pausing") return;
      if (process.service.serving === undefined) process.state = "waiting";
      else this.#begin(process);
    });
  }

  #begin(process: Process): void {
    const { history } = this.#options;
    const { service, number } = process;
    const operation = process.operations[process.next++] as Operation;
    const turn = ++process.turn;
    process.state = "open";
    this.#invoked.set(service.name, this.invokedOn(service.name) + 1);
    try {
      history.invoke(number, operation.f, operation.value);
    } catch (error) {
      this.#fail(operation, error);
      return;
    }
    this.#record("invoke", process, operation.value);
    service.node.main?.post(0, "operation", () => {
      this.#invoke(operation, process).then(
        (value) => this.#answered(process, turn, operation, value),
        (error: unknown) => this.#refused(process, turn, operation, error),
      );
    });
  }

  async #invoke(operation: Operation, { service, number }: Process): Promise<unknown> {
    const serving = service.serving as NonNullable<NodeService["serving"]>;
    return this.#options.workload.invoke(operation, { node: service.name, process: number, ...serving });
  }

  #answered(process: Process, turn: number, operation: Operation, value: unknown): void {
    if (process.turn !== turn || process.state !== "open") return;
    try {
      this.#options.history.ok(process.number, value);
    } catch (error) {
      this.#fail(operation, error);
      return;
    }
    this.#record("ok", process, value);
    this.#goOn(process);
  }

  #refused(process: Process, turn: number, operation: Operation, error: unknown): void {
    if (process.turn !== turn || process.state !== "open") return;
    if (!ShardloomError.is(error)) {
      this.#fail(operation, error);
      return;
    }
    const { history, workload } = this.#options;
    const type = workload.failed?.(error) === true ? "fail" : "info";
    history[type](process.number, error.code);
    this.#record(type, process, error.code);
    this.#goOn(process);
  }

  #goOn(process: Process): void {
    this.#pause(process);
    this.#tellDone();
  }

  #tellDone(): void {
    if (this.done) this.#options.onDone();
  }

  #fail({ f, process }: Operation, error: unknown): void {
    const { workload, onFailure } = this.#options;
    onFailure(workloadFailed(workload.name, `invoke ${f} of process ${process}`, error));
  }

  /** What clients are told belongs to the trace, answers included. */
  #record(type: string, { service, number }: Process, value: unknown): void {
    this.#options.loop.trace(type, `${service.name}/p${number}`, JSON.stringify(value) ?? "");
  }
}
