/**
 * Three nodes that ping each other over a network that loses, repeats, reorders, delays and damages: what they come to know of each
 * other is never better than the truth, and complete once the network is well again. Every node has a clock of its own.
 */
import { describe, expect, test } from "vitest";
import { type HeartbeatLinks, NodeHeartbeats } from "../../src/plane/node-heartbeats.ts";
import { NodeTopology } from "../../src/plane/node-topology.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import { firstMap, withMoved } from "../../src/topology/cluster-map.ts";
import { firstShardIncarnation, shardId } from "../../src/topology/member.ts";
import { createReplicaBlock, ReplicaTable } from "../../src/topology/replica-table.ts";
import { MEMBER_STATE } from "../../src/topology/snapshot.ts";

const SEED = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const NAMES = ["a", "b", "c"] as const;
const MEMBERS = NAMES.map((name, at) => ({ name, shards: [2 * at, 2 * at + 1] }));
const FACTOR = 3;
const VSHARDS = 64;

/** True time, and what falls due in it. */
class Time {
  nowMs = 0;
  readonly #due: { atMs: number; order: number; run: () => void }[] = [];
  #order = 0;

  after(delayMs: number, run: () => void): () => void {
    const entry = { atMs: this.nowMs + delayMs, order: this.#order++, run };
    this.#due.push(entry);
    return () => {
      const at = this.#due.indexOf(entry);
      if (at >= 0) this.#due.splice(at, 1);
    };
  }

  advance(durationMs: number): void {
    const untilMs = this.nowMs + durationMs;
    for (;;) {
      const next = this.#due
        .filter(({ atMs }) => atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs || a.order - b.order)[0];
      if (next === undefined) break;
      this.#due.splice(this.#due.indexOf(next), 1);
      this.nowMs = Math.max(this.nowMs, next.atMs);
      next.run();
    }
    this.nowMs = untilMs;
  }
}

interface Faults {
  loss: number;
  repeat: number;
  damage: number;
  delayMs: number;
}

class Network {
  readonly faults: Faults = { loss: 0, repeat: 0, damage: 0, delayMs: 1 };
  readonly nodes: Map<string, Node> = new Map();
  readonly cut: Set<string> = new Set();
  readonly time: Time;
  readonly random: Random;
  sent = 0;
  longest = 0;

  constructor(time: Time, random: Random) {
    this.time = time;
    this.random = random;
  }

  send(from: string, to: string, bytes: Uint8Array): void {
    const { loss, repeat, damage, delayMs } = this.faults;
    this.sent++;
    this.longest = Math.max(this.longest, bytes.length);
    const copies = this.random.float() < repeat ? 3 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (this.random.float() < loss || this.cut.has(`${from}>${to}`)) continue;
      const own = bytes.slice();
      if (this.random.float() < damage) {
        const at = Math.floor(this.random.float() * own.length);
        own[at] = (own[at] as number) ^ (1 + Math.floor(this.random.float() * 255));
      }
      // Whoever listens there when it arrives gets it, in whatever life.
      this.time.after(this.random.float() * delayMs, () => this.nodes.get(to)?.receive(from, own));
    }
  }
}

/** A node with clock, topology, table and heartbeats; its shards are played by the test. */
class Node {
  readonly topology: NodeTopology;
  readonly table: ReplicaTable;
  readonly heartbeats: NodeHeartbeats;
  readonly clock: Clock;
  /** By its lease. */
  isServing = true;
  receive: (from: string, bytes: Uint8Array) => void = () => undefined;
  readonly #cancels: Set<() => void> = new Set();

