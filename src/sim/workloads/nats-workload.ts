/**
 * Registers over the stand-in for NATS: one key-value bucket, changed by compare-and-set of revisions, while the server freezes and restarts.
 *
 * Invariant: linearizable per key. A change whose request timed out is in doubt and is not tried again: it may still be applied.
 * Operations and values are those of the key-value model of `linearizability.ts`: `read`, `write`, `cas` of [key, ...].
 */
import { invalidArgument, ShardloomError } from "../../errors.ts";
import type { Random } from "../../runtime/random.ts";
import { linearizable } from "../linearizability.ts";
import { keyValue } from "../register-model.ts";
import type { Operation, OperationContext, Workload, WorkloadRef } from "../workload-types.ts";

/** Shape of the load. */
export interface NatsWorkloadOptions {
  /** Keys, at least 1. @default 3 */
  readonly keys?: number;
  /** Processes of each node, at least 1. @default 2 */
  readonly processesPerNode?: number;
  /** Operations of each process in a simulated second, above 0. @default 5 */
  readonly ratePerSecond?: number;
  /** Patience with one request, in ms, above 0. @default 500 */
  readonly timeoutMs?: number;
}

const BUCKET = "registers";
/** How often a write begins again when another one came between. */
const WRITE_ATTEMPTS = 5;
/** So many of the values that were written last are what a cas compares with. */
const RECENT = 3;
/** Failures that say that nothing was changed. */
const REFUSED: readonly string[] = ["ERR_STALE_EPOCH", "ERR_UNAVAILABLE", "ERR_CLOSED"];

type Value = number | null;

/** The workload. Operations `read`, `write` and `cas`. */
export function natsWorkload(options: NatsWorkloadOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createNatsWorkload", options };
}

/** The workload itself, made inside a world by its reference. @public */
export function createNatsWorkload(options: NatsWorkloadOptions = {}): Workload {
  const given = resolve(options);
  return {
    name: "nats",
    generate: (random, shape) => generate(given, random, shape),
    failed: (error) => ShardloomError.is(error) && REFUSED.includes(error.code),
    invoke: async ({ f, value }, context) => {
      const [key, argument] = value as [string, unknown];
      const registers = new Registers(context, given.timeoutMs);
      if (f === "read") return [key, (await registers.read(key)).value];
      if (f === "write") return [key, await registers.write(key, argument as number)];
      return [key, await registers.compareAndSet(key, argument as [Value, number])];
    },
    check: ({ history }) => linearizable(history, keyValue()).violations,
  };
}

function resolve(options: NatsWorkloadOptions): Required<NatsWorkloadOptions> {
  const given = { keys: 3, processesPerNode: 2, ratePerSecond: 5, timeoutMs: 500, ...options };
  const action = "create NATS workload";
  for (const name of ["keys", "processesPerNode"] as const) {
    if (!Number.isInteger(given[name]) || given[name] < 1)
      throw invalidArgument(action, name, "an integer ≥ 1", given[name]);
  }
  for (const name of ["ratePerSecond", "timeoutMs"] as const) {
    if (!(given[name] > 0 && given[name] <= 1e6))
      throw invalidArgument(action, name, "above 0 and at most 1000000", given[name]);
  }
  return given;
}

function generate(
  { keys, processesPerNode, ratePerSecond }: Required<NatsWorkloadOptions>,
  random: Random,
  { nodes, durationMs }: { readonly nodes: number; readonly durationMs: number },
): Operation[] {
  const starts: { readonly process: number; readonly atMs: number; readonly afterMs: number }[] = [];
  for (let process = 0; process < nodes * processesPerNode; process++) {
    for (let atMs = 0; ; ) {
      const afterMs = (-Math.log1p(-random.float()) * 1_000) / ratePerSecond;
      atMs += afterMs;
      if (atMs >= durationMs) break;
      starts.push({ process, atMs, afterMs });
    }
  }
  starts.sort((a, b) => a.atMs - b.atMs);
  const recent = Array.from({ length: keys }, () => [null] as Value[]);
  return starts.map(({ process, afterMs }, written) => {
    const index = Math.floor(random.float() * keys);
    const key = `k${index}`;
    const kind = random.float();
    if (kind < 0.4) return { process, afterMs, f: "read", value: [key, null] };
    // A value to compare with: one that is likely to be there then.
    const values = recent[index] as Value[];
    const from = values[Math.floor(random.float() * values.length)] as Value;
    recent[index] = [...values, written].slice(-RECENT);
    if (kind < 0.7) return { process, afterMs, f: "write", value: [key, written] };
    return { process, afterMs, f: "cas", value: [key, [from, written]] };
  });
}

/** Registers in a bucket, as one client has them. */
class Registers {
  readonly #context: OperationContext;
  readonly #timeoutMs: number;

  constructor(context: OperationContext, timeoutMs: number) {
    this.#context = context;
    this.#timeoutMs = timeoutMs;
  }

  async read(key: string): Promise<{ readonly value: Value; readonly revision: number }> {
    try {
      const entry = await this.#context.nats.get(BUCKET, key, this.#timeoutMs);
      if (entry === undefined) return { value: null, revision: 0 };
      return { value: JSON.parse(new TextDecoder().decode(entry.value)) as Value, revision: entry.revision };
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_TIMEOUT") throw error;
      // It has changed nothing, which is more than a timeout says.
      throw new ShardloomError("ERR_UNAVAILABLE", `Cannot read ${key} as NATS must answer: it did not`, {
        cause: error,
      });
    }
  }

  async write(key: string, value: number): Promise<Value> {
    for (let attempt = 1; ; attempt++) {
      const { revision } = await this.read(key);
      try {
        await this.#set(key, value, revision);
        return value;
      } catch (error) {
        if (!ShardloomError.is(error) || error.code !== "ERR_STALE_EPOCH" || attempt === WRITE_ATTEMPTS) throw error;
      }
    }
  }

  /** @returns false when another value is there */
  async compareAndSet(key: string, [from, to]: readonly [Value, number]): Promise<boolean> {
    const { value, revision } = await this.read(key);
    if (value !== from) return false;
    await this.#set(key, to, revision);
    return true;
  }

  async #set(key: string, value: number, revision: number): Promise<void> {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    await this.#context.nats.put(BUCKET, key, bytes, revision, this.#timeoutMs);
  }
}
