/**
 * Bodies of the effects of upserts and deletes: for each vshard what a request has for it, in the request's own layout, and versions.
 *
 * ```
 *  upsert  header and items of an upsert request (vector-requests.ts), f64 version[items]
 *  delete  header and entries of an ids request, f64 version
 * ```
 *
 * Invariant: applying the bodies of a vshard in order leaves what the write left on its primary, versions included. No body is larger
 * than the limit, unless one item alone is.
 */
import type { WireMemory, WriteEffects } from "../engine.ts";
import { IDS_HEADER, UPSERT_HEADER } from "./vector-requests.ts";

/** A range of a request. */
interface Piece {
  readonly memory: Pick<WireMemory, "bytes">;
  readonly from: number;
  readonly to: number;
  readonly version: number;
}

/** What one vshard gets in one body. */
interface Group {
  readonly vshard: number;
  readonly pieces: Piece[];
  bytes: number;
}

/** Collects the pieces of a request by vshard. */
class Bodies {
  readonly groups: Group[] = [];
  readonly #open: Map<number, Group> = new Map();
  readonly #header: number;
  readonly #pieceOverhead: number;
  readonly #limit: number;

  constructor(header: number, pieceOverhead: number, limit: number) {
    this.#header = header;
    this.#pieceOverhead = pieceOverhead;
    this.#limit = limit;
  }

  add(vshard: number, piece: Piece): void {
    const bytes = piece.to - piece.from + this.#pieceOverhead;
    let group = this.#open.get(vshard);
    if (group === undefined || group.bytes + bytes > this.#limit) {
      group = { vshard, pieces: [], bytes: this.#header };
      this.#open.set(vshard, group);
      this.groups.push(group);
    }
    group.pieces.push(piece);
    group.bytes += bytes;
  }
}

/** Effects of an upsert. */
export class UpsertBodies {
  readonly #bodies: Bodies;
  readonly #collectionId: number;
  readonly #dimensions: number;

  constructor(collectionId: number, dimensions: number, limit: number) {
    this.#bodies = new Bodies(UPSERT_HEADER, 8, limit);
    this.#collectionId = collectionId;
    this.#dimensions = dimensions;
  }

  /** @param from Byte range of the item, padding included. */
  add(vshard: number, memory: Pick<WireMemory, "bytes">, from: number, to: number, version: number): void {
    this.#bodies.add(vshard, { memory, from, to, version });
  }

  tell(type: number, effects: WriteEffects): void {
    for (const { vshard, pieces, bytes } of this.#bodies.groups) {
      const body = new Uint8Array(bytes);
      new Int32Array(body.buffer, 0, 3).set([this.#collectionId, pieces.length, this.#dimensions]);
      const at = copyPieces(body, UPSERT_HEADER, pieces);
      new Float64Array(body.buffer, at, pieces.length).set(pieces.map((piece) => piece.version));
      effects.add(vshard, type, this.#collectionId, body);
    }
  }
}

/** Effects of a delete. */
export class DeleteBodies {
  readonly #bodies: Bodies;
  readonly #collectionId: number;

  constructor(collectionId: number, limit: number) {
    this.#bodies = new Bodies(IDS_HEADER + 8, 0, limit);
    this.#collectionId = collectionId;
  }

  /** @param version A version that the shard has not given to a document before the delete. */
  add(vshard: number, memory: Pick<WireMemory, "bytes">, from: number, to: number, version: number): void {
    this.#bodies.add(vshard, { memory, from, to, version });
  }

  tell(type: number, effects: WriteEffects): void {
    for (const { vshard, pieces, bytes } of this.#bodies.groups) {
      const body = new Uint8Array(bytes);
      new Int32Array(body.buffer, 0, 2).set([this.#collectionId, pieces.length]);
      const at = copyPieces(body, IDS_HEADER, pieces);
      new Float64Array(body.buffer, at, 1)[0] = pieces.reduce((most, piece) => Math.max(most, piece.version), 0);
      effects.add(vshard, type, this.#collectionId, body);
    }
  }
}

function copyPieces(body: Uint8Array, start: number, pieces: readonly Piece[]): number {
  let at = start;
  for (const { memory, from, to } of pieces) {
    body.set(memory.bytes.subarray(from, to), at);
    at += to - from;
  }
  return at;
}
