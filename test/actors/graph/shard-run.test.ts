/** What a shard takes of what is pushed to it: the values of this attempt and this superstep, each once, in whatever parts they come. */
import { beforeEach, describe, expect, it } from "vitest";
import type { RunView, ShardAlgorithm } from "../../../actors/graph/algorithm.ts";
import { allocateCsr, openCsr } from "../../../actors/graph/csr.ts";
import { plainRef } from "../../../actors/graph/graph-messages.ts";
import { GraphRoot } from "../../../actors/graph/graph-root.ts";
import type { BuildReply, SuperstepRequest, UntimedAck } from "../../../actors/graph/run-messages.ts";
import { ShardRun } from "../../../actors/graph/shard-run.ts";
import { VertexProperties } from "../../../actors/graph/vertex-properties.ts";
import { VertexTable } from "../../../actors/graph/vertex-table.ts";
import { Arena, createArena } from "../../../native-bridge/arena.ts";
import { compileKernels, Kernels } from "../../../native-bridge/kernels.ts";
import { RegionTable } from "../../../native-bridge/region-table.ts";
import { Verbs } from "../../../native-bridge/verbs.ts";
import { createSeededRandom, type Random } from "../../../src/runtime/random.ts";
import { same } from "./same.ts";

const SEED = Number(process.env["SEED"] ?? 8_281);
const ROWS = 20;
/** The shard at hand is the first of these. */
const SHARDS = 3;
const ATTEMPT = 5;

interface Part {
  readonly source: number;
  /** Vertices with their values. */
  readonly values: readonly (readonly [vertex: number, value: number])[];
  readonly total?: number;
  readonly attempt?: number;
  readonly superstep: number;
}

let arena: Arena;
let root: GraphRoot;
beforeEach(() => {
  arena = new Arena(createArena({ capacityBytes: 1024 * 1024 }));
  const random = createSeededRandom(SEED);
  root = GraphRoot.create(arena, new RegionTable(arena, 0, () => Math.floor(random.float() * 2 ** 32)), 1);
});

/** A shard without edges, which has nothing to push itself, and what its vertices have got in the last superstep. */
class Receiver {
  readonly run: ShardRun;
  got: number[] = [];

  constructor(kind: "combined" | "labels") {
    const table = new VertexTable(root);
    table.add(
      Array.from({ length: ROWS }, (_, key) => key),
      false,
    );
    const { address } = allocateCsr(root, ROWS, new Array(SHARDS).fill(0), { weighted: false, columns: 0 });
    const algorithm: ShardAlgorithm = {
      fields: 1,
      results: 1,
      kind,
      combine: "sum",
      way: "value",
      direction: "out",
      aggregates: [],
      compute: (view, from, to) => this.#look(view, from, to),
    };
    const shards: BuildReply[] = Array.from({ length: SHARDS }, () => ({ rows: ROWS, vertices: ROWS }) as BuildReply);
    const request = { collection: 1, run: 7, attempt: ATTEMPT, after: -1, pulls: false, params: {}, shards };
    const limits = { idleMs: 1_000, resultIdleMs: 1_000 };
    this.run = new ShardRun({
      root,
      table,
      properties: new VertexProperties(root, {}),
      algorithm,
      request: { ...request, algorithm: "none", program: false, limits },
      directed: true,
      out: openCsr(arena, address),
      in: undefined,
      verbs: new Verbs(arena),
      kernels: new Kernels(compileKernels(), arena),
      outlet: { shard: 0, requester: () => undefined },
      nowMs: () => 0,
    });
  }

  #look(view: RunView, from: number, to: number): void {
    for (let row = from; row < to; row++) {
      const sent = view.sources.map((source) => source[row] as number);
      const value = sent.length > 0 ? sent.reduce((sum, each) => sum + each) : (view.incoming[row] as number);
      this.got[row] = value + 0; // of nothing, 0
    }
  }

  take({ source, values, total = -1, attempt = ATTEMPT, superstep }: Part): void {
    const vertices = Uint32Array.from(values, ([vertex]) => vertex);
    const head = { collection: 1, run: 7, attempt, superstep, source, count: values.length, total };
    this.run.take(
      head,
      Float64Array.from(values, ([, value]) => value),
      0,
      vertices,
      0,
    );
  }

  begin(superstep: number, attempt = ATTEMPT): Generator<boolean, UntimedAck> {
    const state = plainRef(this.run.state.ref);
    const peers = Array.from({ length: SHARDS }, () => ({ state })) as unknown as SuperstepRequest["peers"];
    const receive = superstep === 0 ? "none" : "push";
    return this.run.superstep({ collection: 1, run: 7, attempt, superstep, receive, before: [], save: false, peers });
  }

  /** One superstep that waits for nothing. */
  end(superstep: number): UntimedAck {
    const work = this.begin(superstep);
    for (let turn = 0; turn < 100; turn++) {
      const step = work.next();
      if (step.done === true) return step.value;
    }
    throw new Error("it waits");
  }
}

const below = (random: Random, count: number): number => Math.floor(random.float() * count);

