/** What the tests of graphs share: LDBC graphs as batches, runs by algorithm, and the comparison with expected outputs. */
import type { Cluster } from "../../src/index.ts";
import { saboteur } from "./actors.ts";
import { eventually, keyOnShard } from "./cluster.ts";
import type { LdbcGraph } from "./ldbc-graphs.ts";

type Graph = Awaited<ReturnType<Cluster["graph"]>>;
type Exchange = "auto" | "push" | "pull";

/** Loads an LDBC graph in small batches. */
export async function loadLdbc(cluster: Cluster, name: string, graph: LdbcGraph): Promise<Graph> {
  const lines = (text: string): string[] => text.split("|").filter((line) => line !== "");
  const edges = lines(graph.edges).map((line) => line.split(" ").map(Number));
  const weighted = edges.some((edge) => edge.length > 2);
  const loaded = await cluster.graph(name, { directed: graph.directed, weighted });
  const all = edges.map(([source, target, weight]) => ({
    source: source as number,
    target: target as number,
    ...(weight === undefined ? {} : { weight }),
  }));
  const half = all.length >> 1;
  await loaded.load([
    { vertices: lines(graph.vertices).map(Number) },
    { edges: all.slice(0, half) },
    { edges: all.slice(half) },
  ]);
  return loaded;
}

/** Runs the algorithm of an expected output. */
export async function runLdbc(
  graph: Graph,
  algorithm: string,
  params: Readonly<Record<string, string>>,
  exchange: Exchange,
): Promise<Map<number, number>> {
  const source = Number(params["source-vertex"]);
  const iterations = Number(params["max-iterations"] ?? params["num-iterations"]);
  const result = await {
    BFS: () => graph.bfs({ source, exchange }),
    SSSP: () => graph.sssp({ source, exchange }),
    WCC: () => graph.wcc({ exchange }),
    CDLP: () => graph.cdlp({ iterations, exchange }),
    LCC: () => graph.lcc({ exchange }),
    PR: () => graph.pageRank({ damping: Number(params["damping-factor"]), iterations, exchange }),
  }[algorithm as "BFS"]();
  try {
    return (await result.toMap()) as Map<number, number>;
  } finally {
    await result.close();
  }
}

/** Ends the worker of one shard after the other, and waits each time until all shards serve the graph again. */
export async function loseWorkers(cluster: Cluster, graph: Graph, shards: readonly number[]): Promise<void> {
  for (const shard of shards) {
    const killed = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard)).exit(1, { priority: "control" });
    await killed.catch(() => undefined);
    const serves = (): Promise<boolean> =>
      graph.status().then(
        () => true,
        () => false,
      );
    await eventually("all shards serve", serves, 60_000);
  }
}

/** What an expected output says of a vertex that is not reached. */
const UNREACHED = new Set(["9223372036854775807", "infinity"]);

/** Differences between a result and an expected output, as the suite compares them. */
export function differences(algorithm: string, output: string, found: ReadonlyMap<number, number>): string[] {
  const expected = new Map(
    output.split("|").map((line): [number, number] => {
      const [key, value] = line.split(" ") as [string, string];
      return [Number(key), UNREACHED.has(value) ? Number.POSITIVE_INFINITY : Number(value)];
    }),
  );
  const wrong: string[] = [];
  if (found.size !== expected.size) wrong.push(`${found.size} vertices instead of ${expected.size}`);
  const renamed = new Map<number, number>();
  const taken = new Map<number, number>();
  for (const [key, value] of expected) {
    const actual = found.get(key) ?? Number.NaN;
    let same = actual === value;
    if (algorithm === "WCC") {
      same = (renamed.get(value) ?? actual) === actual && (taken.get(actual) ?? value) === value;
      renamed.set(value, actual);
      taken.set(actual, value);
    } else if (algorithm === "PR" || algorithm === "LCC" || algorithm === "SSSP") {
      same ||= Math.abs(actual - value) <= 1e-4 * Math.abs(value);
    }
    if (!same) wrong.push(`${key}: ${actual} instead of ${value}`);
  }
  return wrong;
}
