/** A search by levels among three shards of one node, whose messages a test passes on, loses or answers by another version. */
import { beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import type { EngineContext } from "../../../../actors/engine.ts";
import type { GraphIndex } from "../../../../actors/vector/graph/graph-index.ts";
import { LabelSearch } from "../../../../actors/vector/graph/label-search.ts";
import type { LeafMembers } from "../../../../actors/vector/graph/leaf-members.ts";
import type { LeafScan } from "../../../../actors/vector/graph/leaf-scan.ts";
import { LeafTable } from "../../../../actors/vector/graph/leaf-table.ts";
import { LeafTrainer } from "../../../../actors/vector/graph/leaf-trainer.ts";
import { LevelView, leafOfRow, rowOfLeaf } from "../../../../actors/vector/graph/level-view.ts";
import { emptyColumns } from "../../../../actors/vector/routing/centroid-table.ts";
import { encodeCentroids } from "../../../../actors/vector/routing/centroid-table-codec.ts";
import { decodeLevels, encodeLevels, type LevelTable } from "../../../../actors/vector/routing/levels-codec.ts";
import { TopList } from "../../../../actors/vector/routing/top-list.ts";
import { readExchange } from "../../../../actors/vector/strategy/exchange-messages.ts";
import { LeafExchange, type LeafExchangeOptions } from "../../../../actors/vector/strategy/leaf-exchange.ts";
import { searchLevels } from "../../../../actors/vector/strategy/level-search.ts";
import {
  type NearReply,
  type NearRequest,
  nearReplyBytes,
  readNearRequest,
  writeCandidates,
} from "../../../../actors/vector/strategy/near-messages.ts";
import { near } from "../../../../actors/vector/strategy/near-reads.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { eventually } from "../../../support/cluster.ts";
import { clusters, MODULE, Site } from "../graph/graph-support.ts";
import { wireMemory } from "../support.ts";

const DIMENSIONS = 12;
const DOCUMENTS = 1_500;
const SHARDS = 3;
const VERSION = 1;
const arena = new Arena(createArena({ capacityBytes: 64 * 1024 * 1024 }));
const shape = { dimensions: DIMENSIONS, element: ELEMENT.F32, metric: METRIC.L2, chunkShift: 6 };
const site = Site.create(arena, shape, 2_048, 0);
const host = { arena: site.arena, kernels: new Kernels(MODULE, site.arena) };
const next = clusters(5, DIMENSIONS);

/** What a test does with a message: undefined passes it on. */
type Fate = (shard: number, request: NearRequest) => Promise<NearReply> | undefined;

interface Shard {
  /** What a search needs of its graph. */
  readonly graph: GraphIndex & { placedVersion: number };
  readonly exchange: LeafExchange;
}

let table: LeafTable;
let leafOf: Int32Array;
let shards: Shard[];

beforeAll(async () => {
  const sites = [site, ...[1, 2].map((shard) => Site.open(arena.memory, site.root.ref, site.rows.ref, shard))];
  const parts = sites.map((own) => ({ partition: own.partition(own.owner), writer: own.writer(), own }));
  for (let row = 0; row < DOCUMENTS; row++) {
    const { partition, writer, own } = parts[row % SHARDS] as (typeof parts)[number];
    own.rows.put(row, next());
    const vertex = own.take(partition, row);
    expect(writer.insert(vertex)).toBe(true);
    partition.markLinked(vertex);
  }
  const search = new LabelSearch(
    site.root,
    site.verbs,
    (parts[0] as (typeof parts)[number]).writer.searchKernels(MODULE),
  );
  const trainer = new LeafTrainer(site.root, host, () => search, 0, "levels");
  expect(trainer.isDue(0, [], true)).toBe(true);
  trainer.run(Number.POSITIVE_INFINITY, () => 0);
  table = LeafTable.open(site.root, host) as LeafTable;
  const top = new TopList(1);
  leafOf = Int32Array.from({ length: DOCUMENTS }, (_, row) => {
    table.centroids.nearest(site.rows.vector(row), top);
    return top.ids[0] as number;
  });
  shards = [0, 1, 2].map(shardOf);
  await told(shards);
});

function exchangeOf(shard: number, levels: LevelView, ask: LeafExchangeOptions["ask"]): LeafExchange {
  return new LeafExchange({
    ...{ root: site.root, host, levels, shard, epoch: 1, nowMs: () => performance.now(), collectionId: 1 },
    members: { open: () => true, all: () => new Map(), intact: true } as unknown as LeafMembers,
    ask,
  });
}

/** Of documents whose vertex has the number of their row. */
function shardOf(shard: number): Shard {
  const levels = new LevelView(host, () => table);
  const exchange = exchangeOf(shard, levels, async (peer, { payload }) => {
    const memory = wireMemory(payload.byteLength + 8);
    payload.write(memory, 0);
    const { message } = readExchange({ ...memory, offset: 0, length: payload.byteLength });
    return (shards[peer] as Shard).exchange.receive(message);
  });
  const scan = {
    distances: 0,
    run(code: Uint8Array, leaves: ArrayLike<number>, _version: number, wanted: number) {
      const query = new Float32Array(code.slice().buffer);
      const rows = Array.from(leafOf.keys()).filter((row) => Array.from(leaves).includes(leafOf[row] as number));
      scan.distances = rows.length;
      const near = rows.map((vertex) => ({ vertex, distance: site.rows.squaredDistance(vertex, query) }));
      const nearest = near.sort((a, b) => a.distance - b.distance).slice(0, wanted);
      return nearest.map((found) => ({ ...found, address: 0, incarnation: 0, shard }));
    },
  };
  const graph = {
    ...{ levels, exchange, placedVersion: VERSION, scan: () => scan },
    componentsOf: (code: Uint8Array) => new Float32Array(code.slice().buffer),
    labelOf: (leaf: number) => table.label(leaf),
  };
  return { graph: graph as unknown as Shard["graph"], exchange };
}

/** Has the shards tell each other what they read. */
async function told(all: readonly Shard[]): Promise<void> {
  for (const { exchange } of all) exchange.tick(VERSION);
  for (const { exchange } of all)
    await eventually("all shards' clusters are known", () => Promise.resolve(exchange.missing().length === 0));
}

function contextOf(shard: number, fate: Fate): EngineContext {
  const peers = {
    incarnation: 1,
    async ask(
      peer: number,
      _type: number,
      payload: { byteLength: number; write: (...args: never[]) => void },
      decode: (m: never) => unknown,
    ) {
      const memory = wireMemory(payload.byteLength + 8);
      payload.write(...([memory, 0] as never[]));
      const request = readNearRequest({ ...memory, offset: 0, length: payload.byteLength });
      const { graph } = shards[peer] as Shard;
      const answer = (await fate(peer, request)) ?? near(graph, peer, request);
      const reply = wireMemory(nearReplyBytes(answer.candidates.length));
      writeCandidates(reply, 0, answer);
      return decode({ ...reply, offset: 0, length: nearReplyBytes(answer.candidates.length) } as never);
    },
  };
  return { workerIndex: shard, peers } as unknown as EngineContext;
}

const passOn: Fate = () => undefined;
const gone = (): Promise<NearReply> => Promise.reject(new ShardloomError("ERR_WORKER_LOST", "Cannot ask shard"));

function requestOf(query: Float32Array, recallPpm = 990_000): NearRequest {
  const code = new Uint8Array(query.slice().buffer);
  return { collectionId: 1, wanted: 10, ef: 10, version: 0, entries: [], leaves: [], code, recallPpm, level: 0 };
}

function search(query: Float32Array, fate: Fate = passOn, from = 0): Promise<NearReply> {
  return searchLevels(contextOf(from, fate), (shards[from] as Shard).graph, requestOf(query), VERSION);
}

function exact(query: Float32Array): number[] {
  const rows = Array.from({ length: DOCUMENTS }, (_, vertex) => vertex);
  const distance = (row: number): number => site.rows.squaredDistance(row, query);
  return rows.sort((a, b) => distance(a) - distance(b)).slice(0, 10);
}

const queries = Array.from({ length: 40 }, () => next());

describe("a search by levels", () => {
  test("finds its share in two rounds, whichever shard is asked, and reads a part", async () => {
    let [found, read] = [0, 0];
    for (const [at, query] of queries.entries()) {
      const { candidates, distances, rounds } = await search(query, passOn, at % SHARDS);
      expect(rounds).toBe(2);
      const truth = new Set(exact(query));
      found += candidates.filter(({ vertex }) => truth.has(vertex)).length;
      read += distances;
    }
    expect(found / (10 * queries.length)).toBeGreaterThan(0.95);
    expect(read / queries.length).toBeLessThan(DOCUMENTS / 4);
  });

  test("has clusters read by their second shard where the first is lost, and loses nothing", async () => {
    let [refused, served] = [0, 0];
    for (const query of queries) {
      const whole = await search(query);
      const without = await search(query, (shard, { level }) => {
        if (shard !== 1 || level === 0) return undefined;
        refused++;
        return gone();
      }).catch((error: unknown) => error);
      // A shard that was lost once is not asked for leaves either.
      if (without instanceof ShardloomError)
        expect([without.code, without.details["shards"]]).toEqual(["ERR_UNAVAILABLE", [1]]);
      else {
        expect((without as NearReply).candidates).toEqual(whole.candidates);
        served++;
      }
    }
    expect(served).toBeGreaterThan(0);
    expect(refused).toBeGreaterThan(0);
  });

  test("ends typed when a shard's leaves cannot be read, when it has another version, and when not all clusters are known", async () => {
    const row = Array.from(leafOf.keys()).find((at) => table.label(leafOf[at] as number) === 1) as number;
    const query = site.rows.vector(row);
    const tooLong = new ShardloomError("ERR_RECORD_TOO_LARGE", "Cannot reply");
    await expect(search(query, (shard) => (shard === 1 ? Promise.reject(tooLong) : undefined))).rejects.toBe(tooLong);
    await expect(search(query, (shard) => (shard === 1 ? gone() : undefined))).rejects.toMatchObject({
      code: "ERR_UNAVAILABLE",
      details: { shards: [1] },
    });
    const { graph } = shards[1] as Shard;
    const { scan } = graph;
    graph.scan = () => ({ distances: 0, run: () => undefined }) as unknown as LeafScan;
    await expect(search(query)).rejects.toMatchObject({ code: "ERR_REGION_ACCESS", details: { shard: 1 } });
    graph.scan = scan;
    graph.placedVersion = VERSION + 1;
    await expect(search(query)).rejects.toMatchObject({ code: "ERR_VERSION_MISMATCH" });
    graph.placedVersion = VERSION;
    expect((await search(query)).candidates[0]).toMatchObject({ vertex: row, distance: 0 });

    const lonely = shardOf(0);
    const alone = (): Promise<NearReply> => searchLevels(contextOf(0, passOn), lonely.graph, requestOf(query), VERSION);
    await expect(alone()).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    await told([lonely]);
    expect((await alone()).candidates[0]).toMatchObject({ vertex: row });
    const held = lonely.exchange.tables();
    const rows = Array.from(held?.shardOf ?? []).flatMap((shard, at) => (shard === 1 ? [at] : []));
    expect(rows.length).toBeGreaterThan(0);
    const columns = emptyColumns(table.centroids, rows.length);
    for (const [at, of] of rows.entries()) {
      columns.codes.set(held?.codes.subarray(of * DIMENSIONS, (of + 1) * DIMENSIONS) as Float32Array, at * DIMENSIONS);
      columns.partitions[at] = rowOfLeaf(leafOfRow(held?.partitions[of] as number).leaf, VERSION + 1);
    }
    const { metric, element } = table.centroids;
    const space = { dimensions: DIMENSIONS, metric, element };
    const forged = encodeCentroids({ ...columns, shard: 1, epoch: 9, version: 1, space });
    lonely.exchange.receive({ kind: "table", from: 1, to: 0, bytes: forged });
    await expect(alone()).rejects.toMatchObject({ code: "ERR_VERSION_MISMATCH", details: { version: VERSION + 1 } });
  });

  test("asks a shard for what it reads alone", () => {
    const { graph } = shards[0] as Shard;
    const index = graph.levels.index(VERSION);
    const other = index?.levels[1]?.nodeOf.findIndex(
      (node, cluster) => node !== 0 && index.levels[1]?.secondOf[cluster] !== 0,
    ) as number;
    expect(other).toBeGreaterThanOrEqual(0);
    const request = { ...requestOf(queries[0] as Float32Array), version: VERSION, level: 1, leaves: [other] };
    for (const odd of [{}, { leaves: [-1] }, { leaves: [1 << 20] }, { level: 2, leaves: [0] }])
      expect(() => near(graph, 0, { ...request, ...odd })).toThrow(
        expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
      );
    expect(graph.levels.index(VERSION + 1)).toBeUndefined();
  });
});

test("an exchange whose graph goes while a peer is asked ends without a word", async () => {
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => void unhandled.push(error);
  process.on("unhandledRejection", note);
  onTestFinished(() => void process.off("unhandledRejection", note));
  const look = vi.spyOn(site.root, "partitionsWithChunks");
  onTestFinished(() => look.mockRestore());
  let asked = 0;
  const exchange = exchangeOf(0, new LevelView(host, () => table), async () => {
    asked++;
    await Promise.resolve();
    look.mockImplementation(() => {
      throw new Error("the memory of the graph was freed");
    });
    return [{ kind: "request", from: 1, to: 0, shards: [0] }];
  });
  exchange.tick(VERSION);
  expect(asked).toBeGreaterThan(0);
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  expect(look.mock.results.some(({ type }) => type === "throw")).toBe(true);
  expect(unhandled).toEqual([]);
});

test("levels are read as they were written, and never promise more", () => {
  const levels = table.levels();
  if (levels === undefined) throw new Error("no levels");
  const kept = decodeLevels(table.centroids, JSON.parse(JSON.stringify(encodeLevels(levels))));
  expect(kept.upper).toEqual(levels.upper);
  const curves = ({ calibration }: LevelTable): number[][] =>
    calibration.flatMap((entry) => entry.levels.map(({ curve }) => [...curve.recalls]));
  const [before, after] = [curves(levels), curves(kept)];
  expect(before.flat().length).toBeGreaterThan(0);
  for (const [at, recalls] of before.entries()) {
    for (const [point, recall] of recalls.entries()) {
      expect(after[at]?.[point]).toBeLessThanOrEqual(recall);
      expect(after[at]?.[point]).toBeGreaterThan(recall - 2e-4);
    }
  }
});
