/**
 * One breaker per shard: it stops requests to a shard that does not answer, and lets one through now and then to look.
 *
 *   closed ── `failuresToOpen` in a row ──▶ open ── its time is over, one request goes ──▶ half-open (the probe)
 *     ▲                                      ▲                                               │
 *     └───────────── the probe was answered ─┼───────────────────────────────────────────────┤
 *                                            └── the probe failed: longer; was given up: at once
 *
 * Invariant: while a breaker is half-open exactly one request to its shard is under way through it. Only silence opens a
 * breaker: lost workers and deadlines. An answer of any kind, errors of the application included, closes it.
 * Source: Nygard, "Release It!", circuit breaker. Divergence: time open grows with every failed probe and is jittered, so
 * that the clients of a shard that comes back do not probe in step.
 */
import { invalidArgument, type ShardloomError } from "../errors.ts";
import type { Random } from "../runtime/random.ts";

/** The limits of all breakers of one executor. */
export interface BreakerOptions {
  /** Failures in a row that open a breaker, ≥ 1. @default 5 */
  readonly failuresToOpen?: number;
  /** Time that a breaker stays open at first, in ms; doubles with every failed probe. Jittered by ±50 %. @default 200 */
  readonly openMs?: number;
  /** Longest time open before jitter, in ms. @default 5000 */
  readonly maxOpenMs?: number;
}

/** What ended says about its shard: it answered, it was silent, or nothing. */
export type Signal = "answered" | "silent" | "unknown";

type State =
  | { readonly kind: "closed"; readonly failures: number }
  | { readonly kind: "open"; readonly untilMs: number; readonly times: number }
  | { readonly kind: "half-open"; readonly times: number };

type Resolved = Required<BreakerOptions>;

const CLOSED: State = { kind: "closed", failures: 0 };

/** The breakers of one client thread. */
export class Breakers {
  readonly #options: Resolved;
  readonly #random: Random;
  /** By shard; absent: closed and without failures. */
  readonly #states: (State | undefined)[] = [];
  #opened = 0;

  constructor(random: Random, options: BreakerOptions = {}) {
    const { failuresToOpen = 5, openMs = 200, maxOpenMs = 5_000 } = options;
    if (!Number.isInteger(failuresToOpen) || failuresToOpen < 1)
      throw invalidArgument("create breaker", "failuresToOpen", "an integer ≥ 1", failuresToOpen);
    if (!(openMs > 0)) throw invalidArgument("create breaker", "openMs", "a number > 0", openMs);
    if (!(maxOpenMs >= openMs)) throw invalidArgument("create breaker", "maxOpenMs", `≥ openMs (${openMs})`, maxOpenMs);
    this.#random = random;
    this.#options = { failuresToOpen, openMs, maxOpenMs };
  }

  /** How often a breaker has opened. */
  get opened(): number {
    return this.#opened;
  }

  /** Whether requests pass without more ado. */
  isClosed(shard: number): boolean {
    return (this.#states[shard] ?? CLOSED).kind === "closed";
  }

  /** What the shard's breaker does now. */
  stateOf(shard: number): "closed" | "open" | "half-open" {
    return (this.#states[shard] ?? CLOSED).kind;
  }

  /** Whether {@link admit} would say yes: closed, or due for its probe. For planners; takes nothing. */
  mayAdmit(shard: number, nowMs: number): boolean {
    const state = this.#states[shard];
    if (state === undefined || state.kind === "closed") return true;
    return state.kind === "open" && nowMs >= state.untilMs;
  }

  /** Asks to send one request now. A yes from an open breaker makes that request its probe. */
  admit(shard: number, nowMs: number): "pass" | "probe" | "refused" {
    const state = this.#states[shard];
    if (state === undefined || state.kind === "closed") return "pass";
    if (state.kind === "half-open" || nowMs < state.untilMs) return "refused";
    this.#states[shard] = { kind: "half-open", times: state.times };
    return "probe";
  }

  /** When a refused shard is due for its probe, in ms from now; 0 while a probe is under way. */
  retryAfterMs(shard: number, nowMs: number): number {
    const state = this.#states[shard];
    return state?.kind === "open" ? Math.max(0, state.untilMs - nowMs) : 0;
  }

  /** Forgets a shard's failures: another worker serves it now. */
  reset(shard: number): void {
    this.#states[shard] = undefined;
  }

  /** Tells how a request ended. @param probe Whether {@link admit} had made it the probe. */
  record(shard: number, signal: Signal, probe: boolean, nowMs: number): void {
    const state = this.#states[shard];
    if (state === undefined && signal !== "silent") return;
    this.#states[shard] = this.#transition(state ?? CLOSED, signal, probe, nowMs);
  }

  #transition(state: State, signal: Signal, probe: boolean, nowMs: number): State | undefined {
    switch (state.kind) {
      case "closed": {
        if (signal !== "silent") return signal === "answered" ? undefined : state;
        const failures = state.failures + 1;
        return failures < this.#options.failuresToOpen ? { kind: "closed", failures } : this.#open(1, nowMs);
      }
      case "half-open":
        // Requests from before it opened may end now; a late answer is as good as the probe's.
        if (signal === "answered") return undefined;
        if (!probe) return state;
        return signal === "silent"
          ? this.#open(state.times + 1, nowMs)
          : { kind: "open", untilMs: nowMs, times: state.times };
      case "open":
        return signal === "answered" ? undefined : state;
    }
  }

  #open(times: number, nowMs: number): State {
    const { openMs, maxOpenMs } = this.#options;
    this.#opened++;
    const stayMs = Math.min(maxOpenMs, openMs * 2 ** Math.min(times - 1, 30)) * (0.5 + this.#random.float());
    return { kind: "open", untilMs: nowMs + stayMs, times };
  }
}

/** What a failed request says about its shard. */
export function signalOf(error: ShardloomError): Signal {
  switch (error.code) {
    case "ERR_TIMEOUT":
      // It waited on this thread for its turn until it was too late: the shard has not heard of it.
      return error.details["sent"] === false || error.details["admitted"] === false ? "unknown" : "silent";
    case "ERR_WORKER_LOST":
    case "ERR_HANDLER_HUNG":
    case "ERR_NATIVE_QUARANTINED":
      return "silent";
    // May come from this thread's own queue or from the caller.
    case "ERR_OVERLOADED":
    case "ERR_RECORD_TOO_LARGE":
    case "ERR_ABORTED":
    case "ERR_CLOSED":
    case "ERR_UNAVAILABLE":
      return "unknown";
    default:
      return "answered";
  }
}
