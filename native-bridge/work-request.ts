/**
 * Work requests: operations as data, executed in order, each ending in exactly one completion.
 *
 * Invariant: a malformed request ends in INVALID_REQUEST and stops nothing behind it.
 * Source: verbs work requests (`ibv_send_wr`). Divergence: one local buffer each, no scatter list.
 */
import type { CompletionQueue } from "./completion-queue.ts";
import type { RegionRef } from "./region-layout.ts";
import { STATUS } from "./status.ts";
import type { Verbs } from "./verbs.ts";
import type { LocalView } from "./word-copy.ts";

/** Operations of work requests. VISIT is a read in place, and copies nothing by itself. */
export const OPCODE = { READ: 1, WRITE: 2, COMPARE_AND_SWAP: 3, FETCH_ADD: 4, VISIT: 5 } as const;

/** One operation of a list; `local` is the target of READ and the source of WRITE. */
export interface WorkRequest {
  /** The caller's number; comes back in the completion. */
  readonly id: number;
  readonly opcode: number;
  readonly ref: RegionRef;
  readonly local?: LocalView;
  /** In elements of `local`. @default 0 */
  readonly localOffset?: number;
  readonly expected?: number;
  readonly desired?: number;
  readonly delta?: number;
  /** Of VISIT: looks at the bytes, as in `readInPlace`; it may run again, and what it saw counts only with SUCCESS. */
  readonly visit?: (arena: Uint8Array, byteOffset: number, byteLength: number) => void;
}

/** Executes one request and appends its completion. The caller has checked that the queue has room. */
export function executeRequest(
  verbs: Verbs,
  completions: CompletionQueue,
  request: WorkRequest | null | undefined,
): void {
  const opcode = numberOf(request?.opcode);
  verbs.atomicResult = 0;
  const status =
    isObject(request) && isObject(request?.ref) ? perform(verbs, request as WorkRequest) : STATUS.INVALID_REQUEST;
  const byteLength = status === STATUS.SUCCESS ? (request as WorkRequest).ref.length : 0;
  completions.push(numberOf(request?.id), opcode, status, byteLength, verbs.atomicResult);
}

function perform(verbs: Verbs, request: WorkRequest): number {
  const { ref, local, localOffset = 0, expected, desired, delta, visit } = request;
  switch (request.opcode) {
    case OPCODE.READ:
      return isView(local) ? verbs.read(ref, local, localOffset) : STATUS.INVALID_REQUEST;
    case OPCODE.WRITE:
      return isView(local) ? verbs.write(ref, local, localOffset) : STATUS.INVALID_REQUEST;
    case OPCODE.COMPARE_AND_SWAP:
      return typeof expected === "number" && typeof desired === "number"
        ? verbs.compareAndSwap(ref, expected, desired)
        : STATUS.INVALID_REQUEST;
    case OPCODE.FETCH_ADD:
      return typeof delta === "number" ? verbs.fetchAdd(ref, delta) : STATUS.INVALID_REQUEST;
    case OPCODE.VISIT:
      return typeof visit === "function" ? verbs.readInPlace(ref, visit).status : STATUS.INVALID_REQUEST;
    default:
      return STATUS.INVALID_REQUEST;
  }
}

/** `Number` throws for a symbol. */
function numberOf(value: unknown): number {
  return typeof value === "number" ? value : Number.NaN;
}

function isView(value: unknown): value is LocalView {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}
