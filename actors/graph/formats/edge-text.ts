/**
 * Reads edges from a text: `.e` of LDBC and edge lists (`source target [weight]`), or CSV with these columns, by name or in this order.
 *
 * Invariant: all edges of a text have a weight or none has; the first edge decides, or the header, or the caller. With `vertices`, both
 * ends of every edge that is handed out are in it.
 */

import type { VertexKey } from "../vertex-key.ts";
import type { EdgeBatch } from "./graph-batch.ts";
import { graphTextError } from "./graph-text-error.ts";
import type { KeySet } from "./key-set.ts";
import type { KeyKind, TextFields } from "./text-fields.ts";
import { type RowSink, readTable, resolveBatchSize, type TextBlocks, type TextTableOptions } from "./text-table.ts";

/** Names of columns in a CSV header, in lower case. A first line that does not name both ends is data. */
const SOURCE_COLUMNS: readonly string[] = ["source", "src", "from", "start"];
const TARGET_COLUMNS: readonly string[] = ["target", "dst", "dest", "destination", "to", "end"];
const WEIGHT_COLUMNS: readonly string[] = ["weight", "value"];

export interface EdgeTextOptions extends TextTableOptions {
  /**
   * `auto`: weights when the first edge has one; `required`: an edge without one is an error; `ignored`: a third field may be there, and
   * is not looked at.
   * @default "auto"
   */
  readonly weights?: "auto" | "required" | "ignored" | undefined;
  /** All vertices. @default ends of edges are not looked for */
  readonly vertices?: KeySet | undefined;
}

/**
 * Reads edges, batch by batch.
 *
 * @throws {ShardloomError} with `details.file` and `details.line`: `ERR_CORRUPT` for what is no edge, `ERR_UNKNOWN_VERTEX` for an end that
 *   is not in `vertices` (`details.vertex`), `ERR_NOT_FINITE` for a weight, `ERR_RECORD_TOO_LARGE` for a line above 1 MiB;
 *   `ERR_INVALID_ARGUMENT` for a bad option.
 */
export function readEdgeText(blocks: TextBlocks, options: EdgeTextOptions): AsyncGenerator<EdgeBatch, void, undefined> {
  return readTable(blocks, options, new EdgeSink(options));
}

class EdgeSink implements RowSink<EdgeBatch> {
  readonly #file: string;
  readonly #isCsv: boolean;
  readonly #kind: KeyKind;
  readonly #batchSize: number;
  readonly #weights: "auto" | "required" | "ignored";
  readonly #vertices: KeySet | undefined;
  readonly #full: EdgeBatch[] = [];
  #sources: VertexKey[] = [];
  #targets: VertexKey[] = [];
  #values: Float64Array | undefined;
  #firstLine = 0;
  #lastLine = 0;
  /** Of the first line; 0 before it came. */
  #columns = 0;
  #sourceColumn = 0;
  #targetColumn = 1;
  /** -1: no weights. */
  #weightColumn = 2;

  constructor(options: EdgeTextOptions) {
    this.#file = options.file;
    this.#isCsv = options.format === "csv";
    this.#kind = options.keys ?? "auto";
    this.#batchSize = resolveBatchSize(options);
    this.#weights = options.weights ?? "auto";
    this.#vertices = options.vertices;
  }

  add(fields: TextFields): void {
    if (this.#columns === 0 && this.#isHeader(fields)) return;
    this.#checkColumns(fields);
    const source = fields.key(this.#sourceColumn, this.#kind, "source");
    const target = fields.key(this.#targetColumn, this.#kind, "target");
    const weight = this.#weightColumn < 0 ? 0 : fields.weight(this.#weightColumn);
    if (this.#vertices !== undefined) {
      this.#checkEnd(fields.line, "source", source);
      this.#checkEnd(fields.line, "target", target);
    }
    const index = this.#sources.length;
    if (index === 0) this.#begin(fields.line);
    this.#lastLine = fields.line;
    this.#sources.push(source);
    this.#targets.push(target);
    if (this.#values !== undefined) this.#values[index] = weight;
    if (index + 1 === this.#batchSize) this.#close();
  }

  take(all: boolean): EdgeBatch[] {
    if (all && this.#sources.length > 0) this.#close();
    return this.#full.splice(0);
  }

  /** Looks at the first line: what the columns are, and whether it only names them. */
  #isHeader(fields: TextFields): boolean {
    this.#columns = fields.count;
    let isHeader = false;
    if (this.#isCsv) {
      const names = Array.from({ length: fields.count }, (_, index) => fields.text(index).toLowerCase());
      const source = names.findIndex((name) => SOURCE_COLUMNS.includes(name));
      const target = names.findIndex((name) => TARGET_COLUMNS.includes(name));
      isHeader = source >= 0 && target >= 0;
      if (isHeader) {
        this.#sourceColumn = source;
        this.#targetColumn = target;
        this.#weightColumn = names.findIndex((name) => WEIGHT_COLUMNS.includes(name));
      }
    }
    if (!isHeader && fields.count < 3) this.#weightColumn = -1;
    if (this.#weightColumn < 0 && this.#weights === "required") {
      const rule = isHeader ? "a header that names a weight" : "source, target and weight";
      throw graphTextError("ERR_CORRUPT", this.#file, fields.line, "the line", rule, `${fields.count} fields`);
    }
    if (this.#weights === "ignored") this.#weightColumn = -1;
    return isHeader;
  }

  #checkColumns(fields: TextFields): void {
    const { count } = fields;
    const isOneOf = this.#isCsv ? count >= 2 : count === 2 || count === 3;
    const isSame = count === this.#columns || (this.#weights === "ignored" && !this.#isCsv);
    if (isOneOf && isSame) return;
    const rule = isOneOf ? `${this.#columns}, as in its first line` : `${this.#isCsv ? "at least 2" : "2 or 3"}`;
    throw graphTextError("ERR_CORRUPT", this.#file, fields.line, "number of fields", rule, count);
  }

  #checkEnd(line: number, name: string, key: VertexKey): void {
    if (this.#vertices?.has(key) !== false) return;
    throw graphTextError("ERR_UNKNOWN_VERTEX", this.#file, line, name, "one of the vertices", key, { vertex: key });
  }

  #begin(line: number): void {
    this.#firstLine = line;
    if (this.#weightColumn >= 0) this.#values = new Float64Array(this.#batchSize);
  }

  #close(): void {
    this.#full.push({
      sources: this.#sources,
      targets: this.#targets,
      weights: this.#values?.subarray(0, this.#sources.length),
      firstLine: this.#firstLine,
      lastLine: this.#lastLine,
    });
    this.#sources = [];
    this.#targets = [];
    this.#values = undefined;
  }
}
