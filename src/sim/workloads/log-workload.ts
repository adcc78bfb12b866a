/**
 * Appends to a shard log on each node's disk, reads it and truncates it, while nodes crash and disks fail.
 *
 * Each node has a log that syncs, and one that lets a second pass first: that one has unsynced writes at nearly every crash, so that torn and lost
 * writes hit. What must hold is in log-rules.ts. Each append is a frame of two entries, each with a part of what is appended, so that half a frame would show.
 *
 * Processes of a log are writers that know nothing of each other: now and then one fences the others off, and some appends are made under the
 * condition that the log is what their writer takes it for: its head is the one that he saw last, and nobody fenced it with a higher epoch than his.
 */
import { invalidArgument, ShardloomError } from "../../errors.ts";
import type { Disk } from "../../runtime/disk.ts";
import type { Random } from "../../runtime/random.ts";
import type { Scheduler } from "../../runtime/scheduler.ts";
import { LOG_ENTRY, type LogFrame, type ShardLogEntry } from "../../store/log.ts";
import { SegmentLog } from "../../store/segment-log.ts";
import type { Violation } from "../history-types.ts";
import type { Operation, OperationContext, Workload, WorkloadRef, WorldView } from "../workload-types.ts";
import {
  type Appended,
  type AppendValue,
  checkLogs,
  type Fenced,
  type FinalLog,
  type Listed,
  type Truncated,
  UNSYNCED,
} from "./log-rules.ts";

/** Shape of the load. */
export interface LogWorkloadOptions {
  /** Processes of each node, at least 1. @default 2 */
  readonly processesPerNode?: number;
  /** Operations of each process in a simulated second, above 0. @default 20, so that a crash often meets a write that is not synced */
  readonly ratePerSecond?: number;
  /** Share of reads, in `[0, 1]`. @default 0.2 */
  readonly readShare?: number;
  /** Share of truncations, in `[0, 1]`; together with reads at most 1. @default 0.02 */
  readonly truncateShare?: number;
  /** Share of appends under a condition, in `[0, 1]`. @default 0.3 */
  readonly conditionalShare?: number;
  /** Share of appends in whose place a writer fences off the others, in `[0, 1]`. @default 0.05 */
  readonly fenceShare?: number;
  /** Largest entry in bytes, at least 32. @default 1500, so that some span sectors */
  readonly maxBytes?: number;
}

/** Argument of a read: entries below the head, from so many on. */
interface ReadValue extends OfLog {
  readonly back: number;
  readonly limit: number;
}

/** Argument of an append, and whether it has a condition. */
interface AppendArgument extends AppendValue, OfLog {
  readonly isConditional: boolean;
}

/** What a writer takes a log for. */
interface Known {
  head: number;
  epoch: number;
}

/** Argument of everything: which of the node's logs. */
interface OfLog {
  readonly durability: "fsync" | "os";
}

const SYNC_DELAY_MS = 1_000;
const MIN_BYTES = 32;
const READ_LIMIT = 10;
/** Failures that say that nothing was appended. */
const REFUSED: readonly string[] = ["ERR_DISK_FULL", "ERR_READ_ONLY", "ERR_STALE_EPOCH", "ERR_CORRUPT"];
/** Small segments, so that a run has many. */
const SEGMENTS = { segmentBytes: 32 * 1024, firstSegmentBytes: 4 * 1024 } as const;
/** More than any read asks for. */
const ALL_BYTES: number = 1024 * 1024;

/** The workload. Operations `append`, `read` and `truncate`. */
export function logWorkload(options: LogWorkloadOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createLogWorkload", options };
}

/** The workload itself, made inside a world by its reference. @public */
export function createLogWorkload(options: LogWorkloadOptions = {}): Workload {
  const given = resolve(options);
  const logs = new WeakMap<Disk, Map<string, Promise<SegmentLog>>>();
  const writers = new WeakMap<Disk, Map<number, Known>>();
  const open = ({ disk, scheduler }: OperationContext, durability: OfLog["durability"]): Promise<SegmentLog> => {
    const own = logs.get(disk) ?? new Map<string, Promise<SegmentLog>>();
    logs.set(disk, own);
    const known = own.get(durability);
    if (known !== undefined) return known;
    const opening = openLog(disk, scheduler, durability);
    own.set(durability, opening);
    opening.catch(() => own.delete(durability));
    return opening;
  };
  return {
    name: "log",
    generate: (random, shape) => generate(given, random, shape),
    failed: (error) => ShardloomError.is(error) && REFUSED.includes(error.code),
    invoke: async (operation, context) => {
      const { durability } = operation.value as OfLog;
      const log = await open(context, durability);
      const own = writers.get(context.disk) ?? new Map<number, Known>();
      const known = own.get(operation.process) ?? { head: log.head, epoch: log.leaseEpoch };
      writers.set(context.disk, own.set(operation.process, known));
      if (operation.f === "append") return append(log, operation, context, known);
      if (operation.f === "fence") return fence(log, operation, context, known);
      return operation.f === "read" ? read(log, operation, context) : truncate(log, operation, context);
    },
    check: async (world) => {
      // One writer: whoever still has a log gives it up first.
      for (const { disk } of world.nodes)
        for (const opening of logs.get(disk)?.values() ?? []) await (await opening).close();
      return check(world);
    },
  };
}

