/**
 * The text collections of one cluster: opens, describes, drops and recovers them (see collection-catalog.ts).
 *
 * Invariant: a handle is given out only for a collection that every shard of this node has open, and its language is loaded on this thread.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import type { CollectionNews } from "../../src/plane/collection-exchange.ts";
import type { RecoverTask, ShardReady } from "../../src/plane/shard-task.ts";
import { TEXT_DROP, TEXT_OPEN } from "../../src/wire/message-types.ts";
import type { CatalogParts } from "../catalog-types.ts";
import { CollectionCatalog } from "../collection-catalog.ts";
import { Analyser } from "./analyser.ts";
import { TextCollection } from "./client-collection.ts";
import { loadStemmer } from "./stemmers.ts";
import {
  assertSameTextOptions,
  type ResolvedTextOptions,
  resolveTextOptions,
  type TextCollectionOptions,
  toTextOptions,
} from "./text-options.ts";
import { readOpenReply } from "./text-replies.ts";
import {
  COLLECTION_REQUEST_BYTES,
  encodeOptions,
  openRequestBytes,
  writeDropRequest,
  writeOpenRequest,
} from "./text-requests.ts";

/** A collection as another thread needs to know it. */
export interface TextDescription {
  readonly collectionId: number;
  readonly options: TextCollectionOptions;
  /** By shard; undefined for those of other nodes. */
  readonly roots: readonly (RegionRef | undefined)[];
}

/** A handle of a connected thread's own on a collection that the main thread has described. */
export async function connectText(
  parts: Pick<CatalogParts, "coordinator" | "assertOpen">,
  name: string,
  description: TextDescription,
): Promise<TextCollection> {
  const options = resolveTextOptions(description.options);
  await loadStemmer(options.language);
  const { collectionId } = description;
  return new TextCollection({ ...parts, name, collectionId, options, analyser: new Analyser(options) });
}

/** The collections of texts of one cluster. */
export class TextCatalog {
  readonly engine = "text";
  readonly #parts: CatalogParts;
  readonly #catalog: CollectionCatalog<ResolvedTextOptions>;

  constructor(parts: CatalogParts) {
    this.#parts = parts;
    this.#catalog = new CollectionCatalog(parts, {
      name: this.engine,
      assertSame: assertSameTextOptions,
      openType: TEXT_OPEN,
      openPayload: (collectionId, options, checkOnly) => {
        const encoded = encodeOptions(options);
        return {
          byteLength: openRequestBytes(encoded),
          write: (target, offset) => writeOpenRequest(target, offset, collectionId, encoded, checkOnly),
        };
      },
      readRoot: (frame) => readOpenReply(frame, frame.offset),
      dropType: TEXT_DROP,
      dropPayload: (collectionId, undo) => ({
        byteLength: COLLECTION_REQUEST_BYTES,
        write: (target, offset) => writeDropRequest(target, offset, collectionId, undo),
      }),
      toKept: toTextOptions,
      fromKept: (options) => resolveTextOptions(options as TextCollectionOptions),
    });
  }

  /** As {@link CollectionCatalog.reopen}. */
  reopen(): Promise<void> {
    return this.#catalog.reopen();
  }

  /** Names of the open collections. */
  names(): string[] {
    return this.#catalog.names();
  }

  /** Opens a collection, creating it when it is new and options are given. */
  async open(name: string, options: TextCollectionOptions | undefined): Promise<TextCollection> {
    const resolved = options === undefined ? undefined : resolveTextOptions(options);
    const entry = await this.#catalog.entry(name, resolved);
    await loadStemmer(entry.options.language);
    return new TextCollection({
      name,
      collectionId: entry.collectionId,
      options: entry.options,
      coordinator: this.#parts.coordinator,
      analyser: new Analyser(entry.options),
      assertOpen: () => this.#catalog.assertEntry(name, entry),
    });
  }

  /** What another thread needs for a handle of its own; creates the collection as {@link open} does. */
  async describe(name: string, options: TextCollectionOptions | undefined): Promise<TextDescription> {
    const resolved = options === undefined ? undefined : resolveTextOptions(options);
    const entry = await this.#catalog.entry(name, resolved);
    return { collectionId: entry.collectionId, options: toTextOptions(entry.options), roots: [...entry.roots] };
  }

  /** As {@link CollectionCatalog.news}. */
  news(): CollectionNews[] {
    return this.#catalog.news();
  }

  /** As {@link CollectionCatalog.learn}. */
  learn(news: CollectionNews): Promise<void> {
    return this.#catalog.learn(news);
  }

  /** As {@link CollectionCatalog.drop}. */
  drop(name: string): Promise<boolean> {
    return this.#catalog.drop(name);
  }

  /** What the next worker of a shard must take over. */
  recoverTasks(shard: number): RecoverTask[] {
    return this.#catalog.recoverTasks(shard).map((task) => {
      const state = task.state as { readonly options: ResolvedTextOptions };
      return { ...task, state: { ...state, options: toTextOptions(state.options) } };
    });
  }

  /** Takes the new roots of a shard whose worker was replaced. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    this.#catalog.recovered(shard, recovered);
  }
}
