/**
 * Bulk load: writes the documents of an iterable or async iterable batch by batch, several batches in flight.
 *
 * Invariant: at most {@link BATCHES_IN_FLIGHT} batches of at most `batchSize` documents (and of {@link BATCH_BYTES}) are held at
 * once, and the source is not asked for more meanwhile. However the load ends, every batch that was sent has ended before the
 * caller hears of it, so that `written` (in `details.written` after an error) is what is stored: an abort stops the
 * load at a batch, never within one. Two batches in flight never hold the same id, so the later document wins.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { DocumentId } from "./id-codec.ts";

const DEFAULT_BATCH = 512;
/** Most documents of one batch, and ids of one list. */
const MAX_BATCH = 65_536;
/** Bytes after which a batch is sent however few documents it has. */
const BATCH_BYTES = 4 * 1024 * 1024;
/** Batches that may be unacknowledged at once. */
const BATCHES_IN_FLIGHT = 4;

/** How far a bulk load is. */
export interface LoadProgress {
  /** Documents acknowledged so far. */
  readonly written: number;
  /** Of these, ids that were new. */
  readonly inserted: number;
}

/** Options of a bulk load. */
export interface LoadOptions {
  /** Documents per batch, `1..65536`. @default 512 */
  readonly batchSize?: number | undefined;
  /** Called after each acknowledged batch. */
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
  /** Ends the load at a batch, with `ERR_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

/** What an engine's client does with documents. `Item` is a checked copy of one. */
export interface Loader<Document, Item extends { readonly id: DocumentId }> {
  /** Checks one document. @throws {ShardloomError} naming what is wrong with it. */
  readonly prepare: (document: Document) => Item;
  /** Bytes that an item takes in a request. */
  readonly bytes: (item: Item) => number;
  /** Writes items with distinct ids; an error may tell how many were written, in `details.written`. */
  readonly write: (items: readonly Item[]) => Promise<LoadProgress>;
}

/** @throws {ShardloomError} the first failure, with `details.written`. */
export async function loadItems<Document, Item extends { readonly id: DocumentId }>(
  loader: Loader<Document, Item>,
  source: Iterable<Document> | AsyncIterable<Document>,
  options: LoadOptions,
): Promise<LoadProgress> {
  const batchSize = options.batchSize ?? DEFAULT_BATCH;
  if (!Number.isInteger(batchSize) || batchSize < 1 || batchSize > MAX_BATCH) {
    throw invalidArgument("upsert", "batchSize", `an integer between 1 and ${MAX_BATCH}`, batchSize);
  }
  const load = new Load(loader, options.onProgress);
  const abort = new AbortWait(options.signal);
  const iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  let ended = false;
  try {
    for (;;) {
      const next = await abort.race(read(iterator));
      if (next.done === true) break;
      const item = loader.prepare(next.value);
      if (load.isFull(batchSize) || load.batchHas(item.id)) load.send();
      await load.room(item.id);
      load.add(item);
    }
    ended = true;
    load.send();
  } catch (error) {
    load.fail(error);
  } finally {
    abort.dispose();
    // The source may be stuck, which is why it is not waited for; what it throws now changes nothing.
    if (!ended) void Promise.resolve(iterator.return?.()).catch(() => undefined);
  }
  return load.end();
}

/**
 * Refuses a list that is too long, before anything of it is looked at.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` with the limit.
 */
export function assertBatch(action: string, name: string, { length }: { readonly length: number }): void {
  if (length <= MAX_BATCH) return;
  const rule = `at most ${MAX_BATCH} in one call`;
  const { code, message, details } = invalidArgument(action, `number of ${name}`, rule, length);
  throw new ShardloomError(code, message, { details: { ...details, limit: MAX_BATCH } });
}

/** The same error with more details. */
export function withDetails(error: unknown, details: Readonly<Record<string, unknown>>): ShardloomError {
  const base = ShardloomError.from(error);
  return new ShardloomError(base.code, base.message, {
    details: { ...base.details, ...details },
    cause: base.cause ?? base,
    retryable: base.retryable,
  });
}

/** The batch being filled, and those in flight. */
class Load<Document, Item extends { readonly id: DocumentId }> {
  readonly #loader: Loader<Document, Item>;
  readonly #onProgress: LoadOptions["onProgress"];
  readonly #flights: Map<Promise<void>, ReadonlySet<DocumentId>> = new Map();
  #batch: Item[] = [];
  #ids: Set<DocumentId> = new Set();
  #bytes = 0;
  #written = 0;
  #inserted = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(loader: Loader<Document, Item>, onProgress: LoadOptions["onProgress"]) {
    this.#loader = loader;
    this.#onProgress = onProgress;
  }

