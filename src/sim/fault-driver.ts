/**
 * FaultDriver: begins and ends timed faults on the loop, and heals everything when the quiet phase comes.
 *
 * Invariant: what began is ended once, by its own time or by {@link FaultDriver.quiet}, and only what really hit is recorded: a
 * fault whose target is down or gone when its time comes is left out. A node is in one state at a time (up, paused, crashed,
 * lost); of two faults that hold the same thing, the later one has it, and the end of the earlier does nothing.
 */
import { ShardloomError } from "../errors.ts";
import { FAULT_TABLE } from "./fault-table.ts";
import type { FaultInjector, TimedFault } from "./fault-types.ts";
import type { Loop } from "./loop-types.ts";
import type { SimNetwork } from "./network.ts";
import { cutPairs } from "./partitions.ts";

/** A part with faults of its own, which it ends by itself: a disk, the NATS stand-in. */
export interface FaultyService {
  /** The fault begins now, for its duration. @returns false when the part has no such fault */
  begin(fault: TimedFault): boolean;
  /** Everything that began is over, now. */
  heal(): void;
}

/** What faults act on: a world implements it. All calls act at once; what follows from them takes world time. */
export interface FaultTargets {
  readonly nodes: readonly string[];
  readonly network: SimNetwork;
  /** The power of the node fails: its memory is gone, and what was not synced; tells the network too. */
  crashNode(node: string): void;
  /** Starts a crashed node again, with its disk. */
  restartNode(node: string): void;
  /** As {@link FaultTargets.crashNode}, but its machine goes on: what was written to its disk is there. */
  killNode(node: string): void;
  /** As {@link FaultTargets.crashNode}, for good: its disk is gone too. */
  loseNode(node: string): void;
  pauseNode(node: string): void;
  resumeNode(node: string): void;
  /** The clock jumps forwards. */
  stepClock(node: string, ms: number): void;
  /** From now on the clock runs faster by so many parts per million (slower when negative); 0 is true time. */
  driftClock(node: string, ppm: number): void;
  /** Called before the node starts only: its clock starts so far ahead. */
  skewClock(node: string, ms: number): void;
  /** @returns false when there is no such worker now; so for all faults of workers. */
  killWorker(node: string, worker: number): boolean;
  /** Everything takes `factor` times as long; 1 ends it. */
  slowWorker(node: string, worker: number, factor: number): boolean;
  /** See `tearRegion` in memory-faults.ts. @returns false when there was nothing to tear */
  tearRegion(node: string, worker: number, size: number): boolean;
  /** See `corruptRing` in memory-faults.ts. @returns false when there was nothing to damage */
  corruptRing(node: string, worker: number, size: number): boolean;
  /** Undefined when the world has none. */
  disk(node: string): FaultyService | undefined;
  readonly nats: FaultyService | undefined;
}

/** Undoes a fault. */
type End = () => void;
type NodeState = "up" | "paused" | "crashed" | "lost";

const NOTHING_TO_END: End = () => undefined;

export class FaultDriver {
  readonly #loop: Loop;
  readonly #injector: FaultInjector;
  readonly #targets: FaultTargets;
  readonly #states: Map<string, NodeState> = new Map();
  /** What is held → the fault that holds it. */
  readonly #holders: Map<string, TimedFault> = new Map();
  readonly #active: Map<TimedFault, End> = new Map();
  #isQuiet = false;

  constructor(loop: Loop, injector: FaultInjector, targets: FaultTargets) {
    this.#loop = loop;
    this.#injector = injector;
    this.#targets = targets;
  }

  /** What must be so before the nodes start: skewed clocks. Call it before {@link FaultDriver.start} and before they do. */
  prepare(): void {
    for (const fault of this.#injector.timed) {
      if (fault.kind !== "clock-skew") continue;
      this.#targets.skewClock(fault.targets[0] as string, fault.size * FAULT_TABLE["clock-skew"].scale);
      this.#record(fault);
    }
  }

  /** Schedules all other faults, their times counted from now. */
  start(): void {
    const startUs = this.#loop.nowUs;
    for (const fault of this.#injector.timed) {
      if (fault.kind !== "clock-skew") this.#loop.at(startUs + Math.round(fault.atMs * 1000), () => this.#begin(fault));
    }
  }

  /** No more faults, and everything that can heal does, now. Lost nodes stay lost, clocks keep what they show. Idempotent. */
  quiet(): void {
    this.#isQuiet = true;
    this.#injector.quiet();
    for (const fault of [...this.#active.keys()]) this.#end(fault);
    this.#targets.network.heal();
  }

  /** Whether a node is neither down nor paused, by what was done to it here. */
  isUp(node: string): boolean {
    return this.#stateOf(node) === "up";
  }

  #begin(fault: TimedFault): void {
    if (this.#isQuiet) return;
    const end = this.#apply(fault);
    if (end === undefined) return;
    this.#record(fault);
    if (end === NOTHING_TO_END) return;
    this.#active.set(fault, end);
    this.#loop.at(this.#loop.nowUs + Math.round(fault.durationMs * 1000), () => this.#end(fault));
  }

  #end(fault: TimedFault): void {
    const end = this.#active.get(fault);
    if (end === undefined) return;
    this.#active.delete(fault);
    this.#loop.trace("fault ends", fault.targets.join(" "), fault.kind);
    end();
  }

  #record(fault: TimedFault): void {
    this.#injector.began(fault);
    this.#loop.trace("fault begins", fault.targets.join(" "), fault.kind);
  }

