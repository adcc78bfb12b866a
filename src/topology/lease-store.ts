/**
 * Where leases and the map of a cluster are kept: a key-value store in which a key is changed only from the revision that its writer knows.
 *
 * Contract: revisions of a key grow with every change. A call that fails with `ERR_STALE_EPOCH` has changed nothing; one that fails with
 * `ERR_TIMEOUT` may have changed the key, or may yet do so, but only from the revision that it expects. What was read was true at some time after
 * the call began. Watches may be late and may leave changes out: nothing may depend on them but speed.
 */
import { ShardloomError } from "../errors.ts";

/** A key's last change. */
export interface LeaseEntry {
  readonly value: Uint8Array;
  readonly revision: number;
}

/** A compare-and-set key-value store. */
export interface LeaseStore {
  /** Undefined when the key was never set. @throws {ShardloomError} `ERR_TIMEOUT`, `ERR_CLOSED`. */
  get(key: string, timeoutMs: number): Promise<LeaseEntry | undefined>;
  /**
   * Sets a key.
   *
   * @param expectedRevision Revision of its last change; 0 when it must not be there.
   * @returns the revision of this change
   * @throws {ShardloomError} `ERR_STALE_EPOCH` when it has another revision, `ERR_TIMEOUT`: in doubt, `ERR_CLOSED`.
   */
  put(key: string, value: Uint8Array, expectedRevision: number, timeoutMs: number): Promise<number>;
  /** Tells changes of all keys, and of each key what it is at first. @returns what ends it. Absent: keys are read now and then. */
  watch?(onChange: (key: string, entry: LeaseEntry) => void): () => void;
}

/** A store in this process, for a cluster of one node and for several in one process. Never in doubt. */
export function createLocalLeaseStore(): LeaseStore {
  const entries = new Map<string, LeaseEntry>();
  const watchers = new Set<(key: string, entry: LeaseEntry) => void>();
  return {
    get: (key) => Promise.resolve(entries.get(key)),
    put: (key, value, expectedRevision) => {
      const revision = entries.get(key)?.revision ?? 0;
      if (revision !== expectedRevision) return Promise.reject(staleRevision(key, revision, expectedRevision));
      const entry: LeaseEntry = { value: value.slice(), revision: revision + 1 };
      entries.set(key, entry);
      for (const watcher of watchers) watcher(key, entry);
      return Promise.resolve(entry.revision);
    },
    watch: (onChange) => {
      for (const [key, entry] of entries) onChange(key, entry);
      watchers.add(onChange);
      return () => watchers.delete(onChange);
    },
  };
}

/** Whether a call to the store may succeed when it is made again. */
export function isTransient(error: unknown): boolean {
  return (
    ShardloomError.is(error) &&
    (error.code === "ERR_TIMEOUT" || error.code === "ERR_CLOSED" || error.code === "ERR_UNAVAILABLE")
  );
}

/** Why a change was refused. */
function staleRevision(key: string, rule: number, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_STALE_EPOCH",
    `Cannot set ${key} as its revision must be ${rule}: current value is ${value}`,
  );
}
