/** Graphs in files: which files a name means, plain and compressed, checks across both files, and files that are cut short. */
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { VertexKey } from "../../actors/graph/vertex-key.ts";
import { ShardloomError } from "../../src/errors.ts";
import { type OpenGraphOptions, openGraphFile } from "../../src/files/graph-file.ts";
import { temporaryFiles } from "../cli/formats/vector-files.ts";

const write = temporaryFiles();

async function read(
  path: string,
  options: OpenGraphOptions = {},
): Promise<{ vertices: VertexKey[]; edges: unknown[] }> {
  const file = await openGraphFile(path, options);
  const vertices: VertexKey[] = [];
  const edges: unknown[] = [];
  for await (const { keys } of file.vertices()) vertices.push(...keys);
  for await (const { sources, targets, weights } of file.edges()) {
    for (const [index, source] of sources.entries()) edges.push([source, targets[index], weights?.[index]]);
  }
  expect(file.bytesRead()).toBe(file.byteLength());
  return { vertices, edges };
}

const EXPECTED = {
  vertices: [1, 2, 3],
  edges: [
    [1, 2, 0.5],
    [2, 3, 1],
  ],
};
const folderOf = (name: string): string => dirname(write(name, Buffer.from("1 2 0.5\n2 3 1\n")));

describe("a graph in files", () => {
  test("of LDBC is found by either file, by its name, and by its properties", async () => {
    const folder = folderOf("g.e");
    write("g.v", Buffer.from("1\n2\n3\n"));
    write(
      "g.properties",
      Buffer.from(
        "# x\ngraph.g.vertex-file = g.v\ngraph.g.edge-file = g.v\n\ngraph.g.directed = false\ngraph.g.pr.damping-factor = 0.85\n",
      ),
    );
    for (const name of ["g.e", "g.v", "g", "g.properties"])
      expect(await read(join(folder, name)), name).toEqual(EXPECTED);
    const file = await openGraphFile(join(folder, "g.properties"));
    expect(file.directed).toBe(false);
    expect(file.properties.get("pr.damping-factor")).toBe("0.85");
    expect((await openGraphFile(join(folder, "g"))).directed).toBeUndefined();
  });

  test("may be compressed", async () => {
    write("z.v.gz", gzipSync("1\n2\n3\n"));
    const path = write("z.e.gz", gzipSync("1 2 0.5\n2 3 1\n"));
    for (const name of [path, path.slice(0, -".e.gz".length)]) expect(await read(name)).toEqual(EXPECTED);
  });

  test("may be an edge list or CSV without vertices, or with vertices beside it", async () => {
    const list = write("list.txt", Buffer.from("a b\nb 7\n"));
    expect(await read(list)).toEqual({
      vertices: [],
      edges: [
        ["a", "b", undefined],
        ["b", 7, undefined],
      ],
    });
    const csv = write("edges.csv", Buffer.from("source,target,weight\n1,2,0.5\n2,3,1\n"));
    expect(await read(csv)).toEqual({ ...EXPECTED, vertices: [] });
    const vertices = write("vertices.csv", Buffer.from("id,name\n1,x\n2,y\n3,z\n"));
    expect(await read(csv, { vertices })).toEqual(EXPECTED);
    await expect(read(csv, { vertices: write("few.csv", Buffer.from("1\n2\n")) })).rejects.toMatchObject({
      code: "ERR_UNKNOWN_VERTEX",
      details: { file: csv, line: 3, vertex: 3 },
    });
  });

  test("with an edge to no vertex, or a vertex twice, is refused with file and line, unless nobody looks", async () => {
    const edges = write("d.e", Buffer.from("1 2\n2 4\n"));
    const vertices = write("d.v", Buffer.from("1\n2\n"));
    await expect(read(edges)).rejects.toMatchObject({ details: { file: edges, line: 2, vertex: 4 } });
    expect((await read(edges, { check: false })).edges).toHaveLength(2);
    write("d.v", Buffer.from("1\n2\n1\n"));
    await expect(read(edges)).rejects.toMatchObject({ code: "ERR_DUPLICATE_ID", details: { file: vertices, line: 3 } });
  });

  test("is read again from its start; its edges only after its vertices", async () => {
    const path = join(folderOf("again.e"), "again");
    write("again.v", Buffer.from("1\n2\n3\n"));
    const file = await openGraphFile(path);
    await expect(file.edges().next()).rejects.toThrow(/edges must be read after the vertices of/);
    for (let turn = 0; turn < 2; turn++) {
      let count = 0;
      for await (const { keys } of file.vertices()) count += keys.length;
      for await (const { sources } of file.edges()) count += sources.length;
      expect(count).toBe(5);
    }
  });

  test("that is no file is refused, one that is cut short ends in ERR_TRUNCATED", async () => {
    for (const name of ["nowhere.e", "nowhere.csv", "nowhere", "nowhere.properties"]) {
      const error: unknown = await openGraphFile(join(folderOf("x.e"), name)).catch((reason: unknown) => reason);
      expect(ShardloomError.is(error) && error.code, name).toBe("ERR_INVALID_ARGUMENT");
    }
    const bytes = gzipSync("1 2\n".repeat(1000));
    const path = write("cut.txt.gz", bytes.subarray(0, bytes.length - 9));
    await expect(read(path)).rejects.toMatchObject({ code: "ERR_TRUNCATED", details: { file: path } });
    bytes.fill(0xff, 14, bytes.length - 8);
    await expect(read(write("bad.txt.gz", bytes))).rejects.toMatchObject({ code: "ERR_CORRUPT" });
  });
});
