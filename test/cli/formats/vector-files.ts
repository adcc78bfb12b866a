/** Small files of every format, written by hand, for the tests of the readers. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { type OpenVectorFileOptions, openVectorFile } from "../../../src/cli/formats/open-file.ts";
import type { VectorRow } from "../../../src/cli/formats/vector-file.ts";

/** A folder that is removed after the tests of the file that asked for it; returns a writer of files in it. */
export function temporaryFiles(): (name: string, bytes: Uint8Array | string) => string {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-formats-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  return (name, bytes) => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return path;
  };
}

export async function readAll(path: string, options?: OpenVectorFileOptions): Promise<VectorRow[]> {
  const file = await openVectorFile(path, options);
  const rows: VectorRow[] = [];
  for await (const row of file.rows()) rows.push(row);
  return rows;
}

export function idxBytes(sizes: readonly number[], values: readonly number[], type: number = 0x08): Buffer {
  const header = Buffer.alloc(4 + 4 * sizes.length);
  header.writeUInt8(type, 2);
  header.writeUInt8(sizes.length, 3);
  for (const [axis, size] of sizes.entries()) header.writeUInt32BE(size, 4 + 4 * axis);
  return Buffer.concat([header, Buffer.from(values)]);
}

export function fvecsBytes(rows: readonly (readonly number[])[]): Buffer {
  return Buffer.concat(rows.map((row) => Buffer.concat([int32(row.length), floats(row)])));
}

export function npyBytes(
  shape: string,
  values: Uint8Array,
  { descr = "<f4", fortran = "False", version = 1 }: { descr?: string; fortran?: string; version?: number } = {},
): Buffer {
  const header = Buffer.from(`{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`);
  const length = Buffer.alloc(version === 1 ? 2 : 4);
  length.writeUIntLE(header.length, 0, length.length);
  return Buffer.concat([Buffer.from("\x93NUMPY", "latin1"), Buffer.of(version, 0), length, header, values]);
}

export function floats(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [index, value] of values.entries()) bytes.writeFloatLE(value, 4 * index);
  return bytes;
}

export function doubles(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [index, value] of values.entries()) bytes.writeDoubleLE(value, 8 * index);
  return bytes;
}

export function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

export function longs(values: readonly number[]): Buffer {
  return Buffer.from(BigInt64Array.from(values, BigInt).buffer);
}
