/**
 * Who grants leases in a world: a bucket of the stand-in for NATS, as JetStream's would be used.
 *
 * Invariant: see lease-store.ts. What is in doubt stays so: nothing is asked twice here.
 */
import type { LeaseStore } from "../topology/lease-store.ts";
import type { NatsClient } from "./nats-client.ts";

const BUCKET = "shardloom-leases";

/** A lease store over a connection to the stand-in. */
export function createNatsLeaseStore(nats: NatsClient): LeaseStore {
  return {
    get: async (key, timeoutMs) => {
      const entry = await nats.get(BUCKET, key, timeoutMs);
      return entry?.operation === "put" ? { value: entry.value, revision: entry.revision } : undefined;
    },
    put: (key, value, expectedRevision, timeoutMs) => nats.put(BUCKET, key, value, expectedRevision, timeoutMs),
    watch: (onChange) => {
      const ended = new AbortController();
      const follow = async (): Promise<void> => {
        for await (const { key, value, revision, operation } of nats.watch(BUCKET, { signal: ended.signal }))
          if (operation === "put") onChange(key, { value, revision });
      };
      void follow();
      return () => ended.abort();
    },
  };
}
