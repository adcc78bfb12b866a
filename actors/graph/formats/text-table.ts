/**
 * Reads a text of lines into batches: what vertex and edge files have in common.
 *
 * Invariant: one block is asked for at a time, and only when all batches of the one before were taken. Where the text or its source
 * fails, everything before that place is handed out first, so that what was read does not depend on how the bytes came in blocks.
 */
import { invalidArgument } from "../../../src/errors.ts";
import { LineSplitter } from "./line-splitter.ts";
import { type KeyKind, TextFields } from "./text-fields.ts";

/** How lines are split: at runs of blanks, with comments after `#` or `%` at the start of a line; or as CSV. */
export type TableFormat = "list" | "csv";

/** Options that all graph texts share. */
export interface TextTableOptions {
  /** What errors call the text. */
  readonly file: string;
  /** @default "list" */
  readonly format?: TableFormat | undefined;
  /** Which texts are keys. @default "auto": a canonical integer is a number, anything else a string */
  readonly keys?: KeyKind | undefined;
  /** Rows of a batch, `1..1048576`. @default 8192 */
  readonly batchSize?: number | undefined;
}

/** Bytes of a text, in blocks that are valid until the next one is asked for. */
export type TextBlocks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** Collects rows. */
export interface RowSink<Batch> {
  /** Takes a line with at least one field. */
  add(fields: TextFields): void;
  /** Full batches, and with `all` the one that is not full. */
  take(all: boolean): Batch[];
}

const DEFAULT_BATCH = 8192;
const MAX_BATCH = 1024 * 1024;
const HASH = 0x23;
const PERCENT = 0x25;

export async function* readTable<Batch>(
  blocks: TextBlocks,
  options: TextTableOptions,
  sink: RowSink<Batch>,
): AsyncGenerator<Batch, void, undefined> {
  const fields = new TextFields(options.file);
  const isCsv = options.format === "csv";
  const splitter = new LineSplitter(options.file, (bytes, start, end, line) => {
    if (isCsv) fields.splitCommas(bytes, start, end, line);
    else fields.splitBlanks(bytes, start, end, line);
    if (fields.count === 0) return;
    if (!isCsv && (fields.firstByte === HASH || fields.firstByte === PERCENT)) return;
    sink.add(fields);
  });
  let failure: { readonly error: unknown } | undefined;
  try {
    for await (const block of blocks) {
      splitter.push(block);
      yield* sink.take(false);
    }
    splitter.end();
  } catch (error) {
    failure = { error };
  }
  yield* sink.take(true);
  if (failure !== undefined) throw failure.error;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function resolveBatchSize({ batchSize = DEFAULT_BATCH }: TextTableOptions): number {
  if (Number.isInteger(batchSize) && batchSize >= 1 && batchSize <= MAX_BATCH) return batchSize;
  throw invalidArgument("read graph", "batchSize", `an integer between 1 and ${MAX_BATCH}`, batchSize);
}
