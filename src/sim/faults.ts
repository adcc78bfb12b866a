/**
 * From what users write to rates: "none", "all", "swarm", names, or rates by name.
 *
 * Invariant: what comes out names only kinds that exist, with rates above 0 that are finite, and probabilities of at most 1;
 * the same option, seed and shape give the same rates.
 * Source: swarm testing: Groce, Zhang, Eide, Chen and Regehr, "Swarm Testing", ISSTA 2012: leaving features out finds more.
 */
import { invalidArgument } from "../errors.ts";
import type { Random } from "../runtime/random.ts";
import { FAULT_TABLE } from "./fault-table.ts";
import { FAULT_KINDS, type Fault, type FaultKind, type FaultRates, type FaultsOption } from "./fault-types.ts";

/** The world that faults are for. */
export interface FaultShapeOptions {
  /** Names of the nodes, at least one. */
  readonly nodes: readonly string[];
  /** Workers of each node, `n0/w0`, `n0/w1`, ... @default 1 */
  readonly workersPerNode?: number;
  /** How many nodes hold each acknowledged write: what dies with fewer nodes than that is somewhere else. @default 1 */
  readonly acks?: number;
  /** Most nodes that are crashed or lost at one time. @default less than a majority, and fewer than `acks` */
  readonly maxCrashed?: number;
  /** Most nodes that never come back, in `[0, maxCrashed]`. @default the same */
  readonly maxLost?: number;
  /** How long after its restart, in simulated ms, a node still counts as crashed: until it has its copies again. @default 15000 */
  readonly recoveryMs?: number;
  /** Whether there are disks and a NATS stand-in to fail. @default false */
  readonly disks?: boolean;
  readonly nats?: boolean;
  /** Whether nodes keep their data on these disks. @default false */
  readonly storage?: boolean;
  /** Faults after which a node has all that it acknowledged, so that any number of nodes may have them at one time. @default none */
  readonly survives?: readonly FaultKind[];
}

export type FaultShape = Required<FaultShapeOptions>;

const DEFAULT_RECOVERY_MS = 15_000;
const ACTION = "create world";

/**
 * Fills and checks a shape.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the field, among others when more nodes may crash than there are.
 */
export function resolveFaultShape(options: FaultShapeOptions): FaultShape {
  const {
    nodes,
    workersPerNode = 1,
    acks = 1,
    recoveryMs = DEFAULT_RECOVERY_MS,
    disks = false,
    nats = false,
    storage = false,
    survives = [],
  } = options;
  if (!Array.isArray(nodes) || nodes.length === 0 || new Set(nodes).size !== nodes.length)
    throw invalidArgument(ACTION, "nodes", "at least one name, each once", nodes);
  checkInteger("workersPerNode", workersPerNode, 1, Number.MAX_SAFE_INTEGER);
  checkInteger("acks", acks, 1, Number.MAX_SAFE_INTEGER);
  if (!Number.isFinite(recoveryMs) || recoveryMs < 0)
    throw invalidArgument(ACTION, "recoveryMs", "a finite number, at least 0", recoveryMs);
  const maxCrashed = options.maxCrashed ?? Math.min(Math.floor((nodes.length - 1) / 2), acks - 1);
  checkInteger("maxCrashed", maxCrashed, 0, nodes.length);
  const maxLost = options.maxLost ?? maxCrashed;
  checkInteger("maxLost", maxLost, 0, maxCrashed);
  return { nodes, workersPerNode, acks, maxCrashed, maxLost, recoveryMs, disks, nats, storage, survives };
}

function checkInteger(name: string, value: number, min: number, max: number): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  const rule =
    max === Number.MAX_SAFE_INTEGER ? `a whole number, at least ${min}` : `a whole number in [${min}, ${max}]`;
  throw invalidArgument(ACTION, name, rule, value);
}

/**
 * The rates that an option means.
 *
 * Kinds that the shape leaves nothing to hit are left out: crashes where none may crash, disks where there are none.
 *
 * @param stream Draws a swarm's kinds and rates; unused otherwise.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the field: unknown fault names, rates that are none.
 */
export function resolveFaults(option: FaultsOption, stream: Random, shape: FaultShape): FaultRates {
  const rates = ratesOf(option, stream);
  return Object.fromEntries(
    FAULT_KINDS.flatMap((kind) => {
      const rate = rates[kind] ?? 0;
      return rate > 0 && isPossible(kind, shape) ? [[kind, rate]] : [];
    }),
  );
}