/** What one source sends in a superstep, in parts, of which the last says how many values there were. */
function drawParts(random: Random, source: number, superstep: number): Part[] {
  const values = Array.from({ length: ROWS }, (_, vertex) => [vertex, 1 + below(random, 1_000)] as const).filter(
    () => random.float() < 0.6,
  );
  const parts: Part[] = [];
  for (let from = 0; from < values.length; ) {
    const to = from + 1 + below(random, 8);
    parts.push({ source, superstep, values: values.slice(from, to) });
    from = to;
  }
  const last = parts.pop() ?? { source, superstep, values: [] };
  return [...parts, { ...last, total: values.length }];
}

/** What may come besides, at any time: parts of attempts that were given up, or of other supersteps. */
function drawStale(random: Random, superstep: number): Part {
  const parts = drawParts(random, 1 + below(random, SHARDS - 1), superstep);
  const part = parts[below(random, parts.length)] as Part;
  if (random.float() < 0.5) return { ...part, attempt: random.float() < 0.8 ? ATTEMPT - 1 : ATTEMPT + 1 };
  return { ...part, superstep: superstep + (random.float() < 0.8 ? -1 : 1) };
}

describe(`contributions (SEED=${SEED})`, () => {
  it.each(["combined", "labels"] as const)(
    "of other attempts and supersteps, and again, count for nothing: %s",
    (kind) => {
      const random = createSeededRandom(SEED);
      const receiver = new Receiver(kind);
      receiver.end(0);
      let [stale, again] = [0, 0];
      /** What each source has sent to each vertex; labels stay until others come. */
      const held = Array.from({ length: SHARDS }, () => new Array<number>(ROWS).fill(0));
      for (let superstep = 1; superstep <= 300; superstep++) {
        if (kind === "combined") for (const values of held) values.fill(0);
        const left = Array.from({ length: SHARDS - 1 }, (_, at) => drawParts(random, at + 1, superstep));
        const parts = left.flat();
        for (const { source, values } of parts)
          for (const [vertex, value] of values) (held[source] as number[])[vertex] = value;
        const ended: Part[] = [];
        while (left.some((list) => list.length > 0)) {
          if (random.float() < 0.3) {
            receiver.take(drawStale(random, superstep));
            stale++;
          }
          if (ended.length > 0 && random.float() < 0.3) {
            receiver.take(ended[below(random, ended.length)] as Part);
            again++;
          }
          const from = left[below(random, left.length)] as Part[];
          const part = from.shift();
          if (part === undefined) continue;
          receiver.take(part);
          if (part.total !== undefined) ended.push(part);
        }
        const count = parts.reduce((sum, { values }) => sum + values.length, 0);
        same(receiver.end(superstep).received, count);
        const sum = (vertex: number): number => held.reduce((total, values) => total + (values[vertex] as number), 0);
        same(
          receiver.got,
          Array.from({ length: ROWS }, (_, vertex) => sum(vertex)),
        );
      }
      expect(stale).toBeGreaterThan(100);
      expect(again).toBeGreaterThan(100);
    },
  );

  const part: Part = { source: 1, superstep: 1, values: [[3, 1]] };
  const last: Part = { source: 1, superstep: 1, values: [[4, 1]], total: 2 };

  it.each([
    ["twice", 3, [part, part, last]],
    ["not at all", 1, [last]],
  ] as const)("end the superstep when one before the last comes %s", (_, received, parts) => {
    const receiver = new Receiver("combined");
    receiver.end(0);
    for (const each of [...parts, { source: 2, superstep: 1, values: [], total: 0 }]) receiver.take(each);
    const message = `Cannot compute superstep 1 as its inbox must have 2 values: current value is ${received}`;
    expect(() => receiver.end(1)).toThrow(expect.objectContaining({ code: "ERR_INTERNAL", message }));
  });

  it("are waited for, from every source", () => {
    const receiver = new Receiver("combined");
    receiver.end(0);
    const work = receiver.begin(1);
    const wait = (): void => {
      for (let turn = 0; turn < 20; turn++) expect(work.next().done).toBe(false);
    };
    wait();
    receiver.take({ source: 2, superstep: 1, values: [[0, 5]], total: 1 });
    receiver.take({ source: 2, superstep: 1, values: [[0, 5]], total: 1 });
    receiver.take({ source: 1, superstep: 1, values: [[0, 7]], total: 1, attempt: ATTEMPT - 1 });
    receiver.take({ source: 1, superstep: 1, values: [[0, 7]] });
    wait();
    receiver.take({ source: 1, superstep: 1, values: [], total: 1 });
    let step = work.next();
    while (step.done !== true) step = work.next();
    expect(step.value).toMatchObject({ superstep: 1, computed: ROWS, received: 2 });
    expect(receiver.got[0]).toBe(12);
  });

  it("are refused when they name a vertex that is not there, as orders are of another attempt or superstep", () => {
    const receiver = new Receiver("combined");
    receiver.end(0);
    const astray: Part = { source: 1, superstep: 1, values: [[ROWS, 1]], total: 1 };
    expect(() => receiver.take(astray)).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
    const stale = expect.objectContaining({ code: "ERR_STALE_EPOCH" });
    for (const [superstep, attempt] of [
      [1, ATTEMPT - 1],
      [1, ATTEMPT + 1],
      [0, ATTEMPT],
      [2, ATTEMPT],
    ] as const)
      expect(() => receiver.begin(superstep, attempt).next()).toThrow(stale);
  });
});
