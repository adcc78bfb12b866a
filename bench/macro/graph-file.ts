/**
 * A graph of a file as the benches take it: vertices numbered in the order in which the file has them, edges without weights.
 *
 * Of an undirected graph every edge is there both ways, as all sides take their graphs as directed ones.
 */
import { openGraphFile } from "../../src/files/graph-file.ts";
import type { VertexKey } from "../../src/index.ts";
import type { EdgeColumns } from "./graph-data.ts";

/** @throws {ShardloomError} what the readers of graph files do. */
export async function readGraphColumns(path: string): Promise<EdgeColumns> {
  const file = await openGraphFile(path, { weights: "auto" });
  const numbers = new Map<VertexKey, number>();
  const numberOf = (key: VertexKey): number => {
    const known = numbers.get(key) ?? numbers.size;
    if (known === numbers.size) numbers.set(key, known);
    return known;
  };
  const sources: number[] = [];
  const targets: number[] = [];
  for await (const { keys } of file.vertices()) for (const key of keys) numberOf(key);
  for await (const batch of file.edges()) {
    for (const [at, key] of batch.sources.entries()) {
      const source = numberOf(key);
      const target = numberOf(batch.targets[at] as VertexKey);
      sources.push(source);
      targets.push(target);
      if (file.directed !== false || source === target) continue;
      sources.push(target);
      targets.push(source);
    }
  }
  if (sources.length === 0) throw new Error(`graph bench: ${path} has no edges`);
  return {
    vertices: numbers.size,
    sources: Uint32Array.from(sources),
    targets: Uint32Array.from(targets),
    weights: undefined,
  };
}
