/** The multi-level index: what it holds, what a search reads, and what happens when nodes are gone or lie. */
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { chooseGroups } from "../../../../actors/vector/routing/closure.ts";
import { type Code, packedSource, tableOf, type VectorSource } from "../../../../actors/vector/routing/code-table.ts";
import { calibrateMultiLevel, neighbourQueries } from "../../../../actors/vector/routing/multi-level-calibration.ts";
import {
  buildMultiLevel,
  closeIndex,
  type MultiLevelIndex,
  type MultiLevelOptions,
} from "../../../../actors/vector/routing/multi-level-index.ts";
import { type RoundAnswer, type RoundRequest, serveRound } from "../../../../actors/vector/routing/multi-level-node.ts";
import {
  type MultiLevelResult,
  MultiLevelSearch,
  type MultiLevelSearchOptions,
} from "../../../../actors/vector/routing/multi-level-search.ts";
import { runSteps } from "../../../../actors/vector/routing/steps.ts";
import { TopList } from "../../../../actors/vector/routing/top-list.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { makeHost, nearest, nearTarget, SEED, seeded, synthetic } from "./support.ts";

const host = makeHost();
const COUNT = 4000;
const all = synthetic({ count: COUNT + 100, dimensions: 16, clusters: 50, random: seeded(1) });
const source: VectorSource = packedSource(
  all,
  Uint8Array.from({ length: COUNT * 16 }, (_, i) => all.vector(Math.floor(i / 16))[i % 16] as number),
);
const vectors = tableOf(host, source);
const index = build(source, { nodes: 16, mostAtTop: 50 });
const calibration = runSteps(
  calibrateMultiLevel(index, runSteps(neighbourQueries(vectors, index.unseen.subarray(0, 500), 10))),
);
const queries = Array.from({ length: 100 }, (_, i) => all.vector(COUNT + i).slice());
const truth = queries.map((query) => nearest(source, query, 10));
afterAll(() => {
  closeIndex(index);
  vectors.close();
});

function build(from: VectorSource, options: Partial<MultiLevelOptions>): MultiLevelIndex {
  return runSteps(buildMultiLevel(host, from, { nodes: 4, seed: SEED, ...options }));
}

type Handler = (request: RoundRequest, search: MultiLevelSearch) => RoundRequest[];

const serve: Handler = (request, search) => search.answer(serveRound(index, vectors, structuredClone(request)));

/** Drives a search to its end; messages are cloned, as a wire would. */
function run(query: Code, options: Partial<MultiLevelSearchOptions>, handle: Handler = serve): MultiLevelResult {
  const search = new MultiLevelSearch(index, query, { k: 10, recallTarget: 0.9, calibration, ...options });
  for (let open = search.start(); open.length > 0; ) open = open.flatMap((request) => handle(request, search));
  expect(search.done).toBe(true);
  return search.result();
}

function recall(results: readonly MultiLevelResult[]): number {
  const found = results.map((result, q) => (truth[q] as number[]).filter((id) => result.ids.includes(id)).length);
  return found.reduce((sum, count) => sum + count, 0) / results.length / 10;
}

