/**
 * Runs collaborative searches of bench `vector-search` on shards in this thread, and counts what they take.
 *
 * Invariant: every search must end complete. A shard's load is what it computed, what it pulled, and its share of the navigation, which any
 * shard can do.
 */
import type { CotraOutcome, CotraQuery } from "../../actors/vector/cotra/cotra-origin.ts";
import type { GraphView } from "../../actors/vector/cotra/graph-view.ts";
import { Driver } from "../../test/actors/vector/cotra/driver.ts";
import { Workers } from "../../test/actors/vector/cotra/work-stealing.ts";
import { countFound, must, type Point } from "./vector-search-curve.ts";
import { K } from "./vector-search-data.ts";

/** A query that was navigated. */
export interface Task {
  readonly code: Uint8Array;
  /** Vertices to begin at, and their distances. */
  readonly vertices: Int32Array;
  readonly distances: Float32Array;
  /** Distances of the navigation. */
  readonly computed: number;
}

/** What some searches took, a query. */
export interface CotraPoint extends Point {
  readonly ef: number;
  readonly distances: number;
  /** Load of the busiest shard over the mean. */
  readonly busiest: number;
  readonly bytes: number;
  readonly messages: number;
  readonly rounds: number;
}

const TIMEOUT_ROUNDS = 1e6;
/** Distances that a worker computes in a round, and searches under way for each shard, of a stream. */
const CAPACITY = 40;
const SEARCHES_A_SHARD = 8;

export class Collaboration {
  readonly #views: readonly GraphView[];
  readonly #tasks: readonly Task[];
  readonly #truth: Int32Array;

  constructor(views: readonly GraphView[], tasks: readonly Task[], truth: Int32Array) {
    this.#views = views;
    this.#tasks = tasks;
    this.#truth = truth;
  }

  /** A search after the other, each alone. */
  oneByOne(ef: number, order: readonly number[]): CotraPoint {
    const driver = new Driver({ views: this.#views, seed: 1, maxDelay: 1, fifo: true });
    let found = 0;
    for (const query of order) found += this.#found(query, driver.run(this.#query(query, ef)));
    const loads = driver.shards.map(({ counters }) => counters.computations + counters.pulled);
    return this.#point(ef, order, found, loads, driver);
  }

  /** As many at once as shards can take. @param steal Whether workers without work take that of others */
  atOnce(ef: number, order: readonly number[], steal: boolean): CotraPoint {
    const workers = new Workers({ views: this.#views, capacity: CAPACITY, steal });
    const poolOf = (shard: number): ReturnType<Workers["poolOf"]> => workers.poolOf(shard);
    const driver = new Driver({ views: this.#views, seed: 1, maxDelay: 1, fifo: true, poolOf });
    let next = 0;
    let done = 0;
    let found = 0;
    while (done < order.length) {
      while (next < order.length && next - done < SEARCHES_A_SHARD * this.#views.length) {
        const query = order[next++] as number;
        driver.origin.search(this.#query(query, ef), (outcome) => {
          found += this.#found(query, outcome);
          done++;
        });
      }
      workers.advance(driver.shards);
      driver.advance();
    }
    must(!steal || workers.stolen > 0, "nothing was stolen");
    const loads = driver.shards.map(({ counters }, shard) => (workers.computed[shard] as number) + counters.pulled);
    return this.#point(ef, order, found, loads, driver);
  }

  #query(query: number, ef: number): CotraQuery {
    const { code, vertices, distances } = this.#tasks[query] as Task;
    return {
      query: code,
      entries: { vertices, distances },
      k: K,
      ef,
      timeoutMs: TIMEOUT_ROUNDS,
    };
  }

  #found(query: number, outcome: CotraOutcome): number {
    must(outcome.complete && outcome.hits.vertices.length === K, "a collaborative search ended without its answer");
    return countFound(this.#truth, query, outcome.hits.vertices);
  }

  #point(ef: number, order: readonly number[], found: number, own: readonly number[], driver: Driver): CotraPoint {
    const shards = this.#views.length;
    const navigated = order.reduce((sum, query) => sum + (this.#tasks[query] as Task).computed, 0);
    const loads = own.map((load) => load + navigated / shards);
    const total = loads.reduce((sum, load) => sum + load, 0);
    const counters = driver.shards.map((shard) => shard.counters);
    const sum = (value: (one: (typeof counters)[number]) => number): number =>
      counters.reduce((all, one) => all + value(one), 0);
    const { messages, messageBytes } = driver.origin.counters;
    return {
      ef,
      recall: found / (order.length * K),
      distances: total / order.length,
      busiest: Math.max(...loads) / (total / shards),
      bytes: (sum((one) => one.messageBytes + one.readBytes) + messageBytes) / order.length,
      messages: (sum((one) => one.messages) + messages) / order.length,
      rounds: driver.round / order.length,
    };
  }
}
