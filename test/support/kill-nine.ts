/**
 * What a killed cluster must still have: the contract between the child that writes and the parent that kills it and keeps the ledger.
 *
 * The child reports each batch before it sends it and again after it was acknowledged, over a pipe that outlives it. Each writer has ids of its
 * own and one batch under way at a time, so of every document it is known what it must be: as the last acknowledged batch of its writer left
 * it, or, for the one batch that was under way when the process died, as that would have left it.
 *
 * Invariant: content is a function of id and batch, so whoever reads a document can tell which batch wrote it and whether it is whole.
 */
import type { Durability } from "../../src/store/log.ts";

/** Documents of each kind. */
export const KEYS = 360;
export const DIMENSIONS = 16;
export const KINDS = ["vectors", "texts"] as const;
export type Kind = (typeof KINDS)[number];

/** What one life of the child is to be. */
export interface Life {
  /** Where everything is kept: a directory, or a server of NATS. */
  readonly directory?: string;
  readonly nats?: string;
  readonly seed: number;
  readonly replicationFactor: number;
  readonly durability: Durability;
  readonly snapshotBytes: number;
  /** For one call, in ms. @default a minute */
  readonly patienceMs?: number;
  /** Number of the first batch: batches of all lives have different ones. */
  readonly firstBatch: number;
}

/** A batch, as it is reported before it is sent. */
export interface Batch {
  readonly batch: number;
  readonly kind: Kind;
  readonly deletes: boolean;
  readonly ids: readonly number[];
  /** Shard that each id is on. */
  readonly shards: readonly number[];
}

/** What the child finds when it has started: the batch of each document by id, and everything that does not fit together. */
export interface Found {
  readonly vectors: Readonly<Record<string, number>>;
  readonly texts: Readonly<Record<string, number>>;
  readonly problems: readonly string[];
}

/** A line of the child. */
export type Line =
  | { readonly type: "found"; readonly found: Found }
  | { readonly type: "begin"; readonly batch: Batch }
  | { readonly type: "acknowledged"; readonly batch: number }
  | { readonly type: "failed"; readonly batch: number; readonly code: string };

/** The vector that a batch gives an id: no two are alike. */
export function vectorOf(id: number, batch: number): Float32Array {
  let state = (Math.imul(id + 1, 0x9e3779b1) ^ Math.imul(batch + 1, 0x85ebca6b)) >>> 0;
  return Float32Array.from({ length: DIMENSIONS }, () => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    state ^= state >>> 13;
    return (state >>> 0) / 2 ** 31 - 1;
  });
}

/** A word that every text has, one of its id, one of its batch. */
export const COMMON = "everywhere";
export function textOf(id: number, batch: number): string {
  return `${COMMON} ${idWord(id)} ${batchWord(batch)} ${"filling ".repeat(id % 16)}`;
}
export function idWord(id: number): string {
  return `document${id}`;
}
export function batchWord(batch: number): string {
  return `batch${batch}`;
}

interface Entry {
  /** Batch that the document is of; undefined: there is none. */
  settled: number | undefined;
}

/** What the parent knows of all lives. */
export class Ledger {
  readonly counts = { acknowledged: 0, failed: 0, open: 0, survived: 0 };
  readonly #entries: Readonly<Record<Kind, Entry[]>> = {
    vectors: Array.from({ length: KEYS }, () => ({ settled: undefined })),
    texts: Array.from({ length: KEYS }, () => ({ settled: undefined })),
  };
  /** Batches that were sent and of which nobody knows what became. */
  readonly #open: Map<number, Batch> = new Map();

  take(line: Line): void {
    if (line.type === "begin") this.#open.set(line.batch.batch, line.batch);
    else if (line.type === "acknowledged") this.#acknowledge(line.batch);
    else if (line.type === "failed") this.counts.failed++;
  }

  /** Compares what a life has found with what it must have. @returns what is wrong with it */
  check(found: Found): string[] {
    const wrong = [...found.problems];
    for (const batch of this.#open.values()) this.#decide(batch, found, wrong);
    this.#open.clear();
    for (const kind of KINDS) {
      for (const [id, entry] of this.#entries[kind].entries()) {
        const has = found[kind][id];
        if (has === entry.settled) continue;
        wrong.push(`${kind} ${id}: is of batch ${has}, must be of ${entry.settled}`);
        entry.settled = has;
      }
    }
    return wrong;
  }

  /** A batch that was under way must be there or not, as one on each shard. */
  #decide({ batch, kind, deletes, ids, shards }: Batch, found: Found, wrong: string[]): void {
    this.counts.open++;
    const after = deletes ? undefined : batch;
    for (const shard of new Set(shards)) {
      const changed = ids.filter((id, at) => shards[at] === shard && this.#entryOf(kind, id).settled !== after);
      const there = changed.filter((id) => found[kind][id] === after);
      if (there.length > 0 && there.length < changed.length)
        wrong.push(
          `${kind}: ${there.length} of the ${changed.length} changes of batch ${batch} on shard ${shard} are there`,
        );
      if (there.length > 0) this.counts.survived++;
      for (const id of there) this.#entryOf(kind, id).settled = after;
    }
  }

  #acknowledge(number: number): void {
    const batch = this.#open.get(number);
    if (batch === undefined) throw new Error(`batch ${number} was acknowledged and never sent`);
    this.#open.delete(number);
    this.counts.acknowledged++;
    for (const id of batch.ids) this.#entryOf(batch.kind, id).settled = batch.deletes ? undefined : number;
  }

  #entryOf(kind: Kind, id: number): Entry {
    return this.#entries[kind][id] as Entry;
  }
}
