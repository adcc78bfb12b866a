/**
 * One shard's part of a collection as its registered memory has it, read from anywhere: in place by a thread of its process, by messages from others.
 *
 * The steps: the shard tells where its roots are; their tables name chunks and keys; vertices, rows and records are read by those, a posted list
 * each. A key that has been revoked meanwhile (another worker has the shard, a chunk was freed) makes the tables be read again, once.
 * Invariant: a vertex is of one version of its cell. A document is of one version of its row, which was the same before and after its record was read.
 * What cannot be read is an error with the status, never a document less.
 */

import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS, statusName } from "../../native-bridge/status.ts";
import { OPCODE } from "../../native-bridge/work-request.ts";
import { ShardloomError } from "../../src/errors.ts";
import {
  decodeGraphTables,
  decodeVertex,
  type GraphTables,
  type GraphVertex,
  vertexRefOf,
} from "../../src/store/graph-vertex.ts";
import type { VectorId } from "../../src/store/id-codec.ts";
import {
  decodeRecordId,
  decodeRow,
  decodeRowTables,
  type RowTables,
  recordHeadAt,
  rowRefAt,
} from "../../src/store/row-decoder.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { VECTOR_STATUS } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import type { Coordinator } from "../coordinator.ts";
import type { ReadWay, ShardReader } from "../shard-reader.ts";
import { readStatusReply, type VectorShardStatus } from "./vector-replies.ts";
import { filterRequestBytes, writeFilterRequest } from "./vector-requests.ts";

/** A document, as its row has it. */
export interface MemoryDocument {
  readonly id: VectorId;
  readonly version: number;
  readonly vector: Float32Array;
  readonly region: RegionRef;
}

/** What the memory of a collection is read with. */
export interface VectorMemoryParts {
  readonly name: string;
  readonly collectionId: number;
  readonly coordinator: Coordinator;
  readonly reader: ShardReader;
  readonly assertOpen: () => void;
}

interface Tables {
  readonly graph: GraphTables;
  /** By shard of the node; those that were asked for. */
  readonly rows: Map<number, RowTables>;
}

/** Reads of tables, and of rows that change meanwhile. */
const ATTEMPTS = 4;
/** Statuses of keys that others have taken the place of. */
const OLD_KEYS: ReadonlySet<number> = new Set([STATUS.REGION_REVOKED, STATUS.INVALID_RKEY]);

export class VectorMemory {
  readonly #parts: VectorMemoryParts;
  #tables: Tables | undefined;
  /** Messages that were sent for reads so far. */
  messages = 0;

  constructor(parts: VectorMemoryParts) {
    parts.assertOpen();
    this.#parts = parts;
  }

  /** How the shard's memory is read from this thread. */
  get by(): ReadWay {
    return this.#parts.reader.by;
  }

