/**
 * Writers of documents who remember what was acknowledged, and what they have tried since.
 *
 * Each document has one writer, which writes rising generations of it, one after the other. So whatever happens, a document must be of the
 * generation that was acknowledged last or of a later one that was tried; and what was read once must not be older later.
 *
 * Invariant: a failure is one of ours and typed; anything else ends the test.
 */
import { expect } from "vitest";
import type { VectorCollection, VectorDocument } from "../../src/index.ts";
import { codeOf } from "./copies.ts";

/** Pause of a writer after a failure. */
const PAUSE_MS = 5;

export interface WriterOptions {
  /** Ids of the documents: each writer has one slice. */
  readonly ids: readonly number[];
  readonly writers: number;
  readonly documentOf: (id: number, generation: number) => VectorDocument;
  readonly generationOf: (vector: Float32Array) => number;
  readonly timeoutMs: number;
  /** Documents of one write. @default 1 to 8 */
  readonly batch?: number;
}

export class AcknowledgedWrites {
  readonly codes: Map<string, number> = new Map();
  /** By writer: acknowledgements ("ok"), and failures by code. */
  readonly outcomes: Map<string, number>[];
  acknowledgements = 0;
  /** The longest time between two acknowledgements of all writers, in ms. */
  longestGapMs = 0;
  readonly #options: WriterOptions;
  readonly #acknowledged: Map<number, number> = new Map();
  readonly #tried: Map<number, number> = new Map();
  #running: Promise<unknown> | undefined;
  #stopping = false;
  #lastMs = 0;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.outcomes = Array.from({ length: options.writers }, () => new Map());
  }

  /** @param docs Which writer uses which handle: clients of several nodes, perhaps. */
  start(docs: (writer: number) => VectorCollection): void {
    const { writers } = this.#options;
    this.#stopping = false;
    this.#lastMs = performance.now();
    this.longestGapMs = 0;
    this.#running = Promise.all(Array.from({ length: writers }, (_, writer) => this.#write(docs(writer), writer)));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
  }

  /** What some writers are told from now on. @returns "ok" and codes with how often, as of when it is called */
  watch(isWatched: (writer: number) => boolean): () => Record<string, number> {
    const sums = (): Map<string, number> => {
      const all = new Map<string, number>();
      for (const [writer, told] of this.outcomes.entries())
        if (isWatched(writer)) for (const [what, count] of told) all.set(what, (all.get(what) ?? 0) + count);
      return all;
    };
    const before = sums();
    return () =>
      Object.fromEntries(
        [...sums()].flatMap(([what, count]) => {
          const since = count - (before.get(what) ?? 0);
          return since === 0 ? [] : [[what, since]];
        }),
      );
  }

  /** The generation of each document that was acknowledged last, as of now. */
  acknowledged(): ReadonlyMap<number, number> {
    return new Map(this.#acknowledged);
  }

  /** Fails unless everything acknowledged is there, and nothing that nobody has written. */
  async check(docs: VectorCollection): Promise<void> {
    const { ids, generationOf } = this.#options;
    expect(this.#acknowledged.size, "documents of which a write was acknowledged").toBeGreaterThan(0);
    const found = await docs.getMany(ids, { timeoutMs: 60_000 });
    const wrong = ids.flatMap((id, at) => {
      const vector = found[at]?.vector;
      const generation = vector === undefined ? 0 : generationOf(vector);
      const [least, most] = [this.#acknowledged.get(id) ?? 0, this.#tried.get(id) ?? 0];
      this.#acknowledged.set(id, Math.max(least, generation)); // it was read: from now on it is there
      return generation >= least && generation <= most
        ? []
        : [`${id} is of ${generation}, must be of ${least} to ${most}`];
    });
    expect(wrong).toEqual([]);
    const there = found.filter((row) => row !== undefined).length;
    expect(await docs.count({ timeoutMs: 60_000 })).toBe(there);
  }

  async #write(docs: VectorCollection, writer: number): Promise<void> {
    const { ids, writers, documentOf, timeoutMs, batch } = this.#options;
    const own = ids.filter((_, at) => at % writers === writer);
    for (let round = 0; !this.#stopping; round++) {
      const count = batch ?? 1 + (round % 8);
      const chosen = [
        ...new Set(Array.from({ length: count }, (_, at) => own[(round * 3 + at) % own.length] as number)),
      ];
      const documents = chosen.map((id) => {
        const generation = (this.#tried.get(id) ?? 0) + 1;
        this.#tried.set(id, generation);
        return documentOf(id, generation);
      });
      const generations = chosen.map((id) => this.#tried.get(id) as number);
      try {
        await docs.upsert(documents, { timeoutMs });
        for (const [at, id] of chosen.entries()) this.#acknowledged.set(id, generations[at] as number);
        this.#noteAcknowledged(writer);
      } catch (error) {
        const code = codeOf(error);
        if (code === "ERR_INVALID_ARGUMENT") throw error; // what is written is always right
        this.codes.set(code, (this.codes.get(code) ?? 0) + 1);
        this.#noteOutcome(writer, code);
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  #noteOutcome(writer: number, what: string): void {
    const told = this.outcomes[writer];
    told?.set(what, (told.get(what) ?? 0) + 1);
  }

  #noteAcknowledged(writer: number): void {
    this.#noteOutcome(writer, "ok");
    const nowMs = performance.now();
    this.longestGapMs = Math.max(this.longestGapMs, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    this.acknowledgements++;
  }
}
