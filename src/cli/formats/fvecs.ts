/**
 * The TEXMEX formats fvecs, bvecs and ivecs: every row is a little-endian int32 count, then so many values.
 *
 * Invariant: every row has the count of the first. There is no header, so that a file cut between two rows is a valid
 * shorter file; inside a row it is `ERR_TRUNCATED`.
 * Source: Jégou, Amsaleg, "Datasets for approximate nearest neighbor search", corpus-texmex.irisa.fr.
 * Divergence: ivecs values must be exact as f32 (|value| ≤ 2^24).
 */
import type { ShardloomError } from "../../errors.ts";
import type { ByteSource } from "../../files/byte-source.ts";
import {
  checkDimensions,
  checkExactInteger,
  checkFinite,
  cutShort,
  type FormatReader,
  fileError,
  MAX_DIMENSIONS,
  takeHeader,
  type VectorElement,
  type VectorFormat,
  type VectorLayout,
  type VectorRow,
} from "./vector-file.ts";

const COUNT_BYTES = 4;

/** How one value is read; `path` and `row` are for the error. */
interface Values {
  readonly byteLength: number;
  readonly element: VectorElement;
  decode(view: DataView, vector: Float32Array, path: string, row: number): void;
}

export const fvecs: FormatReader = createReader("fvecs", {
  byteLength: 4,
  element: "f32",
  decode(view, vector, path, row) {
    for (let component = 0; component < vector.length; component += 1) {
      const value = view.getFloat32(COUNT_BYTES + 4 * component, true);
      if (!Number.isFinite(value)) checkFinite(path, row, component, value);
      vector[component] = value;
    }
  },
});

export const bvecs: FormatReader = createReader("bvecs", {
  byteLength: 1,
  element: "u8",
  decode(view, vector) {
    vector.set(new Uint8Array(view.buffer, view.byteOffset + COUNT_BYTES, vector.length));
  },
});

export const ivecs: FormatReader = createReader("ivecs", {
  byteLength: 4,
  element: "f32",
  decode(view, vector, path, row) {
    for (let component = 0; component < vector.length; component += 1) {
      const value = view.getInt32(COUNT_BYTES + 4 * component, true);
      checkExactInteger(path, row, component, value);
      vector[component] = value;
    }
  },
});

function createReader(name: VectorFormat, values: Values): FormatReader {
  return {
    name,
    extensions: [`.${name}`],
    // The three look alike: the name decides, and a nameless file is taken for the commonest.
    matches: (head) => name === "fvecs" && head.length >= COUNT_BYTES && isPlausible(head),
    open: (source) => openRows(source, values),
  };
}

function isPlausible(head: Uint8Array): boolean {
  const count = new DataView(head.buffer, head.byteOffset).getInt32(0, true);
  return count >= 1 && count <= MAX_DIMENSIONS;
}

async function openRows(source: ByteSource, values: Values): Promise<VectorLayout> {
  if (!(await source.fill(COUNT_BYTES))) await takeHeader(source, COUNT_BYTES);
  const dimensions = countAt(source);
  checkDimensions(source.path, dimensions, { row: 0 });
  const rowBytes = COUNT_BYTES + dimensions * values.byteLength;
  const exact = !source.compressed && source.byteLength % rowBytes === 0;
  return {
    dimensions,
    count: exact ? source.byteLength / rowBytes : undefined,
    element: values.element,
    rows: () => rows(source, dimensions, rowBytes, values),
  };
}

async function* rows(
  source: ByteSource,
  dimensions: number,
  rowBytes: number,
  values: Values,
): AsyncGenerator<VectorRow, void, undefined> {
  for (let row = 0; ; row += 1) {
    if (source.available < rowBytes && !(await source.fill(rowBytes))) {
      if (source.available === 0) return;
      if (source.available >= COUNT_BYTES) checkRow(source.path, row, countAt(source), dimensions);
      throw cutShort(source, row, rowBytes);
    }
    checkRow(source.path, row, countAt(source), dimensions);
    const bytes = source.take(rowBytes);
    const vector = new Float32Array(dimensions);
    values.decode(new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), vector, source.path, row);
    yield { id: row, vector };
  }
}

function countAt(source: ByteSource): number {
  const bytes = source.peek(COUNT_BYTES);
  return new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true);
}

function checkRow(path: string, row: number, count: number, dimensions: number): void {
  if (count === dimensions) return;
  checkDimensions(path, count, { row });
  throw dimensionMismatch(path, row, count, dimensions);
}

/** The error for a row with another number of components than the first. */
export function dimensionMismatch(path: string, row: number, count: number, dimensions: number): ShardloomError {
  const rule = `${dimensions} as in row 0`;
  return fileError("ERR_DIMENSION_MISMATCH", path, "the number of components", rule, count, { row, dimensions });
}
