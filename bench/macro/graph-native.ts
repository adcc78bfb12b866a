/**
 * PageRank by `bench/compare/graph.cpp`, compiled where there is a C++ compiler. The child gets the graph in a file, and the ranks that
 * are expected, which it compares with its own after every sample.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { compileNative, type NativeProgram, NativeSide } from "../harness/native.ts";
import { toCsr } from "./graph-data.ts";
import type { PageRankInput, PageRankSide } from "./graph-page-rank.ts";

const SOURCE = fileURLToPath(new URL("../../../bench/compare/graph.cpp", import.meta.url));

/** Undefined, with the reason logged, when there is no compiler. */
export function compileGraph(log: (line: string) => void): NativeProgram | undefined {
  return compileNative(log, SOURCE);
}

export function openNative(program: NativeProgram, direction: "pull" | "push", input: PageRankInput): PageRankSide {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-graph-"));
  const file = join(folder, "graph");
  writeFileSync(file, fileOf(direction, input));
  const { damping, iterations, graph } = input;
  const side = new NativeSide(program, [direction, file, String(damping), String(iterations)]);
  return {
    run: async () => (await side.run()) * graph.sources.length * iterations,
    isRight: () => side.lastValid,
    close: () => {
      side.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Layout: see graph.cpp. */
function fileOf(direction: "pull" | "push", { graph, out, expected }: PageRankInput): Buffer {
  const { vertices, sources, targets } = graph;
  const csr = direction === "push" ? out : toCsr({ ...graph, sources: targets, targets: sources });
  const degrees = Uint32Array.from(
    { length: vertices },
    (_, v) => (out.offsets[v + 1] as number) - (out.offsets[v] as number),
  );
  const counts = new BigUint64Array([BigInt(vertices), BigInt(sources.length)]);
  return Buffer.concat([counts, expected, degrees, csr.offsets, csr.targets].map(bytesOf));
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}