function ratesOf(option: FaultsOption, stream: Random): FaultRates {
  if (option === "none") return {};
  if (option === "all") return defaultRates(FAULT_KINDS);
  if (option === "swarm") return swarm(stream);
  if (Array.isArray(option)) {
    for (const [index, name] of option.entries()) checkKind(`faults[${index}]`, name);
    return defaultRates(option as readonly FaultKind[]);
  }
  if (typeof option !== "object" || option === null)
    throw invalidArgument(ACTION, "faults", '"none", "all", "swarm", names of faults or rates by name', option);
  for (const [name, rate] of Object.entries(option)) checkRate(name, rate);
  return option as FaultRates;
}

function defaultRates(kinds: readonly FaultKind[]): FaultRates {
  return Object.fromEntries(kinds.map((kind) => [kind, FAULT_TABLE[kind].defaultRate]));
}

/** Each kind with probability one half, at between a tenth and five times its default. */
function swarm(stream: Random): FaultRates {
  return Object.fromEntries(
    FAULT_KINDS.flatMap((kind) => {
      const isIn = stream.float() < 0.5;
      const factor = 0.1 * 50 ** stream.float();
      const { form, defaultRate } = FAULT_TABLE[kind];
      const rate = form === "drawn" ? Math.min(1, defaultRate * factor) : defaultRate * factor;
      return isIn ? [[kind, rate]] : [];
    }),
  );
}

function checkKind(field: string, name: unknown): asserts name is FaultKind {
  if (typeof name !== "string" || !Object.hasOwn(FAULT_TABLE, name))
    throw invalidArgument(ACTION, field, `one of ${FAULT_KINDS.join(", ")}`, name);
}

function checkRate(name: string, rate: unknown): void {
  if (!Object.hasOwn(FAULT_TABLE, name))
    throw invalidArgument(ACTION, `a name in faults`, `one of ${FAULT_KINDS.join(", ")}`, name);
  const isDrawn = FAULT_TABLE[name as FaultKind].form === "drawn";
  if (typeof rate === "number" && Number.isFinite(rate) && rate >= 0 && !(isDrawn && rate > 1)) return;
  const rule = isDrawn ? "a probability in [0, 1]" : "a finite number a minute, at least 0";
  throw invalidArgument(ACTION, `faults[${JSON.stringify(name)}]`, rule, rate);
}

function isPossible(kind: FaultKind, shape: FaultShape): boolean {
  switch (FAULT_TABLE[kind].scope) {
    case "message":
    case "link":
    case "nodes":
      return shape.nodes.length >= fewestNodes(kind);
    case "disk":
      return shape.disks;
    case "nats":
      return shape.nats;
    case "node":
      if (kind === "node-kill" && !shape.storage) return false; // all the same to who keeps nothing
      return kind === "lose"
        ? shape.maxLost > 0
        : !isDown(kind) || shape.survives.includes(kind) || shape.maxCrashed > 0;
    case "power":
      return shape.storage;
    case "worker":
      return kind !== "worker-io-crash" || shape.storage;
  }
}

/** Below this a kind would do nothing, or be another kind. */
function fewestNodes(kind: FaultKind): number {
  if (kind === "partition-ring") return 4;
  return kind === "partition-bridge" ? 3 : 2;
}

/**
 * Checks faults that somebody wrote down: a script, or the faults of an earlier run.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the field: an unknown kind, the wrong form for it, a time, size or
 * target that is none, or more nodes down at one time than `maxCrashed` or `maxLost`.
 */
export function checkFaults(faults: readonly Fault[], shape: FaultShape): void {
  if (!Array.isArray(faults)) throw invalidArgument(ACTION, "faults", "an array of faults", faults);
  for (const [index, fault] of faults.entries()) checkFault(`faults[${index}]`, fault, shape);
  const limits = new DownLimits(shape);
  const crashes = faults.flatMap((fault, index) => ("atMs" in fault ? [{ fault, index }] : []));
  crashes.sort((one, other) => one.fault.atMs - other.fault.atMs);
  for (const { fault, index } of crashes) {
    if (!isDown(fault.kind)) continue;
    const reason = limits.refuses(fault.kind, fault.targets[0] as string, fault.atMs);
    if (reason !== undefined) throw invalidArgument(ACTION, `faults[${index}].targets[0]`, reason, fault.targets[0]);
    limits.add(fault.kind, fault.targets[0] as string, fault.atMs, fault.durationMs);
  }
}

