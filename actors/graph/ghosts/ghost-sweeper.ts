/**
 * Asks owners whether the vertices of our ghosts still exist, at a bounded rate.
 *
 * Invariant: in any span of time at most `checksPerSecond` times the span, plus one interval's share, are asked, and at most
 * `maxInFlight` wait for an answer; a sweep that comes late makes up for nothing. An answer that does not come, or comes after the ghost
 * has changed, leaves the ghost as it is. Nothing is held, and nothing blocks, while answers are awaited.
 */
import { invalidArgument } from "../../../src/errors.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import type { Cancel, Scheduler } from "../../../src/runtime/scheduler.ts";
import type { VertexKey } from "../vertex-key.ts";
import { GHOST_STATUS, type GhostReply } from "./ghost-codec.ts";
import type { GhostAnswer, GhostCheck, GhostTable } from "./ghost-table.ts";

const DEFAULT_CHECKS_PER_SECOND = 1000;
const DEFAULT_INTERVAL_MS = 100;
const DEFAULT_IN_FLIGHT = 4096;

export interface GhostSweeperOptions {
  readonly table: GhostTable;
  readonly clock: Clock;
  readonly scheduler: Pick<Scheduler, "after">;
  /** Asks an owner about vertices; must settle, by its own deadline at the latest. A rejection leaves the ghosts as they are. */
  readonly verify: (owner: number, keys: readonly VertexKey[]) => Promise<GhostReply>;
  /** A vertex is no more, and so many edges of this shard lead to it; its ghost was dropped already. Must not throw. */
  readonly onGone: (key: VertexKey, references: number) => void;
  /** Ghosts asked about in a second, > 0. @default 1000 */
  readonly checksPerSecond?: number | undefined;
  /** Milliseconds between two sweeps, > 0. @default 100 */
  readonly intervalMs?: number | undefined;
  /** Ghosts that may wait for an answer, ≥ 1. @default 4096 */
  readonly maxInFlight?: number | undefined;
}

/** Counts since the sweeper was made. */
export interface SweepCounters {
  readonly asked: number;
  readonly kept: number;
  readonly gone: number;
  /** Without an answer that could be used: refused, lost, or of a shard that the vertex has left. */
  readonly unknown: number;
  /** Answered after the ghost had changed. */
  readonly outdated: number;
}

export class GhostSweeper {
  readonly #options: GhostSweeperOptions;
  readonly #perSecond: number;
  readonly #intervalMs: number;
  readonly #maxInFlight: number;
  readonly #counters = { asked: 0, kept: 0, gone: 0, unknown: 0, outdated: 0 };
  #cancel: Cancel | undefined;
  #tokens = 0;
  #sweptMs = 0;
  #inFlight = 0;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
  constructor(options: GhostSweeperOptions) {
    this.#options = options;
    this.#perSecond = positive("checksPerSecond", options.checksPerSecond ?? DEFAULT_CHECKS_PER_SECOND);
    this.#intervalMs = positive("intervalMs", options.intervalMs ?? DEFAULT_INTERVAL_MS);
    this.#maxInFlight = positive("maxInFlight", options.maxInFlight ?? DEFAULT_IN_FLIGHT);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  counters(): SweepCounters {
    return { ...this.#counters };
  }

  /** Begins to sweep, one interval from now; harmless when it has begun. */
  start(): void {
    if (this.#cancel !== undefined) return;
    this.#sweptMs = this.#options.clock.nowMs();
    this.#tokens = 0;
    this.#schedule();
  }

  /** Asks nothing more; answers that are still to come are taken. Harmless when it has stopped. */
  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #schedule(): void {
    this.#cancel = this.#options.scheduler.after(this.#intervalMs, () => {
      this.#schedule();
      this.#sweep();
    });
  }

  #sweep(): void {
    const nowMs = this.#options.clock.nowMs();
    const share = (this.#perSecond * this.#intervalMs) / 1000;
    const earned = ((nowMs - this.#sweptMs) * this.#perSecond) / 1000;
    this.#tokens = Math.min(this.#tokens + earned, Math.max(1, share));
    this.#sweptMs = nowMs;
    const byOwner = new Map<number, GhostCheck[]>();
    while (this.#tokens >= 1 && this.#inFlight < this.#maxInFlight) {
      const check = this.#options.table.takeDue();
      if (check === undefined) break;
      this.#tokens--;
      this.#inFlight++;
      const checks = byOwner.get(check.owner);
      if (checks === undefined) byOwner.set(check.owner, [check]);
      else checks.push(check);
    }
    for (const [owner, checks] of byOwner) void this.#ask(owner, checks);
  }

  async #ask(owner: number, checks: readonly GhostCheck[]): Promise<void> {
    this.#counters.asked += checks.length;
    let reply: GhostReply | undefined;
    try {
      reply = await this.#options.verify(
        owner,
        checks.map(({ key }) => key),
      );
    } catch {
      // Counted as unknown below: the ghosts stay, and are asked about again when they are due.
    }
    this.#inFlight -= checks.length;
    for (const [index, check] of checks.entries()) {
      const verdict = this.#options.table.settle(check, answerOf(reply, index));
      this.#counters[verdict.kind]++;
      if (verdict.kind === "gone") this.#options.onGone(check.key, verdict.references);
    }
  }
}

function answerOf(reply: GhostReply | undefined, index: number): GhostAnswer {
  const status = reply?.statuses[index];
  if (reply === undefined || status === undefined || status === GHOST_STATUS.elsewhere) return { kind: "unknown" };
  return { kind: status === GHOST_STATUS.exists ? "exists" : "gone", ownerEpoch: reply.ownerEpoch };
}

function positive(name: string, value: number): number {
  if (value > 0 && value < Number.POSITIVE_INFINITY) return value;
  throw invalidArgument("create ghost sweeper", name, "a finite number above 0", value);
}
