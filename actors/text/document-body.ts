/**
 * A document's texts and payload as the bytes that travel to its shard and are stored there.
 *
 * ```
 *  u32 bytes of each field's text (0xFFFFFFFF = the document has none) | the texts as UTF-8 | payload (msgpack)
 * ```
 *
 * Little-endian and without alignment, as bodies follow ids. Invariant: what a shard has accepted reads back the same
 * forever; a lone surrogate becomes U+FFFD when it is encoded, before anything is indexed.
 */
import { bufferOver } from "../../src/store/id-codec.ts";
import type { FieldTexts } from "./text-index.ts";

const ABSENT = 0xffffffff;

/** @param texts One for each field of the collection. */
export function encodeBody(texts: FieldTexts, payload: Uint8Array | undefined): Uint8Array {
  const sizes = texts.map((text) => (text === undefined ? 0 : Buffer.byteLength(text, "utf8")));
  const total = sizes.reduce((sum, size) => sum + size, texts.length * 4 + (payload?.length ?? 0));
  const body = Buffer.alloc(total);
  let at = texts.length * 4;
  for (const [field, text] of texts.entries()) {
    const size = sizes[field] as number;
    body.writeUInt32LE(text === undefined ? ABSENT : size, field * 4);
    if (text !== undefined) body.write(text, at, size, "utf8");
    at += size;
  }
  if (payload !== undefined) body.set(payload, at);
  return body;
}

/** Whether `length` bytes are a body of a document with `fields` fields. */
export function isBody(bytes: Uint8Array, offset: number, length: number, fields: number): boolean {
  if (length < fields * 4) return false;
  return payloadStart(bytes, offset, fields) <= offset + length;
}

/** Where the payload begins in a body that {@link isBody} admits; it reaches to the body's end. */
export function payloadStart(bytes: Uint8Array, offset: number, fields: number): number {
  let at = offset + fields * 4;
  for (let field = 0; field < fields; field++) {
    const size = readU32(bytes, offset + field * 4);
    if (size !== ABSENT) at += size;
  }
  return at;
}

/** Reads the texts of a body that {@link isBody} admits into `texts`. */
export function readTexts(bytes: Uint8Array, offset: number, fields: number, texts: (string | undefined)[]): void {
  let at = offset + fields * 4;
  for (let field = 0; field < fields; field++) {
    const size = readU32(bytes, offset + field * 4);
    texts[field] = size === ABSENT ? undefined : bufferOver(bytes).toString("utf8", at, at + size);
    if (size !== ABSENT) at += size;
  }
}

/** Texts of a whole body, by field. */
export function textsOf(fields: readonly string[], body: Uint8Array): Record<string, string> {
  const texts: (string | undefined)[] = [];
  readTexts(body, 0, fields.length, texts);
  return Object.fromEntries(
    fields.flatMap((name, at): [string, string][] => (texts[at] === undefined ? [] : [[name, texts[at]]])),
  );
}

function readU32(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] as number) |
      ((bytes[at + 1] as number) << 8) |
      ((bytes[at + 2] as number) << 16) |
      ((bytes[at + 3] as number) << 24)) >>>
    0
  );
}
