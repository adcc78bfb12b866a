/**
 * Bulk load of vectors: what src/store/bulk-load.ts needs to know about documents with vectors.
 *
 * Invariant: a batch that was sent is waited for, whatever the caller's signal says, so that what is written is known.
 */
import { type LoadProgress, loadItems } from "../../src/store/bulk-load.ts";
import { PRIORITY } from "../../src/wire/envelope-layout.ts";
import type { WriteOptions } from "../call-options.ts";
import type { UpsertOptions, VectorCollectionParts, VectorDocument } from "./client-collection.ts";
import { itemBytes, prepareItem, upsertItems } from "./client-upsert.ts";

/** Documents from anywhere. */
export type DocumentSource = Iterable<VectorDocument> | AsyncIterable<VectorDocument>;

/** @throws {ShardloomError} the first failure, with `details.written`. */
export function loadDocuments(
  parts: VectorCollectionParts,
  source: DocumentSource,
  options: UpsertOptions,
): Promise<LoadProgress> {
  // Whatever a write may say, but for the signal and the priority.
  const { timeoutMs, acks, session, tenant } = options;
  const call: WriteOptions = {
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(acks === undefined ? {} : { acks }),
    ...(session === undefined ? {} : { session }),
    ...(tenant === undefined ? {} : { tenant }),
  };
  return loadItems(
    {
      prepare: (document: VectorDocument) => prepareItem(parts, document),
      bytes: (item) => itemBytes(parts, item),
      write: (items) => upsertItems(parts, items, call, PRIORITY.BULK),
    },
    source,
    options,
  );
}