  /**
   * Vertices of the graph of the shard's node that searches begin at.
   *
   * @throws {ShardloomError} As all methods here: `ERR_REGION_ACCESS` with a status, `ERR_INVALID_ARGUMENT` when the collection has no graph, and those of calls.
   */
  async entries(options: CallOptions = {}): Promise<readonly number[]> {
    this.#tables = undefined; // they change without a key
    return (await this.#current(options)).graph.entries;
  }

  /** Ids that vertices may have, in ranges: those of the chunks that the shard has written. */
  async ranges(options: CallOptions = {}): Promise<readonly { readonly first: number; readonly count: number }[]> {
    this.#tables = undefined;
    const { graph } = await this.#current(options);
    const { chunkShift } = graph.geometry;
    return graph.chunks.flatMap((chunk) =>
      chunk?.partition === this.#parts.reader.shard
        ? [{ first: chunk.number << chunkShift, count: 1 << chunkShift }]
        : [],
    );
  }

  /** Vertices by their ids; undefined where there is none. */
  vertices(ids: readonly number[], options: CallOptions = {}): Promise<(GraphVertex | undefined)[]> {
    return this.#withTables(options, async ({ graph }) => {
      const refs = ids.map((id) => vertexRefOf(graph, id));
      const cells = await this.#read(refs, options);
      return cells.map((cell, at) => cell && decodeVertex(graph.geometry, ids[at] as number, cell));
    });
  }

  /** The documents that vertices stand for; undefined where one is not there any more. */
  documents(vertices: readonly GraphVertex[], options: CallOptions = {}): Promise<(MemoryDocument | undefined)[]> {
    return this.#withTables(options, async (tables) => {
      const found: (MemoryDocument | undefined)[] = vertices.map(() => undefined);
      let open = [...vertices.keys()];
      for (let attempt = 0; open.length > 0; attempt++) {
        if (attempt === ATTEMPTS) throw this.#unread(STATUS.RETRY_EXCEEDED);
        open = await this.#readDocuments(tables, vertices, open, found, options);
      }
      return found;
    });
  }

  /** @returns those whose row changed meanwhile */
  async #readDocuments(
    tables: Tables,
    vertices: readonly GraphVertex[],
    open: readonly number[],
    found: (MemoryDocument | undefined)[],
    options: CallOptions,
  ): Promise<number[]> {
    const places = open.map((at) => vertices[at] as GraphVertex);
    for (const { shard } of places) await this.#rowsOf(tables, shard, options);
    const refs = places.map(({ shard, document }) => rowRefAt(tables.rows.get(shard) as RowTables, document.address));
    const cells = await this.#read(refs, options);
    const rows = cells.map((cell, at) => {
      const row = cell === undefined ? undefined : decodeRow(cell);
      return row?.incarnation === places[at]?.document.incarnation && row?.record !== 0 ? row : undefined;
    });
    const heads = rows.map(
      (row, at) => row && recordHeadAt(tables.rows.get(places[at]?.shard ?? -1) as RowTables, row.record),
    );
    // Records first and rows behind them: what a row led to was its own if the row is the same after it.
    const headers = refs.map((ref, at) =>
      rows[at] === undefined || ref === undefined ? undefined : { ...ref, length: CELL_HEADER_BYTES },
    );
    const read = await this.#read([...heads, ...headers], options, heads.length);
    return open.filter((place, at) => {
      const row = rows[at];
      const [cell, ref, head, header] = [cells[at], refs[at], read[at], read[open.length + at]];
      if (row === undefined || cell === undefined || ref === undefined) return false;
      if (header === undefined || decodeRow(header).cellVersion !== row.cellVersion) return true;
      const id = head === undefined ? undefined : decodeRecordId(head);
      if (id === undefined) {
        this.#tables = undefined;
        throw this.#unread(STATUS.INVALID_RKEY);
      }
      const length = (tables.rows.get(places[at]?.shard ?? -1) as RowTables).dimensions * 4;
      const vector = new Float32Array(cell.slice(CELL_HEADER_BYTES, CELL_HEADER_BYTES + length).buffer);
      const region = { ...ref, address: ref.address + CELL_HEADER_BYTES, length, generation: row.incarnation };
      found[place] = { id, version: row.version, vector, region };
      return false;
    });
  }

  /** Does something by tables that may be old; if they were, once more by others. */
  async #withTables<T>(options: CallOptions, act: (tables: Tables) => Promise<T>): Promise<T> {
    const tables = await this.#current(options);
    try {
      return await act(tables);
    } catch (error) {
      if (!isOldKey(error)) throw error;
      this.#tables = undefined;
      return act(await this.#current(options));
    }
  }

  async #current(options: CallOptions): Promise<Tables> {
    if (this.#tables !== undefined) return this.#tables;
    const { reader, name, assertOpen } = this.#parts;
    assertOpen();
    for (let attempt = 1; ; attempt++) {
      const { root, graph } = await this.#statusOf(reader.shard, options);
      if (graph === undefined)
        throw new ShardloomError(
          "ERR_INVALID_ARGUMENT",
          `Cannot read vertices of ${name} as it must have a graph: shard ${reader.shard} has no part of one`,
          { details: { name, shard: reader.shard } },
        );
      try {
        const decoded = decodeGraphTables(await this.#bytes(graph, options));
        if (decoded === undefined) throw this.#unread(STATUS.REGION_REVOKED);
        this.#tables = { graph: decoded, rows: new Map([[reader.shard, await this.#rowTables(root, options)]]) };
        return this.#tables;
      } catch (error) {
        if (attempt === ATTEMPTS || !isOldKey(error)) throw error;
      }
    }
  }

  async #rowsOf({ rows }: Tables, shard: number, options: CallOptions): Promise<void> {
    if (rows.has(shard)) return;
    const { root } = await this.#statusOf(shard, options);
    rows.set(shard, await this.#rowTables(root, options));
  }

  async #rowTables(root: RegionRef, options: CallOptions): Promise<RowTables> {
    const tables = decodeRowTables(await this.#bytes(root, options));
    if (tables === undefined) throw this.#unread(STATUS.REGION_REVOKED);
    return tables;
  }

  #statusOf(shard: number, options: CallOptions): Promise<VectorShardStatus> {
    const { coordinator, collectionId } = this.#parts;
    const body = {
      byteLength: filterRequestBytes(undefined),
      write: (target: Parameters<typeof writeFilterRequest>[0], offset: number) =>
        writeFilterRequest(target, offset, collectionId, undefined),
    };
    return coordinator.ask(shard, VECTOR_STATUS, VSHARD_LISTED, body, (m) => readStatusReply(m, m.offset), options);
  }

  async #bytes(ref: RegionRef, options: CallOptions): Promise<Uint8Array> {
    const [bytes] = await this.#read([ref], options);
    return bytes as Uint8Array;
  }

  /**
   * Reads a list, in its order; undefined where there is no reference.
   *
   * @param lenient Of how many of the first what cannot be read is left out. @default it is an error
   */
  async #read(
    refs: readonly (RegionRef | undefined)[],
    options: CallOptions,
    lenient = 0,
  ): Promise<(Uint8Array | undefined)[]> {
    const targets = refs.map((ref) => ref && new Uint8Array(ref.length));
    const requests = refs.flatMap((ref, id) =>
      ref === undefined ? [] : [{ id, opcode: OPCODE.READ, ref, local: targets[id] as Uint8Array }],
    );
    const { completions, messages } = await this.#parts.reader.post(requests, options);
    this.messages += messages;
    for (const { id, status } of completions) {
      if (status === STATUS.SUCCESS) continue;
      if (id >= lenient) throw this.#unread(status, refs[id]);
      targets[id] = undefined;
    }
    return targets;
  }

  #unread(status: number, ref?: RegionRef): ShardloomError {
    const { name, reader } = this.#parts;
    const { shard, by } = reader;
    return new ShardloomError(
      "ERR_REGION_ACCESS",
      `Cannot read memory of ${name} on shard ${shard} as its keys must be good: status is ${statusName(status)}`,
      { details: { name, shard, by, status: statusName(status), ...ref }, retryable: OLD_KEYS.has(status) },
    );
  }
}

function isOldKey(error: unknown): boolean {
  if (!ShardloomError.is(error) || error.code !== "ERR_REGION_ACCESS") return false;
  return [...OLD_KEYS].some((status) => statusName(status) === error.details["status"]);
}