function openLog(disk: Disk, scheduler: Scheduler, durability: OfLog["durability"]): Promise<SegmentLog> {
  const options = { ...SEGMENTS, scheduler, durability, syncDelayMs: SYNC_DELAY_MS };
  return SegmentLog.open(disk, `log-${durability}`, options);
}

function resolve(options: LogWorkloadOptions): Required<LogWorkloadOptions> {
  const given = {
    processesPerNode: 2,
    ratePerSecond: 20,
    readShare: 0.2,
    truncateShare: 0.02,
    conditionalShare: 0.3,
    fenceShare: 0.05,
    maxBytes: 1_500,
    ...options,
  };
  const action = "create log workload";
  const { processesPerNode, ratePerSecond, readShare, truncateShare, maxBytes } = given;
  for (const name of ["conditionalShare", "fenceShare"] as const)
    if (!(given[name] >= 0 && given[name] <= 1)) throw invalidArgument(action, name, "in [0, 1]", given[name]);
  if (!Number.isInteger(processesPerNode) || processesPerNode < 1)
    throw invalidArgument(action, "processesPerNode", "an integer ≥ 1", processesPerNode);
  if (!(ratePerSecond > 0 && ratePerSecond <= 1e6))
    throw invalidArgument(action, "ratePerSecond", "above 0 and at most 1000000", ratePerSecond);
  if (!(readShare >= 0 && readShare <= 1)) throw invalidArgument(action, "readShare", "in [0, 1]", readShare);
  if (!(truncateShare >= 0 && truncateShare + readShare <= 1))
    throw invalidArgument(action, "truncateShare", "in [0, 1 - readShare]", truncateShare);
  if (!Number.isInteger(maxBytes) || maxBytes < MIN_BYTES)
    throw invalidArgument(action, "maxBytes", `an integer ≥ ${MIN_BYTES}`, maxBytes);
  return given;
}

function generate(
  options: Required<LogWorkloadOptions>,
  random: Random,
  { nodes, durationMs }: { readonly nodes: number; readonly durationMs: number },
): Operation[] {
  const { processesPerNode, ratePerSecond, readShare, truncateShare, maxBytes, conditionalShare, fenceShare } = options;
  const operations: Operation[] = [];
  const gapMs = 1_000 / ratePerSecond;
  for (let process = 0; process < nodes * processesPerNode; process++) {
    let count = 0;
    for (let atMs = 0; ; count++) {
      const afterMs = -Math.log1p(-random.float()) * gapMs;
      atMs += afterMs;
      if (atMs >= durationMs) break;
      const kind = random.float();
      const durability = Math.floor(process / nodes) % 2 === 0 ? "fsync" : "os";
      const bytes = MIN_BYTES + Math.floor(random.float() ** 2 * (maxBytes - MIN_BYTES + 1));
      const back = Math.floor(random.float() * READ_LIMIT * 2);
      const limit = 1 + Math.floor(random.float() * READ_LIMIT);
      if (kind < readShare)
        operations.push({ process, f: "read", value: { back, limit, durability } satisfies ReadValue, afterMs });
      else if (kind < readShare + truncateShare)
        operations.push({ process, f: "truncate", value: { back, durability }, afterMs });
      else if (random.float() < fenceShare)
        operations.push({ process, f: "fence", value: { durability } satisfies OfLog, afterMs });
      else {
        const isConditional = random.float() < conditionalShare;
        const value: AppendArgument = { id: `p${process}-${count}`, bytes, durability, isConditional };
        operations.push({ process, f: "append", value, afterMs });
      }
    }
  }
  return operations;
}