describe("index", () => {
  test("property: every member has one own cluster that lists it, copies come on top, nodes are in range", () => {
    const cases = fc.record({
      count: fc.integer({ min: 1, max: 400 }),
      density: fc.double({ min: 0.02, max: 0.5, noNaN: true }),
      nodes: fc.integer({ min: 1, max: 5 }),
      mostAtTop: fc.integer({ min: 1, max: 20 }),
      copies: fc.integer({ min: 1, max: 4 }),
      metric: fc.constantFrom(...Object.values(METRIC)),
      seed: fc.integer({ min: 0, max: 1000 }),
    });
    fc.assert(
      fc.property(cases, ({ count, density, nodes, mostAtTop, copies, metric, seed }) => {
        const from = synthetic({ count, dimensions: 6, metric, random: seeded(seed) });
        const made = build(from, { density, nodes, mostAtTop, closure: { slack: 0.4, copies }, rounds: 2 });
        made.levels.forEach((level, at) => {
          const clusters = level.centroids.count;
          const below = made.levels[at - 1]?.centroids.count ?? count;
          expect(level.clusterOf).toHaveLength(below);
          const places = new Int32Array(below);
          for (let cluster = 0; cluster < clusters; cluster++) {
            const list = level.members.subarray(level.starts[cluster], level.starts[cluster + 1]);
            expect(new Set(list).size).toBe(list.length);
            const own = list.filter((member) => level.clusterOf[member] === cluster);
            expect(own.length).toBeLessThanOrEqual(Math.ceil((2 * below) / clusters));
            for (const member of list) places[member] = (places[member] as number) + 1;
          }
          expect(Math.min(...places)).toBeGreaterThanOrEqual(1);
          expect(Math.max(...places)).toBeLessThanOrEqual(copies);
          level.clusterOf.forEach((cluster, member) => {
            expect(level.members.subarray(level.starts[cluster], level.starts[cluster + 1])).toContain(member);
          });
          for (const node of level.nodeOf) expect(node >= 0 && node < nodes).toBe(true);
          level.secondOf.forEach((node, cluster) => {
            if (at === 0 || nodes === 1) expect(node).toBe(-1);
            else expect(node >= 0 && node < nodes && node !== level.nodeOf[cluster]).toBe(true);
          });
        });
        expect(made.levels.at(-1)?.centroids.count).toBeLessThanOrEqual(Math.max(mostAtTop, 1));
        closeIndex(made);
      }),
      { numRuns: 40, seed: SEED },
    );
  });

  test("the seed decides everything", () => {
    const again = build(source, { nodes: 16, mostAtTop: 50 });
    again.levels.forEach((level, at) => {
      const first = index.levels[at];
      expect([level.members, level.starts, level.nodeOf, level.secondOf]).toEqual([
        first?.members,
        first?.starts,
        first?.nodeOf,
        first?.secondOf,
      ]);
    });
    closeIndex(again);
  });

  test("copies stand on different sides: none is nearer to another of the vector's groups than to the vector", () => {
    const { centroids } = index.levels[0] as MultiLevelIndex["levels"][number];
    const top = new TopList(8);
    const into = new Int32Array(4);
    let copied = 0;
    for (let i = 0; i < 300; i++) {
      centroids.nearest(source.vector(i), top);
      const count = chooseGroups(centroids, top, { slack: 0.2, copies: 4 }, into);
      copied += count - 1;
      expect(into[0]).toBe(top.ids[0]);
      for (let a = 1; a < count; a++) {
        const distance = top.distances[top.ids.indexOf(into[a] as number)] as number;
        expect(distance).toBeLessThanOrEqual((top.distances[0] as number) * 1.2 ** 2);
        for (let b = 0; b < a; b++)
          expect(centroids.between(into[a] as number, into[b] as number)).toBeGreaterThanOrEqual(distance);
      }
    }
    expect(copied).toBeGreaterThan(0);
    expect(chooseGroups(centroids, top, { slack: 9, copies: 1 }, into)).toBe(1);
  });

  test.each([
    [{ nodes: 0 }, "nodes"],
    [{ density: 0 }, "density"],
    [{ density: Number.NaN }, "density"],
    [{ mostAtTop: 0 }, "mostAtTop"],
    [{ closure: { slack: -1, copies: 2 } }, "closure"],
    [{ closure: { slack: 1, copies: 0 } }, "closure"],
    [{ placement: () => 4 }, "placement"],
    [{ placement: () => Number.NaN }, "placement"],
  ])("refuses %j and leaves nothing behind", (options, name) => {
    const { usedBytes } = host.arena.stats();
    expect(() => build(source, options)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }),
    );
    expect(host.arena.stats().usedBytes).toBe(usedBytes);
  });
});

