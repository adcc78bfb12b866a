/**
 * The documents that effects of text writes change.
 *
 * Invariant: as effects are written in effect-bodies.ts and applied in text-copies.ts: a version for each item or id behind all of them.
 */
import type { DocumentChange } from "../../src/store/document-batch.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import { TEXT_DELETE, TEXT_UPSERT } from "../../src/wire/message-types.ts";
import { type DocumentCodec, joinItems, newBody, notAnItem, requestOver } from "../document-codec.ts";
import type { EngineRequest } from "../engine.ts";
import { IdsCursor, UPSERT_HEADER, UpsertCursor } from "./text-requests.ts";

const VERSION_BYTES = 8;

export const textDocuments: DocumentCodec = {
  types: [TEXT_UPSERT, TEXT_DELETE],
  changes: (vshard, type, body) => (type === TEXT_UPSERT ? upserts(vshard, body) : deletes(vshard, body)),
  join: (_type, bodies) => joinItems(UPSERT_HEADER, bodies),
};

function upserts(vshard: number, body: Uint8Array): DocumentChange[] {
  const request = requestOver(body);
  const cursor = new UpsertCursor().open(request);
  const { bytes, f64 } = request;
  let end = UPSERT_HEADER;
  while (cursor.next()) end = cursor.itemEnd;
  checkVersions(request, end, cursor.count);
  const changes: DocumentChange[] = [];
  cursor.rewind();
  for (let item = 0; cursor.next(); item++) {
    const { collectionId, idWord, idOffset, bodyOffset, itemOffset, itemEnd } = cursor;
    const single = newBody(UPSERT_HEADER + itemEnd - itemOffset + VERSION_BYTES);
    single.i32.set([collectionId, 1]);
    single.bytes.set(bytes.subarray(itemOffset, itemEnd), UPSERT_HEADER);
    const versionAt = end + VERSION_BYTES * item;
    single.bytes.set(bytes.subarray(versionAt, versionAt + VERSION_BYTES), single.bytes.length - VERSION_BYTES);
    changes.push({
      collection: collectionId,
      vshard,
      idWord,
      id: bytes.subarray(idOffset, bodyOffset),
      type: TEXT_UPSERT,
      version: f64[versionAt >>> 3] as number,
      body: single.bytes,
    });
  }
  return changes;
}

function deletes(vshard: number, body: Uint8Array): DocumentChange[] {
  const request = requestOver(body);
  const ids = new IdsCursor().open(request);
  const changes: DocumentChange[] = [];
  let end = 0;
  while (ids.next()) {
    end = ids.entryEnd;
    changes.push({
      collection: ids.collectionId,
      vshard,
      idWord: ids.idWord,
      id: request.bytes.subarray(ids.idOffset, ids.idOffset + idLengthOf(ids.idWord)),
      type: TEXT_DELETE,
      version: 0,
      body: undefined,
    });
  }
  checkVersions(request, end, changes.length);
  return changes.map((change, at) => ({ ...change, version: request.f64[(end >>> 3) + at] as number }));
}

function checkVersions(request: EngineRequest, end: number, count: number): void {
  if (end + VERSION_BYTES * count > request.length) throw notAnItem("length", request.length);
}