function checkFault(field: string, fault: Fault, shape: FaultShape): void {
  checkKind(`${field}.kind`, fault.kind);
  const { form, scope } = FAULT_TABLE[fault.kind];
  checkNumber(`${field}.size`, fault.size, 1);
  if (form === "drawn") {
    if (!("ordinal" in fault) || !Number.isSafeInteger(fault.ordinal) || fault.ordinal < 0)
      throw invalidArgument(
        ACTION,
        `${field}.ordinal`,
        "a whole number, at least 0",
        "ordinal" in fault ? fault.ordinal : undefined,
      );
    if (typeof fault.site !== "string") throw invalidArgument(ACTION, `${field}.site`, "a string", fault.site);
    return;
  }
  if (!("atMs" in fault)) throw invalidArgument(ACTION, `${field}.atMs`, "a finite number, at least 0", undefined);
  checkNumber(`${field}.atMs`, fault.atMs, Number.POSITIVE_INFINITY);
  checkNumber(`${field}.durationMs`, fault.durationMs, Number.POSITIVE_INFINITY);
  const count = scope === "nodes" || scope === "power" ? undefined : scope === "link" ? 2 : 1;
  if (
    !Array.isArray(fault.targets) ||
    fault.targets.length === 0 ||
    (count !== undefined && fault.targets.length !== count)
  )
    throw invalidArgument(
      ACTION,
      `${field}.targets`,
      `${count ?? "some"} of ${FAULT_TABLE[fault.kind].where}`,
      fault.targets,
    );
  fault.targets.forEach((target, index) => {
    if (!isTarget(scope, target, shape))
      throw invalidArgument(
        ACTION,
        `${field}.targets[${index}]`,
        `a part of the world: ${FAULT_TABLE[fault.kind].where}`,
        target,
      );
  });
}

function checkNumber(field: string, value: number, below: number): void {
  if (Number.isFinite(value) && value >= 0 && value < below) return;
  throw invalidArgument(ACTION, field, below === 1 ? "in [0, 1)" : "a finite number, at least 0", value);
}

function isTarget(scope: string, target: string, shape: FaultShape): boolean {
  if (scope === "nats") return target === "nats" && shape.nats;
  const [node = "", part] = target.split("/");
  if (!shape.nodes.includes(node)) return false;
  if (scope === "disk") return part === "disk" && shape.disks;
  if (scope !== "worker") return part === undefined;
  const worker = /^w(0|[1-9]\d*)$/.exec(part ?? "");
  return worker !== null && Number(worker[1]) < shape.workersPerNode;
}

/** Faults that take one node down. */
type DownKind = "crash" | "node-kill" | "lose";

export function isDown(kind: FaultKind): kind is DownKind {
  return kind === "crash" || kind === "node-kill" || kind === "lose";
}

/**
 * How many nodes are down at a time, asked in the order of their times.
 *
 * A node that restarts still counts for `recoveryMs`: its memory was lost, and until it has its copies again the next crash may
 * take the last copy of a write. A lost node counts for ever, and one that has everything on its disk not at all.
 */
export class DownLimits {
  readonly #shape: FaultShape;
  #down: { readonly node: string; readonly kind: DownKind; readonly untilMs: number }[] = [];

  constructor(shape: FaultShape) {
    this.#shape = shape;
  }

  /** Why a node cannot go down now, in words that follow "must be"; undefined when it can. */
  refuses(kind: DownKind, node: string, atMs: number): string | undefined {
    this.#down = this.#down.filter(({ untilMs }) => untilMs > atMs);
    if (this.#down.some((other) => other.node === node)) return "a node that is not down or recovering then";
    if (this.#survives(kind)) return undefined;
    if (this.#down.filter((other) => !this.#survives(other.kind)).length >= this.#shape.maxCrashed)
      return `one of at most ${this.#shape.maxCrashed} nodes that are down at one time`;
    const lost = this.#down.filter((other) => other.kind === "lose").length;
    if (kind === "lose" && lost >= this.#shape.maxLost)
      return `one of at most ${this.#shape.maxLost} nodes that are lost`;
    return undefined;
  }

  add(kind: DownKind, node: string, atMs: number, durationMs: number): void {
    const recoveryMs = this.#survives(kind) ? 0 : this.#shape.recoveryMs;
    const untilMs = kind === "lose" ? Number.POSITIVE_INFINITY : atMs + durationMs + recoveryMs;
    this.#down.push({ node, kind, untilMs });
  }

  #survives(kind: DownKind): boolean {
    return this.#shape.survives.includes(kind);
  }
}
