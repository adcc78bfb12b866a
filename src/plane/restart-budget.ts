/**
 * How often, and after what pause, the worker of a shard is replaced.
 *
 * Invariant: the first loss in a while is mended at once; a shard that keeps losing its worker, or whose workers do not even
 * start, is given up after a bounded number of tries. One that does not start as its disk cannot be used at present is tried again for as
 * long as that takes.
 */
import type { ShardloomError } from "../errors.ts";

/** Replacements of one shard within {@link WINDOW_MS} before it is given up. */
const LIMIT = 8;
const WINDOW_MS = 60_000;
/** Failed starts in a row after which a shard is given up, however long each took. */
const FAILED_START_LIMIT = 3;
const PAUSE_MS = 50;
const PAUSE_LIMIT_MS = 2_000;

/** Failures of a disk that may pass. */
const DISK_FAILURES: ReadonlySet<string> = new Set(["ERR_IO", "ERR_READ_ONLY", "ERR_DISK_FULL"]);

/** The losses of one shard. */
export class RestartBudget {
  #recent: number[] = [];
  #failedStarts = 0;

  /** A worker was lost. @returns the pause before the next one starts, in ms, or undefined to give the shard up */
  lost(nowMs: number, { code }: Pick<ShardloomError, "code">): number | undefined {
    if (DISK_FAILURES.has(code)) return PAUSE_LIMIT_MS;
    this.#failedStarts++;
    this.#recent = this.#recent.filter((at) => nowMs - at < WINDOW_MS);
    this.#recent.push(nowMs);
    const losses = this.#recent.length;
    if (losses > LIMIT || this.#failedStarts > FAILED_START_LIMIT) return undefined;
    return losses === 1 ? 0 : Math.min(PAUSE_MS << (losses - 2), PAUSE_LIMIT_MS);
  }

  /** A replacement serves. */
  started(): void {
    this.#failedStarts = 0;
  }
}