  isFull(batchSize: number): boolean {
    return this.#batch.length >= batchSize || this.#bytes >= BATCH_BYTES;
  }

  batchHas(id: DocumentId): boolean {
    return this.#ids.has(id);
  }

  add(item: Item): void {
    this.#bytes += this.#loader.bytes(item);
    this.#batch.push(item);
    this.#ids.add(item.id);
  }

  /** Waits until another batch may be begun, and none in flight holds the id. @throws the first failure of a batch */
  async room(id: DocumentId): Promise<void> {
    while (
      this.#failure === undefined &&
      this.#flights.size > 0 &&
      (this.#flights.size >= BATCHES_IN_FLIGHT || this.#isFlying(id))
    ) {
      await Promise.race(this.#flights.keys());
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  send(): void {
    if (this.#batch.length === 0) return;
    const flight = this.#loader.write(this.#batch).then(
      (progress) => this.#acknowledge(progress),
      (error: unknown) => {
        const { written } = ShardloomError.from(error).details;
        if (typeof written === "number") this.#written += written;
        this.fail(error);
      },
    );
    const settled = flight.catch((error: unknown) => this.fail(error)).finally(() => this.#flights.delete(settled));
    this.#flights.set(settled, this.#ids);
    this.#batch = [];
    this.#ids = new Set();
    this.#bytes = 0;
  }

  fail(error: unknown): void {
    this.#failure ??= { error };
  }

  async end(): Promise<LoadProgress> {
    await Promise.all(this.#flights.keys());
    if (this.#failure !== undefined) throw withDetails(this.#failure.error, { written: this.#written });
    return { written: this.#written, inserted: this.#inserted };
  }

  #acknowledge(progress: LoadProgress): void {
    this.#written += progress.written;
    this.#inserted += progress.inserted;
    this.#onProgress?.({ written: this.#written, inserted: this.#inserted });
  }

  #isFlying(id: DocumentId): boolean {
    for (const ids of this.#flights.values()) if (ids.has(id)) return true;
    return false;
  }
}

/** One step of a source; what it throws is the source's fault and says so. */
async function read<Document>(
  iterator: Iterator<Document> | AsyncIterator<Document>,
): Promise<IteratorResult<Document>> {
  try {
    return await iterator.next();
  } catch (error) {
    if (ShardloomError.is(error)) throw error;
    throw new ShardloomError(
      "ERR_INVALID_ARGUMENT",
      `Cannot read documents as their source failed: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

/** Ends a wait when a signal fires: a source may never give its next document. */
class AbortWait {
  readonly #signal: AbortSignal | undefined;
  #reject: (error: ShardloomError) => void = () => undefined;
  readonly #aborted: Promise<never>;
  readonly #listener = (): void => {
    this.#reject(
      new ShardloomError("ERR_ABORTED", "Cannot finish load as its signal was aborted", {
        cause: this.#signal?.reason,
      }),
    );
  };

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
    this.#aborted = new Promise((_, reject) => {
      this.#reject = reject;
    });
    this.#aborted.catch(() => undefined); // heard through race()
    if (signal?.aborted === true) this.#listener();
    signal?.addEventListener("abort", this.#listener, { once: true });
  }

  race<T>(work: Promise<T>): Promise<T> {
    return this.#signal === undefined ? work : Promise.race([this.#aborted, work]);
  }

  dispose(): void {
    this.#signal?.removeEventListener("abort", this.#listener);
  }
}
