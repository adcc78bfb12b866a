/**
 * Opens a file of vectors of any known format, plain or gzip.
 *
 * Invariant: the first bytes decide the format; the file's name only where they cannot (fvecs, bvecs and ivecs look
 * alike), and a caller's `format` over both. The header is checked when the file is opened.
 */
import { invalidArgument } from "../../errors.ts";
import { ByteSource } from "../../files/byte-source.ts";
import { bvecs, fvecs, ivecs } from "./fvecs.ts";
import { idx } from "./idx.ts";
import { jsonLines } from "./json-lines.ts";
import { npy } from "./npy.ts";
import { type FormatReader, fileError, SNIFF_BYTES, type VectorFile, type VectorFormat } from "./vector-file.ts";

/** Every format, those with a magic first: fvecs is recognised by what it could be, not by what it is. */
const FORMATS: readonly FormatReader[] = [npy, idx, jsonLines, bvecs, ivecs, fvecs];

/** Formats without a magic: only the name tells them apart. */
const LOOK_ALIKE: readonly FormatReader[] = [fvecs, bvecs, ivecs];

/** Names that `format` takes. */
export const VECTOR_FORMATS: readonly VectorFormat[] = FORMATS.map(({ name }) => name);

export interface OpenVectorFileOptions {
  /** Reads the file as this format. @default what its first bytes, then its name say */
  readonly format?: VectorFormat;
}

/**
 * Opens a vector file and checks its header.
 *
 * Cost: reads one block; allocates by the block, never by what a header claims.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` no readable file, or no such format; `ERR_UNSUPPORTED_FORMAT` unknown
 *   or of another format; `ERR_TRUNCATED` shorter than its header says; `ERR_CORRUPT` anything else that cannot be.
 *   Iterating the rows throws the same, and `ERR_NOT_FINITE` and `ERR_DIMENSION_MISMATCH` with the row.
 *
 * @example Read rows
 * const file = await openVectorFile("train-images-idx3-ubyte.gz");
 * for await (const { id, vector } of file.rows()) index.add(id, vector);
 */
export async function openVectorFile(path: string, options: OpenVectorFileOptions = {}): Promise<VectorFile> {
  await using source = await ByteSource.open(path);
  await source.fill(SNIFF_BYTES);
  const reader = chooseFormat(path, source.peek(SNIFF_BYTES), options.format);
  const { dimensions, count, element } = await reader.open(source);
  let current: ByteSource | undefined;
  return {
    path,
    format: reader.name,
    dimensions,
    count,
    element,
    byteLength: source.byteLength,
    bytesRead: () => current?.bytesRead ?? 0,
    async *rows() {
      await using again = await ByteSource.open(path);
      current = again;
      const layout = await reader.open(again);
      if (layout.dimensions !== dimensions) {
        throw fileError("ERR_CORRUPT", path, "the file", "unchanged since it was opened", layout.dimensions);
      }
      yield* layout.rows();
    },
  };
}

function chooseFormat(path: string, head: Uint8Array, wanted: VectorFormat | undefined): FormatReader {
  if (wanted !== undefined) {
    const named = FORMATS.find(({ name }) => name === wanted);
    if (named === undefined)
      throw invalidArgument("open vector file", "format", `one of ${VECTOR_FORMATS.join(", ")}`, wanted);
    return named;
  }
  const byBytes = FORMATS.find((format) => format.matches(head));
  if (byBytes !== undefined && byBytes !== fvecs) return byBytes;
  const plainName = path.toLowerCase().replace(/\.gz$/, "");
  const byName = FORMATS.find(({ extensions }) => extensions.some((extension) => plainName.endsWith(extension)));
  if (byName !== undefined && LOOK_ALIKE.includes(byName)) return byName;
  // A name that the bytes contradict must not win, nor be overruled by a guess.
  if (byName === undefined && byBytes !== undefined) return byBytes;
  if (head.length === 0) throw fileError("ERR_TRUNCATED", path, "the file", "one byte or more", 0);
  const start = [...head.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  throw fileError("ERR_UNSUPPORTED_FORMAT", path, "its start", `that of ${VECTOR_FORMATS.join(", ")}`, start);
}
