/**
 * The documents that effects of vector writes change.
 *
 * Invariant: as effects are written in effect-bodies.ts and applied in vector-copies.ts: an upsert has a version for each item behind the
 * items, a delete has one for all.
 */
import type { DocumentChange } from "../../src/store/document-batch.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import { VECTOR_DELETE, VECTOR_UPSERT } from "../../src/wire/message-types.ts";
import { type DocumentCodec, joinItems, newBody, notAnItem, requestOver } from "../document-codec.ts";
import { IdsCursor, UPSERT_HEADER, UpsertCursor } from "./vector-requests.ts";

const VERSION_BYTES = 8;

export const vectorDocuments: DocumentCodec = {
  types: [VECTOR_UPSERT, VECTOR_DELETE],
  changes: (vshard, type, body) => (type === VECTOR_UPSERT ? upserts(vshard, body) : deletes(vshard, body)),
  join: (_type, bodies) => joinItems(UPSERT_HEADER, bodies),
};

function upserts(vshard: number, body: Uint8Array): DocumentChange[] {
  const request = requestOver(body);
  const cursor = new UpsertCursor().open(request);
  const { bytes, f64 } = request;
  let end = UPSERT_HEADER;
  while (cursor.next()) end = cursor.itemEnd;
  if (end + VERSION_BYTES * cursor.count > request.length) throw notAnItem("length", request.length);
  const changes: DocumentChange[] = [];
  cursor.rewind();
  for (let item = 0; cursor.next(); item++) {
    const { collectionId, dimensions, idWord, idOffset, payloadOffset, itemOffset, itemEnd } = cursor;
    const single = newBody(UPSERT_HEADER + itemEnd - itemOffset + VERSION_BYTES);
    single.i32.set([collectionId, 1, dimensions]);
    single.bytes.set(bytes.subarray(itemOffset, itemEnd), UPSERT_HEADER);
    const versionAt = end + VERSION_BYTES * item;
    single.bytes.set(bytes.subarray(versionAt, versionAt + VERSION_BYTES), single.bytes.length - VERSION_BYTES);
    changes.push({
      collection: collectionId,
      vshard,
      idWord,
      id: bytes.subarray(idOffset, payloadOffset),
      type: VECTOR_UPSERT,
      version: f64[versionAt >>> 3] as number,
      body: single.bytes,
    });
  }
  return changes;
}

function deletes(vshard: number, body: Uint8Array): DocumentChange[] {
  const request = requestOver(body);
  const ids = new IdsCursor().open(request);
  const version = request.f64[(request.length >>> 3) - 1] as number;
  const changes: DocumentChange[] = [];
  while (ids.next())
    changes.push({
      collection: ids.collectionId,
      vshard,
      idWord: ids.idWord,
      id: request.bytes.subarray(ids.idOffset, ids.idOffset + idLengthOf(ids.idWord)),
      type: VECTOR_DELETE,
      version,
      body: undefined,
    });
  return changes;
}
