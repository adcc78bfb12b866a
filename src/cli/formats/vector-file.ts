/**
 * What every vector file reader offers: the shape that the header declares, and the rows as an async iterable.
 *
 * Invariant: memory is bounded by one read block and one row, whatever a header claims; a row is handed out only when
 * the consumer asks for it; every failure is a ShardloomError that names the file and, below the header, the row.
 */
import { describeValue, type ErrorCode, ShardloomError } from "../../errors.ts";
import type { ByteSource } from "../../files/byte-source.ts";

const MAX_EXACT_INTEGER = 2 ** 24;

/** One vector. Without an id in the file, the id is the row number, from 0. */
export interface VectorRow {
  readonly id: string | number;
  /** `Float32Array[dimensions]`, owned by the consumer. */
  readonly vector: Float32Array;
  readonly payload?: Readonly<Record<string, unknown>>;
}

/** How components are stored in the file. Rows are always handed out as f32. */
export type VectorElement = "f32" | "u8";

/** A file of vectors. It holds no descriptor open: every call of `rows` reads the file from its start. */
export interface VectorFile {
  readonly path: string;
  readonly format: VectorFormat;
  readonly dimensions: number;
  /** Rows that the header or the file's size promises; undefined when only reading can tell. */
  readonly count: number | undefined;
  readonly element: VectorElement;
  rows(): AsyncGenerator<VectorRow, void, undefined>;
  /** Bytes of the file (compressed, when it is) that the last `rows` has read, for progress. */
  bytesRead(): number;
  /** Size of the file in bytes. */
  readonly byteLength: number;
}

export type VectorFormat = "idx" | "fvecs" | "bvecs" | "ivecs" | "npy" | "json-lines";

/** What a format makes of the start of a file. */
export interface VectorLayout {
  readonly dimensions: number;
  readonly count: number | undefined;
  readonly element: VectorElement;
  /** Reads on from where the header ended. */
  rows(): AsyncGenerator<VectorRow, void, undefined>;
}

/** One file format. */
export interface FormatReader {
  readonly name: VectorFormat;
  /** File name endings that decide when the first bytes cannot; without `.gz`. */
  readonly extensions: readonly string[];
  /** Whether a file that starts with these bytes (up to {@link SNIFF_BYTES}) is of this format. */
  matches(head: Uint8Array): boolean;
  /** Reads and checks the header. */
  open(source: ByteSource): Promise<VectorLayout>;
}

/** Bytes that a format may look at to recognise itself. */
export const SNIFF_BYTES = 16;

/** Components of one vector at most: a header that claims more is taken for corrupt. */
export const MAX_DIMENSIONS = 65_536;

/** Makes the error for a file in the house grammar: *Cannot read a.npy as version must be 1 to 3: current value is 9*. */
export function fileError(
  code: ErrorCode,
  path: string,
  name: string,
  rule: string,
  value: unknown,
  details: Readonly<Record<string, unknown>> = {},
): ShardloomError {
  const place = typeof details["row"] === "number" ? ` at row ${details["row"]}` : "";
  return new ShardloomError(
    code,
    `Cannot read ${path}${place} as ${name} must be ${rule}: current value is ${describeValue(value)}`,
    { details: { file: path, value, ...details } },
  );
}

/** Checks a dimension count of a header or a row. */
export function checkDimensions(
  path: string,
  dimensions: number,
  details: Readonly<Record<string, unknown>> = {},
): void {
  if (Number.isInteger(dimensions) && dimensions >= 1 && dimensions <= MAX_DIMENSIONS) return;
  throw fileError("ERR_CORRUPT", path, "dimensions", `an integer in [1, ${MAX_DIMENSIONS}]`, dimensions, details);
}

/** Rejects NaN, infinities, and numbers that are infinite as f32. */
export function checkFinite(path: string, row: number, component: number, value: number): void {
  if (Number.isFinite(Math.fround(value))) return;
  throw fileError("ERR_NOT_FINITE", path, `component ${component}`, "a finite 32-bit float", value, { row, component });
}

/** Rejects integers that f32 cannot tell from their neighbours. */
export function checkExactInteger(path: string, row: number, component: number, value: number): void {
  if (Math.abs(value) <= MAX_EXACT_INTEGER) return;
  const details = { row, component };
  throw fileError("ERR_UNSUPPORTED_FORMAT", path, `component ${component}`, "at most 2^24 in size", value, details);
}

/** Rows of one size after a header that says how many there are. */
export interface FixedRows {
  readonly count: number;
  readonly rowBytes: number;
  /** Decodes one row; `bytes` is valid during the call only. */
  decode(bytes: Uint8Array, row: number): Float32Array;
}

/**
 * Checks a plain file's size against its header at once, so that nothing is loaded from a file that is cut short.
 * A compressed file shows its size only when it is read.
 */
export function checkSize(source: ByteSource, headerBytes: number, { count, rowBytes }: FixedRows): void {
  if (source.compressed) return;
  const expectedBytes = headerBytes + count * rowBytes;
  if (source.byteLength === expectedBytes) return;
  const code = source.byteLength < expectedBytes ? "ERR_TRUNCATED" : "ERR_CORRUPT";
  const rule = `${expectedBytes} bytes, as its header says`;
  throw fileError(code, source.path, "the file", rule, source.byteLength, { expectedBytes });
}

export async function* fixedRows(source: ByteSource, layout: FixedRows): AsyncGenerator<VectorRow, void, undefined> {
  const { count, rowBytes } = layout;
  for (let row = 0; row < count; row += 1) {
    if (source.available < rowBytes && !(await source.fill(rowBytes))) throw cutShort(source, row, rowBytes);
    yield { id: row, vector: layout.decode(source.take(rowBytes), row) };
  }
  if (!(await source.fill(1))) return;
  throw fileError("ERR_CORRUPT", source.path, "the file", `at its end after ${count} rows`, "more bytes", {
    row: count,
  });
}

/** The error for a file that ends inside a row. */
export function cutShort(source: ByteSource, row: number, rowBytes: number): ShardloomError {
  return fileError("ERR_TRUNCATED", source.path, "the row", `${rowBytes} bytes`, source.available, { row });
}

/** Takes header bytes, or fails with `ERR_TRUNCATED`. */
export async function takeHeader(source: ByteSource, byteLength: number): Promise<DataView> {
  if (!(await source.fill(byteLength))) {
    throw fileError("ERR_TRUNCATED", source.path, "the header", `${byteLength} bytes or more`, source.available);
  }
  const bytes = source.take(byteLength);
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
