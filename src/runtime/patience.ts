/**
 * Patience with servers that are slow, restarting or not up yet: what they could not answer is asked again, for so long and no longer.
 *
 * Invariant: only what a later try may change is tried again, and no try begins after the limit; the last failure is whose limit it was.
 */
import { ShardloomError } from "../errors.ts";
import type { Runtime } from "./runtime.ts";
import { sleep } from "./scheduler.ts";

/** How a start stands that waits for servers. */
export interface ServerWaiting {
  readonly elapsedMs: number;
  /** When it gives up. */
  readonly limitMs: number;
  /** Tries until now. */
  readonly tries: number;
  /** Why the last one failed. */
  readonly error: ShardloomError;
}

export interface Patience {
  readonly limitMs: number;
  /** Told after every try that failed and is made again. @default nobody is told */
  readonly onWaiting?: ((waiting: ServerWaiting) => void) | undefined;
}

/** The pause between two tries. */
const AGAIN_MS = 200;

/** Tries again for a while what servers that are away may yet answer. @throws what the last try did */
export async function patiently<T>(
  { clock, scheduler }: Pick<Runtime, "clock" | "scheduler">,
  { limitMs, onWaiting }: Patience,
  open: () => Promise<T>,
): Promise<T> {
  const beganMs = clock.nowMs();
  for (let tries = 1; ; tries++) {
    try {
      return await open();
    } catch (error) {
      const elapsedMs = clock.nowMs() - beganMs;
      if (!isAway(error) || elapsedMs + AGAIN_MS > limitMs) throw error;
      onWaiting?.({ elapsedMs, limitMs, tries, error });
      await sleep(scheduler, AGAIN_MS);
    }
  }
}

/** Whether a later try may find servers that answer. */
function isAway(error: unknown): error is ShardloomError {
  if (!ShardloomError.is(error)) return false;
  const { code, retryable } = error;
  return code === "ERR_TIMEOUT" || code === "ERR_IO" || (code === "ERR_UNAVAILABLE" && retryable);
}

/** Opens what a start needs of servers. @throws {ShardloomError} `ERR_UNAVAILABLE` when they have not answered within the limit; what they refuse */
export async function startPatiently<T>(
  runtime: Pick<Runtime, "clock" | "scheduler">,
  servers: readonly string[],
  patience: Patience,
  open: () => Promise<T>,
): Promise<T> {
  try {
    return await patiently(runtime, patience, open);
  } catch (error) {
    if (!isAway(error)) throw error;
    const { limitMs } = patience;
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot start cluster as ${servers.join(", ")} must answer within ${limitMs} ms: ${error.message}`,
      { cause: error, details: { servers: [...servers], limitMs } },
    );
  }
}
