/**
 * What `shardloom sim` is told, as options of a world and a workload.
 *
 * Invariant: whatever is wrong is named with its option before a world is made; what only the world can check is asked of it first.
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { CONSISTENCIES } from "../routing/plan.ts";
import { BUILT_IN_WORKLOADS } from "../sim/built-in-workloads.ts";
import { createWorld } from "../sim/create-world.ts";
import { FAULT_TABLE } from "../sim/fault-table.ts";
import type { FaultKind, FaultsOption } from "../sim/fault-types.ts";
import { FAULT_KINDS } from "../sim/fault-types.ts";
import type { WorkloadRef } from "../sim/workload-types.ts";
import { WORLD_DURABILITIES, WORLD_HEALS, type WorldOptions } from "../sim/world-types.ts";
import { type CommandContext, type OptionSpecs, UsageError } from "./command.ts";

const U32 = 2 ** 32;

export const SIM_OPTIONS: OptionSpecs = {
  seed: { type: "integer", summary: "Decides everything left to chance", min: 0, max: U32 - 1, default: 1 },
  runs: { type: "integer", summary: "Seeds to run, from --seed on", min: 1, max: 1_000_000, default: 1 },
  nodes: { type: "integer", summary: "Nodes of the cluster", min: 1, max: 32, default: 5 },
  minutes: { type: "number", summary: "Simulated minutes that the workload fills", min: 0.001, max: 1440, default: 1 },
  faults: {
    type: "string",
    summary: "What goes wrong: none, all, swarm (another part of all for each seed), or names with or without rates",
    placeholder: "drop,crash:2",
    default: "all",
  },
  workload: {
    type: "string",
    summary: `What clients do: ${Object.keys(BUILT_IN_WORKLOADS).join(", ")}, or a module's exported function, ./bank.js#bank`,
    placeholder: "NAME",
    default: "register",
  },
  "workload-options": { type: "string", summary: "Options of the workload", placeholder: "JSON" },
  "shards-per-node": { type: "integer", summary: "Worker threads of each node", min: 1, max: 16 },
  "replication-factor": { type: "integer", summary: "Copies of everything", min: 1, max: 16 },
  consistency: { type: "string", summary: "Which copies answer reads", choices: CONSISTENCIES },
  vshards: { type: "integer", summary: "Virtual shards, a power of two", min: 1, max: 4096 },
  "memory-kb": { type: "integer", summary: "Shared memory of each node, in KiB", min: 1024, max: 1_048_576 },
  "request-timeout-ms": { type: "integer", summary: "Deadline of requests, simulated", min: 1, max: 600_000 },
  durability: {
    type: "string",
    summary: "What nodes keep on simulated disks: nothing, or what an acknowledged write survives there",
    choices: WORLD_DURABILITIES,
  },
  heal: {
    type: "string",
    summary: "What heals at first when the faults are over: all, or all but a minority that stays cut off for a while",
    choices: WORLD_HEALS,
  },
  leases: { type: "boolean", summary: "Let others take over what a lost node is primary of, by leases" },
  verify: { type: "boolean", summary: "Run each seed twice and compare the hashes of the traces" },
  shrink: { type: "boolean", summary: "Cut the first failing run down to few faults and operations" },
  rule: {
    type: "string",
    summary: "Rule that must stay broken meanwhile, of the first run that breaks it (default: the first broken)",
    placeholder: "NAME",
  },
  "shrink-seconds": { type: "number", summary: "Longest time for that", min: 1, max: 86_400, default: 60 },
  test: {
    type: "string",
    summary: "Write the shrunk run as a test of vitest; shrinks also without --shrink",
    placeholder: "FILE",
  },
  html: { type: "string", summary: "Write a timeline of the first failing run, or of the last", placeholder: "FILE" },
  history: { type: "string", summary: "Write its operations as JSON lines", placeholder: "FILE" },
};

/** What a world is made of, without its seed. */
export function worldOptionsOf(context: CommandContext): WorldOptions {
  const number = (name: string): number | undefined => context.number(name);
  const consistency = CONSISTENCIES.find((name) => name === context.text("consistency"));
  const memoryKb = number("memory-kb");
  const options: { [Name in keyof WorldOptions]: WorldOptions[Name] | undefined } = {
    nodes: number("nodes"),
    minutes: number("minutes"),
    faults: parseFaults(context.text("faults") ?? "all"),
    shardsPerNode: number("shards-per-node"),
    replicationFactor: number("replication-factor"),
    consistency,
    vshards: number("vshards"),
    durability: WORLD_DURABILITIES.find((name) => name === context.text("durability")),
    heal: WORLD_HEALS.find((name) => name === context.text("heal")),
    leases: context.flag("leases") || undefined,
    memoryBytes: memoryKb === undefined ? undefined : memoryKb * 1024,
    requestTimeoutMs: number("request-timeout-ms"),
  };
  const given: WorldOptions = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  checkWorld(given, memoryKb);
  return given;
}

