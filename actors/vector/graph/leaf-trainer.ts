/**
 * Learns the leaves of a graph from the vectors in it: clusters a sample, packs the leaves on the shards, calibrates the router, publishes the table.
 *
 * One shard of a node does it, in slices between two messages: the one that published the last table, or before there was any the lowest that has
 * vertices. The graph is learnt when it is large enough, and again when it has grown a lot.
 * Who is not the one any more when its training is over gives it up: a table is replaced by nobody but who published it.
 * Invariant: a training that is given up leaves nothing behind; what is published is whole, and of this graph's own vectors. Training queries for the
 * calibration are vectors of the sample that k-means did not look at; their neighbours are those that the graph leads to.
 */
import { ELEMENT } from "../../../native-bridge/kernels.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";
import { GRAPH_LEAVES_HOLDER, GRAPH_LEAVES_VERSION, graphChunkBytes } from "../../../src/store/graph-layout.ts";
import { centroidStride, LEAF_WORDS, MAX_LEAVES } from "../../../src/store/leaf-layout.ts";
import { encodeCalibration } from "../routing/calibration-codec.ts";
import type { MergedCentroids } from "../routing/centroid-table.ts";
import { type Code, type CodeHost, newCode, packedSource } from "../routing/code-table.ts";
import { Compass } from "../routing/compass.ts";
import { type CompassCalibration, calibrateCompass, type TrainingQuery } from "../routing/compass-calibration.ts";
import { leafAffinity } from "../routing/leaf-affinity.ts";
import { clusterLeaves, type LeafClustering } from "../routing/leaf-clustering.ts";
import { packLeaves } from "../routing/leaf-packing.ts";
import type { LevelTable } from "../routing/levels-codec.ts";
import { shuffleFront } from "../routing/lloyd.ts";
import { SLICE_MEANS, type Steps, within } from "../routing/steps.ts";
import { TopList } from "../routing/top-list.ts";
import type { IndexName } from "../vector-options.ts";
import type { GraphRoot } from "./graph-root.ts";
import type { LabelSearch } from "./label-search.ts";
import { publishLeaves, spaceOfGraph } from "./leaf-table.ts";
import { LEVEL_DENSITY, trainLevels } from "./level-trainer.ts";
import { isLiveRecord } from "./vertex-record.ts";

/** Fewer vectors than this need no leaves. */
const LEAST_VECTORS = 1_000;
/** The graph is learnt again when it has grown by so much: while documents wait to be linked, and when none do. */
const GROWTH = { busy: 4, idle: 1.5 } as const;
/** How leaves are learnt. */
export const LEAF_TRAINING = {
  /** Share of the vectors' codes that the leaves may take; what they need beside stays below the hundredth, except where there is little data. */
  tableShare: 0.009,
  samplePerLeaf: 24,
  /** Of the sample, what k-means looks at. */
  seenShare: 0.8,
  rounds: 6,
  /** Of 200 no more than .995 can be told; levels weigh each many times. */
  queries: { leaves: 1_000, levels: 200 },
  /** Neighbours of a training query. */
  depth: 100,
} as const;
const LEAST_LEAVES = 8;
/** How much the graph has to grow after a training that could not be finished, e.g. as memory was full. */
const RETRY_GROWTH = 2;
const LEAST_SAMPLE = 1_024;
const MOST_SAMPLE_BYTES: number = 64 * 1024 * 1024;
/** Of neighbours at most, of all vectors: those further out say nothing of locality. */
const DEPTH_SHARE = 0.05;
const TRAINING_EF = 64;
/** Memory for chunks of every label on every shard, against that of the vertices, and what is spent without a thought. */
const MOST_CHUNK_SHARE = 2;
const FREE_CHUNK_BYTES: number = 32 * 1024 * 1024;
const SEED = 0x1eaf;

/** What calibration looks a leaf up with. */
interface Learnt {
  readonly clustering: LeafClustering;
  readonly labelOf: Int32Array;
}

/** What is learnt with the leaves. */
interface Calibrated {
  readonly calibration: CompassCalibration;
  readonly levels: LevelTable | undefined;
}

interface Sample {
  readonly codes: Code;
  readonly vertices: Int32Array;
  readonly total: number;
}

