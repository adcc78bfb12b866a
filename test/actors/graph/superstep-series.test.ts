/** Several shards that tell each other of their supersteps, over a network that delivers in any order: they stay together. */
import { describe, expect, it } from "vitest";
import { decodeBody } from "../../../actors/graph/graph-messages.ts";
import type {
  Stepped,
  SuperstepAck,
  SuperstepOrder,
  SuperstepRequest,
  UntimedAck,
} from "../../../actors/graph/run-messages.ts";
import { reducedSums } from "../../../actors/graph/run-totals.ts";
import { SuperstepSeries } from "../../../actors/graph/superstep-series.ts";
import { createSeededRandom, type Random } from "../../../src/runtime/random.ts";
import { codeOf } from "../../support/copies.ts";

const AGGREGATES = ["sum", "min"] as const;
const ATTEMPT = 3;
const SEEDS = Array.from({ length: 60 }, (_, at) => Number(process.env["SEED"] ?? 1) + at);

interface Sent {
  readonly to: number;
  readonly stepped: Stepped;
}

/** Shards whose supersteps take several turns, and give sums that depend on what they were told of the last one. */
class World {
  readonly shards: number;
  readonly #random: Random;
  readonly #series: SuperstepSeries[];
  /** Messages of each pair, in order: one pair's do not overtake each other. */
  readonly #links: Map<string, Sent[]> = new Map();
  /** The superstep that each shard is in, or has done. */
  readonly #at: number[];
  readonly #done: number[];
  readonly before: number[][][];

  constructor(seed: number, shards: number) {
    this.shards = shards;
    this.#random = createSeededRandom(seed);
    this.#at = new Array<number>(shards).fill(-1);
    this.#done = new Array<number>(shards).fill(-1);
    this.before = Array.from({ length: shards }, () => []);
    this.#series = Array.from({ length: shards }, (_, shard) => this.#open(shard));
  }

  #open(shard: number): SuperstepSeries {
    return new SuperstepSeries({
      run: { superstep: (request) => this.#superstep(shard, request) },
      algorithm: { aggregates: AGGREGATES },
      request: { collection: 1, run: 7, attempt: ATTEMPT, shards: new Array(this.shards).fill({}) },
      outlet: { shard, requester: (peer) => this.#requester(shard, peer) },
      nowMs: () => 0,
    });
  }

  #requester(from: number, to: number): never {
    const tell = (
      _type: number,
      _vshard: number,
      _priority: number,
      payload: { byteLength: number; write: (target: object, offset: number) => void },
    ): void => {
      const bytes = new Uint8Array(payload.byteLength);
      payload.write({ bytes }, 0);
      const frame = { bytes, i32: new Int32Array(), f64: new Float64Array(), offset: 0, length: bytes.length };
      const link = this.#links.get(`${from} ${to}`) ?? [];
      link.push({ to, stepped: decodeBody<Stepped>(frame) });
      this.#links.set(`${from} ${to}`, link);
    };
    return { lost: false, congested: false, tell } as never;
  }

  *#superstep(shard: number, { superstep, before }: SuperstepRequest): Generator<boolean, UntimedAck> {
    expect(superstep).toBe((this.#at[shard] as number) + 1);
    for (const done of this.#done) expect(done, "all have done the one before").toBeGreaterThanOrEqual(superstep - 1);
    this.#at[shard] = superstep;
    this.before[shard]?.push([...before]);
    for (let turns = Math.floor(this.#random.float() * 4); turns > 0; turns--) yield true;
    this.#done[shard] = superstep;
    const sums = [(before[0] as number) / this.shards + 0.1 * shard, -(shard + superstep)];
    return { superstep, computed: 1, active: 1, activeEdges: 1, sums, sent: [], pushedBytes: 0, received: 0 };
  }

  /** One order, to its end; shards have their turns and messages come as it falls. */
  run(order: SuperstepOrder): (readonly SuperstepAck[])[] {
    const work = this.#series.map((series) => series.run(order));
    const answers: (readonly SuperstepAck[] | undefined)[] = work.map(() => undefined);
    for (let turn = 0; answers.includes(undefined); turn++) {
      if (turn > 100_000) throw new Error("the shards wait for ever");
      const shard = Math.floor(this.#random.float() * this.shards);
      if (answers[shard] === undefined) {
        const step = (work[shard] as Generator<boolean, readonly SuperstepAck[]>).next();
        if (step.done === true) answers[shard] = step.value;
      }
      if (this.#random.float() < 0.4) this.#deliver();
    }
    for (const link of this.#links.values()) while (link.length > 0) this.#take(link.shift() as Sent);
    return answers as (readonly SuperstepAck[])[];
  }

  #deliver(): void {
    const links = [...this.#links.values()].filter(({ length }) => length > 0);
    const link = links[Math.floor(this.#random.float() * links.length)];
    if (link === undefined) return;
    const sent = link.shift() as Sent;
    // One of an attempt that was given up comes late.
    if (this.#random.float() < 0.2)
      this.#take({ ...sent, stepped: { ...sent.stepped, attempt: ATTEMPT - 1, sums: [9, 9] } });
    this.#take(sent);
  }

  #take({ to, stepped }: Sent): void {
    this.#series[to]?.take(stepped);
  }

  take(to: number, stepped: Stepped): void {
    this.#take({ to, stepped });
  }
}

function orderOf(
  superstep: number,
  count: number,
  before: readonly number[],
  until?: SuperstepOrder["until"],
): SuperstepOrder {
  const place = { collection: 1, run: 7, attempt: ATTEMPT, superstep, receive: "pull", peers: [] } as const;
  return { ...place, count, before, save: true, until };
}

describe.each([1, 2, 3, 7])("%i shards", (shards) => {
  it("begin a superstep when all have done the one before, with its reductions", () => {
    for (const seed of SEEDS) {
      const world = new World(seed, shards);
      let before: readonly number[] = [1, 2];
      let superstep = 0;
      for (const count of [1, 5, 1, 8]) {
        const acks = world.run(orderOf(superstep, count, before));
        for (let at = 0; at < count; at++) {
          for (const seen of world.before) expect(seen[superstep + at], `seed ${seed}`).toEqual(before);
          before = reducedSums(
            AGGREGATES,
            acks.map((shard) => shard[at] as SuperstepAck),
          );
        }
        expect(acks.map(({ length }) => length)).toEqual(new Array(shards).fill(count));
        superstep += count;
      }
    }
  });

  it("end an order together, after the first superstep by which a reduction is below its bound", () => {
    for (const seed of SEEDS) {
      const acks = new World(seed, shards).run(orderOf(0, 20, [0, 0], { sum: 1, below: -(shards - 1) - 5 }));
      expect(
        acks.map(({ length }) => length),
        `seed ${seed}`,
      ).toEqual(new Array(shards).fill(7));
    }
  });
});

it("refuses what no shard of the run has told", () => {
  const world = new World(1, 2);
  const stepped: Stepped = { collection: 1, run: 7, attempt: ATTEMPT, superstep: 0, source: 1, sums: [1, 2] };
  const wrong = [
    { source: 2 },
    { source: -1 },
    { source: 0.5 },
    { superstep: Number.NaN },
    { sums: [1] },
    { sums: undefined as never },
  ];
  for (const part of wrong) {
    let code: unknown = "ok";
    try {
      world.take(0, { ...stepped, ...part });
    } catch (error) {
      code = codeOf(error);
    }
    expect(code, JSON.stringify(part)).toBe("ERR_CORRUPT");
  }
});
