/**
 * The result of a run as one shard gives it: a page of vertices, or one vertex.
 *
 * A result is the state block that the root names: its first fields, by vertex, and flags of rows that had none. Invariant: it is read out of
 * registered memory alone, so a successor gives the same as the worker that computed it.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { EngineReply } from "../engine.ts";
import { encodeBody, type Frame } from "./graph-messages.ts";
import { type Block, type GraphRoot, RUN_WORD } from "./graph-root.ts";
import type { ResultsRequest } from "./run-messages.ts";
import { hashOfKey, type VertexKey } from "./vertex-key.ts";
import type { VertexTable } from "./vertex-table.ts";

const HEADER = 16;
/** Most bytes of one key that is text, as a plain value. */
const TEXT_BYTES = 520;

/** A page of results. */
export interface ResultsPage {
  readonly keys: readonly VertexKey[] | Float64Array;
  /** One array for each field. */
  readonly fields: readonly Float64Array[];
  /** Where the next page begins; -1: this was the last. */
  readonly next: number;
}

/** @throws {ShardloomError} `ERR_CLOSED` when the run has no result here. */
export function writeResults(root: GraphRoot, table: VertexTable, request: ResultsRequest, reply: EngineReply): void {
  const word = root.run(request.run, false);
  const block = word === undefined ? undefined : root.block(word + RUN_WORD.result);
  if (word === undefined || block === undefined)
    throw new ShardloomError("ERR_CLOSED", "Cannot read results as the run was closed", {
      details: { run: request.run },
    });
  const fields = root.get(word + RUN_WORD.fields);
  const rows = root.get(word + RUN_WORD.rows); // vertices that were added since are not in it
  const goneAt = root.get(word + RUN_WORD.gone);
  const flags = goneAt === 0 ? undefined : root.arena.bytes.subarray(block.address + goneAt).subarray(0, rows);
  const room = Math.floor((reply.limitBytes - HEADER) / entryBytes(table, fields));
  let { from } = request;
  let end = Math.min(rows, from + Math.max(0, Math.min(request.count, room)));
  if (request.key !== undefined) {
    from = table.find(request.key, hashOfKey(request.key));
    end = from < 0 || from >= rows ? from : from + 1;
  }
  const picked: number[] = [];
  for (let row = from; row < end; row++) if (flags?.[row] !== 1) picked.push(row);
  writePage(root, table, block, { picked, fields, rows, next: end < rows ? end : -1 }, reply);
}

interface Part {
  /** Rows, ascending. */
  readonly picked: readonly number[];
  readonly fields: number;
  readonly rows: number;
  readonly next: number;
}

function writePage(root: GraphRoot, table: VertexTable, block: Block, part: Part, reply: EngineReply): void {
  const { picked, fields, rows, next } = part;
  const { numeric } = table;
  const count = picked.length;
  const plain = numeric ? undefined : encodeBody(picked.map((row) => table.keyOf(row)));
  const keyBytes = plain === undefined ? count * 8 : 8 + ((plain.length + 7) & ~7);
  reply.claim(HEADER + keyBytes + fields * count * 8);
  const { i32, f64, bytes, offset } = reply;
  i32.set([count, fields, plain === undefined ? 0 : 1, next], offset >>> 2);
  let at = (offset + HEADER) >>> 3;
  if (plain === undefined)
    for (let pick = 0; pick < count; pick++) f64[at + pick] = table.keys[picked[pick] as number] as number;
  else {
    i32[at * 2] = plain.length;
    bytes.set(plain, at * 8 + 8);
  }
  at += keyBytes >>> 3;
  for (let field = 0; field < fields; field++) {
    const first = (block.address >>> 3) + field * rows;
    for (let pick = 0; pick < count; pick++) f64[at++] = root.arena.f64[first + (picked[pick] as number)] as number;
  }
}

function entryBytes(table: VertexTable, fields: number): number {
  return fields * 8 + (table.numeric ? 8 : TEXT_BYTES);
}

/** Copies a page out of its reply. */
export function readResults(frame: Frame, decode: (offset: number, length: number) => unknown): ResultsPage {
  const word = frame.offset >>> 2;
  const [count = 0, fields = 0, plain = 0, next = -1] = frame.i32.subarray(word, word + 4);
  let at = (frame.offset + HEADER) >>> 3;
  const take = (length: number): Float64Array => {
    const list = frame.f64.slice(at, at + length);
    at += length;
    return list;
  };
  let keys: readonly VertexKey[] | Float64Array;
  if (plain === 0) keys = take(count);
  else {
    const length = frame.i32[at * 2] as number;
    keys = decode(at * 8 + 8, length) as readonly VertexKey[];
    at += 1 + ((length + 7) >>> 3);
  }
  return { keys, fields: Array.from({ length: fields }, () => take(count)), next };
}
