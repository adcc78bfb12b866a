/** Graphs of files, loaded by the public API on real threads: progress, weights, errors that name the line, and the graph after them. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Cluster, type GraphFileProgress, loadGraphFile, openGraphFile } from "../../src/index.ts";
import { temporaryFiles } from "../cli/formats/vector-files.ts";
import { startTestCluster } from "../support/cluster.ts";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startTestCluster({ workers: 2 });
});
afterAll(() => cluster.close());
const write = temporaryFiles();
const lines = (count: number, line: (at: number) => string): string =>
  Array.from({ length: count }, (_, at) => `${line(at)}\n`).join("");

it("loads vertices, then edges with their weights, and tells how far it is", async () => {
  write(
    "ring.v",
    lines(500, (at) => `${at}`),
  );
  const path = write(
    "ring.e",
    lines(500, (at) => `${at} ${(at + 1) % 500} 0.5`),
  );
  const file = await openGraphFile(path, { batchSize: 100 });
  const graph = await cluster.graph("ring", { weighted: true });
  const seen: GraphFileProgress[] = [];
  const loaded = await loadGraphFile(graph, file, { onProgress: (progress) => seen.push(progress) });
  expect(loaded).toEqual({ vertices: 500, edges: 500 });
  expect(seen.map(({ vertices, edges }) => vertices + edges)).toEqual(
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((n) => n * 100),
  );
  expect(seen.at(-1)).toEqual({ ...loaded, bytesRead: file.byteLength(), byteLength: file.byteLength() });
  expect((await graph.shortestPath(0, 4, { weighted: true })).distance).toBe(2);
  const plain = await cluster.graph("plain");
  expect(await loadGraphFile(plain, await openGraphFile(path))).toEqual(loaded);
  expect((await plain.bfs({ source: 0 })).vertices).toBe(500);
});

it("makes the ends of edges where no vertices are given, and counts them", async () => {
  const path = write("people.csv", "from,to\nann,bob\nbob,7\nann,7\n");
  const graph = await cluster.graph("people");
  expect(await loadGraphFile(graph, await openGraphFile(path))).toEqual({ vertices: 3, edges: 3 });
  expect(await loadGraphFile(graph, await openGraphFile(path))).toEqual({ vertices: 0, edges: 3 });
  expect((await graph.neighbours(["ann"]))[0]?.keys).toHaveLength(4);
});

it("says which line was wrong and what was loaded before it, and the graph stays usable", async () => {
  const graph = await cluster.graph("wrong");
  const load = async (path: string, batchSize = 2) => loadGraphFile(graph, await openGraphFile(path, { batchSize }));
  write("bad.v", "1\n2\n3\n");
  const edges = write("bad.e", "1 2\n2 3\n3 1\n1 99\n");
  await expect(load(edges)).rejects.toMatchObject({
    code: "ERR_UNKNOWN_VERTEX",
    details: { file: edges, line: 4, vertex: 99, loaded: { vertices: 3, edges: 3 } },
  });
  // The same vertices again: no reader knows that they are there, but the graph does.
  write("twice.v", "7\n8\n9\n1\n");
  const twice = write("twice.e", "7 8\n");
  await expect(load(twice)).rejects.toMatchObject({
    code: "ERR_DUPLICATE_ID",
    details: { file: expect.stringContaining("twice.v"), firstLine: 3, lastLine: 4, loaded: { vertices: 2, edges: 0 } },
  });
  const weighted = await cluster.graph("heavy", { weighted: true });
  const light = loadGraphFile(weighted, await openGraphFile(write("light.txt", "a b\n")));
  await expect(light).rejects.toMatchObject({
    code: "ERR_INVALID_ARGUMENT",
    message: /edges must be edges with weights/,
  });
  const text = write("text.txt", "1 2\n2 3 4\n");
  await expect(load(text)).rejects.toMatchObject({ code: "ERR_CORRUPT", details: { file: text, line: 2 } });
  const ended = await openGraphFile(edges, { check: false });
  const aborted = loadGraphFile(graph, ended, { signal: AbortSignal.abort() });
  await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
  expect((await graph.bfs({ source: 1 })).vertices).toBeGreaterThanOrEqual(3);
});
