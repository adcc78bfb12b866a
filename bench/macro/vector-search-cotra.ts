/**
 * G1 to G4, part `cotra` of bench `vector-search`: collaborative search of shards over one graph, told by counters alone.
 *
 * Computations and bytes are those of a cluster's workers (vector-search-collaborate.ts). What a cluster does not tell is modelled: the share of the
 * busiest shard, alone and under Zipf streams, by the shards and the origin of actors/vector/cotra over a network in this thread that delivers in
 * order in the next round. They begin as a collection's do, at the medoids of the nearest leaves; the graph's rows are linked one after the other, and
 * lie where packed leaves put them. Who takes over whose work is modelled too (test/actors/vector/cotra/work-stealing.ts).
 * Against it: one thread over the same graph, and, modelled, scatter to all shards, each with a graph of its own over every S-th row, which begins
 * where it does best, at one entry or at all that it has. Settings are the defaults, which were tuned on vectors of the base.
 */
import type { GraphView } from "../../actors/vector/cotra/graph-view.ts";
import { NO_PARTITION } from "../../actors/vector/cotra/graph-view.ts";
import { CentroidRouter } from "../../actors/vector/routing/centroid-router.ts";
import type { Code, CodeTable } from "../../actors/vector/routing/code-table.ts";
import { TopList } from "../../actors/vector/routing/top-list.ts";
import { ENTRY_COST, ENTRY_LEAVES } from "../../actors/vector/strategy/leaf-view.ts";
import { ELEMENT } from "../../native-bridge/kernels.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, sized, toRow } from "../harness/harness.ts";
import { rowsOf, searchTogether, type Together } from "./vector-search-collaborate.ts";
import { Collaboration, type CotraPoint, type Task } from "./vector-search-cotra-run.ts";
import { type Curve, costAt, must, type PartReport, RECALL } from "./vector-search-curve.ts";
import { K, type VectorSet } from "./vector-search-data.ts";
import { type Counted, distancesAt, searchedDirectly } from "./vector-search-direct.ts";
import { buildGraph, bytesOf, type PlainGraph } from "./vector-search-graph.ts";
import { graphOf, medoidsOf, type Placement, packShards, placeVectors } from "./vector-search-placement.ts";
import { distancesOf } from "./vector-search-routed.ts";
import { zipfOrder } from "./vector-search-zipf.ts";

const RECALLS: readonly number[] = [0.95, 0.96, 0.97, 0.98, 0.99];
const SHARDS: readonly number[] = [8, 16];
const ZIPF_SEEDS: readonly number[] = [1, 2];

/** A shard's view of a graph whose vertices are rows of a table that all threads may read. */
class TableView implements GraphView {
  readonly self: number;
  readonly codeBytes: number;
  readonly adjacencyBytes: number;
  readonly maxDegree: number;
  readonly #graph: PlainGraph;
  readonly #table: CodeTable;
  readonly #shardOf: (vertex: number) => number;

  constructor(graph: PlainGraph, table: CodeTable, self: number, shardOf: (vertex: number) => number) {
    this.self = self;
    this.#graph = graph;
    this.#table = table;
    this.#shardOf = shardOf;
    this.codeBytes = bytesOf(table.vector(0)).length;
    this.maxDegree = graph.degree;
    this.adjacencyBytes = (graph.degree + 1) * 4;
  }

  partitionOf(vertex: number): number {
    return vertex >= 0 && vertex < this.#graph.rows.length ? this.#shardOf(vertex) : NO_PARTITION;
  }

  neighbours(vertex: number, out: Int32Array): number {
    const first = vertex * (this.maxDegree + 1);
    const count = this.#graph.links[first] as number;
    out.set(this.#graph.links.subarray(first + 1, first + 1 + count));
    return count;
  }

  distances(query: Uint8Array, vertices: Int32Array, count: number, out: Float64Array): void {
    this.#table.begin(this.#codeOf(query));
    for (let at = 0; at < count; at++) out[at] = this.#table.score(vertices[at] as number);
  }

  pull(query: Uint8Array, _partition: number, vertices: Int32Array, count: number, out: Float64Array): number {
    this.distances(query, vertices, count, out);
    return count;
  }

  pullNeighbours(vertex: number, out: Int32Array): number {
    return this.neighbours(vertex, out);
  }

  #codeOf(query: Uint8Array): Code {
    return this.#table.element === ELEMENT.U8 ? query : new Float32Array(query.slice().buffer);
  }
}