  constructor(network: Network, self: string, incarnation: number, originMs: number, drift: number) {
    const { time } = network;
    const nowMs = (): number => originMs + time.nowMs * drift;
    this.clock = { nowMs, nowUs: () => nowMs() * 1_000 };
    const scheduler = {
      defer: (callback: () => void) => callback(),
      timer: (delayMs: number, callback: () => void) => {
        const cancel = time.after(delayMs / drift, callback);
        this.#cancels.add(cancel);
        return { cancel, ref: () => undefined, unref: () => undefined };
      },
    } as unknown as Scheduler;
    this.topology = new NodeTopology({
      clock: this.clock,
      scheduler,
      shards: 6,
      vshards: VSHARDS,
      replicationFactor: FACTOR,
      zones: [],
      suspectMs: 1_000,
      downMs: 2_000,
      nodes: { self, incarnation, members: MEMBERS },
    });
    this.topology.follow({ on: () => undefined } as never);
    const own = new Set(this.topology.ownShards);
    this.table = new ReplicaTable(
      createReplicaBlock(this.topology.current, (shard) => !own.has(shard)),
      this.topology.shared,
      nowMs,
    );
    const links: HeartbeatLinks = {
      sendDatagram: (peer, bytes) => network.send(self, peer, bytes),
      onDatagram: (listener) => {
        this.receive = listener;
      },
      onShard: () => undefined,
      onNode: () => undefined,
    };
    const { clock, topology, table } = this;
    this.heartbeats = new NodeHeartbeats({
      clock,
      scheduler,
      topology,
      table,
      links,
      isServing: () => this.isServing,
      incarnation,
      maxDatagramBytes: 400,
    });
    for (const shard of own) this.topology.membership.ready(shardId(shard), firstShardIncarnation(incarnation));
    network.nodes.get(self)?.stop();
    network.nodes.set(self, this);
    this.heartbeats.start();
  }

