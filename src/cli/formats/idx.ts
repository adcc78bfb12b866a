/**
 * The idx format of MNIST: big-endian magic `0x00 0x00 type rank`, `rank` big-endian sizes, then the values, row-major.
 *
 * Invariant: a row is one item of the first axis, flattened. Only unsigned bytes of rank 2 to 4 are vectors here; a
 * rank of 1 is a list of labels.
 * Source: LeCun, Cortes, Burges, "The MNIST database", file format section.
 */
import type { ByteSource } from "../../files/byte-source.ts";
import {
  checkDimensions,
  checkSize,
  type FixedRows,
  type FormatReader,
  fileError,
  fixedRows,
  takeHeader,
  type VectorLayout,
} from "./vector-file.ts";

const UNSIGNED_BYTE = 0x08;
const TYPES = new Map([
  [UNSIGNED_BYTE, "u8"],
  [0x09, "i8"],
  [0x0b, "i16"],
  [0x0c, "i32"],
  [0x0d, "f32"],
  [0x0e, "f64"],
]);
const MAGIC_BYTES = 4;
const MIN_RANK = 2;
const MAX_RANK = 4;

export const idx: FormatReader = {
  name: "idx",
  extensions: [".idx", "-ubyte"],
  matches: (head) => head[0] === 0 && head[1] === 0 && TYPES.has(head[2] ?? 0) && (head[3] ?? 0) > 0,
  open: openIdx,
};

async function openIdx(source: ByteSource): Promise<VectorLayout> {
  const { path } = source;
  const magic = await takeHeader(source, MAGIC_BYTES);
  const value = magic.getUint32(0);
  const [type, rank] = [magic.getUint8(2), magic.getUint8(3)];
  if (magic.getUint16(0) !== 0 || type !== UNSIGNED_BYTE) {
    const name = TYPES.get(type) ?? "no idx type";
    throw fileError("ERR_UNSUPPORTED_FORMAT", path, "the idx magic", "0x0000 08 rank (unsigned bytes)", value, {
      type: name,
    });
  }
  if (rank < MIN_RANK || rank > MAX_RANK) {
    throw fileError("ERR_UNSUPPORTED_FORMAT", path, "the idx rank", `in [${MIN_RANK}, ${MAX_RANK}]`, rank);
  }
  const sizes = await takeHeader(source, 4 * rank);
  let dimensions = 1;
  for (let axis = 1; axis < rank; axis += 1) dimensions *= sizes.getUint32(4 * axis);
  checkDimensions(path, dimensions);
  const layout: FixedRows = {
    count: sizes.getUint32(0),
    rowBytes: dimensions,
    decode: (bytes) => new Float32Array(bytes),
  };
  checkSize(source, MAGIC_BYTES + 4 * rank, layout);
  return { dimensions, count: layout.count, element: "u8", rows: () => fixedRows(source, layout) };
}
