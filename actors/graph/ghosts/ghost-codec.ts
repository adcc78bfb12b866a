/**
 * Fixed binary layouts of the ghost messages, both directions.
 *
 * All little-endian, in place in ring memory at an 8-aligned offset; every item starts at a multiple of 8 and padding is not read. Writers
 * trust their arguments; readers check every length and key against the record before using it (`ERR_CORRUPT`).
 *
 * ```
 *  create, delete   i32 collection | count | holder | 0, f64 holderEpoch, then items:
 *                   i32 idWord | references (delete: 0), f64 version, key bytes, padding to 8
 *  verify           i32 collection | count | asker | 0, f64 0, then items: i32 idWord | 0, f64 0, key bytes, padding to 8
 *  verify reply     i32 count | 0, f64 ownerEpoch, then u8 status of each item in order (0 gone, 1 exists, 2 not of this shard)
 * ```
 */
import { ShardloomError } from "../../../src/errors.ts";
import { ID_NUMBER, idKindOf, idLengthOf, idWordOf, isIdWord, readId, writeId } from "../../../src/store/id-codec.ts";
import type { EngineRequest, WireMemory } from "../../engine.ts";
import type { Frame } from "../graph-messages.ts";
import type { VertexKey } from "../vertex-key.ts";
import type { GhostChange } from "./ghost-holders.ts";

const HEADER = 24;
const ITEM_HEADER = 16;
const REPLY_HEADER = 16;

/** What an owner says of one vertex. */
export const GHOST_STATUS = { gone: 0, exists: 1, elsewhere: 2 } as const;
export type GhostStatus = (typeof GHOST_STATUS)[keyof typeof GHOST_STATUS];

/** Ghosts that a holder made, changed or deleted. */
export interface GhostChanges {
  readonly collectionId: number;
  readonly holder: number;
  readonly holderEpoch: number;
  readonly changes: readonly GhostChange[];
}

/** A holder's question whether vertices exist. */
export interface GhostQuestion {
  readonly collectionId: number;
  readonly asker: number;
  readonly keys: readonly VertexKey[];
}

/** The owner's answer, in the order of the question. */
export interface GhostReply {
  readonly ownerEpoch: number;
  readonly statuses: readonly GhostStatus[];
}

/** Which of the two messages of changes: a delete has no references, a create at least one. */
export type GhostChangeKind = "create" | "delete";

export function ghostChangesBytes({ changes }: GhostChanges): number {
  return changes.reduce((bytes, { key }) => bytes + itemBytes(key), HEADER);
}

