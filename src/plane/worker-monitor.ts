/**
 * Judges one worker from its shared words alone: fine, hung in JavaScript, or overdue in a native call.
 *
 * Invariant: looks are counted, not timed, and each look rings the worker's doorbell, so that neither a parked worker nor a
 * control plane that was itself asleep accuses anybody. Progress means that a handler or a loop turn has ended; entering and
 * leaving native calls is not progress: a handler that never ends is found, at the latest after both limits together.
 */
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import { ShardloomError } from "../errors.ts";
import type { WorkerBlock } from "./worker-block.ts";

/** What a look found. `hung-native` is hung with native calls in between: terminating it might hit one of them. */
export type Verdict = "fine" | "hung" | "hung-native" | "overdue";

/** Limits of one worker, in ms. */
export interface MonitorLimits {
  readonly maxHandlerMs: number;
  readonly maxNativeMs: number;
}

/** Looks without progress before any verdict: one to ring, one for the answer, one for a late thread. */
const LEAST_LOOKS = 3;

/** Time between two looks that suits the limits: a tenth of a second, unless they are short or long. */
export function lookIntervalMs({ maxHandlerMs, maxNativeMs }: MonitorLimits): number {
  const limitMs = Math.min(maxHandlerMs, maxNativeMs);
  return Math.max(10, Math.floor(Math.min(limitMs / 5, Math.max(100, limitMs / 15))));
}

/** Watches one worker incarnation. */
export class WorkerMonitor {
  readonly #block: WorkerBlock;
  readonly #limits: MonitorLimits;
  readonly #intervalMs: number;
  #progress = 0;
  #beats = 0;
  /** Looks without progress: all of them, those in JavaScript, and those in one and the same native call. */
  #looks = 0;
  #scriptLooks = 0;
  #nativeLooks = 0;
  #wentNative = false;

  constructor(block: WorkerBlock, limits: MonitorLimits) {
    this.#block = block;
    this.#limits = limits;
    this.#intervalMs = lookIntervalMs(limits);
  }

  /** Whether the worker's loop has begun. */
  get running(): boolean {
    return this.#block.progress !== 0;
  }

  /** How long the worker has shown no progress, by looks. */
  get quietMs(): number {
    return this.#looks * this.#intervalMs;
  }

  /** One look; call it every {@link lookIntervalMs}. */
  look(): Verdict {
    const { progress } = this.#block;
    const { state, beats } = this.#block.heartbeat.read();
    const moved = beats !== this.#beats;
    this.#beats = beats;
    if (progress !== this.#progress) {
      this.#progress = progress;
      this.#looks = 0;
      this.#scriptLooks = 0;
      this.#nativeLooks = 0;
      this.#wentNative = false;
      return "fine";
    }
    this.#block.bell.ring();
    const { maxHandlerMs, maxNativeMs } = this.#limits;
    this.#looks++;
    if (this.#past(this.#looks, maxHandlerMs + maxNativeMs)) return "hung-native";
    if (state === HEARTBEAT.NATIVE) {
      this.#wentNative = true;
      this.#nativeLooks = moved ? 1 : this.#nativeLooks + 1;
      return this.#past(this.#nativeLooks, maxNativeMs) ? "overdue" : "fine";
    }
    if (moved && this.#scriptLooks > 0) this.#wentNative = true;
    this.#scriptLooks++;
    if (!this.#past(this.#scriptLooks, maxHandlerMs)) return "fine";
    return this.#wentNative ? "hung-native" : "hung";
  }

  #past(looks: number, limitMs: number): boolean {
    return looks >= LEAST_LOOKS && looks * this.#intervalMs >= limitMs;
  }
}

/** What the requests of a judged worker fail with. */
export function verdictError(
  verdict: Verdict,
  details: { readonly shard: number; readonly incarnation: number; readonly quietMs: number },
  { maxHandlerMs, maxNativeMs }: MonitorLimits,
): ShardloomError {
  const { shard } = details;
  if (verdict === "overdue") {
    const message = `Cannot finish request as a native call held shard ${shard} for more than ${maxNativeMs} ms`;
    return new ShardloomError("ERR_NATIVE_QUARANTINED", message, { details: { ...details, maxNativeMs } });
  }
  const message = `Cannot finish request as a handler held shard ${shard} for more than ${maxHandlerMs} ms`;
  return new ShardloomError("ERR_HANDLER_HUNG", message, { details: { ...details, maxHandlerMs } });
}