async function append(
  log: SegmentLog,
  operation: Operation,
  context: OperationContext,
  known: Known,
): Promise<Appended> {
  const { id, bytes, isConditional, durability } = operation.value as AppendArgument;
  const condition = isConditional ? { expectedHead: known.head, leaseEpoch: known.epoch } : undefined;
  const body = entriesOf(bodyOf(id, bytes));
  let position: number;
  try {
    position = log.append(body, condition);
  } catch (error) {
    // Whoever is refused looks again. Who was fenced off stays so until he fences off the others himself.
    known.head = log.head;
    throw error;
  }
  known.head = position;
  try {
    await log.flush();
  } catch (cause) {
    // It stays in line: nobody knows whether it will be there.
    throw new ShardloomError("ERR_IO", "Cannot say of log whether it has the entry as its disk failed", { cause });
  }
  return { node: nameOf(context.node, { durability }), position, ...(condition === undefined ? {} : { condition }) };
}

async function fence(log: SegmentLog, { value }: Operation, { node }: OperationContext, known: Known): Promise<Fenced> {
  const epoch = log.leaseEpoch + 1;
  try {
    await log.fence(epoch);
  } catch (cause) {
    if (ShardloomError.is(cause) && log.leaseEpoch < epoch) throw cause; // refused: nothing was changed
    throw new ShardloomError("ERR_IO", "Cannot say of log whether it is fenced as its disk failed", { cause });
  }
  known.epoch = epoch;
  known.head = log.head;
  return { node: nameOf(node, value as OfLog), epoch };
}

async function read(log: SegmentLog, { value }: Operation, { node }: OperationContext): Promise<Listed> {
  const { back, limit } = value as ReadValue;
  const frames = await log.read(Math.max(1, log.durable - back), ALL_BYTES);
  return {
    node: nameOf(node, value as OfLog),
    entries: frames.slice(0, limit).map((frame) => [frame.position, idOf(frame)]),
  };
}

async function truncate(log: SegmentLog, { value }: Operation, { node }: OperationContext): Promise<Truncated> {
  const below = log.durable - (value as { readonly back: number }).back;
  await log.truncateBelow(below);
  return { node: nameOf(node, value as OfLog), below };
}

/** Name of one of a node's logs. */
function nameOf(node: string, { durability }: OfLog): string {
  return durability === "os" ? `${node}${UNSYNCED}` : node;
}

/** What is appended, in two entries. */
function entriesOf(body: Uint8Array): ShardLogEntry[] {
  const half = body.length >> 1;
  const common = { kind: LOG_ENTRY.EFFECT, lsn: 1, leaseEpoch: 0, type: 1, collection: 0, idempotencyKey: "" };
  return [body.subarray(0, half), body.subarray(half)].map((part, vshard) => ({
    ...common,
    vshard,
    body: part,
    result: new Uint8Array(0),
  }));
}

/** The id, the size, and padding that both tell. */
function bodyOf(id: string, bytes: number): Uint8Array {
  const head = `${id}/${bytes}/`;
  return new TextEncoder().encode(head + "x".repeat(Math.max(0, bytes - head.length)));
}

/** The id in a frame; for one that nobody made, what is wrong with it. */
function idOf({ entries }: LogFrame): string {
  const text = entries.map(({ body }) => new TextDecoder().decode(body)).join("");
  const [id = "", bytes = ""] = text.split("/", 2);
  return text === new TextDecoder().decode(bodyOf(id, Number(bytes))) ? id : `malformed: ${text.slice(0, 40)}`;
}

async function check(world: WorldView): Promise<readonly Violation[]> {
  const finals = new Map<string, FinalLog>();
  for (const { name, disk, scheduler } of world.nodes) {
    for (const durability of ["fsync", "os"] as const) {
      finals.set(nameOf(name, { durability }), await finalOf(disk, scheduler, durability));
    }
  }
  return checkLogs(finals, world.history, world.faults);
}

async function finalOf(disk: Disk, scheduler: Scheduler, durability: OfLog["durability"]): Promise<FinalLog> {
  const log = await openLog(disk, scheduler, durability);
  const entries = new Map<number, string>();
  const { first, head, recovery } = log;
  let corruptFrom = recovery.corrupt?.position ?? Number.POSITIVE_INFINITY;
  for (let next = first; next <= head && next < corruptFrom; ) {
    try {
      const frames = await log.read(next, ALL_BYTES);
      for (const frame of frames) entries.set(frame.position, idOf(frame));
      next = (frames.at(-1)?.position ?? head) + 1;
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_CORRUPT") throw error;
      corruptFrom = Number(error.details["position"]); // the disk went bad after it was opened
    }
  }
  await log.close();
  return { entries, first, corruptFrom };
}