interface Sharded {
  readonly shards: number;
  /** Of a cluster, and modelled. */
  readonly real: Together;
  readonly model: readonly CotraPoint[];
  readonly scatter: readonly Counted[];
  /** Distances to centroids, a query. */
  readonly navigated: number;
  /** Modelled speed-up of each Zipf stream with stealing and without. */
  readonly zipf: readonly { readonly stealing: number; readonly owners: number; readonly recall: number }[];
}

/** Rows and the verdicts on G1 to G4. */
export async function measureCotra(context: BenchContext, set: VectorSet): Promise<PartReport> {
  const { mode, seed, log } = context;
  const efs = sized(mode, [10, 48], [10, 14, 20, 30, 44], [10, 13, 17, 23, 31, 40, 56]);
  const scatterEfs = sized(mode, [4, 16], [3, 5, 8, 12, 18], [3, 5, 7, 10, 14, 20]);
  const place = placeVectors(set, seed);
  const everything = Int32Array.from({ length: set.base.count }, (_, row) => row);
  const graph = graphOf(place);
  log("vector-search: graph built");
  const order = Array.from({ length: set.queries.count }, (_, query) => query);
  const tasks = navigate(place, order);
  const navigated = tasks.reduce((sum, { computed }) => sum + computed, 0) / tasks.length;
  const sharded: Sharded[] = [];
  for (const shards of SHARDS) {
    const { partitionOf } = packShards(place, shards);
    const { leafOf } = place.clustering;
    const shardOf = (vertex: number): number => partitionOf[leafOf[vertex] as number] as number;
    const views = Array.from({ length: shards }, (_, self) => new TableView(graph, place.table, self, shardOf));
    const collaboration = new Collaboration(views, tasks, set.truth);
    const model = efs.map((ef) => collaboration.oneByOne(ef, order));
    const real = await searchTogether(context, set, shards);
    const own: PlainGraph[] = [];
    for (let shard = 0; shard < shards; shard++)
      own.push(
        buildGraph(
          place.table,
          everything.filter((row) => row % shards === shard),
          seed,
        ),
      );
    const scatter = searchedDirectly(own, place, set, scatterEfs, order);
    const good = (model.find(({ recall }) => recall >= RECALL) ?? model.at(-1))?.ef ?? K;
    const zipf = ZIPF_SEEDS.slice(0, sized(mode, 1, 2, 2)).map((zipfSeed) => {
      const leaf = (query: number): number => leafOf[set.truth[query * K] as number] as number;
      const stream = zipfOrder(order.length, leaf, sized(mode, 100, 1_000, 3_000), zipfSeed);
      const alone = searchedDirectly([graph], place, set, efs, stream);
      const [stealing, owners] = [true, false].map((steal) => {
        const run = collaboration.atOnce(good, stream, steal);
        const speed = (shards * distancesAt(alone, run.recall)) / run.distances / run.busiest;
        return { speed, recall: run.recall };
      });
      return { stealing: stealing?.speed ?? 0, owners: owners?.speed ?? 0, recall: stealing?.recall ?? 0 };
    });
    sharded.push({ shards, real, model, scatter, navigated, zipf });
  }
  return report(context, set, sharded);
}

/** Queries with the vertices that their searches begin at, as a collection's do: nobody computed their distances yet. */
function navigate(place: Placement, order: readonly number[]): Task[] {
  const { centroids } = place.clustering;
  const router = new CentroidRouter(place.host, centroids);
  const nearest = new TopList(ENTRY_LEAVES);
  const medoids = medoidsOf(place);
  const tasks = order.map((query): Task => {
    const code = place.queries.vector(query);
    const computed = router.nearest(code, nearest, ENTRY_COST * Math.sqrt(centroids.count));
    const leaves = nearest.ids.subarray(0, nearest.count);
    const vertices = leaves.map((leaf) => medoids[leaf] as number).filter((row) => row >= 0);
    const distances = new Float32Array(vertices.length).fill(Number.NaN);
    return { code: bytesOf(code).slice(), vertices, distances, computed };
  });
  router.close();
  return tasks;
}

