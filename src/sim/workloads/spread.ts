/**
 * Spreads operations over clients and simulated time.
 *
 * Invariant: pauses follow from the random stream and the options alone. Clients pause between operations with exponential gaps, as
 * independent users do, and never past the end of the run.
 */
import { invalidArgument } from "../../errors.ts";
import type { Random } from "../../runtime/random.ts";
import type { Operation } from "../workload-types.ts";

/** How many clients there are and how busy they are. */
export interface LoadOptions {
  /** Client processes, spread over the nodes in turn: `1..1024`. @default one a node */
  readonly clients?: number;
  /** All operations together: `1..10^6`, evenly over the run. @default as many as `perSecond` gives */
  readonly operations?: number;
  /** Operations of each client in a simulated second, on average, in `(0, 10^4]`. @default 1 */
  readonly perSecond?: number;
}

/** What one operation is, before it has a place in time. */
export type Draw = (random: Random, process: number) => Pick<Operation, "f" | "value">;

/** Longest pause, as a multiple of the mean: beyond it a client would look dead. */
const LONGEST_GAP = 8;

/** Operations for the whole run, process by process. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the option */
export function spread(
  random: Random,
  shape: { readonly nodes: number; readonly durationMs: number },
  load: LoadOptions,
  draw: Draw,
): Operation[] {
  const { clients = shape.nodes, perSecond = 1 } = load;
  const action = "generate workload";
  if (!Number.isInteger(clients) || clients < 1 || clients > 1024)
    throw invalidArgument(action, "clients", "an integer in [1, 1024]", clients);
  if (!(perSecond > 0 && perSecond <= 10_000))
    throw invalidArgument(action, "perSecond", "a number in (0, 10000]", perSecond);
  const { operations: wanted } = load;
  if (wanted !== undefined && !(Number.isInteger(wanted) && wanted >= 1 && wanted <= 1_000_000))
    throw invalidArgument(action, "operations", "an integer in [1, 1000000]", wanted);
  const total = wanted ?? Math.max(clients, Math.round((clients * perSecond * shape.durationMs) / 1000));
  const operations: Operation[] = [];
  for (let process = 0; process < clients; process++) {
    const count = Math.floor(total / clients) + (process < total % clients ? 1 : 0);
    const meanMs = shape.durationMs / Math.max(1, count);
    let leftMs = shape.durationMs;
    for (let index = 0; index < count; index++) {
      const gapMs = Math.min(-Math.log(1 - random.float()), LONGEST_GAP) * meanMs;
      const afterMs = Math.min(leftMs, Math.round(gapMs * 1000) / 1000);
      leftMs -= afterMs;
      operations.push({ process, ...draw(random, process), afterMs });
    }
  }
  return operations;
}

/** An integer in `[0, limit)`. */
export function below(random: Random, limit: number): number {
  return Math.floor(random.float() * limit);
}
