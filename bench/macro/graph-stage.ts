/**
 * A cluster with one graph in it, loaded and run over the public API, for the benches that time it.
 *
 * A run is timed twice: the whole call, and its supersteps, from the acknowledgement of the first, which only sets values up, to that of the
 * last. What is not in the supersteps: building the adjacency, unless it is there, making the run's state, and keeping the result.
 * What is: the computing, what shards send each other, every broadcast and acknowledgement, reductions, checks, and checkpoints.
 */
import { Cluster, type Graph, type GraphResult, type RunOptions } from "../../src/index.ts";
import type { EdgeColumns } from "./graph-data.ts";

const MIB = 1024 * 1024;
const EDGES_A_BATCH = 65_536;
/** Reserved, not used: what the arena may take for an edge and a vertex, and for everything else. */
const ROOM = { edge: 48, vertex: 512, base: 64 * MIB, unit: 65_536 };
/** The default of the cluster; the client and its workers park when they have waited for longer. */
export const SPIN_LIMIT_US = 50;

/** One run. */
export interface TimedRun {
  readonly insideMs: number;
  readonly callMs: number;
  /** Supersteps that `insideMs` is of. */
  readonly supersteps: number;
  /** How values came, in each of them. */
  readonly exchanges: readonly string[];
  /** `Float64Array[vertices]`, by key; read when the time is over. */
  readonly values: Float64Array;
}

/** Bytes of memory that the graph has taken since before it was there. */
export interface StageMemory {
  /** Of the arena: now, with one result held, and at most since then, with what cannot be handed out again. */
  readonly heldBytes: number;
  readonly mostBytes: number;
  /** Of the whole process, at most: the heaps of all threads too. */
  readonly residentBytes: number;
}

export interface GraphStage {
  readonly workers: number;
  readonly columns: EdgeColumns;
  readonly loadMs: number;
  /** The first run of all, which builds the adjacency. */
  readonly first: TimedRun;
  readonly memory: StageMemory;
  pageRank(damping: number, iterations: number): Promise<TimedRun>;
  bfs(source: number, exchange: "auto" | "push"): Promise<TimedRun>;
  close(): Promise<void>;
}

/** As the rows name it. */
export function workersOf(count: number): string {
  return `${count} worker${count === 1 ? "" : "s"}`;
}

/** Loads a graph and runs PageRank once, `iterations` of it. */
export async function openGraphStage(workers: number, columns: EdgeColumns, iterations: number): Promise<GraphStage> {
  const { edge, vertex, base, unit } = ROOM;
  const bytes = base + edge * columns.sources.length + vertex * columns.vertices;
  const cluster = await Cluster.start({
    workers,
    spinLimitUs: SPIN_LIMIT_US,
    memoryBytes: Math.min(4096 * MIB, Math.ceil(bytes / unit) * unit),
    requestTimeoutMs: 120_000,
    maxHandlerMs: 60_000, // a busy machine is no reason to replace a worker
  });
  try {
    return await fill(cluster, workers, columns, iterations);
  } catch (error) {
    await cluster.close(); // or its workers keep the process alive
    throw error;
  }
}

async function fill(cluster: Cluster, workers: number, columns: EdgeColumns, iterations: number): Promise<GraphStage> {
  const before = cluster.arena.stats();
  const resident = createPeak();
  const graph = await cluster.graph("bench");
  const startedMs = performance.now();
  await load(graph, columns, resident.look);
  const loadMs = performance.now() - startedMs;
  await assertLoaded(graph, workers, columns);
  let heldBytes = 0;
  const held = (): void => {
    resident.look();
    heldBytes = cluster.arena.stats().usedBytes - before.usedBytes;
  };
  const first = await timed(columns, (options) => graph.pageRank({ ...options, iterations }), held);
  const mostBytes = cluster.arena.stats().touchedBytes - before.touchedBytes;
  return {
    workers,
    columns,
    loadMs,
    first,
    memory: { heldBytes, mostBytes, residentBytes: resident.bytes() },
    pageRank: (damping, count) =>
      timed(columns, (options) => graph.pageRank({ ...options, damping, iterations: count })),
    bfs: (source, exchange) => timed(columns, (options) => graph.bfs({ ...options, source, exchange })),
    close: () => cluster.close(),
  };
}

async function load(graph: Graph, { vertices, sources, targets }: EdgeColumns, look: () => void): Promise<void> {
  for (let from = 0; from < vertices; from += EDGES_A_BATCH) {
    const count = Math.min(EDGES_A_BATCH, vertices - from);
    await graph.addVertices(Uint32Array.from({ length: count }, (_, at) => from + at));
  }
  for (let from = 0; from < sources.length; from += EDGES_A_BATCH) {
    const to = from + EDGES_A_BATCH;
    await graph.addEdges({ sources: sources.subarray(from, to), targets: targets.subarray(from, to) });
    look();
  }
}

async function assertLoaded(graph: Graph, workers: number, { vertices, sources }: EdgeColumns): Promise<void> {
  const shards = await graph.status();
  const sum = (of: "vertices" | "edges"): number => shards.reduce((total, shard) => total + shard[of], 0);
  const whole = sum("vertices") === vertices && sum("edges") === sources.length;
  if (!whole || shards.length !== workers || shards.some((shard) => shard.vertices === 0))
    throw new Error(`graph bench: ${workers} shards must hold the graph: ${JSON.stringify(shards)}`);
}

async function timed(
  { vertices }: EdgeColumns,
  start: (options: RunOptions) => Promise<GraphResult>,
  whileHeld?: () => void,
): Promise<TimedRun> {
  let firstMs = Number.NaN;
  let lastMs = Number.NaN;
  const exchanges: string[] = [];
  const startedMs = performance.now();
  const result = await start({
    onProgress: ({ superstep, exchange }) => {
      lastMs = performance.now();
      if (superstep === 0) firstMs = lastMs;
      else exchanges.push(exchange);
    },
  });
  const callMs = performance.now() - startedMs;
  try {
    whileHeld?.();
    if (result.attempts !== 1) throw new Error(`graph bench: the run lost a worker, ${result.attempts} attempts`);
    const values = new Float64Array(vertices).fill(Number.NaN);
    for await (const { key, value } of result) values[key as number] = value;
    return { insideMs: lastMs - firstMs, callMs, supersteps: exchanges.length, exchanges, values };
  } finally {
    await result.close();
  }
}

/** What the process has taken at most since it was called. */
function createPeak(): { look(): void; bytes(): number } {
  const before = process.memoryUsage.rss();
  let most = before;
  return {
    look: () => {
      most = Math.max(most, process.memoryUsage.rss());
    },
    bytes: () => most - before,
  };
}