function report({ goals }: BenchContext, set: VectorSet, sharded: readonly Sharded[]): PartReport {
  const [eight, sixteen] = sharded as readonly [Sharded, Sharded];
  const { cotra, single } = eight.real;
  const ratios = RECALLS.map((recall) => distancesOf(cotra, recall) / distancesOf(single, recall));
  const busiest = ({ model }: Sharded): number => costAt(model, RECALL, (point) => point.busiest);
  const speedUp = (one: Sharded): number =>
    (one.shards * distancesOf(one.real.single)) / distancesOf(one.real.cotra) / busiest(one);
  const fewer = ({ scatter, real }: Sharded): number => distancesAt(scatter, RECALL) / distancesOf(real.cotra);
  const worst = ({ zipf }: Sharded): number => Math.min(...zipf.map(({ stealing }) => stealing));
  const zipfNote = ({ zipf }: Sharded): string =>
    `without stealing ${Math.min(...zipf.map(({ owners }) => owners)).toFixed(2)}; recall ${zipf.map(({ recall }) => recall.toFixed(3)).join(", ")}`;
  const bytes = costAt(cotra, RECALL, (point) => point.bytes);
  const codeBytes = set.base.dimensions * (set.bytes ? 1 : 4);
  // The leaf table is on every node: what is compared with its centroids would not be pulled.
  const pulled = distancesOf(single) - eight.navigated;
  const pullAll = (pulled * codeBytes * (eight.shards - 1)) / eight.shards;
  must(
    cotra.some(({ messages }) => messages > 1),
    "the shards said nothing to each other",
  );
  return {
    rows: [
      ...sharded.flatMap(({ shards, real, model, scatter }) => [
        ...rowsOf(real.there, real.cotra),
        ...rowsOf(real.there, real.single),
        ...model.map((point) =>
          row(
            "cotra, modelled",
            `${shards} shards`,
            point,
            `; busiest ${point.busiest.toFixed(2)}, ${point.bytes.toFixed(0)} B, ${point.messages.toFixed(1)} messages, ${point.rounds.toFixed(1)} rounds`,
          ),
        ),
        ...scatter.map((point) => row("scatter", `${shards} shards`, point)),
      ]),
    ],
    goals: [
      judge(
        goals,
        "G1",
        Math.max(...ratios),
        `at ${RECALLS.join(", ")}: ${ratios.map((ratio) => ratio.toFixed(3)).join(", ")}`,
      ),
      judge(goals, "G2", fewer(eight)),
      judge(goals, "G2b", fewer(sixteen)),
      judge(goals, "G3", speedUp(eight), `busiest shard ${busiest(eight).toFixed(2)} of the mean, modelled`),
      judge(goals, "G3b", speedUp(sixteen), `busiest shard ${busiest(sixteen).toFixed(2)} of the mean, modelled`),
      judge(goals, "G3c", worst(eight), zipfNote(eight)),
      judge(goals, "G3d", worst(sixteen), zipfNote(sixteen)),
      judge(goals, "G4", bytes / 1024),
      judge(
        goals,
        "G4b",
        pullAll / bytes,
        "against the vertices that one thread computes for, each a code that is read, 7 of 8 elsewhere",
      ),
    ],
    notes: [
      "cotra: computations include navigation, pulled and stolen vertices; bytes are the request and its reply, messages between shards, one-sided reads, codes that other workers took over and the documents that are ranked, without packet headers; the leaf table is one for all threads of a node, so looking leaves up moves none",
      `cotra: queries are sent without their zeros where that is shorter: ${(100 * zerosOf(set)).toFixed(0)} % of these are zeros`,
      "cotra: recalls below those of the least ef are compared at that ef",
      "cotra: under Zipf streams 8 searches a shard are under way, recalls of one thread are those of the same stream; the bytes of what is stolen are not told",
    ],
    curves: [
      ...sharded.flatMap(({ shards, real, scatter }): Curve[] => [
        { name: `cotra, ${shards} shards`, points: real.cotra },
        { name: `scatter to all, ${shards} shards (counted)`, points: scatter },
      ]),
    ],
  };
}

/** Share of components of the queries that are zeros. */
function zerosOf({ queries: { values } }: VectorSet): number {
  return values.reduce((sum, value) => sum + (value === 0 ? 1 : 0), 0) / values.length;
}

function row(name: string, side: string, { ef, recall, distances }: Counted, more = ""): BenchRow {
  return toRow(`${name} ef ${ef}`, side, "distances/query", [distances], `recall ${recall.toFixed(4)}${more}`);
}