/** What only options together break, such as more copies than shards: asked of the world itself, and told as options of the command. */
function checkWorld(options: WorldOptions, memoryKb: number | undefined): void {
  if (memoryKb !== undefined && memoryKb % 64 !== 0)
    throw new UsageError(`--memory-kb must be a multiple of 64: current value is ${memoryKb}`);
  try {
    createWorld(options); // no thread starts before its first run
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const told = error.message.replace("Cannot create world as ", "").replace(/^faults\["(.*?)"\]/, "faults: $1");
    throw new UsageError(`--${told.replaceAll(/^\w+/g, kebab)}`, { cause: error });
  }
}

function kebab(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** `all`, `swarm`, `none`, or `drop:0.1,crash`: a name without a rate has its usual one. */
export function parseFaults(text: string): FaultsOption {
  if (text === "none" || text === "all" || text === "swarm") return text;
  const rates: Partial<Record<FaultKind, number>> = {};
  for (const part of text.split(",")) {
    const [name, rate, ...rest] = part.trim().split(":");
    const kind = FAULT_KINDS.find((candidate) => candidate === name);
    if (kind === undefined) {
      const known = `none, all, swarm, or names of ${FAULT_KINDS.join(", ")}`;
      throw new UsageError(`--faults must be ${known}: current value is ${part.trim() || "empty"}`);
    }
    if (kind in rates) throw new UsageError(`--faults must name each fault once: ${kind} stands there twice`);
    const value = rate === undefined ? FAULT_TABLE[kind].defaultRate : rate.trim() === "" ? Number.NaN : Number(rate);
    if (rest.length > 0 || !Number.isFinite(value) || value < 0) {
      throw new UsageError(`--faults must give ${kind} a rate of 0 or more: current value is ${part.trim()}`);
    }
    rates[kind] = value;
  }
  return rates;
}

/** A built-in workload by name, or `module#export` of one's own. */
export function parseWorkload(context: CommandContext): WorkloadRef {
  const text = context.text("workload") ?? "register";
  const options = parseJson(context.text("workload-options"));
  const builtIn = Object.hasOwn(BUILT_IN_WORKLOADS, text) ? BUILT_IN_WORKLOADS[text] : undefined;
  if (builtIn !== undefined) return { ...builtIn, options: options ?? {} };
  const at = text.lastIndexOf("#");
  if (at <= 0 || at === text.length - 1) {
    const known = Object.keys(BUILT_IN_WORKLOADS).join(", ");
    throw new UsageError(`--workload must be one of ${known}, or module.js#export: current value is ${text}`);
  }
  const module = text.slice(0, at);
  // A path is relative to where the command was started; anything with a scheme is a URL already.
  const isUrl = /^[a-z][a-z+.-]+:/i.test(module);
  const url = isUrl ? module : pathToFileURL(resolve(module)).href;
  return { module: url, export: text.slice(at + 1), options: options ?? {} };
}

function parseJson(text: string | undefined): unknown {
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UsageError(`--workload-options must be JSON: current value is ${text}`, { cause });
  }
}
