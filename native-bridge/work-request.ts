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

/** Operations of work requests. */
export const OPCODE = { READ: 1, WRITE: 2, COMPARE_AND_SWAP: 3, FETCH_ADD: 4 } as const;

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
}

/** Executes one request and appends its completion. The caller has checked that the queue has room. */
export function executeRequest(verbs: Verbs, completions: CompletionQueue, request: WorkRequest | null | undefined): void {
  const opcode = Number(request?.opcode);
  verbs.atomicResult = 0;
  const status = isObject(request) && isObject(request?.ref) ? perform(verbs, request as WorkRequest) : STATUS.INVALID_REQUEST;
  const byteLength = status === STATUS.SUCCESS ? (request as WorkRequest).ref.length : 0;
  completions.push(Number(request?.id), opcode, status, byteLength, verbs.atomicResult);
}

function perform(verbs: Verbs, request: WorkRequest): number {
  const { ref, local, localOffset = 0, expected, desired, delta } = request;
  switch (request.opcode) {
    case OPCODE.READ:
      return isObject(local) ? verbs.read(ref, local as LocalView, localOffset) : STATUS.INVALID_REQUEST;
    case OPCODE.WRITE:
      return isObject(local) ? verbs.write(ref, local as LocalView, localOffset) : STATUS.INVALID_REQUEST;
    case OPCODE.COMPARE_AND_SWAP:
      return expected === undefined || desired === undefined ? STATUS.INVALID_REQUEST : verbs.compareAndSwap(ref, expected, desired);
    case OPCODE.FETCH_ADD:
      return delta === undefined ? STATUS.INVALID_REQUEST : verbs.fetchAdd(ref, delta);
    default:
      return STATUS.INVALID_REQUEST;
  }
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}