describe("search", () => {
  test("two rounds, recall near its target, a small part of the vectors read", () => {
    let before = 0;
    for (const target of [0.8, 0.9, 0.97]) {
      const results = queries.map((query) => run(query, { recallTarget: target }));
      expect(results.every(({ rounds }) => rounds === 2)).toBe(true);
      expect(recall(results)).toBeGreaterThan(nearTarget(target));
      const read = results.reduce((sum, result) => sum + result.read, 0) / results.length;
      expect(read).toBeGreaterThanOrEqual(before);
      before = read;
    }
    expect(before).toBeLessThan(COUNT * 0.35);
  });

  test("more neighbours than were calibrated read all that is ranked, and the result says so", () => {
    const few = run(queries[0] as Code, { k: 10 });
    const many = run(queries[0] as Code, { k: 11 });
    expect([few.rule, many.rule]).toEqual(["adaptive", "ranked"]);
    expect(many.read).toBeGreaterThan(few.read);
    expect([...many.ids]).toEqual(nearest(source, queries[0] as Code, 11));
  });

  test("a target of 1 with everything ranked is the exact answer, distance by distance", () => {
    for (let q = 0; q < 20; q++) {
      const result = run(queries[q] as Code, { recallTarget: 1, width: COUNT });
      expect([...result.ids]).toEqual(truth[q]);
      expect(result.missing).toEqual({ nodes: [], clusters: 0, vectors: 0 });
    }
  });

  test("one of 16 nodes down: known before or lost on the way, at most 7.5 points are lost and the node is named", () => {
    const whole = recall(queries.map((query) => run(query, { recallTarget: 0.97 })));
    let lost = 0;
    for (let down = 0; down < 16; down++) {
      const known = queries.map((query) => run(query, { recallTarget: 0.97, down: [down] }));
      const onTheWay = queries.map((query) =>
        run(query, { recallTarget: 0.97 }, (request, search) =>
          request.node === down ? search.lost(down) : serve(request, search),
        ),
      );
      expect(onTheWay.map(({ ids }) => ids)).toEqual(known.map(({ ids }) => ids));
      for (const { missing } of known) {
        expect(missing.nodes).toEqual(missing.clusters > 0 ? [down] : []);
        expect(missing.vectors > 0).toBe(missing.clusters > 0);
      }
      lost += (whole - recall(known)) / 16;
    }
    expect(lost).toBeGreaterThan(0.005);
    expect(lost).toBeLessThan(0.075);
  });

  test("all nodes down ends at once, empty and named as partial", () => {
    const result = run(queries[0] as Code, { down: Array.from({ length: 16 }, (_, i) => i) }, () => {
      throw new Error("nobody is to be asked");
    });
    expect(result.ids).toHaveLength(0);
    expect(result.missing.clusters).toBeGreaterThan(0);
    expect(result.missing.nodes.length).toBeGreaterThan(0);
  });

  test("a node that no longer holds a cluster is asked once; the second copy or the list of the missing has it", () => {
    const refusing = 5;
    const handle: Handler = (request, search) => {
      const answer = serveRound(index, vectors, request);
      if (request.node !== refusing) return search.answer(answer);
      const empty = { ids: new Int32Array(0), distances: new Float64Array(0), read: 0, absent: request.clusters };
      return search.answer({ ...answer, ...empty });
    };
    queries.slice(0, 30).forEach((query, q) => {
      const refused = run(query, {}, handle);
      expect(refused.ids).toEqual(run(query, { down: [refusing] }).ids);
      if (refused.missing.clusters > 0) expect(refused.missing.nodes, `query ${q}`).toEqual([refusing]);
    });
  });

  test("doubled, late and foreign answers change nothing", () => {
    const old: RoundAnswer[] = [];
    const handle: Handler = (request, search) => {
      const answer = serveRound(index, vectors, request);
      for (const late of old) expect(search.answer(late)).toEqual([]);
      expect(search.answer({ ...answer, node: 99 })).toEqual([]);
      const next = search.answer(answer);
      expect(search.answer(answer)).toEqual([]);
      old.push(answer);
      return next;
    };
    for (const query of queries.slice(0, 20)) {
      old.length = 0;
      expect(run(query, {}, handle)).toEqual(run(query, {}));
    }
  });

  test("ids and distances that no node can have sent are dropped and counted", () => {
    const handle: Handler = (request, search) => {
      const answer = serveRound(index, vectors, request);
      const ids = Int32Array.of(-1, 2_000_000, 7, 8, ...answer.ids);
      const distances = Float64Array.of(0, 0, Number.NaN, Number.NEGATIVE_INFINITY, ...answer.distances);
      return search.answer({ ...answer, ids, distances });
    };
    for (const query of queries.slice(0, 20)) {
      const result = run(query, {}, handle);
      const plain = run(query, {});
      expect(result.ids).toEqual(plain.ids);
      expect(result.damaged).toBe(4 * plain.requests);
    }
  });

  test("a node reads a vector once, and names the clusters that it does not hold", () => {
    const level = index.levels[0] as MultiLevelIndex["levels"][number];
    const node = level.nodeOf[0] as number;
    const clusters = Int32Array.from([...level.nodeOf.keys(), -1, 9_999]);
    const query = queries[0] as Code;
    const answer = serveRound(index, vectors, { sequence: 3, node, level: 0, clusters, query, limit: COUNT });
    const held = [...level.nodeOf.keys()].filter((cluster) => level.nodeOf[cluster] === node);
    const members = new Set(held.flatMap((c) => [...level.members.subarray(level.starts[c], level.starts[c + 1])]));
    expect(new Set(answer.ids)).toEqual(members);
    expect(answer.read).toBe(members.size);
    expect([...answer.absent]).toEqual([...clusters].filter((cluster) => !held.includes(cluster)));
  });

  test.each([METRIC.COSINE, METRIC.INNER_PRODUCT])(
    "metric %i: recall near its target for a part of the reads",
    (metric) => {
      const from = synthetic({
        count: 3100,
        dimensions: 16,
        clusters: 40,
        metric,
        element: ELEMENT.F32,
        random: seeded(5),
      });
      const flat = Float32Array.from(
        { length: 3000 * 16 },
        (_, i) => from.vector(Math.floor(i / 16))[i % 16] as number,
      );
      const own = packedSource(from, flat);
      const table = tableOf(host, own);
      const made = build(own, { nodes: 4, mostAtTop: 40 });
      const learnt = runSteps(
        calibrateMultiLevel(made, runSteps(neighbourQueries(table, made.unseen.subarray(0, 400), 10))),
      );
      let found = 0;
      let read = 0;
      for (let q = 0; q < 60; q++) {
        const query = from.vector(3000 + q).slice();
        const search = new MultiLevelSearch(made, query, { k: 10, recallTarget: 0.9, calibration: learnt });
        for (let open = search.start(); open.length > 0; )
          open = open.flatMap((request) => search.answer(serveRound(made, table, request)));
        const result = search.result();
        const right = nearest(own, query, 10);
        found += right.filter((id) => result.ids.includes(id)).length / 10;
        read += result.read;
      }
      expect(found / 60).toBeGreaterThan(nearTarget(0.9) - 0.04);
      expect(read / 60).toBeLessThan(3000 * 0.5);
      closeIndex(made);
      table.close();
    },
  );

  test.each([
    [{ recallTarget: 0 }, "recallTarget"],
    [{ recallTarget: Number.NaN }, "recallTarget"],
    [{ k: 0 }, "k"],
    [{ width: 0 }, "width"],
    [{ calibration: [{ depth: 10, levels: [] }] }, "calibration"],
  ])("refuses %j", (change, name) => {
    expect(() => new MultiLevelSearch(index, queries[0] as Code, { k: 10, recallTarget: 0.9, ...change })).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }),
    );
  });

  test("refuses a query of another length, a level that is not there, and calibration without queries", () => {
    const refused = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" });
    expect(() => new MultiLevelSearch(index, new Uint8Array(2), { k: 1, recallTarget: 1 })).toThrow(refused);
    const request = {
      sequence: 0,
      node: 0,
      level: 2,
      clusters: new Int32Array(1),
      query: queries[0] as Code,
      limit: 1,
    };
    expect(() => serveRound(index, vectors, request)).toThrow(refused);
    expect(() => serveRound(index, vectors, { ...request, level: 0, limit: 0 })).toThrow(refused);
    expect(() => runSteps(calibrateMultiLevel(index, []))).toThrow(refused);
  });
});
