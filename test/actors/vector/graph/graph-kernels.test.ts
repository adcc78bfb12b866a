/** The search kernel against a plain model, over random graphs that lead to all kinds of places, and over damaged ones. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { USER0, USER3, USER4 } from "../../../../native-bridge/cell-layout.ts";
import { GraphKernels, type KernelChunk, STOPPED } from "../../../../native-bridge/graph-kernels.ts";
import { ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import {
  type GraphGeometry,
  graphChunkBytes,
  graphGeometry,
  VERTEX_DEGREE,
  VERTEX_FLAG,
  VERTEX_NEIGHBOURS,
  vertexLock,
} from "../../../../src/store/graph-layout.ts";
import { generator } from "../../../native-bridge/memory-support.ts";
import { before, type ModelVertex, modelSearch, type Scored } from "./graph-model.ts";
import { MODULE } from "./graph-support.ts";

const PARTITIONS = 3;
/** Bits of a component by element code. */
const BITS: readonly number[] = [32, 8, 16, 8, 1];
/** -2, -1, 0, 1, 2 as f16. */
const HALVES: readonly number[] = [0xc000, 0xbc00, 0, 0x3c00, 0x4000];

/** A graph of random records, with holes in the table of chunks. */
class RandomGraph {
  readonly arena: Arena = new Arena(createArena({ capacityBytes: 4 * 1_048_576 }));
  readonly geometry: GraphGeometry;
  readonly kernels: Kernels;
  readonly graph: GraphKernels;
  readonly chunks: KernelChunk[] = [];
  readonly random: () => number;
  readonly vertices: number;
  /** Of components that are f32: squares of large ones are infinite in f32. */
  readonly scale: number;

  constructor(seed: number, metric: number, element: number) {
    this.random = generator(seed);
    const dimensions = this.random() % 5 === 0 ? 240 + (this.random() % 400) : 1 + (this.random() % 70); // sums of squares stop early beyond 128 floats or 256 bytes
    this.scale = this.random() % 4 === 0 ? 1e20 : 1;
    const degree = 2 + (this.random() % 9);
    const codeBytes = Math.ceil((dimensions * (BITS[element] as number)) / 8);
    this.geometry = graphGeometry({ dimensions, element, metric, degree, codeBytes, chunkShift: 3 });
    this.kernels = new Kernels(MODULE, this.arena);
    this.graph = new GraphKernels(MODULE, this.arena, this.geometry);
    const count = 1 + (this.random() % 16);
    for (let number = 0; number < count; number++) {
      const address = number > 0 && this.random() % 6 === 0 ? 0 : this.arena.allocate(graphChunkBytes(this.geometry));
      this.chunks.push({ address, partition: this.random() % PARTITIONS, stampAddress: 0, stamp: 0 });
    }
    this.vertices = count << 3;
    this.graph.setChunks(this.chunks, PARTITIONS);
    for (let vertex = 0; vertex < this.vertices; vertex++) if (this.addressOf(vertex) !== 0) this.#fill(vertex);
  }

  addressOf(vertex: number): number {
    const address = vertex < 0 ? 0 : (this.chunks[vertex >>> 3]?.address ?? 0);
    return address === 0 ? 0 : address + (vertex & 7) * this.geometry.stride;
  }

  /** A vector as bytes: few different values, so that there are ties. */
  code(): Uint8Array {
    const { dimensions, element, codeBytes } = this.geometry;
    if (BITS[element] === 1) return Uint8Array.from({ length: codeBytes }, () => this.random());
    const values = Array.from({ length: dimensions }, () => this.random() % 5);
    if (BITS[element] === 32)
      return new Uint8Array(Float32Array.from(values, (value) => (value - 2) * this.scale).buffer);
    if (BITS[element] === 16)
      return new Uint8Array(Uint16Array.from(values, (value) => HALVES[value] as number).buffer);
    return Uint8Array.from(values, (value) => value * 50);
  }

  id(): number {
    return this.random() % 12 === 0 ? this.random() | 0 : this.random() % (this.vertices + 3);
  }

