/**
 * NumPy's npy format, versions 1 to 3: magic, version, header length, a Python dictionary, then the values.
 *
 * Invariant: only C-order arrays of `<f4`, `<f8`, `|u1` or integers of 4 or 8 bytes with two axes or more; a row is one item of the
 * first axis, flattened. Values that are infinite as f32 are `ERR_NOT_FINITE`; integers must be exact as f32 (|value| ≤ 2^24), as
 * those of lists of neighbours are.
 * Source: NumPy Enhancement Proposal 1, and `numpy.lib.format`.
 * Divergence: the dictionary is matched key by key rather than evaluated; its three values have one written form each.
 */
import type { ByteSource } from "../../files/byte-source.ts";
import {
  checkDimensions,
  checkExactInteger,
  checkFinite,
  checkSize,
  type FixedRows,
  type FormatReader,
  fileError,
  fixedRows,
  takeHeader,
  type VectorElement,
  type VectorLayout,
} from "./vector-file.ts";

const MAGIC = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59);
const VERSION_BYTES = 8;
/** NumPy itself refuses longer headers of untrusted files. */
const MAX_HEADER_BYTES = 10_000;

interface Values {
  readonly byteLength: number;
  readonly element: VectorElement;
  /** Whether f32 cannot hold all of them. */
  readonly integers?: true;
  at(view: DataView, component: number): number;
}

const VALUES: ReadonlyMap<string, Values> = new Map([
  ["<f4", { byteLength: 4, element: "f32", at: (view, component) => view.getFloat32(4 * component, true) }],
  ["<f8", { byteLength: 8, element: "f32", at: (view, component) => view.getFloat64(8 * component, true) }],
  ["|u1", { byteLength: 1, element: "u8", at: (view, component) => view.getUint8(component) }],
  ["<i4", integers(4, (view, component) => view.getInt32(4 * component, true))],
  ["<i8", integers(8, (view, component) => Number(view.getBigInt64(8 * component, true)))],
  ["<u4", integers(4, (view, component) => view.getUint32(4 * component, true))],
  ["<u8", integers(8, (view, component) => Number(view.getBigUint64(8 * component, true)))],
]);

function integers(byteLength: number, at: Values["at"]): Values {
  return { byteLength, element: "f32", integers: true, at };
}

export const npy: FormatReader = {
  name: "npy",
  extensions: [".npy"],
  matches: (head) => MAGIC.every((byte, index) => head[index] === byte),
  open: openNpy,
};

async function openNpy(source: ByteSource): Promise<VectorLayout> {
  const { path } = source;
  const start = await takeHeader(source, VERSION_BYTES);
  if (!MAGIC.every((byte, index) => start.getUint8(index) === byte)) {
    throw fileError("ERR_UNSUPPORTED_FORMAT", path, "the magic", "\\x93NUMPY", start.getUint8(0));
  }
  const version = start.getUint8(6);
  if (version < 1 || version > 3) {
    throw fileError("ERR_UNSUPPORTED_FORMAT", path, "the npy version", "in [1, 3]", version);
  }
  const lengthBytes = version === 1 ? 2 : 4;
  const length = await takeHeader(source, lengthBytes);
  const headerBytes = version === 1 ? length.getUint16(0, true) : length.getUint32(0, true);
  if (headerBytes > MAX_HEADER_BYTES) {
    throw fileError("ERR_CORRUPT", path, "the header length", `at most ${MAX_HEADER_BYTES} bytes`, headerBytes);
  }
  const text = new TextDecoder(version === 3 ? "utf-8" : "latin1").decode(await takeHeader(source, headerBytes));
  const { values, count, dimensions } = parseHeader(path, text);
  const layout: FixedRows = {
    count,
    rowBytes: dimensions * values.byteLength,
    decode: (bytes, row) => decode(path, row, bytes, dimensions, values),
  };
  checkSize(source, VERSION_BYTES + lengthBytes + headerBytes, layout);
  return { dimensions, count, element: values.element, rows: () => fixedRows(source, layout) };
}

function parseHeader(path: string, text: string): { values: Values; count: number; dimensions: number } {
  const descr = field(path, text, "descr", /'([^']*)'/);
  const values = VALUES.get(descr === "<u1" ? "|u1" : descr);
  if (values === undefined) {
    throw fileError("ERR_UNSUPPORTED_FORMAT", path, "descr", `one of ${[...VALUES.keys()].join(", ")}`, descr);
  }
  if (field(path, text, "fortran_order", /(True|False)/) === "True") {
    throw fileError("ERR_UNSUPPORTED_FORMAT", path, "fortran_order", "False", true);
  }
  const shape = field(path, text, "shape", /\(([^)]*)\)/);
  const axes = shape.split(",").map((axis) => axis.trim().replace(/L$/, ""));
  if (axes.at(-1) === "") axes.pop();
  if (axes.length < 2) throw fileError("ERR_UNSUPPORTED_FORMAT", path, "shape", "of two axes or more", `(${shape})`);
  const sizes = axes.map(Number);
  if (!axes.every((axis) => /^\d+$/.test(axis)) || !sizes.every((size) => Number.isSafeInteger(size))) {
    throw fileError("ERR_CORRUPT", path, "shape", "a tuple of integers", `(${shape})`);
  }
  const [count = 0, ...row] = sizes;
  const dimensions = row.reduce((product, size) => product * size, 1);
  checkDimensions(path, dimensions);
  return { values, count, dimensions };
}

function field(path: string, header: string, name: string, form: RegExp): string {
  const found = new RegExp(`'${name}'\\s*:\\s*${form.source}`).exec(header)?.[1];
  if (found === undefined) throw fileError("ERR_CORRUPT", path, "the header", `a dictionary with ${name}`, header);
  return found;
}

function decode(path: string, row: number, bytes: Uint8Array, dimensions: number, values: Values): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const vector = new Float32Array(dimensions);
  for (let component = 0; component < dimensions; component += 1) {
    const value = values.at(view, component);
    if (values.integers === true) checkExactInteger(path, row, component, value);
    vector[component] = value;
    if (!Number.isFinite(vector[component])) checkFinite(path, row, component, value);
  }
  return vector;
}
