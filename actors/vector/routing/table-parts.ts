/**
 * Encoded tables in parts: what is sent of one that is larger than a message, and what has come of those that others send.
 *
 * Invariant: parts are put together in order only, all of one checksum; what comes twice or too early changes nothing. A part that begins a table
 * of which some is there already asks for what is missing, so that an exchange that was broken off goes on where it was. No memory is taken
 * for what a peer only says that it will send. Whether the whole is a table is for the codec to say.
 */

/** Where the rest of a table begins. */
export interface PartRequest {
  readonly shard: number;
  /** Of the encoded table. */
  readonly checksum: number;
  readonly at: number;
}

export interface TablePart extends PartRequest {
  /** Bytes of the whole table. */
  readonly total: number;
  readonly bytes: Uint8Array;
}

interface Partial {
  readonly checksum: number;
  readonly total: number;
  readonly parts: Uint8Array[];
  length: number;
}

/** The part of a table that was asked for; undefined: there is none. */
export function partOf(table: Uint8Array, { shard, checksum, at }: PartRequest, most: number): TablePart | undefined {
  if (!(at >= 0 && at < table.length && most >= 1)) return undefined;
  return { shard, checksum, at, total: table.length, bytes: table.subarray(at, at + Math.floor(most)) };
}

export class PartialTables {
  readonly #partial = new Map<number, Partial>();

  /** @returns the whole table, or what to ask for next; undefined: nothing, another part is on its way */
  take({ shard, checksum, at, total, bytes }: TablePart): Uint8Array | PartRequest | undefined {
    let partial = this.#partial.get(shard);
    if (at === 0 && (partial === undefined || partial.checksum !== checksum || partial.total !== total)) {
      partial = { checksum, total, parts: [], length: 0 };
      this.#partial.set(shard, partial);
    }
    if (partial === undefined || partial.checksum !== checksum || bytes.length === 0) return undefined;
    if (at === partial.length) {
      partial.parts.push(bytes.slice()); // a transport may reuse its buffer
      partial.length += bytes.length;
    } else if (at !== 0) return undefined;
    if (partial.length < partial.total) return { shard, checksum, at: partial.length };
    this.#partial.delete(shard);
    return Buffer.concat(partial.parts);
  }
}
