/**
 * JSON lines: one object `{ id?, vector, payload? }` a line; empty lines are skipped, a byte order mark is ignored.
 *
 * Invariant: every vector has the length of the first. A last line without its line feed that does not parse is
 * `ERR_TRUNCATED`; any other line that does not parse is `ERR_CORRUPT`. A line is at most 8 MiB.
 */
import type { ByteSource } from "../../files/byte-source.ts";
import { dimensionMismatch } from "./fvecs.ts";
import {
  checkDimensions,
  checkFinite,
  type FormatReader,
  fileError,
  SNIFF_BYTES,
  type VectorLayout,
  type VectorRow,
} from "./vector-file.ts";

const MAX_LINE_BYTES = 8 * 1024 * 1024;
const LINE_FEED = 0x0a;
const UTF8 = new TextDecoder("utf-8", { fatal: true });

interface Line {
  readonly text: string;
  /** Whether a line feed ended it, rather than the file. */
  readonly ended: boolean;
}

export const jsonLines: FormatReader = {
  name: "json-lines",
  extensions: [".jsonl", ".ndjson", ".json"],
  matches: (head) => /^\uFEFF?\s*\{[^\0]*$/.test(new TextDecoder("utf-8", { ignoreBOM: true }).decode(head)),
  open: openJsonLines,
};

async function openJsonLines(source: ByteSource): Promise<VectorLayout> {
  const rows = parseRows(source);
  const first = await rows.next();
  if (first.done === true) {
    throw fileError("ERR_TRUNCATED", source.path, "the file", "one line or more", source.byteLength);
  }
  const dimensions = first.value.vector.length;
  return { dimensions, count: undefined, element: "f32", rows: () => withFirst(first.value, rows) };
}

async function* withFirst(
  first: VectorRow,
  rest: AsyncGenerator<VectorRow, void, undefined>,
): AsyncGenerator<VectorRow, void, undefined> {
  yield first;
  yield* rest;
}

async function* parseRows(source: ByteSource): AsyncGenerator<VectorRow, void, undefined> {
  let row = 0;
  let dimensions: number | undefined;
  for await (const line of lines(source)) {
    if (line.text.trim() === "") continue;
    const parsed = toRow(source.path, row, parseLine(source.path, row, line));
    dimensions ??= parsed.vector.length;
    if (parsed.vector.length !== dimensions) {
      throw dimensionMismatch(source.path, row, parsed.vector.length, dimensions);
    }
    yield parsed;
    row += 1;
  }
}

async function* lines(source: ByteSource): AsyncGenerator<Line, void, undefined> {
  let searched = 0;
  for (let line = 0; ; line += 1) {
    let length = source.peek(source.available).indexOf(LINE_FEED, searched);
    while (length < 0) {
      searched = source.available;
      if (searched > MAX_LINE_BYTES) {
        throw fileError("ERR_RECORD_TOO_LARGE", source.path, "a line", `at most ${MAX_LINE_BYTES} bytes`, searched, {
          line,
        });
      }
      if (!(await source.fill(searched + 1))) break;
      length = source.peek(source.available).indexOf(LINE_FEED, searched);
    }
    searched = 0;
    if (length < 0 && source.available === 0) return;
    const bytes = source.take(length < 0 ? source.available : length);
    yield { text: decode(source.path, line, bytes), ended: length >= 0 };
    if (length >= 0) source.take(1);
  }
}

function decode(path: string, line: number, bytes: Uint8Array): string {
  try {
    return UTF8.decode(bytes);
  } catch {
    // The decoder says only that it failed; the bytes say more.
    throw fileError("ERR_CORRUPT", path, "a line", "UTF-8", [...bytes.subarray(0, SNIFF_BYTES)].join(" "), { line });
  }
}

function parseLine(path: string, row: number, { text, ended }: Line): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Writers that are lax about JSON write these three for what a vector may not hold.
    const lax = /[[,:]\s*(NaN|-?Infinity)\s*[\],}]/.exec(text)?.[1];
    if (lax !== undefined) {
      throw fileError("ERR_NOT_FINITE", path, "every component", "a finite 32-bit float", Number(lax), { row });
    }
    throw fileError(ended ? "ERR_CORRUPT" : "ERR_TRUNCATED", path, "the line", "JSON", text.slice(0, 200), { row });
  }
}

function toRow(path: string, row: number, value: unknown): VectorRow {
  if (!isRecord(value)) throw fileError("ERR_CORRUPT", path, "the line", "an object with a vector", value, { row });
  const { id = row, vector, payload } = value;
  if (typeof id !== "string" && !Number.isSafeInteger(id)) {
    throw fileError("ERR_CORRUPT", path, "id", "a string or an integer", id, { row });
  }
  if (payload !== undefined && !isRecord(payload)) {
    throw fileError("ERR_CORRUPT", path, "payload", "an object", payload, { row });
  }
  const components = toVector(path, row, vector);
  const named = { id: id as string | number, vector: components };
  return payload === undefined ? named : { ...named, payload };
}

function toVector(path: string, row: number, value: unknown): Float32Array {
  if (!Array.isArray(value)) throw fileError("ERR_CORRUPT", path, "vector", "an array of numbers", value, { row });
  checkDimensions(path, value.length, { row });
  const components = value as unknown[];
  return Float32Array.from(components, (component, index) => {
    if (typeof component !== "number") {
      throw fileError("ERR_CORRUPT", path, `component ${index}`, "a number", component, { row, component: index });
    }
    checkFinite(path, row, index, component);
    return component;
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