export function writeGhostChanges(m: WireMemory, offset: number, message: GhostChanges): void {
  const { collectionId, holder, holderEpoch, changes } = message;
  let at = writeHeader(m, offset, collectionId, changes.length, holder, holderEpoch);
  for (const { key, references, version } of changes) at = writeItem(m, at, key, references, version);
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
export function readGhostChanges(m: EngineRequest, kind: GhostChangeKind): GhostChanges {
  const cursor = new ItemCursor(m, `ghost ${kind}`);
  const changes: GhostChange[] = [];
  while (cursor.next()) {
    const { references, version } = cursor;
    if (references < 0 || (references === 0) !== (kind === "delete")) throw cursor.corrupt("references", references);
    if (!(Number.isSafeInteger(version) && version >= 0)) throw cursor.corrupt("version", version);
    changes.push({ key: cursor.key, references, version });
  }
  const { collectionId, shard, epoch } = cursor;
  if (!Number.isSafeInteger(epoch)) throw cursor.corrupt("holderEpoch", epoch);
  return { collectionId, holder: shard, holderEpoch: epoch, changes };
}

export function ghostQuestionBytes({ keys }: GhostQuestion): number {
  return keys.reduce<number>((bytes, key) => bytes + itemBytes(key), HEADER);
}

export function writeGhostQuestion(m: WireMemory, offset: number, { collectionId, asker, keys }: GhostQuestion): void {
  let at = writeHeader(m, offset, collectionId, keys.length, asker, 0);
  for (const key of keys) at = writeItem(m, at, key, 0, 0);
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
export function readGhostQuestion(m: EngineRequest): GhostQuestion {
  const cursor = new ItemCursor(m, "ghost verify");
  const keys: VertexKey[] = [];
  while (cursor.next()) keys.push(cursor.key);
  return { collectionId: cursor.collectionId, asker: cursor.shard, keys };
}

export function ghostReplyBytes({ statuses }: GhostReply): number {
  return align(REPLY_HEADER + statuses.length);
}

export function writeGhostReply(m: WireMemory, offset: number, { ownerEpoch, statuses }: GhostReply): void {
  m.i32[offset >>> 2] = statuses.length;
  m.i32[(offset >>> 2) + 1] = 0;
  m.f64[(offset + 8) >>> 3] = ownerEpoch;
  for (const [index, status] of statuses.entries()) m.bytes[offset + REPLY_HEADER + index] = status;
}

/** @param asked Number of vertices that were asked about. @throws {ShardloomError} `ERR_CORRUPT` */
export function readGhostReply(m: Frame, asked: number): GhostReply {
  const kind = "ghost verify reply";
  if (m.length < REPLY_HEADER) throw corrupt(kind, "byte length", m.length);
  const count = m.i32[m.offset >>> 2] as number;
  if (count !== asked || REPLY_HEADER + count > m.length) throw corrupt(kind, "count", count);
  const ownerEpoch = m.f64[(m.offset + 8) >>> 3] as number;
  if (!Number.isSafeInteger(ownerEpoch)) throw corrupt(kind, "ownerEpoch", ownerEpoch);
  const statuses: GhostStatus[] = [];
  for (let index = 0; index < count; index++) {
    const status = m.bytes[m.offset + REPLY_HEADER + index] as number;
    if (status !== GHOST_STATUS.gone && status !== GHOST_STATUS.exists && status !== GHOST_STATUS.elsewhere) {
      throw corrupt(kind, "status", status);
    }
    statuses.push(status);
  }
  return { ownerEpoch, statuses };
}

function itemBytes(key: VertexKey): number {
  return align(ITEM_HEADER + idLengthOf(idWordOf(key)));
}

function writeHeader(
  m: WireMemory,
  offset: number,
  collection: number,
  count: number,
  shard: number,
  epoch: number,
): number {
  const word = offset >>> 2;
  m.i32[word] = collection;
  m.i32[word + 1] = count;
  m.i32[word + 2] = shard;
  m.i32[word + 3] = 0;
  m.f64[(offset + 16) >>> 3] = epoch;
  return offset + HEADER;
}

/** @returns Where the next item begins. */
function writeItem(m: WireMemory, at: number, key: VertexKey, references: number, version: number): number {
  const idWord = idWordOf(key);
  m.i32[at >>> 2] = idWord;
  m.i32[(at >>> 2) + 1] = references;
  m.f64[(at + 8) >>> 3] = version;
  writeId(m.bytes, at + ITEM_HEADER, key, idWord);
  return align(at + ITEM_HEADER + idLengthOf(idWord));
}

/** Walks the items of a message that was not looked at yet. */
class ItemCursor {
  readonly collectionId: number;
  readonly shard: number;
  readonly epoch: number;
  key: VertexKey = 0;
  references = 0;
  version = 0;
  readonly #m: EngineRequest;
  readonly #kind: string;
  #left: number;
  #at: number;

  constructor(m: EngineRequest, kind: string) {
    this.#m = m;
    this.#kind = kind;
    if (m.length < HEADER) throw this.corrupt("byte length", m.length);
    const word = m.offset >>> 2;
    this.collectionId = m.i32[word] as number;
    this.#left = m.i32[word + 1] as number;
    this.shard = m.i32[word + 2] as number;
    this.epoch = m.f64[(m.offset + 16) >>> 3] as number;
    this.#at = m.offset + HEADER;
    if (this.#left < 0 || this.#left > (m.length - HEADER) / ITEM_HEADER) throw this.corrupt("count", this.#left);
    if (this.shard < 0) throw this.corrupt("shard", this.shard);
  }

  next(): boolean {
    if (this.#left === 0) return false;
    this.#left--;
    const { i32, f64, bytes, offset, length } = this.#m;
    const at = this.#at;
    const end = offset + length;
    if (at + ITEM_HEADER > end) throw this.corrupt("item", at - offset);
    const idWord = i32[at >>> 2] as number;
    if (!isIdWord(idWord) || at + ITEM_HEADER + idLengthOf(idWord) > end) throw this.corrupt("idWord", idWord);
    this.references = i32[(at >>> 2) + 1] as number;
    this.version = f64[(at + 8) >>> 3] as number;
    this.key = readId(bytes, at + ITEM_HEADER, idWord);
    if (idKindOf(idWord) === ID_NUMBER && !(Number.isSafeInteger(this.key) && (this.key as number) >= 0)) {
      throw this.corrupt("key", Number(this.key));
    }
    this.#at = align(at + ITEM_HEADER + idLengthOf(idWord));
    return true;
  }

  corrupt(name: string, value: number): ShardloomError {
    return corrupt(this.#kind, name, value);
  }
}

function align(bytes: number): number {
  return (bytes + 7) & ~7;
}

function corrupt(kind: string, name: string, value: number): ShardloomError {
  const message = `Cannot decode ${kind} message as ${name} must fit its record: current value is ${value}`;
  return new ShardloomError("ERR_CORRUPT", message, { details: { kind, name, value } });
}
