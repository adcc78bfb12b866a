/**
 * A shard's log that knows what its entries say of each vshard, and how much was appended since the last snapshot.
 *
 * Invariant: `states` is what a replay of everything that was appended would give.
 */
import type { ShardloomError } from "../../src/errors.ts";
import type { LogFrame, ShardAppendOptions, ShardLog, ShardLogEntry } from "../../src/store/log.ts";
import type { VshardStates } from "./vshard-states.ts";

export class TrackedLog implements ShardLog {
  readonly states: VshardStates;
  /** Bytes of bodies that were appended since this was last set. */
  appendedBytes = 0;
  readonly #log: ShardLog;

  constructor(log: ShardLog, states: VshardStates) {
    this.#log = log;
    this.states = states;
  }

  get head(): number {
    return this.#log.head;
  }

  get durable(): number {
    return this.#log.durable;
  }

  get first(): number {
    return this.#log.first;
  }

  get leaseEpoch(): number {
    return this.#log.leaseEpoch;
  }

  get failure(): ShardloomError | undefined {
    return this.#log.failure;
  }

  get onChange(): (() => void) | undefined {
    return this.#log.onChange;
  }

  set onChange(callback: (() => void) | undefined) {
    this.#log.onChange = callback;
  }

  assertRoom(bytes: number): void {
    this.#log.assertRoom(bytes);
  }

  append(entries: readonly ShardLogEntry[], options?: ShardAppendOptions): number {
    const position = this.#log.append(entries, options);
    for (const entry of entries) {
      this.states.note(entry, position);
      this.appendedBytes += entry.body.length;
    }
    return position;
  }

  fence(leaseEpoch: number): Promise<void> {
    return this.#log.fence(leaseEpoch);
  }

  flush(): Promise<void> {
    return this.#log.flush();
  }

  read(from: number, limitBytes: number): Promise<readonly LogFrame[]> {
    return this.#log.read(from, limitBytes);
  }

  truncateBelow(position: number): Promise<void> {
    return this.#log.truncateBelow(position);
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}
