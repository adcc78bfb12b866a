/**
 * L5, a part of bench `durable`: how long the vshards of a worker that is lost take no writes, of three workers that hold three copies, on a
 * directory.
 *
 * Three ways: the worker exits and its successor starts at once; it exits and its successor comes late, so that copies are promoted; it hangs. From
 * the order to end it until a write to all of its vshards is acknowledged, begun after it was lost.
 *
 * Invariant: writes are tried one after the other without a pause. A late successor must have found copies promoted, and all copies are equal in
 * the end. Each shard is ended less often than its worker's restarts are bounded to, and others between.
 */
import { once } from "node:events";
import { type Cluster, ShardloomError, type VectorCollection } from "../../src/index.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchReport, quantile, sized, toRow } from "../harness/harness.ts";
import { ender } from "./durable-actors.ts";
import { must, openDurable, vectorSource, withFolder } from "./durable-stage.ts";

const SHARDS = 3;
const VSHARDS = 16;
const IDS = 240;
const LATE_START_MS = 1_500;
const TRY_MS = 250;
const LIMIT_MS = 30_000;
const MEMORY_BYTES: number = 256 * 1024 * 1024;
const ACTORS: URL = new URL("./durable-actors.js", import.meta.url);
const LATE_VARIABLE = "SHARDLOOM_BENCH_START_MS";
const WAYS = ["exits", "exits, successor late", "hangs"] as const;
type Way = (typeof WAYS)[number];

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + LIMIT_MS;
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error(`durable bench: ${what} did not happen within ${LIMIT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

class Failovers {
  readonly #cluster: Cluster;
  readonly #collection: VectorCollection;
  readonly #next: () => Float32Array;
  readonly codes: Map<string, number> = new Map();
  /** Ms until a worker was known to be lost. */
  readonly detectedMs: Map<Way, number[]> = new Map(WAYS.map((way) => [way, []]));
  promotions = 0;

  constructor(cluster: Cluster, collection: VectorCollection, seed: number) {
    this.#cluster = cluster;
    this.#collection = collection;
    this.#next = vectorSource(seed);
  }

  whenUp(): Promise<void> {
    const isUp = (): boolean =>
      this.#cluster.members().filter(({ state, id }) => id.startsWith("shard-") && state === "up").length === SHARDS;
    return until("all shards are up", isUp);
  }

  write(ids: readonly number[], timeoutMs: number): Promise<unknown> {
    return this.#collection.upsert(
      ids.map((id) => ({ id, vector: this.#next() })),
      { timeoutMs },
    );
  }

  /** Ends the worker of a shard. @returns ms until its vshards take writes again */
  async end(shard: number, way: Way): Promise<number> {
    const ids = Array.from({ length: IDS }, (_, id) => id).filter((id) => this.#cluster.shardOfId(id) === shard);
    must(ids.length > 0, `shard ${shard} is primary of nothing`);
    await this.write(ids, LIMIT_MS);
    if (way === "exits, successor late") process.env[LATE_VARIABLE] = String(LATE_START_MS);
    const before = this.#cluster.topology.mapVersion;
    let isLost = false;
    const startedMs = performance.now();
    const lost = once(this.#cluster, "worker-lost").then(() => {
      isLost = true;
      this.detectedMs.get(way)?.push(performance.now() - startedMs);
    });
    const ref = this.#cluster.actor(ender, this.#keyOn(shard));
    (way === "hangs"
      ? ref.hang(undefined, { timeoutMs: LIMIT_MS })
      : ref.exit(undefined, { timeoutMs: LIMIT_MS })
    ).catch(() => undefined); // it ends
    await this.#untilWritten(ids, startedMs, () => isLost || this.#cluster.topology.mapVersion > before);
    const elapsedMs = performance.now() - startedMs;
    if (this.#cluster.topology.mapVersion > before) this.promotions++;
    await lost;
    delete process.env[LATE_VARIABLE];
    await this.whenUp();
    return elapsedMs;
  }

  async #untilWritten(ids: readonly number[], startedMs: number, isOver: () => boolean): Promise<void> {
    for (;;) {
      const over = isOver();
      try {
        await this.write(ids, TRY_MS);
        if (over) return;
      } catch (error) {
        const { code } = ShardloomError.from(error);
        this.codes.set(code, (this.codes.get(code) ?? 0) + 1);
      }
      must(performance.now() < startedMs + LIMIT_MS, "writes did not go on after a worker was lost");
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #keyOn(shard: number): string {
    for (let at = 0; ; at++) if (this.#cluster.shardOfActor(ender, `key-${at}`) === shard) return `key-${at}`;
  }
}

/** Rows and the verdict on L5b. */
export async function measureFailover(context: BenchContext): Promise<BenchReport> {
  const { mode, seed } = context;
  const clusters = sized(mode, 1, 1, 2);
  const rounds = sized(mode, 1, 3, 4);
  const samples = new Map<Way, number[]>(WAYS.map((way) => [way, []]));
  const detected = new Map<Way, number[]>(WAYS.map((way) => [way, []]));
  const codes = new Map<string, number>();
  let promotions = 0;
  context.log("durable: workers are ended");
  for (let run = 0; run < clusters; run++) {
    await withFolder(async (directory) => {
      const { cluster, collection } = await openDurable(directory("failover"), {
        workers: SHARDS,
        vshards: VSHARDS,
        replicationFactor: SHARDS,
        memoryBytes: MEMORY_BYTES,
        actors: [ACTORS],
      });
      try {
        const failovers = new Failovers(cluster, collection, seed + run);
        await failovers.whenUp();
        await failovers.write(
          Array.from({ length: IDS }, (_, id) => id),
          LIMIT_MS,
        );
        for (let at = 0; at < rounds * WAYS.length; at++) {
          const way = WAYS[at % WAYS.length] as Way;
          const owners = [...new Set(cluster.topology.owners)];
          const shard = owners[at % owners.length] as number;
          samples.get(way)?.push(await failovers.end(shard, way));
        }
        const audit = await cluster.audit({ timeoutMs: LIMIT_MS });
        must(audit.equal, "copies differ after failovers");
        promotions += failovers.promotions;
        for (const way of WAYS) detected.get(way)?.push(...(failovers.detectedMs.get(way) ?? []));
        for (const [code, count] of failovers.codes) codes.set(code, (codes.get(code) ?? 0) + count);
      } finally {
        delete process.env[LATE_VARIABLE];
        await cluster.close();
      }
    });
  }
  // So few workers as a smoke run ends may all be back in time.
  must(promotions > 0 || context.mode === "smoke", "no copy was promoted");
  const all = [...samples.values()].flat();
  const rows = WAYS.flatMap((way) => [
    toRow("no writes after a worker", way, "ms", samples.get(way) ?? []),
    toRow("known to be lost", way, "ms", detected.get(way) ?? []),
  ]);
  const note = `${all.length} workers ended, ${promotions} times another shard became primary; longest ${Math.max(...all).toFixed(0)} ms`;
  return {
    rows,
    goals: [judge(context.goals, "L5b", quantile(all, 0.99), note)],
    notes: [
      `failover: tries of ${TRY_MS} ms; refused or in doubt meanwhile: ${[...codes].map(([code, count]) => `${code} ${count}`).join(", ")}`,
    ],
  };
}
