/**
 * Leases and the map of a cluster in NATS' KV: one bucket a cluster, keys changed by compare-and-set on their revision.
 *
 * Invariant: see lease-store.ts. What is in doubt stays so: nothing is sent twice here; whoever has put looks what is there. A server that is
 * cut off from the majority may give a value that has been changed since; puts go through the majority, and so find out.
 * Source: JetStream's `Nats-Expected-Last-Subject-Sequence`. Keys have no time to live: their end gives no event on older servers, so who
 * watches a lease judges it by its own clock (see lease.ts).
 */
import { ShardloomError } from "../errors.ts";
import type { NatsConnection } from "../runtime/nats.ts";
import { type NatsBucketOptions, openNatsBucket } from "../runtime/nats-bucket.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { LeaseStore } from "./lease-store.ts";

export interface NatsLeaseStoreOptions extends NatsBucketOptions {
  readonly scheduler: Scheduler;
  /** For opening the bucket, in ms. @default 5000 */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 5_000;

/**
 * Opens the store, and makes its bucket when it is missing.
 *
 * @param connection Outlives the store; closing it ends it.
 * @throws {ShardloomError} `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_CLOSED`, `ERR_IO`
 */
export async function createNatsLeaseStore(
  connection: NatsConnection,
  options: NatsLeaseStoreOptions,
): Promise<LeaseStore> {
  const { scheduler, timeoutMs = TIMEOUT_MS } = options;
  const bucket = await openNatsBucket(connection, options, scheduler, timeoutMs);
  return {
    get: async (key, limitMs) => {
      const entry = await known(() => bucket.get(key, limitMs));
      return entry?.value === undefined ? undefined : { value: entry.value, revision: entry.revision };
    },
    put: (key, value, expectedRevision, limitMs) =>
      known(async () => {
        try {
          return await bucket.put(key, value, expectedRevision, limitMs);
        } catch (error) {
          if (expectedRevision !== 0 || !ShardloomError.is(error) || error.code !== "ERR_STALE_EPOCH") throw error;
          // Somebody may have deleted it by hand: then it is not there, and its last change is the deletion.
          const found = await bucket.get(key, limitMs);
          if (found === undefined || found.value !== undefined) throw error;
          return bucket.put(key, value, found.revision, limitMs);
        }
      }),
    watch: (onChange) =>
      bucket.watch(({ key, value, revision }) => {
        if (value !== undefined) onChange(key, { value, revision });
      }),
  };
}

/** A call's outcome in the words of a {@link LeaseStore}: whatever else the server says, the store cannot be used for now. */
async function known<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    const { code, message } = ShardloomError.from(error);
    if (code === "ERR_STALE_EPOCH" || code === "ERR_TIMEOUT" || code === "ERR_CLOSED") throw error;
    throw new ShardloomError("ERR_TIMEOUT", message, { cause: error });
  }
}
