/**
 * Reads vertices from a text: `.v` of LDBC (a key a line), or CSV with the key in its first column or under a known name.
 *
 * Invariant: with `seen`, every key that is handed out was not in it before, and is in it now; it may hold keys of other files.
 */

import type { VertexKey } from "../vertex-key.ts";
import type { VertexBatch } from "./graph-batch.ts";
import { graphTextError } from "./graph-text-error.ts";
import type { KeySet } from "./key-set.ts";
import type { KeyKind, TextFields } from "./text-fields.ts";
import { type RowSink, readTable, resolveBatchSize, type TextBlocks, type TextTableOptions } from "./text-table.ts";

/** Names that a CSV header may give to the column of keys, in lower case. A first line without one of them is data. */
const KEY_COLUMNS: readonly string[] = ["id", "key", "vertex", "node", "name"];

export interface VertexTextOptions extends TextTableOptions {
  /** Keys that may not come (again). @default duplicates are not looked for */
  readonly seen?: KeySet | undefined;
}

/**
 * Reads vertices, batch by batch.
 *
 * @throws {ShardloomError} with `details.file` and `details.line`: `ERR_CORRUPT` for what is no vertex, `ERR_DUPLICATE_ID` for a key in
 *   `seen`, `ERR_RECORD_TOO_LARGE` for a line above 1 MiB; `ERR_INVALID_ARGUMENT` for a bad option.
 */
export function readVertexText(
  blocks: TextBlocks,
  options: VertexTextOptions,
): AsyncGenerator<VertexBatch, void, undefined> {
  return readTable(blocks, options, new VertexSink(options));
}

class VertexSink implements RowSink<VertexBatch> {
  readonly #file: string;
  readonly #isCsv: boolean;
  readonly #kind: KeyKind;
  readonly #batchSize: number;
  readonly #seen: KeySet | undefined;
  readonly #full: VertexBatch[] = [];
  #keys: VertexKey[] = [];
  #firstLine = 0;
  #lastLine = 0;
  /** Of the first line of a CSV text; 0 before it came. */
  #columns = 0;
  #keyColumn = 0;

  constructor(options: VertexTextOptions) {
    this.#file = options.file;
    this.#isCsv = options.format === "csv";
    this.#kind = options.keys ?? "auto";
    this.#batchSize = resolveBatchSize(options);
    this.#seen = options.seen;
  }

  add(fields: TextFields): void {
    if (this.#isCsv && this.#columns === 0 && this.#isHeader(fields)) return;
    const expected = this.#isCsv ? this.#columns : 1;
    if (fields.count !== expected) {
      const rule = `${expected}, as ${this.#isCsv ? "in its first line" : "a vertex is its key"}`;
      throw graphTextError("ERR_CORRUPT", this.#file, fields.line, "number of fields", rule, fields.count);
    }
    const key = fields.key(this.#keyColumn, this.#kind, "vertex");
    if (this.#seen !== undefined && !this.#seen.add(key)) {
      const details = { vertex: key };
      throw graphTextError("ERR_DUPLICATE_ID", this.#file, fields.line, "vertex", "given once", key, details);
    }
    if (this.#keys.length === 0) this.#firstLine = fields.line;
    this.#lastLine = fields.line;
    if (this.#keys.push(key) === this.#batchSize) this.#close();
  }

  take(all: boolean): VertexBatch[] {
    if (all && this.#keys.length > 0) this.#close();
    return this.#full.splice(0);
  }

  #isHeader(fields: TextFields): boolean {
    this.#columns = fields.count;
    for (let index = 0; index < fields.count; index++) {
      if (!KEY_COLUMNS.includes(fields.text(index).toLowerCase())) continue;
      this.#keyColumn = index;
      return true;
    }
    return false;
  }

  #close(): void {
    this.#full.push({ keys: this.#keys, firstLine: this.#firstLine, lastLine: this.#lastLine });
    this.#keys = [];
  }
}
