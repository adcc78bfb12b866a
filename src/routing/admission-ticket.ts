/**
 * What waits for admission, how it ends, and the errors that say why it was not let in.
 *
 * Invariant: a ticket leaves the state `queued` once and its waiter is called exactly once, with a slot or with an error; all
 * changes of state are the controller's.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { PRIORITY } from "../wire/envelope-layout.ts";
import { QueueEntry } from "./fair-queue.ts";

/** Who wants in. Exactly one of the two is called, exactly once, maybe before `enter` returns; neither may throw. */
export interface AdmissionWaiter {
  /** Let in: the slot is to be given back with `leave`. */
  onAdmitted(slot: number): void;
  /** Not let in: refused (`ERR_OVERLOADED`), expired (`ERR_TIMEOUT`), or ended with the error of who cancelled it. */
  onFailure(error: ShardloomError): void;
}

/** Why a request was refused. */
export type RefusalReason =
  /** It would wait, or has waited, longer than its deadline or `maxQueueDelayMs` allows. */
  | "delay"
  /** The queue is so full that its priority is shed. */
  | "pressure"
  /** The queue has no room. */
  | "full"
  /** It had to make room for a tenant that holds less of the queue. */
  | "pushed-out";

/** Counters since creation, and the state now. */
export interface AdmissionStats {
  readonly admitted: number;
  /** By the reason of the refusal. */
  readonly refused: Readonly<Record<RefusalReason, number>>;
  readonly cancelled: number;
  readonly expired: number;
  readonly inFlight: number;
  readonly queued: number;
  readonly queuedBytes: number;
  readonly tenantsWaiting: number;
  readonly pressure: "open" | "throttled" | "suspended";
  /** How often the pressure changed its state. */
  readonly pressureChanges: number;
  /** Requests that may be in flight now, by shard. */
  readonly limits: readonly number[];
}

export type TicketState = "queued" | "admitted" | "refused" | "cancelled" | "expired";

/** One request at the door. Opaque to callers, who may only cancel it and look at its state. */
export class AdmissionTicket extends QueueEntry {
  state: TicketState = "queued";
  readonly shard: number;
  readonly bytes: number;
  readonly deadlineAtMs: number;
  /** When it stops waiting: its deadline, or as long as anything may wait. */
  readonly giveUpAtMs: number;
  readonly waiter: AdmissionWaiter;

  constructor(
    shard: number,
    priority: number,
    tenant: number,
    weight: number,
    cost: number,
    bytes: number,
    deadlineAtMs: number,
    giveUpAtMs: number,
    waiter: AdmissionWaiter,
  ) {
    super(priority, tenant, weight, cost);
    this.shard = shard;
    this.bytes = bytes;
    this.deadlineAtMs = deadlineAtMs;
    this.giveUpAtMs = giveUpAtMs;
    this.waiter = waiter;
  }
}

const ACTION = "admit request";

const REASONS: Readonly<Record<RefusalReason, string>> = {
  delay: "it would wait longer than it may",
  pressure: "work of its priority is shed",
  full: "the queue is full",
  "pushed-out": "it made room for a tenant that waits with less",
};

/**
 * The refusal of one request. It has no stack trace: a flood is refused ten thousand times a second, and each trace would
 * take ten times as long as the refusal.
 */
export function overloaded(
  reason: RefusalReason,
  ticket: AdmissionTicket,
  retryAfterMs: number,
  queued: number,
  inFlight: number,
): ShardloomError {
  const { shard, tenant, priority } = ticket;
  const { stackTraceLimit } = Error;
  Reflect.set(Error, "stackTraceLimit", 0);
  try {
    return new ShardloomError(
      "ERR_OVERLOADED",
      `Cannot admit request to shard ${shard} as ${REASONS[reason]}: ${queued} wait and ${inFlight} are in flight`,
      { details: { reason, retryAfterMs, shard, tenant, priority, queued, inFlight } },
    );
  } finally {
    Reflect.set(Error, "stackTraceLimit", stackTraceLimit);
  }
}

/** The deadline passed before the request was let in, or had passed when it came. */
export function expired(ticket: AdmissionTicket, nowMs: number): ShardloomError {
  const { shard, tenant, priority, deadlineAtMs } = ticket;
  return new ShardloomError(
    "ERR_TIMEOUT",
    `Cannot admit request to shard ${shard} as its deadline must be in the future: it passed ${(nowMs - deadlineAtMs).toFixed(1)} ms ago`,
    { details: { shard, tenant, priority, admitted: false } },
  );
}

/** Whether priority, tenant and size of a request are what they may be. */
export function isRequest(priority: number, tenant: number, bytes: number): boolean {
  return (priority === 0 || priority === 1 || priority === 2) && tenant >>> 0 === tenant && bytes >= 0;
}

/** What is wrong with a request. */
export function badRequest(
  shards: number,
  shard: number,
  priority: number,
  tenant: number,
  bytes: number,
): ShardloomError {
  if (!Number.isInteger(shard) || shard < 0 || shard >= shards)
    return invalidArgument(ACTION, "shard", `an integer in [0, ${shards - 1}]`, shard);
  if (!Number.isInteger(priority) || priority < PRIORITY.BULK || priority > PRIORITY.CONTROL)
    return invalidArgument(ACTION, "priority", "0 (bulk), 1 (normal) or 2 (control)", priority);
  if (!Number.isInteger(tenant) || tenant < 0 || tenant >= 2 ** 32)
    return invalidArgument(ACTION, "tenant", "an unsigned 32-bit integer", tenant);
  return invalidArgument(ACTION, "bytes", "a number ≥ 0", bytes);
}

/** What is wrong with the times of a reply. */
export function badTimes(serviceUs: number, queueUs: number, limit: number): ShardloomError {
  const isService = !(serviceUs >= 0 && serviceUs < limit);
  const rule = `a number of us in [0, ${limit})`;
  return invalidArgument("leave admission", isService ? "serviceUs" : "queueUs", rule, isService ? serviceUs : queueUs);
}

/** The caller's signal fired while the request waited. */
export function aborted(signal: AbortSignal): ShardloomError {
  return new ShardloomError("ERR_ABORTED", "Cannot admit request as its signal was aborted", { cause: signal.reason });
}