  #fill(vertex: number): void {
    const { arena, geometry } = this;
    const record = this.addressOf(vertex);
    const word = record >>> 2;
    arena.i32[word + USER0] = this.random() % 10 === 0 ? 0 : 4096;
    arena.i32[word + USER3] = this.random() % 8 === 0 ? VERTEX_FLAG.TOMBSTONE : VERTEX_FLAG.LINKED;
    arena.bytes.set(this.code(), record + geometry.codeOffset);
    if (geometry.metric === METRIC.COSINE)
      arena.f32[word + USER4] = this.kernels.inverseNorm(
        geometry.element,
        record + geometry.codeOffset,
        geometry.dimensions,
      );
    const odd = this.random() % 20;
    const degree = this.random() % (geometry.degree + 1);
    arena.i32[word + VERTEX_DEGREE / 4] = odd === 0 ? -1 - degree : odd === 1 ? geometry.degree + 1 + degree : degree;
    for (let index = 0; index < geometry.degree; index++) arena.i32[word + VERTEX_NEIGHBOURS / 4 + index] = this.id();
  }

  model(vertex: number): ModelVertex | undefined {
    const record = this.addressOf(vertex);
    if (record === 0) return undefined;
    const word = record >>> 2;
    const { i32 } = this.arena;
    const degree = i32[word + VERTEX_DEGREE / 4] as number;
    const most = this.geometry.degree;
    const badDegree = degree < 0 || degree > most;
    const first = word + VERTEX_NEIGHBOURS / 4;
    return {
      neighbours: [...i32.slice(first, first + Math.min(most, Math.max(0, degree)))],
      badDegree,
      free: i32[word + USER0] === 0,
      deleted: ((i32[word + USER3] as number) & VERTEX_FLAG.TOMBSTONE) !== 0,
      partition: (this.chunks[vertex >>> 3] as KernelChunk).partition,
    };
  }
}

/** Some vertices, and ids of none, as a search elsewhere would have found them. @param code Address of the query */
function knownTo(graph: RandomGraph, code: number, most: number): Scored[] {
  const { geometry, kernels, random } = graph;
  const { metric, element, codeOffset, dimensions } = geometry;
  const distanceOf = (vertex: number): number => {
    const address = graph.addressOf(vertex);
    if (address === 0) return random() % 100;
    const distance = kernels.distance(metric, element, address + codeOffset, code, dimensions);
    return Number.isNaN(distance) ? 1 : distance;
  };
  const ids = new Set(Array.from({ length: most }, () => graph.id()));
  const known = [...ids].map((vertex): Scored => ({ vertex, distance: distanceOf(vertex) }));
  return known.sort((a, b) => (before(a, b) ? -1 : 1));
}

function compare(seed: number, metric: number, element: number): void {
  const graph = new RandomGraph(seed, metric, element);
  const { arena, geometry, kernels, random } = graph;
  const at = arena.allocate(geometry.codeBytes + 16);
  const filter = arena.allocate(64);
  for (let search = 0; search < 6; search++) {
    const code = graph.code();
    arena.bytes.set(code, at);
    const entries = Array.from({ length: random() % 6 }, () => graph.id());
    const ef = 1 + (random() % 40);
    const known = search % 2 === 0 ? [] : knownTo(graph, at, 1 + (random() % 50));
    const limitDistances = random() % 3 === 0 ? 1 + (random() % 40) : 0;
    const filtered = random() % 2 === 0;
    const filterBits = random() % 129;
    for (let word = 0; word < 4; word++) arena.i32[(filter >>> 2) + word] = random() | 0;
    const expected = modelSearch(
      (vertex) => graph.model(vertex),
      (vertex) =>
        kernels.distance(metric, element, graph.addressOf(vertex) + geometry.codeOffset, at, geometry.dimensions),
      PARTITIONS,
      {
        ef,
        entries,
        limitDistances,
        known: known.slice(0, ef),
        admits: (vertex) =>
          !filtered ||
          (vertex < filterBits &&
            (((arena.i32[(filter >>> 2) + (vertex >>> 5)] as number) >>> (vertex & 31)) & 1) === 1),
      },
    );
    graph.graph.setEntries(entries);
    const options = { ef, limitDistances, filter: filtered ? filter : 0, filterBits, countReads: true, known };
    const count = graph.graph.search(code, options);
    const found = Array.from({ length: count }, (_, index) => ({
      distance: graph.graph.resultDistance(index),
      vertex: graph.graph.resultVertex(index),
    }));
    const { distances, expansions, damaged, dangling, stopped } = graph.graph;
    const reads = Array.from({ length: PARTITIONS }, (_, partition) => graph.graph.readsOf(partition));
    expect({ found, distances, expansions, damaged, dangling, reads, stopped: stopped === STOPPED.BUDGET }).toEqual(
      expected,
    );
    expect(graph.graph.partitionsTouched).toBe(reads.filter((count) => count > 0).length);
  }
}

