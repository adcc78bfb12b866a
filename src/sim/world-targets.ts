/**
 * What faults act on in a world: its nodes, their clocks and workers.
 *
 * Invariant: a fault that has nothing to hit says so, and is then not counted as one that hit.
 */
import type { FaultTargets, FaultyService } from "./fault-driver.ts";
import type { SimNetwork } from "./network.ts";
import type { NodeService } from "./node-service.ts";
import type { WorldNode } from "./world-node.ts";

/** The targets of one world. */
export class WorldTargets implements FaultTargets {
  readonly nodes: readonly string[];
  readonly network: SimNetwork;
  readonly nats: FaultyService;
  readonly #disks: ReadonlyMap<string, FaultyService>;
  readonly #services: ReadonlyMap<string, NodeService>;

  constructor(
    services: readonly NodeService[],
    network: SimNetwork,
    disks: ReadonlyMap<string, FaultyService>,
    nats: FaultyService,
  ) {
    this.#disks = disks;
    this.nats = nats;
    this.nodes = services.map(({ name }) => name);
    this.network = network;
    this.#services = new Map(services.map((service) => [service.name, service]));
  }

  crashNode(node: string): void {
    this.#service(node).crash();
  }

  killNode(node: string): void {
    this.#service(node).crash("process");
  }

  restartNode(node: string): void {
    this.#service(node).start();
  }

  loseNode(node: string): void {
    this.#service(node).lose();
  }

  pauseNode(node: string): void {
    this.#node(node).pause();
  }

  resumeNode(node: string): void {
    this.#node(node).resume();
  }

  stepClock(node: string, ms: number): void {
    this.#node(node).clock.step(ms * 1000);
  }

  driftClock(node: string, ppm: number): void {
    this.#node(node).clock.setRate(1 + ppm / 1e6);
  }

  skewClock(node: string, ms: number): void {
    this.#node(node).clock.step(ms * 1000);
  }

  killWorker(node: string, worker: number): boolean {
    return this.#node(node).killWorker(worker);
  }

  slowWorker(node: string, worker: number, factor: number): boolean {
    return this.#node(node).slowWorker(worker, factor);
  }

  tearRegion(node: string, worker: number, size: number): boolean {
    return this.#node(node).tearRegion(worker, size);
  }

  corruptRing(node: string, worker: number, size: number): boolean {
    return this.#node(node).corruptRing(worker, size);
  }

  disk(node: string): FaultyService | undefined {
    return this.#disks.get(node);
  }

  #service(name: string): NodeService {
    return this.#services.get(name) as NodeService;
  }

  #node(name: string): WorldNode {
    return this.#service(name).node;
  }
}