  stop(): void {
    this.heartbeats.close();
    this.topology.close();
    for (const cancel of this.#cancels) cancel();
  }
}

function world(seed: number) {
  const random = createSeededRandom(seed);
  const time = new Time();
  const network = new Network(time, random);
  const start = (name: string, incarnation: number): Node =>
    new Node(network, name, incarnation, Math.floor(random.float() * 1e6), 0.999 + random.float() * 0.002);
  for (const name of NAMES) start(name, 1);
  const nodeOf = (shard: number): Node => network.nodes.get(NAMES[shard >> 1] as string) as Node;
  return { random, time, network, start, nodeOf, below: (limit: number) => Math.floor(random.float() * limit) };
}

describe("heartbeats", () => {
  test("tell every node the states of all shards and the LSNs of all copies", () => {
    const { time, network, nodeOf } = world(1);
    const { copies } = (network.nodes.get("a") as Node).topology.current;
    for (const [index, shard] of copies.entries()) {
      const { table } = nodeOf(shard);
      const vshard = Math.floor(index / FACTOR);
      if (index % FACTOR === 0) table.publishHead(vshard, 10 + vshard, 0);
      else if (vshard % 4 === 0) table.publishSyncing(vshard, shard);
      else table.publishApplied(vshard, shard, 10 + vshard - (vshard % 2), 0);
    }
    time.advance(1_000);
    for (const [name, node] of network.nodes) {
      const { topology, table } = node;
      topology.publish();
      expect(topology.current.states, name).toEqual(new Uint8Array(6).fill(MEMBER_STATE.UP));
      for (const [index, shard] of copies.entries()) {
        const vshard = Math.floor(index / FACTOR);
        expect(table.head(vshard)).toBe(10 + vshard);
        if (index % FACTOR === 0) continue;
        const told = vshard % 4 === 0 ? -1 : 10 + vshard - (vshard % 2);
        expect(table.appliedLsn(vshard, shard), `${name}: copy ${index}`).toBe(told);
        const lag = table.lag(vshard, shard);
        if (vshard % 2 === 0 && vshard % 4 !== 0) {
          expect(lag?.lagMs).toBe(0);
          expect(node.clock.nowMs() - (lag?.sampledAtMs as number)).toBeLessThan(250);
        }
      }
    }
    expect(network.longest).toBeLessThanOrEqual(400);
    // Nothing changes any more: a pong is one short datagram.
    const before = network.sent;
    time.advance(1_000);
    expect(network.sent - before).toBeLessThanOrEqual(6 * 2 * 6);
  });

  test("that stop make a node down, and its life after a crash starts from nothing", () => {
    const { time, network, start, nodeOf } = world(2);
    const a = network.nodes.get("a") as Node;
    const { copies } = a.topology.current;
    for (const [index, shard] of copies.entries()) {
      const { table } = nodeOf(shard);
      if (index % FACTOR === 0) table.publishHead(Math.floor(index / FACTOR), 7, 0);
      else table.publishApplied(Math.floor(index / FACTOR), shard, 7, 0);
    }
    time.advance(1_000);
    const copy = [...copies].findIndex((shard, index) => index % FACTOR !== 0 && shard >> 1 === 1);
    const vshard = Math.floor(copy / FACTOR);
    const shard = copies[copy] as number;
    expect(a.table.appliedLsn(vshard, shard)).toBe(7);
    network.nodes.get("b")?.stop();
    network.nodes.delete("b");
    time.advance(2_100);
    expect(a.topology.membership.get("b")?.state).toBe("down");
    expect(a.topology.membership.stateOf(2)).toBe("down");
    const again = start("b", 2);
    time.advance(500);
    expect(a.topology.membership.get("b")).toMatchObject({ state: "up", incarnation: 2 });
    expect(a.topology.membership.get(shardId(2))).toMatchObject({ state: "up", incarnation: firstShardIncarnation(2) });
    expect(a.table.appliedLsn(vshard, shard)).toBe(-1);
    expect(a.table.lag(vshard, shard)).toBeUndefined();
    again.table.publishApplied(vshard, shard, 7, 0);
    time.advance(500);
    expect(a.table.appliedLsn(vshard, shard)).toBe(7);
  });

  test("show no copy as level with a primary that is none any more, by the map or by its lease", () => {
    const { time, network, nodeOf } = world(3);
    const a = network.nodes.get("a") as Node;
    const { copies, owners } = a.topology.current;
    const listOf = (vshard: number): number[] => [...copies.subarray(vshard * FACTOR, (vshard + 1) * FACTOR)];
    const isWanted = (vshard: number): boolean =>
      new Set(listOf(vshard).map(nodeOf)).size === 3 && nodeOf(owners[vshard] as number) === network.nodes.get("b");
    const vshard = Array.from({ length: VSHARDS }, (_, at) => at).find(isWanted) as number;
    const [primary, ...others] = listOf(vshard) as [number, number, number];
    const own = others.find((shard) => nodeOf(shard) === a) as number;
    const successor = others.find((shard) => nodeOf(shard) !== a) as number;
    nodeOf(primary).table.publishHead(vshard, 7, 0);
    a.table.publishApplied(vshard, own, 7, 0);
    time.advance(1_000);
    expect(a.table.stalenessMs(vshard, own)).toBeLessThan(300);

    // Others may have made another one the primary: what it has not told of is not known.
    nodeOf(primary).isServing = false;
    time.advance(3_000);
    expect(a.table.stalenessMs(vshard, own)).toBeGreaterThan(2_500);
    nodeOf(primary).isServing = true;
    time.advance(1_000);
    expect(a.table.stalenessMs(vshard, own)).toBeLessThan(300);

    // They have, and the new one cannot be heard: that the old one still can says nothing.
    for (const pair of ["a>c", "c>a"]) network.cut.add(pair);
    const map = withMoved(firstMap(), new Map([[vshard, [successor, primary, own]]]));
    for (const { topology } of network.nodes.values()) topology.setMap({ ...map, writer: "test" });
    time.advance(3_000);
    expect(a.table.stalenessMs(vshard, own)).toBeGreaterThan(2_500);
  });

  test("over a bad network never tell more than is true, and everything once it is well", () => {
    console.info(`heartbeats: SEED=${SEED}`);
    let fresh = 0;
    let dropped = 0;
    for (let run = 0; run < 12; run++) fresh += drive(SEED + run, (count) => (dropped += count));
    expect(fresh).toBeGreaterThan(1_000); // or nothing was judged
    expect(dropped).toBeGreaterThan(100);
  });
});

/** @returns how many judgements of finite staleness were compared with the truth */
function drive(seed: number, onDropped: (count: number) => void): number {
  const { random, time, network, start, nodeOf, below } = world(seed);
  const { copies, owners } = (network.nodes.get("a") as Node).topology.current;
  const lives = new Map<string, number>(NAMES.map((name) => [name, 1]));
  /** True times of all appends, by vshard; the LSN is the place + 1. */
  const appends: number[][] = Array.from({ length: VSHARDS }, () => []);
  /** True LSN of each copy, by index; -1 when it has nothing. */
  const applied = new Int32Array(copies.length);
  for (const [index, shard] of copies.entries())
    if (index % FACTOR === 0) nodeOf(shard).table.publishHead(Math.floor(index / FACTOR), 0, 0);
  let judged = 0;

  const judge = (): void => {
    for (const [name, { table }] of network.nodes) {
      const index = below(copies.length);
      if (index % FACTOR === 0) continue;
      const vshard = Math.floor(index / FACTOR);
      const shard = copies[index] as number;
      const told = table.stalenessMs(vshard, shard);
      if (told === Number.POSITIVE_INFINITY) continue;
      // A node that was wiped and has not been heard since is all that one can be wrong about: its own table is right.
      if (NAMES[shard >> 1] !== name) continue;
      const missing = appends[vshard]?.[applied[index] as number];
      const truth = missing === undefined ? 0 : time.nowMs - missing;
      judged++;
      if (told < truth * 0.998 - 1e-6)
        throw new Error(`seed ${seed}: ${name} says ${told} ms of vshard ${vshard} on ${shard}, it is ${truth} ms`);
    }
  };

  for (let step = 0; step < 1_500; step++) {
    const vshard = below(VSHARDS);
    const roll = random.float();
    if (roll < 0.35) {
      const list = appends[vshard] as number[];
      list.push(time.nowMs);
      const primary = nodeOf(owners[vshard] as number);
      primary.table.publishHead(vshard, list.length, primary.clock.nowMs());
    } else if (roll < 0.65) {
      const index = vshard * FACTOR + 1 + below(FACTOR - 1);
      const shard = copies[index] as number;
      const most = (appends[vshard] as number[]).length;
      const next = Math.min(most, Math.max(0, applied[index] as number) + 1 + below(4));
      applied[index] = next;
      // The time is the primary's, as entries carry it.
      const foreign = nodeOf(owners[vshard] as number).clock.nowMs();
      nodeOf(shard).table.publishApplied(vshard, shard, next, foreign);
    } else if (roll < 0.7) {
      Object.assign(network.faults, {
        loss: random.float() < 0.5 ? 0 : 0.4,
        repeat: 0.2,
        damage: 0.1,
        delayMs: random.float() < 0.3 ? 900 : 30,
      });
    } else if (roll < 0.73) {
      const pair = `${NAMES[below(3)]}>${NAMES[below(3)]}`;
      if (!network.cut.delete(pair)) network.cut.add(pair);
    } else if (roll < 0.735) {
      // A node that holds copies only for what is judged: its primaries keep their heads.
      const name = NAMES[below(3)] as string;
      const life = (lives.get(name) as number) + 1;
      lives.set(name, life);
      onDropped(network.nodes.get(name)?.heartbeats.counters.dropped ?? 0);
      const node = start(name, life);
      for (const [index, shard] of copies.entries()) {
        if (NAMES[shard >> 1] !== name) continue;
        if (index % FACTOR !== 0) applied[index] = -1;
        else
          node.table.publishHead(
            Math.floor(index / FACTOR),
            (appends[Math.floor(index / FACTOR)] as number[]).length,
            node.clock.nowMs(),
          );
      }
    }
    time.advance(below(40));
    for (let look = 0; look < 4; look++) judge();
  }

  network.cut.clear();
  Object.assign(network.faults, { loss: 0, repeat: 0, damage: 0, delayMs: 1 });
  time.advance(3_000);
  for (const [name, { table, topology, heartbeats }] of network.nodes) {
    onDropped(heartbeats.counters.dropped);
    topology.publish();
    expect(topology.current.states, `seed ${seed}`).toEqual(new Uint8Array(6).fill(MEMBER_STATE.UP));
    for (const [index, shard] of copies.entries()) {
      const vshard = Math.floor(index / FACTOR);
      expect(table.head(vshard), `seed ${seed}: ${name} of vshard ${vshard}`).toBe(
        (appends[vshard] as number[]).length,
      );
      if (index % FACTOR === 0) continue;
      const truth = nodeOf(shard).table.appliedLsn(vshard, shard);
      expect(table.appliedLsn(vshard, shard), `seed ${seed}: ${name} of copy ${index}`).toBe(truth);
    }
  }
  return judged;
}