  /** @returns Undefined when it cannot hit now. */
  #apply(fault: TimedFault): End | undefined {
    switch (FAULT_TABLE[fault.kind].scope) {
      case "nodes":
      case "link":
        return this.#applyToNetwork(fault);
      case "node":
        return this.#applyToNode(fault, fault.targets[0] as string);
      case "power":
        return this.#failPower(fault);
      case "worker":
        return this.#applyToWorker(fault);
      case "disk":
        return this.#applyToService(fault, this.#targets.disk((fault.targets[0] as string).split("/")[0] as string));
      case "nats":
        return this.#applyToService(fault, this.#targets.nats);
      case "message":
        throw new ShardloomError("ERR_INTERNAL", `Cannot begin fault as ${fault.kind} must be drawn`);
    }
  }

  #applyToNetwork({ kind, targets }: TimedFault): End {
    const { network, nodes } = this.#targets;
    const [from = "", to = ""] = targets;
    const guard = kind === "clog" ? network.clog([{ from, to }]) : network.cut(cutPairs(kind, targets, nodes));
    return () => guard.uninstall();
  }

  #applyToNode(fault: TimedFault, node: string): End | undefined {
    const targets = this.#targets;
    const state = this.#stateOf(node);
    const scaled = fault.size * FAULT_TABLE[fault.kind].scale;
    switch (fault.kind) {
      case "crash":
      case "node-kill":
        if (state === "crashed" || state === "lost") return undefined;
        if (fault.kind === "crash") targets.crashNode(node);
        else targets.killNode(node);
        return this.#hold(fault, node, "crashed", () => targets.restartNode(node));
      case "lose":
        if (state === "lost") return undefined;
        targets.loseNode(node);
        this.#states.set(node, "lost");
        return NOTHING_TO_END;
      case "pause":
        if (state !== "up") return undefined;
        targets.pauseNode(node);
        return this.#hold(fault, node, "paused", () => targets.resumeNode(node));
      case "clock-step":
        targets.stepClock(node, scaled);
        return NOTHING_TO_END;
      case "clock-drift":
        targets.driftClock(node, Math.round((fault.size * 2 - 1) * FAULT_TABLE[fault.kind].scale));
        return this.#holdThing(fault, `clock of ${node}`, () => targets.driftClock(node, 0));
      default:
        throw new ShardloomError("ERR_INTERNAL", `Cannot begin fault as ${fault.kind} must be one of a node`);
    }
  }

  /** Nodes crash together, and start again one after the other. */
  #failPower(fault: TimedFault): End | undefined {
    const { loop, targets } = { loop: this.#loop, targets: this.#targets };
    const nodes = fault.targets.filter((node) => this.#stateOf(node) !== "lost");
    if (nodes.every((node) => this.#stateOf(node) === "crashed")) return undefined;
    const ends = nodes.map((node, at) => {
      targets.crashNode(node); // also one that is down: its disk loses power too
      const end = this.#hold(fault, node, "crashed", () => targets.restartNode(node));
      const afterMs = (fault.durationMs * (at + 1)) / nodes.length;
      if (at + 1 < nodes.length) loop.at(loop.nowUs + Math.round(afterMs * 1000), end);
      return end;
    });
    return () => {
      for (const end of ends) end(); // harmless where it came already
    };
  }

  #applyToWorker(fault: TimedFault): End | undefined {
    const targets = this.#targets;
    const [node = "", part = ""] = (fault.targets[0] as string).split("/");
    if (this.#stateOf(node) !== "up") return undefined;
    const worker = Number(part.slice(1));
    switch (fault.kind) {
      case "worker-crash":
        return targets.killWorker(node, worker) ? NOTHING_TO_END : undefined;
      case "region-torn":
        return targets.tearRegion(node, worker, fault.size) ? NOTHING_TO_END : undefined;
      case "ring-corrupt":
        return targets.corruptRing(node, worker, fault.size) ? NOTHING_TO_END : undefined;
      default: {
        const factor = 1 + fault.size * FAULT_TABLE[fault.kind].scale;
        if (!targets.slowWorker(node, worker, factor)) return undefined;
        return this.#holdThing(fault, `speed of ${node}/${part}`, () => void targets.slowWorker(node, worker, 1));
      }
    }
  }

  #applyToService(fault: TimedFault, service: FaultyService | undefined): End | undefined {
    if (service === undefined) return undefined;
    if (!service.begin(fault)) return undefined;
    if (FAULT_TABLE[fault.kind].durationMs[1] === 0) return NOTHING_TO_END;
    return () => {
      if (this.#isQuiet) service.heal(); // else it has just ended by itself
    };
  }

  #stateOf(node: string): NodeState {
    return this.#states.get(node) ?? "up";
  }

  #hold(fault: TimedFault, node: string, state: NodeState, end: End): End {
    this.#states.set(node, state);
    return this.#holdThing(fault, node, () => {
      if (this.#stateOf(node) !== state) return; // lost meanwhile
      this.#states.set(node, "up");
      end();
    });
  }

  #holdThing(fault: TimedFault, thing: string, end: End): End {
    this.#holders.set(thing, fault);
    return () => {
      if (this.#holders.get(thing) !== fault) return;
      this.#holders.delete(thing);
      end();
    };
  }
}