describe("search kernel", () => {
  for (const [metricName, metric] of Object.entries(METRIC)) {
    for (const element of Object.values(ELEMENT).filter((code) => code < BITS.length)) {
      test(`finds what the model finds, with the same counters: ${metricName}, element ${element}`, () => {
        fc.assert(
          fc.property(fc.integer({ min: 0, max: 2 ** 31 - 1 }), (seed) => compare(seed, metric, element)),
          { numRuns: 100 },
        );
      });
    }
  }

  test("searches in a row do not take each other's visits for their own", () => {
    const graph = new RandomGraph(5, METRIC.L2, ELEMENT.U8);
    const code = graph.code();
    graph.graph.setEntries([0, 1, 2, 3]);
    graph.graph.search(code, { ef: 16 });
    const { distances, expansions } = graph.graph;
    expect(distances).toBeGreaterThan(4);
    // Stamps are bytes: those of a search come back after 255 others that visit nothing, unless they were cleared.
    for (let others = 250; others <= 260; others++) {
      graph.graph.setEntries([]);
      for (let search = 0; search < others; search++) expect(graph.graph.search(code, { ef: 16 })).toBe(0);
      graph.graph.setEntries([0, 1, 2, 3]);
      graph.graph.search(code, { ef: 16 });
      expect([graph.graph.distances, graph.graph.expansions]).toEqual([distances, expansions]);
    }
  });

  test("random words in headers and lists neither stop nor trap search, insertion or repair, and nothing else is written", () => {
    const graph = new RandomGraph(77, METRIC.L2, ELEMENT.U8);
    const { arena, geometry, random } = graph;
    const guard = arena.allocate(4096);
    arena.bytes.fill(0xab, guard, guard + 4096);
    const treeRoot = arena.allocate(16);
    const link = { efConstruction: 24, alpha: 1.2, token: 9, treeRoot };
    for (let round = 0; round < 2000; round++) {
      const vertex = random() % graph.vertices;
      const record = graph.addressOf(vertex);
      if (record === 0) continue;
      const words = geometry.codeOffset >>> 2;
      const word = (record >>> 2) + (random() % words);
      const kind = random() % 4;
      arena.i32[word] = kind === 0 ? random() | 0 : kind === 1 ? graph.id() : kind === 2 ? -1 : 0x7fff_ffff;
      graph.graph.setEntries([graph.id(), graph.id(), 0]);
      const found = graph.graph.search(graph.code(), { ef: 20 });
      expect(graph.graph.distances).toBeLessThanOrEqual(graph.vertices);
      expect(graph.graph.expansions).toBeLessThanOrEqual(graph.vertices);
      for (let index = 0; index < found; index++) {
        const hit = graph.graph.resultVertex(index);
        expect(graph.addressOf(hit)).toBeGreaterThan(0);
        expect(arena.i32[(graph.addressOf(hit) >>> 2) + USER0]).not.toBe(0);
      }
      arena.i32[(record + vertexLock(geometry)) >>> 2] = 0;
      if (round % 16 === 0) arena.i32[treeRoot >>> 2] = graph.id() + 1;
      if (round % 4 === 0) graph.graph.insert(vertex, link);
      if (round % 4 === 1) graph.graph.repair(vertex, link);
    }
    expect(arena.bytes.subarray(guard, guard + 4096).every((byte) => byte === 0xab)).toBe(true);
  });

  test("arguments out of range are refused", () => {
    const graph = new RandomGraph(1, METRIC.L2, ELEMENT.U8);
    const refused = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" });
    const call = (act: () => unknown): unknown => {
      try {
        return act();
      } catch (error) {
        return error;
      }
    };
    expect(call(() => graph.graph.search(new Uint8Array(graph.geometry.codeBytes + 1), { ef: 8 }))).toEqual(refused);
    expect(call(() => graph.graph.search(graph.code(), { ef: 0 }))).toEqual(refused);
    expect(call(() => graph.graph.search(graph.code(), { ef: 1.5 }))).toEqual(refused);
    expect(call(() => graph.graph.setEntries(new Array(70_000).fill(0)))).toEqual(refused);
    expect(graph.graph.insert(1 << 20, { efConstruction: 8, alpha: 1, token: 1 })).toBe(-1);
  });
});