export class LeafTrainer {
  readonly #root: GraphRoot;
  readonly #host: CodeHost;
  readonly #search: () => LabelSearch;
  readonly #shard: number;
  readonly #index: IndexName;
  #steps: Steps<boolean> | undefined;
  #progress = 0;
  /** After a training that came to nothing: vectors that there must be before the next. */
  #least: number = LEAST_VECTORS;
  /** Shards that the last training was for. */
  #trainedFor = "";

  /** @param index Whether the leaves are to have levels above them. */
  constructor(root: GraphRoot, host: CodeHost, search: () => LabelSearch, shard: number, index: IndexName = "leaves") {
    this.#index = index;
    this.#root = root;
    this.#host = host;
    this.#search = search;
    this.#shard = shard;
  }

  /** Whether a training is under way, or due. @param trained Vectors that the table there is was made of. @param labels Its labels, in order. */
  isDue(trained: number, labels: readonly number[], idle: boolean): boolean {
    if (this.#steps !== undefined) return true;
    const shards = this.#root.partitionsWithChunks();
    const version = this.#root.get(GRAPH_LEAVES_VERSION);
    if (!this.#isTrainer()) return false;
    const { live } = this.#root.counts();
    const chunkBytes = shards.length ** 2 * graphChunkBytes(this.#root.geometry);
    const dataBytes = live * this.#root.geometry.stride;
    if (live < this.#least || chunkBytes > Math.max(FREE_CHUNK_BYTES, MOST_CHUNK_SHARE * dataBytes)) return false;
    const missing = idle && version !== 0 && shards.some((shard) => !labels.includes(shard));
    const newShard = missing && shards.join() !== this.#trainedFor; // of the same shards one may have got no leaf
    return newShard || live >= trained * (idle ? GROWTH.idle : GROWTH.busy);
  }

  /** Done share of the training that is under way; 1: none is. */
  get progress(): number {
    return this.#steps === undefined ? 1 : this.#progress;
  }

  /** One slice of a training. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`: the training is given up. */
  run(untilMs: number, nowMs: () => number): void {
    if (this.#steps === undefined) this.#progress = 0;
    this.#steps ??= this.#train();
    try {
      do {
        const { done, value } = this.#steps.next();
        if (done !== true) {
          this.#progress = value;
          continue;
        }
        this.#steps = undefined;
        this.#least = value ? LEAST_VECTORS : RETRY_GROWTH * this.#root.counts().live;
        return;
      } while (nowMs() < untilMs);
    } catch (error) {
      this.#steps = undefined;
      this.#least = RETRY_GROWTH * this.#root.counts().live;
      throw error;
    }
  }

  /** Gives a training up. */
  close(): void {
    this.#steps?.return(false);
    this.#steps = undefined;
  }

  #isTrainer(): boolean {
    const isFirst = this.#root.get(GRAPH_LEAVES_VERSION) === 0;
    const trainer = isFirst ? this.#root.partitionsWithChunks()[0] : this.#root.get(GRAPH_LEAVES_HOLDER);
    return trainer === this.#shard;
  }

  /** @returns whether a table was published */
  *#train(): Steps<boolean> {
    const root = this.#root;
    const space = spaceOfGraph(root.geometry);
    const shards = root.partitionsWithChunks();
    const { live } = root.counts();
    const many = this.#index === "levels" ? Math.round(LEVEL_DENSITY * live) : this.#leavesWithin(live);
    const wanted = Math.max(LEAST_LEAVES * shards.length, many);
    const sample = yield* this.#sample(Math.max(LEAST_SAMPLE, LEAF_TRAINING.samplePerLeaf * wanted));
    const count = sample.vertices.length;
    const leaves = Math.min(wanted, MAX_LEAVES, Math.floor(count / 4));
    if (leaves < shards.length) return false;
    this.#trainedFor = shards.join();
    yield 0;
    const source = packedSource(space, sample.codes);
    const sampleCount = Math.max(leaves, Math.floor(count * LEAF_TRAINING.seenShare));
    const clustering = yield* within(
      clusterLeaves(this.#host, source, { leaves, seed: SEED, rounds: LEAF_TRAINING.rounds, sampleCount }),
      0,
      0.7,
    );
    try {
      const affinity = yield* within(leafAffinity(clustering), 0.7, 0.72);
      const packing = packLeaves(this.#host, clustering, affinity, { partitions: shards.length, seed: SEED });
      const { partitionOf } = yield* within(packing, 0.72, 0.8);
      const label = this.#labelsFor(sample, clustering, partitionOf, shards);
      const labelOf = partitionOf.map((place) => label[place] as number);
      const { calibration, levels } = yield* within(this.#calibrate(sample, { clustering, labelOf }, shards), 0.8, 1);
      // A lower shard may have got its first vertices meanwhile, or have published before: then it is its turn, and only that one's.
      if (!this.#isTrainer()) return false;
      publishLeaves(root, {
        centroids: clustering.centroids,
        labels: labelOf,
        calibration: encodeCalibration(calibration, levels),
        trained: sample.total,
      });
      return true;
    } finally {
      clustering.centroids.close();
    }
  }

  #leavesWithin(vectors: number): number {
    const { codeBytes } = this.#root.geometry;
    return Math.floor((LEAF_TRAINING.tableShare * vectors * codeBytes) / (centroidStride(codeBytes) + LEAF_WORDS * 4));
  }

  /** Gives each part of the packing the shard that has most of its vertices already, so that as few as can be have to move. */
  #labelsFor(
    { vertices }: Sample,
    { leafOf }: LeafClustering,
    partitionOf: Int32Array,
    shards: readonly number[],
  ): number[] {
    const shared = shards.map(() => new Int32Array(shards.length));
    for (const [at, vertex] of vertices.entries()) {
      const shard = shards.indexOf(this.#root.chunk(vertex >>> this.#root.geometry.chunkShift)?.label ?? -1);
      const row = shared[partitionOf[leafOf[at] as number] as number] as Int32Array;
      if (shard >= 0) row[shard] = (row[shard] as number) + 1;
    }
    const pairs = shards.flatMap((_, place) => shards.map((_shard, at) => ({ place, at })));
    const count = ({ place, at }: { place: number; at: number }): number => shared[place]?.[at] as number;
    const labels: number[] = [];
    const taken = new Set<number>();
    for (const { place, at } of pairs.sort((a, b) => count(b) - count(a) || a.place - b.place || a.at - b.at)) {
      if (labels[place] !== undefined || taken.has(at)) continue;
      labels[place] = shards[at] as number;
      taken.add(at);
    }
    return labels;
  }

  // Others' chunks are read without their keys: they are freed only with the collection, and who takes them over keeps their addresses and contents.
  /** Copies of random vertices' codes. */
  *#sample(wanted: number): Steps<Sample> {
    const { arena, geometry, chunkCount } = this.#root;
    const { chunkShift, stride, codeOffset, codeBytes } = geometry;
    const all: number[] = [];
    for (let number = 0; number < chunkCount; number++) {
      yield 0;
      const chunk = this.#root.chunk(number);
      for (let slot = 0; chunk !== undefined && slot < 1 << chunkShift; slot++)
        if (isLiveRecord(this.#root.arena, chunk.address + slot * stride)) all.push((number << chunkShift) | slot);
    }
    const order = Int32Array.from(all);
    const most = Math.min(order.length, wanted, Math.floor(MOST_SAMPLE_BYTES / codeBytes));
    shuffleFront(order, most, createSeededRandom(SEED));
    const space = spaceOfGraph(geometry);
    const codes = newCode(space, most);
    const bytes = new Uint8Array(codes.buffer);
    let count = 0;
    for (let at = 0; at < most; at++) {
      if (at % SLICE_MEANS === 0) yield 0;
      const vertex = order[at] as number;
      const record = this.#recordOf(vertex);
      if (record === 0 || !isLiveRecord(this.#root.arena, record)) continue; // it is gone meanwhile, maybe with its chunk
      bytes.set(arena.bytes.subarray(record + codeOffset, record + codeOffset + codeBytes), count * codeBytes);
      order[count++] = vertex;
    }
    return { codes: codes.subarray(0, count * space.dimensions), vertices: order.slice(0, count), total: order.length };
  }

  /** 0: its chunk is gone. */
  #recordOf(vertex: number): number {
    const { chunkShift, stride } = this.#root.geometry;
    const chunk = this.#root.chunk(vertex >>> chunkShift);
    return chunk === undefined ? 0 : chunk.address + (vertex & ((1 << chunkShift) - 1)) * stride;
  }

  *#calibrate(sample: Sample, learnt: Learnt, shards: readonly number[]): Steps<Calibrated> {
    const compass = yield* within(Compass.create(this.#host, tableOf(sample, learnt)), 0, 0.1);
    try {
      const queries = yield* within(this.#queries(sample, learnt, compass), 0.1, 0.6);
      const levels =
        this.#index === "leaves"
          ? undefined
          : yield* within(trainLevels(this.#host, learnt.clustering, queries, shards, SEED), 0.6, 0.8);
      if (queries.length === 0) return { calibration: [], levels };
      return { calibration: yield* within(calibrateCompass(compass, queries), 0.8, 1), levels };
    } finally {
      compass.close();
    }
  }

  *#queries(sample: Sample, { clustering }: Learnt, compass: Compass): Steps<TrainingQuery[]> {
    const { codeBytes } = this.#root.geometry;
    const { dimensions } = clustering.centroids;
    const depth = Math.max(1, Math.min(LEAF_TRAINING.depth, Math.floor(sample.total * DEPTH_SHARE), sample.total - 1));
    const seen = new Set(clustering.sample);
    const unseen = [...sample.vertices.keys()]
      .filter((at) => !seen.has(at))
      .slice(0, LEAF_TRAINING.queries[this.#index]);
    const bytes = new Uint8Array(sample.codes.buffer);
    const queries: TrainingQuery[] = [];
    for (const [done, at] of unseen.entries()) {
      yield done / unseen.length;
      const code = bytes.subarray(at * codeBytes, (at + 1) * codeBytes);
      const found = this.#search().run(code, undefined, [], depth + TRAINING_EF, depth + 1);
      const others = found?.filter(({ vertex }) => vertex !== sample.vertices[at]).slice(0, depth) ?? [];
      if (others.length < depth) continue;
      const vector = sample.codes.slice(at * dimensions, (at + 1) * dimensions);
      const ownLeaf = clustering.leafOf[at] as number;
      queries.push({ vector, ownLeaf, neighbourLeaves: this.#leavesOf(others, compass) });
    }
    return queries;
  }

  /** The leaf that each vertex is nearest to now. */
  #leavesOf(vertices: readonly { readonly vertex: number }[], compass: Compass): Int32Array {
    const { arena, geometry } = this.#root;
    const { codeOffset, dimensions, element } = geometry;
    const nearest = new TopList(1);
    return Int32Array.from(vertices, ({ vertex }) => {
      const at = this.#recordOf(vertex) + codeOffset;
      const code =
        element === ELEMENT.F32
          ? arena.f32.subarray(at >>> 2, (at >>> 2) + dimensions)
          : arena.bytes.subarray(at, at + dimensions);
      compass.nearestLeaves(code, nearest);
      return nearest.ids[0] as number;
    });
  }
}

/** The leaves as a table of one version, their sizes scaled from the sample to all. */
function tableOf({ vertices, total }: Sample, { clustering, labelOf }: Learnt): MergedCentroids {
  const { centroids, counts } = clustering;
  const leaves = labelOf.length;
  const codes = newCode(centroids, leaves);
  for (let leaf = 0; leaf < leaves; leaf++) codes.set(centroids.vector(leaf), leaf * centroids.dimensions);
  return {
    codes,
    counts: counts.map((count) => Math.round((count * total) / vertices.length)),
    radii: new Float32Array(leaves),
    radii90: new Float32Array(leaves),
    medoids: new Int32Array(leaves).fill(-1),
    partitions: labelOf,
    space: { dimensions: centroids.dimensions, metric: centroids.metric, element: centroids.element },
    shardOf: labelOf,
    stamps: [...new Set(labelOf)].sort((a, b) => a - b).map((shard) => ({ shard, epoch: 0, version: 0 })),
  };
}
