/**
 * The document codecs of all engines whose data is replicated.
 *
 * Invariant: every type of effect that a shard logs is read by exactly one of them.
 */
import { ShardloomError } from "../src/errors.ts";
import type { JoinBodies } from "../src/store/documents.ts";
import { readKeyEntry } from "../src/store/idempotent-effect.ts";
import { IDEMPOTENCY_KEYS, IDEMPOTENT_WRITE } from "../src/wire/message-types.ts";
import { type DocumentCodec, notAnItem, requestOver } from "./document-codec.ts";
import { textDocuments } from "./text/document-changes.ts";
import { vectorDocuments } from "./vector/document-changes.ts";

/** Effects of writes with a key change what the effects inside them do; keys alone change no document. */
const keyedDocuments: DocumentCodec = {
  types: [IDEMPOTENT_WRITE, IDEMPOTENCY_KEYS],
  changes(vshard, type, body) {
    if (type === IDEMPOTENCY_KEYS) return [];
    const request = requestOver(body);
    const { type: inner, end } = readKeyEntry(request, 0, request.length);
    if (end === request.length) return [];
    if (keyedDocuments.types.includes(inner)) throw notAnItem("type", inner);
    return documentCodecOf(inner).changes(vshard, inner, request.bytes.slice(end));
  },
  join(type) {
    throw notAnItem("type", type);
  },
};

const CODECS: ReadonlyMap<number, DocumentCodec> = new Map(
  [vectorDocuments, textDocuments, keyedDocuments].flatMap((codec) => codec.types.map((type) => [type, codec])),
);

/** @throws {ShardloomError} `ERR_UNKNOWN_MESSAGE` when no engine has effects of that type. */
export function documentCodecOf(type: number): DocumentCodec {
  const codec = CODECS.get(type);
  if (codec !== undefined) return codec;
  throw new ShardloomError(
    "ERR_UNKNOWN_MESSAGE",
    `Cannot read documents of effect as its type must be one of ${[...CODECS.keys()].join(", ")}: current value is ${type}`,
    { details: { type } },
  );
}

/** Joins the bodies of documents for whichever engine they are. */
export const joinDocuments: JoinBodies = (type, bodies) => documentCodecOf(type).join(type, bodies);
