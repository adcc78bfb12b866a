/**
 * One shard on a simulated disk, its process killed or its power cut between any two events, again and again: what is there afterwards is what
 * a beginning of its writes, in their order and with none of them in part, has led to, and everything acknowledged is in it.
 */
import { describe, expect, test } from "vitest";
import { ShardReplication } from "../../../actors/shard-replication.ts";
import { createSeededRandom, type Random } from "../../../src/runtime/random.ts";
import { SimDisk } from "../../../src/sim/disk.ts";
import type { FaultRates } from "../../../src/sim/fault-types.ts";
import { createFaultInjector } from "../../../src/sim/injector.ts";
import type { Durability } from "../../../src/store/log.ts";
import {
  decodeRecordHeader,
  decodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
  viewOf,
} from "../../../src/store/segment-format.ts";
import { firstShardIncarnation } from "../../../src/topology/member.ts";
import { createReplicaBlock } from "../../../src/topology/replica-table.ts";
import { createSnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import { guardedLoop, SteppedLoop, schedulerOf } from "../../sim/stepped-loop.ts";
import { Rows, ToyEngine } from "../replication/world.ts";
import { enginesOf, failOpen, heldFor, publishWrite, type SceneWrite, sceneStorage } from "./durable-writes.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const RUNS = process.env["SHARDLOOM_LONG"] === "1" ? 400 : 10;
const VSHARDS = 4;
const KEYS = 40;

/** A life of the shard. */
interface Life {
  readonly replication: ShardReplication;
  readonly rows: Rows;
  readonly engine: ToyEngine;
  readonly replicas: SharedArrayBuffer;
  alive: boolean;
}

class Scene {
  readonly loop: SteppedLoop;
  readonly disk: SimDisk;
  readonly random: Random;
  readonly writes: SceneWrite[] = [];
  readonly #durability: Durability;
  #starts = 0;
  #workers = 0;
  #life: Life | undefined;

  constructor(seed: number, rates: FaultRates, durability: Durability = "fsync") {
    this.loop = new SteppedLoop(seed);
    this.random = createSeededRandom(seed);
    const faults = createFaultInjector(rates, (name) => this.loop.stream(name), []);
    this.disk = new SimDisk({ node: "n0", loop: this.loop, faults });
    this.#durability = durability;
  }

  get life(): Life {
    if (this.#life === undefined) throw new Error("no life");
    return this.#life;
  }

  /** @param adopts The worker has died, not its process: the next one finds the rows in memory. */
  async start(adopts = false): Promise<Life> {
    const snapshot = createSnapshot({ shards: 1, vshards: VSHARDS });
    const topology = new LocalTopology(snapshot);
    const clock = { nowMs: () => this.loop.nowUs / 1000, nowUs: () => this.loop.nowUs };
    const rows = adopts ? this.life.rows : new Rows();
    const replicas = adopts ? this.life.replicas : createReplicaBlock(snapshot);
    const engine = new ToyEngine(rows, () => undefined);
    if (!adopts) this.#starts++;
    this.#workers = adopts ? this.#workers + 1 : 0;
    const storage = sceneStorage({ durability: this.#durability, snapshotBytes: 3_000 });
    // Nothing arrives at a thread any more that is dead.
    const guard = (act: () => void): void => {
      if (life.alive) act();
    };
    const own = guardedLoop(this.loop, guard);
    const disk = adopts ? this.disk.attach(own) : this.disk.mount(own);
    const life: { alive: boolean } = { alive: true };
    const replication = await this.loop.finish(
      ShardReplication.open({
        shard: 0,
        incarnation: firstShardIncarnation(this.#starts) + this.#workers,
        replicas,
        topology,
        clock,
        scheduler: schedulerOf(own, guard),
        defaults: { requestTimeoutMs: 1_000, consistency: "strong", strategy: "power-of-two", acks: "quorum" },
        storage,
        openDisk: () => Promise.resolve(disk),
        adopts,
        requester: () => undefined,
        onChange: () => undefined,
      }),
    );
    await this.loop.finish(replication.recover(enginesOf(engine)));
    if (replication.damage === undefined) replication.start();
    this.#life = Object.assign(life, { replication, rows, engine, replicas });
    return this.#life;
  }

  /** The worker dies; what it had asked of the disk may still happen. */
  kill(): void {
    this.life.alive = false;
    failOpen(this.writes);
  }

  /** Ends the life: the power fails, or only the process is killed. */
  end(power: boolean): void {
    this.life.alive = false;
    failOpen(this.writes);
    if (power) this.disk.crash();
  }

  /** @returns whether it was taken */
  write(): boolean {
    const { replication, engine } = this.life;
    const { primary } = replication;
    if (primary === undefined) throw new Error("no primary");
    const number = this.writes.length + 1;
    const keys = Array.from({ length: 1 + (this.random.u32() % 5) }, () => this.random.u32() % KEYS);
    const write: SceneWrite = { number, keys: [...new Set(keys)], deletes: this.random.float() < 0.2, state: "open" };
    const target = { primary, engine, vshards: VSHARDS, acks: 1, deadlineAtMs: 0 };
    const pending = publishWrite(target, write, () => this.writes.push(write));
    primary.commit(pending, primary.mustWait(pending) ? heldFor(write) : undefined, new Uint8Array(0));
    if (pending.position <= (primary.mustWait(pending) ? -1 : Number.POSITIVE_INFINITY)) write.state = "acknowledged";
    return true;
  }

  async dump(): Promise<void> {
    const disk = this.disk.attach(this.loop);
    const names = await this.loop.finish(disk.list("shards/0/log"));
    for (const name of names) {
      const file = await this.loop.finish(disk.open(`shards/0/log/${name}`, "read"));
      const bytes = await this.loop.finish(this.loop.finish(file.size()).then((n) => file.read(0, n)));
      const header = decodeSegmentHeader(bytes, name);
      const list: string[] = [];
      const view = viewOf(bytes);
      for (let at = SEGMENT_HEADER_BYTES; header !== undefined; ) {
        const r = decodeRecordHeader(bytes, view, at, header);
        if (r === undefined) break;
        list.push(`${r.entries === 0 ? "m" : ""}${r.position}/${r.durable}`);
        at += r.length;
      }
      console.info(
        name,
        bytes.length,
        JSON.stringify(header),
        list.slice(0, 2).join(" "),
        "…",
        list.slice(-12).join(" "),
      );
    }
  }

  content(): string {
    return contentOf(this.life.rows);
  }

  /** What a beginning of the writes, minus those that never reached the log, leads to: all contents that are allowed now. */
  allowed(known: readonly SceneWrite[]): Set<string> {
    const rows = new Rows();
    const last = known.findLastIndex(({ state }) => state === "acknowledged");
    const allowed = new Set<string>();
    for (const [at, { keys, number, deletes }] of known.entries()) {
      if (at > last) allowed.add(contentOf(rows));
      for (const key of keys) {
        if (deletes) rows.delete(key);
        else rows.put({ key, vshard: key % VSHARDS, value: number, version: number });
      }
    }
    allowed.add(contentOf(rows));
    return allowed;
  }
}

function contentOf(rows: Rows): string {
  return Array.from({ length: VSHARDS }, (_, vshard) => rows.of(vshard)).join("|");
}

/** What the content has of the last writes of its keys, for a message. */
function differences(known: readonly SceneWrite[], rows: Rows): string {
  const found = new Map(rows.rows.flatMap((row) => (row === undefined ? [] : [[row.key, row.version] as const])));
  const lines: string[] = [];
  for (const { number, keys, state, deletes } of known.slice(-60)) {
    const has = keys.map((key) => `${key}:${key % VSHARDS}=${found.get(key) ?? "-"}`);
    lines.push(`${number} ${state}${deletes ? " deletes" : ""} ${has.join(" ")}`);
  }
  return `\n${lines.join("\n")}\n`;
}

/** Writes that are known to be in the content: what was lost with a life never comes back. */
function kept(known: readonly SceneWrite[], content: string): SceneWrite[] {
  const rows = new Rows();
  for (let end = 0; end <= known.length; end++) {
    const last = known.findLastIndex(({ state }) => state === "acknowledged");
    if (end > last && contentOf(rows) === content) return known.slice(0, end);
    const write = known[end];
    for (const key of write?.keys ?? []) {
      if (write?.deletes) rows.delete(key);
      else rows.put({ key, vshard: key % VSHARDS, value: write?.number ?? 0, version: write?.number ?? 0 });
    }
  }
  throw new Error("no beginning leads to it");
}

const RATES: readonly (readonly [string, FaultRates, boolean])[] = [
  ["the process is killed", {}, false],
  ["the power is cut", { "disk-lost-write": 0.5, "disk-torn": 0.3 }, true],
];

describe.each(RATES)("when %s", (_, rates, power) => {
  test("what is there is a beginning of the writes, with all that were acknowledged", async () => {
    console.info(`durable shard: SEED=${SEED}`);
    const seen = { lives: 0, acknowledged: 0, lost: 0, snapshots: 0, deaths: 0 };
    for (let run = 0; run < RUNS; run++) {
      const scene = new Scene(SEED + run, rates);
      let known: SceneWrite[] = [];
      for (let life = 0; life < 6; life++) {
        const { replication } = await scene.start();
        seen.lives++;
        if (replication.damage !== undefined) await scene.dump();
        expect(replication.damage).toBeUndefined();
        const place = `seed ${SEED + run}, life ${life}`;
        expect(scene.allowed(known), `${place}: ${differences(known, scene.life.rows)}`).toContain(scene.content());
        const survivors = kept(known, scene.content());
        seen.lost += known.length - survivors.length;
        known = survivors;
        const begun = scene.writes.length;
        const steps = 50 + (scene.random.u32() % 1500);
        for (let step = 0; step < steps; step++) {
          if (scene.random.float() < 0.15) scene.write();
          if (scene.random.float() < 0.003) {
            scene.kill();
            await scene.start(true);
            seen.deaths++;
          }
          if (!(await scene.loop.step())) await scene.loop.settle();
        }
        seen.acknowledged += scene.writes.slice(begun).filter(({ state }) => state === "acknowledged").length;
        const names = await scene.loop.finish(scene.disk.attach(scene.loop).list("shards/0/snapshots"));
        seen.snapshots += names.filter((name) => name.endsWith(".snapshot")).length;
        scene.end(power);
        known = [...known, ...scene.writes.slice(begun)];
      }
    }
    console.info(JSON.stringify(seen));
    expect(seen.acknowledged).toBeGreaterThan(20 * RUNS);
    expect(seen.lost).toBeGreaterThan(RUNS / 2);
    expect(seen.snapshots).toBeGreaterThan(RUNS);
    expect(seen.deaths).toBeGreaterThan(RUNS);
  });
});
