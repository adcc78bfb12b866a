/**
 * A bucket of keys in NATS' KV: read from the server that leads it, and changed by compare-and-set.
 *
 * Invariant: as for every call of nats.ts. Any text that is not empty is a key; what the server does not allow in one is escaped.
 * Divergence: reads never go to other replicas, though the library's do by default: these may be older than the beginning of the call.
 */
import { type KV, Kvm } from "@nats-io/kv";
import { foreign, type NatsConnection } from "./nats.ts";
import type { Scheduler } from "./scheduler.ts";

export interface NatsBucketOptions {
  /** Letters, digits, `-` and `_`. */
  readonly bucket: string;
  /** Servers that keep it: 1, 3 or 5. Only counts when it is made. @default 1 */
  readonly replicas?: number;
}

/** A key's last change. */
export interface NatsKeyEntry {
  readonly key: string;
  /** Undefined: the key was deleted. */
  readonly value: Uint8Array | undefined;
  readonly revision: number;
}

export interface NatsBucket {
  get(key: string, timeoutMs: number): Promise<NatsKeyEntry | undefined>;
  /** @param expectedRevision Of the key's last change; 0: it never had one. @throws {ShardloomError} As `NatsStream.append`. */
  put(key: string, value: Uint8Array, expectedRevision: number, timeoutMs: number): Promise<number>;
  /** Tells the last change of every key, and changes as they come to be known; some may be left out. @returns what ends it */
  watch(onChange: (entry: NatsKeyEntry) => void): () => void;
}

/** How long after a watch has failed it is begun again. */
const WATCH_AGAIN_MS = 1_000;

/** Opens a bucket, and makes it when it is missing. @throws {ShardloomError} As calls do. */
export async function openNatsBucket(
  connection: NatsConnection,
  { bucket, replicas = 1 }: NatsBucketOptions,
  scheduler: Scheduler,
  timeoutMs: number,
): Promise<NatsBucket> {
  const call = <T>(what: string, changes: boolean, limitMs: number, run: () => Promise<T>): Promise<T> =>
    connection.call({ what: `${what} bucket ${bucket}`, changes, timeoutMs: limitMs }, run);
  const kv = await call("open", false, timeoutMs, () =>
    new Kvm(connection.library).create(bucket, { history: 1, replicas, allow_direct: false }),
  );
  if ((await call("look at", false, timeoutMs, () => kv.status())).ttl > 0) throw foreign("bucket", bucket);
  return {
    get: async (key, limitMs) => {
      const found = await call("read", false, limitMs, () => kv.get(encodeKey(key)));
      return found === null ? undefined : entryOf(found);
    },
    put: (key, value, previousSeq, limitMs) => {
      const bytes = new Uint8Array(value);
      return call("write to", true, limitMs, () => kv.put(encodeKey(key), bytes, { previousSeq, timeout: limitMs }));
    },
    watch: (onChange) => {
      const watch = { isOver: false, stop: (): void => undefined };
      void follow(connection, kv, watch, onChange, scheduler);
      return () => {
        watch.isOver = true;
        watch.stop();
      };
    },
  };
}

/** Follows changes until that is over, or the connection is closed; also beyond failures. */
async function follow(
  connection: NatsConnection,
  kv: KV,
  watch: { isOver: boolean; stop: () => void },
  onChange: (entry: NatsKeyEntry) => void,
  scheduler: Scheduler,
): Promise<void> {
  while (!watch.isOver) {
    try {
      const changes = await kv.watch();
      watch.stop = () => changes.stop();
      if (watch.isOver) changes.stop();
      for await (const change of changes) if (!watch.isOver) onChange(entryOf(change));
    } catch {
      // Nothing may depend on watches: it is begun again.
    }
    if (connection.library.isClosed()) return;
    if (!watch.isOver) await new Promise<void>((resolve) => scheduler.timer(WATCH_AGAIN_MS, resolve).unref());
  }
}

function entryOf(found: { key: string; value: Uint8Array; revision: number; operation: string }): NatsKeyEntry {
  const { key, value, revision, operation } = found;
  return { key: decodeKey(key), value: operation === "PUT" ? new Uint8Array(value) : undefined, revision };
}

const ESCAPE = "=";

/** Letters, digits, `-`, `_` and `/` stand for themselves; every other byte of the key's UTF-8 is `=` and two hexadecimal digits. */
function encodeKey(key: string): string {
  const escaped = (part: string): string =>
    [...new TextEncoder().encode(part)].map((byte) => ESCAPE + byte.toString(16).padStart(2, "0")).join("");
  return key.replaceAll(/[^-/\w]+/g, escaped);
}

function decodeKey(key: string): string {
  return key.replaceAll(/(?:=[\da-f]{2})+/g, (escaped) => {
    const bytes = escaped.slice(1).split(ESCAPE);
    return new TextDecoder().decode(Uint8Array.from(bytes, (byte) => Number.parseInt(byte, 16)));
  });
}
