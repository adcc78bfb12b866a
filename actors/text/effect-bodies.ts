/**
 * Bodies of the effects of upserts and deletes: for each vshard what a request has for it, in the request's own layout, and
 * versions behind it.
 *
 * ```
 *  upsert  header and items of an upsert request (text-requests.ts), f64 version[items]
 *  delete  header and entries of an ids request, f64 version[entries]
 * ```
 *
 * Invariant: applying the bodies of a vshard in order leaves what the write left on its primary, versions included. No body is
 * larger than the limit, unless one item alone is.
 */
import type { WireMemory, WriteEffects } from "../engine.ts";
import { align } from "./text-requests.ts";

const VERSION_BYTES = 8;

/** What one vshard gets in one body: ranges of the request. */
interface Group {
  readonly vshard: number;
  readonly from: number[];
  readonly to: number[];
  readonly versions: number[];
  bytes: number;
}

/** The effects of one request. */
export class EffectBodies {
  readonly #collectionId: number;
  readonly #headerBytes: number;
  readonly #limit: number;
  readonly #groups: Group[] = [];
  readonly #open: Map<number, Group> = new Map();

  /** @param headerBytes Of the request's layout; its first words are the collection and the count, the others 0. */
  constructor(collectionId: number, headerBytes: number, limit: number) {
    this.#collectionId = collectionId;
    this.#headerBytes = headerBytes;
    this.#limit = limit;
  }

  /** @param from Byte range of the item in the request, padding included. */
  add(vshard: number, from: number, to: number, version: number): void {
    const bytes = to - from + VERSION_BYTES;
    let group = this.#open.get(vshard);
    if (group === undefined || group.bytes + bytes > this.#limit) {
      group = { vshard, from: [], to: [], versions: [], bytes: this.#headerBytes };
      this.#open.set(vshard, group);
      this.#groups.push(group);
    }
    group.from.push(from);
    group.to.push(to);
    group.versions.push(version);
    group.bytes += bytes;
  }

  tell(type: number, request: Pick<WireMemory, "bytes">, effects: WriteEffects): void {
    for (const { vshard, from, to, versions, bytes } of this.#groups) {
      const body = new Uint8Array(bytes);
      new Int32Array(body.buffer, 0, 2).set([this.#collectionId, versions.length]);
      let at = this.#headerBytes;
      for (const [index, start] of from.entries()) {
        body.set(request.bytes.subarray(start, to[index]), at);
        at = align(at + (to[index] as number) - start);
      }
      new Float64Array(body.buffer, at, versions.length).set(versions);
      effects.add(vshard, type, this.#collectionId, body);
    }
  }
}
