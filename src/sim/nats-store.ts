/**
 * What the stand-in for NATS has stored: streams of bytes, and buckets of keys with revisions.
 *
 * Invariant: a state machine without time or faults. Sequences of a stream and revisions of a bucket begin at 1 and rise by 1 with each change; a
 * change whose expectation does not hold changes nothing.
 * Source: JetStream's `Nats-Expected-Last-Sequence` and `Nats-Expected-Last-Subject-Sequence`; a bucket is a stream that keeps the last
 * message of each subject.
 */
import { ShardloomError } from "../errors.ts";

/** A message of a stream. */
export interface StreamEntry {
  readonly sequence: number;
  readonly bytes: Uint8Array;
}

/** Some messages of a stream. */
export interface StreamPage {
  readonly entries: readonly StreamEntry[];
  /** Sequence of the stream's last message when they were read; 0 when it has none. */
  readonly last: number;
}

/** The last change of a key. */
export interface KeyEntry {
  readonly key: string;
  /** Empty for a key that was deleted. */
  readonly value: Uint8Array;
  readonly revision: number;
  readonly operation: "put" | "delete";
}

interface Bucket {
  revision: number;
  /** By revision: a key that changes moves to the end. */
  readonly keys: Map<string, KeyEntry>;
}

export class NatsStore {
  readonly #streams: Map<string, Uint8Array[]> = new Map();
  readonly #buckets: Map<string, Bucket> = new Map();
  readonly #changed: (bucket: string, entry: KeyEntry) => void;

  /** @param changed Told of every change of a key */
  constructor(changed: (bucket: string, entry: KeyEntry) => void = () => undefined) {
    this.#changed = changed;
  }

  /**
   * Appends a message. @param expected Sequence that the stream's last message must have, 0 for none
   * @returns its sequence
   * @throws {ShardloomError} `ERR_STALE_EPOCH` with `details.last`
   */
  append(stream: string, bytes: Uint8Array, expected?: number): number {
    const messages = this.#streams.get(stream) ?? [];
    if (expected !== undefined && expected !== messages.length) {
      throw stale(`append to stream ${stream}`, "last sequence", expected, messages.length);
    }
    this.#streams.set(stream, messages);
    return messages.push(bytes);
  }

  read(stream: string, from: number, limit: number): StreamPage {
    const messages = this.#streams.get(stream) ?? [];
    const start = Math.max(0, from - 1);
    const entries = messages
      .slice(start, start + limit)
      .map((bytes, index) => ({ sequence: start + index + 1, bytes }));
    return { entries, last: messages.length };
  }

  /** The last change of a key; undefined when it never had one. */
  get(bucket: string, key: string): KeyEntry | undefined {
    return this.#buckets.get(bucket)?.keys.get(key);
  }

  /**
   * Changes a key. @param expected Revision of its last change; 0 when it must be absent or deleted
   * @returns the change
   * @throws {ShardloomError} `ERR_STALE_EPOCH` with `details.last`
   */
  change(bucket: string, change: Omit<KeyEntry, "revision">, expected?: number): KeyEntry {
    const found = this.#buckets.get(bucket) ?? { revision: 0, keys: new Map<string, KeyEntry>() };
    const before = found.keys.get(change.key);
    const last = before?.revision ?? 0;
    const isAbsent = expected === 0 && before?.operation === "delete";
    if (expected !== undefined && expected !== last && !isAbsent) {
      throw stale(`change key ${change.key} of bucket ${bucket}`, "revision", expected, last);
    }
    this.#buckets.set(bucket, found);
    const entry: KeyEntry = { ...change, revision: ++found.revision };
    found.keys.delete(change.key);
    found.keys.set(change.key, entry);
    this.#changed(bucket, entry);
    return entry;
  }

  /** The last change of each key that changed after a revision, in the order of revisions. */
  changesAfter(bucket: string, revision: number): readonly KeyEntry[] {
    return [...(this.#buckets.get(bucket)?.keys.values() ?? [])].filter((entry) => entry.revision > revision);
  }
}

function stale(action: string, what: string, expected: number, last: number): ShardloomError {
  return new ShardloomError(
    "ERR_STALE_EPOCH",
    `Cannot ${action} as ${what} must be ${expected}: current value is ${last}`,
    {
      details: { expected, last },
    },
  );
}
