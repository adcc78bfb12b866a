/**
 * Shards that replicate a toy engine among each other, in one thread and in virtual time: links are slow, requests time out while their
 * messages go on, and workers die at any point, also within a write or within an effect, and come back with the rows that they had.
 * Shards may be nodes of their own: then each has its own table, and one that is wiped comes back with nothing. And then there may be promotions:
 * a node that is cut off does not renew its lease and hears of no map, an authority gives its vshards to others when the lease is over, and every node
 * learns of that some time later.
 *
 * Checked after every step: a copy that the table calls valid at an LSN has exactly what its primary had at that LSN; one that was
 * taken over from a dead worker may have parts of the next entry too, until it is applied again.
 */
import { expect } from "vitest";
import type {
  EngineReply,
  EngineRequest,
  ReceivedEffect,
  ReplicatedEngine,
  SnapshotPart,
} from "../../../actors/engine.ts";
import { Copies } from "../../../actors/replication/copies.ts";
import { Primary } from "../../../actors/replication/primary.ts";
import type { PeerRequester } from "../../../actors/replication/replica-link-options.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { type Payload, PendingRequest, type ReplySink } from "../../../src/routing/pending-request.ts";
import { crc32 } from "../../../src/runtime/checksum.ts";
import { createManualClock } from "../../../src/runtime/clock.ts";
import type { Random } from "../../../src/runtime/random.ts";
import type { Scheduler } from "../../../src/runtime/scheduler.ts";
import { firstShardIncarnation } from "../../../src/topology/member.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot, type TopologySnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import { REPLICA_FETCH, REPLICA_SNAPSHOT } from "../../../src/wire/message-types.ts";

export const EFFECT = 1;
/** f64 key | value (NaN: delete) | version */
const ITEM_BYTES = 24;
/** Largest message. */
const MESSAGE_BYTES = 4096;

class Crash extends Error {}

interface Row {
  readonly key: number;
  readonly vshard: number;
  readonly value: number;
  readonly version: number;
}

/** Rows that outlive their worker. Rows never move; freed places are used again, as in the real store. */
export class Rows {
  readonly rows: (Row | undefined)[] = [];

  put(row: Row): number {
    let at = this.rows.findIndex((other) => other?.key === row.key);
    if (at < 0) at = this.rows.indexOf(undefined);
    if (at < 0) at = this.rows.length;
    this.rows[at] = row;
    return at;
  }

  delete(key: number): void {
    const at = this.rows.findIndex((row) => row?.key === key);
    if (at >= 0) this.rows[at] = undefined;
  }

  /** What a vshard holds, as text. */
  of(vshard: number): string {
    return this.rows
      .filter((row) => row?.vshard === vshard)
      .map((row) => `${row?.key}=${row?.value}@${row?.version}`)
      .sort()
      .join();
  }
}

export class ToyEngine implements ReplicatedEngine {
  readonly types: readonly number[] = [EFFECT];
  readonly store: Rows;
  readonly #unwritten: Map<number, Set<number>> = new Map();
  readonly #mayCrash: () => void;

  constructor(store: Rows, mayCrash: () => void) {
    this.store = store;
    this.#mayCrash = mayCrash;
  }

  apply({ vshard, f64, offset, length }: ReceivedEffect): void {
    for (let at = offset >>> 3; at < (offset + length) >>> 3; at += ITEM_BYTES >>> 3) {
      const [key, value, version] = f64.subarray(at, at + 3) as unknown as [number, number, number];
      if (Number.isNaN(value)) {
        this.store.delete(key);
      } else {
        const row = this.store.put({ key, vshard, value, version });
        this.#unwritten.get(vshard)?.delete(row);
      }
      this.#mayCrash();
    }
  }

  has(): boolean {
    return true;
  }

  snapshot(vshard: number): () => SnapshotPart | undefined {
    let at = 0;
    return () => {
      while (at < this.store.rows.length) {
        const row = this.store.rows[at++];
        if (row?.vshard === vshard) return { type: EFFECT, collection: 0, body: bodyOf([row]) };
      }
      return undefined;
    };
  }

  beginRestore(vshard: number): void {
    const rows = this.store.rows.flatMap((row, at) => (row?.vshard === vshard ? [at] : []));
    this.#unwritten.set(vshard, new Set(rows));
  }

  endRestore(vshard: number): void {
    for (const at of this.#unwritten.get(vshard) ?? []) this.store.rows[at] = undefined;
    this.#unwritten.delete(vshard);
  }

  contentHash(vshard: number): bigint {
    const texts = this.store.rows.filter((row) => row?.vshard === vshard).map((row) => JSON.stringify(row));
    return texts.reduce((sum, text) => sum + BigInt(crc32(text)) * 0x1_0000_0001n, 0n);
  }
}

export function bodyOf(items: readonly Pick<Row, "key" | "value" | "version">[]): Uint8Array {
  return new Uint8Array(Float64Array.from(items.flatMap(({ key, value, version }) => [key, value, version])).buffer);
}

/** A write as its issuer knows it. */
export interface IssuedWrite {
  readonly number: number;
  readonly keys: readonly number[];
  readonly deletes: boolean;
  readonly acks: number;
  state: "open" | "acknowledged" | "failed";
}

interface Worker {
  readonly incarnation: number;
  readonly engine: ToyEngine;
  readonly copies: Copies;
  readonly primary: Primary;
}

export interface WorldOptions {
  readonly shards: number;
  readonly vshards: number;
  readonly replicationFactor: number;
  readonly random: Random;
  /** Entries that logs keep. */
  readonly logEntries: number;
  /** Whether every shard is on a node of its own. */
  readonly nodes?: boolean;
  /**
   * Whether vshards of a node that is cut off are given to others. `forced`: nobody's lease ever ends, so that there are two primaries again and
   * again, and only what copies refuse keeps them apart. @default no
   */
  readonly promotions?: "leased" | "forced";
}

const TIMEOUT_MS = 200;
const LEASE_MS = 300;
/** The longest time that a node needs to hear of a map. */
const LEARN_MS = 400;

export class World {
  /** The newest map. */
  snapshot: TopologySnapshot;
  readonly writes: IssuedWrite[] = [];
  /** Chance per chance-point that a worker dies, and that a message is slow. */
  crashChance = 0;
  slowChance = 0;
  /** How often things happened, to prove that they did. */
  readonly seen = {
    crashes: 0,
    halfWrites: 0,
    snapshots: 0,
    timeouts: 0,
    quorums: 0,
    wipes: 0,
    fetches: 0,
    promotions: 0,
    lapsed: 0,
    reads: 0,
  };
  /** By shard; those of one node share one. */
  readonly #tables: ReplicaTable[] = [];
  readonly #lives: number[] = [];
  readonly #random: Random;
  readonly #options: WorldOptions;
  /** By shard; all the same where they are not nodes. */
  readonly #topologies: LocalTopology[] = [];
  readonly #leases: { untilMs: number; renewedMs: number; cutUntilMs: number; taken: boolean; missed: boolean }[] = [];
  readonly #clock = createManualClock(1_000);
  readonly #timers: { atMs: number; order: number; run: () => void }[] = [];
  readonly #stores: Rows[] = [];
  readonly #workers: (Worker | undefined)[] = [];
  readonly #incarnations: number[] = [];
  /** When the last message of a link arrives, by "from>to". */
  readonly #linkAtMs: Map<string, number> = new Map();
  readonly #cutUntilMs: Map<string, number> = new Map();
  /** Requests that wait for their answers, by the shard that they went to. */
  readonly #open: Set<{ from: number; to: number; fail: (error: ShardloomError) => void }> = new Set();
  /** By vshard and LSN: what the primary had. */
  readonly #history: Map<number, string>[] = [];
  /** LSN that a worker found its copy at, by "shard:vshard". */
  readonly #inherited: Map<string, number> = new Map();
  #order = 0;
  #next = 1;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#random = options.random;
    this.snapshot = createSnapshot(options);
    const one = new LocalTopology(this.snapshot);
    for (let shard = 0; shard < options.shards; shard++) {
      this.#topologies.push(options.nodes === true ? new LocalTopology(this.snapshot) : one);
      this.#leases.push({ untilMs: 1_000 + LEASE_MS, renewedMs: 1_000, cutUntilMs: 0, taken: false, missed: false });
    }
    const shared = options.nodes === true ? undefined : this.#createTable();
    for (let vshard = 0; vshard < options.vshards; vshard++) this.#history.push(new Map([[0, ""]]));
    for (let shard = 0; shard < options.shards; shard++) {
      this.#stores.push(new Rows());
      this.#incarnations.push(0);
      this.#lives.push(1);
      this.#tables.push(shared ?? this.#createTable(shard));
    }
    for (let shard = 0; shard < options.shards; shard++) this.#start(shard);
    if (options.promotions !== undefined) this.#tick();
  }

  /** The table of a shard's node. */
  tableOf(shard: number): ReplicaTable {
    return this.#tables[shard] as ReplicaTable;
  }

  /** @param own The only shard of its node. @default all are */
  #createTable(own?: number): ReplicaTable {
    const isRemote = (shard: number): boolean => own !== undefined && shard !== own;
    const block = createReplicaBlock(this.snapshot, isRemote);
    return new ReplicaTable(block, this.#topologies[own ?? 0] as LocalTopology, () => this.#clock.nowMs());
  }

  /** The map as a shard knows it. */
  mapOf(shard: number): TopologySnapshot {
    return (this.#topologies[shard] as LocalTopology).current();
  }

  /** Cuts a node off from all others, and from who grants leases. */
  isolate(shard: number, durationMs: number): void {
    for (let peer = 0; peer < this.#options.shards; peer++) {
      this.cut(shard, peer, durationMs);
      this.cut(peer, shard, durationMs);
    }
    (this.#leases[shard] as { cutUntilMs: number }).cutUntilMs = this.nowMs + durationMs;
  }

  isLeased(shard: number): boolean {
    return this.#options.promotions !== "leased" || this.nowMs < (this.#leases[shard]?.untilMs ?? 0);
  }

  /** Leases are renewed, found to be over, and taken; whose lease was taken takes part again when it hears of it. */
  #tick(): void {
    for (const [shard, lease] of this.#leases.entries()) {
      if (this.nowMs < lease.cutUntilMs) {
        // Whoever sees that counts longer than the holder.
        if (!lease.taken && this.nowMs > lease.renewedMs + LEASE_MS * 1.2) lease.taken = this.#takeOver(shard);
        continue;
      }
      if (lease.taken || lease.missed) this.#learn(shard);
      lease.taken = lease.missed = false;
      lease.renewedMs = this.nowMs;
      lease.untilMs = this.nowMs + LEASE_MS;
    }
    this.after(40, () => this.#tick());
  }

  /** Gives what a shard is primary of to other holders of copies. @returns whether there was anything */
  #takeOver(lost: number): boolean {
    const { snapshot } = this;
    const { replicationFactor, vshards } = snapshot;
    const copies = snapshot.copies.slice();
    const terms = snapshot.terms.slice();
    const mapVersion = snapshot.mapVersion + 1;
    let moved = 0;
    for (let vshard = 0; vshard < vshards; vshard++) {
      if (snapshot.owners[vshard] !== lost) continue;
      const others = this.copiesOf(vshard).filter((shard) => this.nowMs >= (this.#leases[shard]?.cutUntilMs ?? 0));
      const next = others[this.#below(others.length)];
      if (next === undefined) continue;
      const rest = this.copiesOf(vshard).filter((shard) => shard !== next);
      copies.set([next, ...rest], vshard * replicationFactor);
      terms[vshard] = mapVersion;
      moved++;
    }
    if (moved === 0) return false;
    this.seen.promotions += moved;
    this.#publish(copies, terms);
    return true;
  }

  #publish(copies: Uint16Array, terms: Uint32Array): void {
    const { topologyEpoch, mapVersion } = this.snapshot;
    const epoch = topologyEpoch + 1;
    this.snapshot = createSnapshot({
      ...this.snapshot,
      topologyEpoch: epoch,
      mapEpoch: epoch,
      mapVersion: mapVersion + 1,
      copies,
      terms,
    });
    for (let shard = 0; shard < this.#options.shards; shard++)
      this.after(this.#below(LEARN_MS), () => {
        const lease = this.#leases[shard] as { cutUntilMs: number; missed: boolean };
        if (this.nowMs >= lease.cutUntilMs) this.#learn(shard);
        else lease.missed = true;
      });
  }

  #learn(shard: number): void {
    (this.#topologies[shard] as LocalTopology).learn(this.snapshot);
    const worker = this.#workers[shard];
    if (worker !== undefined) this.#guard(shard, () => worker.primary.mapChanged());
  }

  /** A node takes part in a new life: what it is primary of begins another term. */
  #register(shard: number): void {
    const terms = this.snapshot.terms.map((term, vshard) =>
      this.snapshot.owners[vshard] === shard ? this.snapshot.mapVersion + 1 : term,
    );
    this.#publish(this.snapshot.copies, terms);
    this.#learn(shard);
  }

  /** Reads a key strongly from whoever would answer, and throws when a write that a majority had acknowledged is not there. */
  read(): void {
    const { vshards, shards, replicationFactor } = this.#options;
    const quorum = Math.floor(replicationFactor / 2) + 1;
    const key = this.#below(vshards * 6);
    const vshard = key % vshards;
    const set = Uint8Array.from({ length: vshards }, (_, other) => Number(other === vshard));
    const last = this.writes.findLast(
      (write) => write.state === "acknowledged" && write.acks >= quorum && write.keys.includes(key),
    );
    for (let shard = 0; shard < shards; shard++) {
      const worker = this.#workers[shard];
      if (worker === undefined || !this.isLeased(shard)) continue;
      const { primary } = worker;
      if (primary.refilling.has(vshard) || this.mapOf(shard).owners[vshard] !== shard || !primary.isSettled(set))
        continue;
      this.seen.reads++;
      const row = worker.engine.store.rows.find((other) => other?.key === key);
      const later = this.writes.filter(({ keys, number }) => keys.includes(key) && number > (last?.number ?? 0));
      const isThere = (row?.version ?? 0) >= (last?.number ?? 0) || (row === undefined && last?.deletes === true);
      if (!isThere && !(row === undefined && later.some(({ deletes }) => deletes)))
        throw new Error(
          `key ${key} read on shard ${shard} has ${row?.version}, and write ${last?.number} was acknowledged`,
        );
    }
  }

  /** Whether all shards serve all that they own, and all copies are valid. */
  get settled(): boolean {
    const { vshards } = this.#options;
    return (
      this.#workers.every((worker) => worker !== undefined && worker.primary.refilling.size === 0) &&
      this.#topologies.every((topology) => topology.current().mapVersion === this.snapshot.mapVersion) &&
      Array.from({ length: vshards }, (_, vshard) => vshard).every((vshard) =>
        this.copiesOf(vshard).every((shard) => this.tableOf(shard).appliedLsn(vshard, shard) >= 0),
      )
    );
  }

  get nowMs(): number {
    return this.#clock.nowMs();
  }

  /** A write of some keys on vshards of one primary, or of deletes; nothing happens while that worker is dead. */
  write(acks: number): void {
    const shard = this.#below(this.#options.shards);
    const worker = this.#workers[shard];
    const owned = [...this.mapOf(shard).owners].flatMap((owner, vshard) => (owner === shard ? [vshard] : []));
    if (worker === undefined || owned.length === 0) return;
    const number = this.#next++;
    const deletes = this.#random.float() < 0.25;
    const keys = Array.from({ length: 1 + this.#below(4) }, () => {
      const vshard = owned[this.#below(owned.length)] as number;
      return vshard + this.#options.vshards * this.#below(6);
    });
    const write: IssuedWrite = { number, keys: [...new Set(keys)], deletes, acks, state: "open" };
    this.writes.push(write);
    this.#guard(shard, () => this.#carryOut(worker, shard, write, acks));
    this.check();
  }

  #carryOut({ primary, engine }: Worker, shard: number, write: IssuedWrite, acks: number): void {
    const { vshards } = this.#options;
    const missing = write.keys.find((key) => primary.refilling.has(key % vshards));
    if (missing !== undefined) {
      const add = (): void => primary.begin(acks, 0).add(missing % vshards, EFFECT, 0, bodyOf([]));
      expect(add).toThrow(expect.objectContaining({ code: "ERR_UNAVAILABLE" }));
      write.state = "failed";
      return;
    }
    const pending = primary.begin(acks, this.nowMs + 150);
    const effects = write.keys.map((key) => {
      const value = write.deletes ? Number.NaN : write.number;
      const body = bodyOf([{ key, value, version: write.number }]);
      pending.add(key % vshards, EFFECT, 0, body);
      return { vshard: key % vshards, body };
    });
    this.#mayCrash();
    const heads = new Map(effects.map(({ vshard }) => [vshard, this.tableOf(shard).head(vshard)]));
    pending.publish();
    try {
      this.#mayCrash();
      for (const { vshard, body } of effects) {
        const memory = { bytes: body, f64: new Float64Array(body.buffer) } as ReceivedEffect;
        engine.apply({ ...memory, vshard, type: EFFECT, collection: 0, offset: 0, length: body.length });
        const lsn = (heads.get(vshard) as number) + 1;
        heads.set(vshard, lsn);
        if (this.#history[vshard]?.has(lsn) === true)
          throw new Error(`LSN ${lsn} of vshard ${vshard} was given out twice`);
        this.#history[vshard]?.set(lsn, engine.store.of(vshard));
      }
    } catch (error) {
      this.seen.halfWrites++;
      throw error;
    }
    const held = {
      cancelled: false,
      send: () => {
        write.state = "acknowledged";
      },
      fail: (error: unknown) => {
        if (ShardloomError.is(error) && error.code === "ERR_QUORUM") this.seen.quorums++;
        if (ShardloomError.is(error) && error.message.includes("lease")) this.seen.lapsed++;
        write.state = "failed";
      },
    };
    primary.commit(pending, acks === 1 ? undefined : held, new Uint8Array(0));
    if (acks === 1) write.state = "acknowledged";
  }

  /** What goes from one shard to another arrives after so long at the earliest, in both directions of their conversation. */
  cut(from: number, to: number, durationMs: number): void {
    for (const link of [`${from}>${to}`, `${from}<${to}`]) this.#cutUntilMs.set(link, this.nowMs + durationMs);
  }

  /** Kills a worker; the next one starts after a while. */
  kill(shard: number, downMs: number = this.#below(60)): void {
    const worker = this.#workers[shard];
    if (worker === undefined) return;
    this.seen.crashes++;
    this.#workers[shard] = undefined;
    // Nothing of it runs any more: its timers and answers find no worker.
    const lost = new ShardloomError("ERR_WORKER_LOST", "Cannot finish as the worker died");
    this.after(downMs, () => {
      for (const request of [...this.#open]) {
        if (request.from === shard) this.#open.delete(request);
        else if (request.to === shard) request.fail(lost);
      }
      this.#start(shard);
      for (const [peer, other] of this.#workers.entries())
        if (peer !== shard && other !== undefined) this.#guard(peer, () => other.primary.peerAttached(shard));
    });
  }

  /** Takes a node's power: its shard dies, and the next one has neither rows nor table. */
  wipe(shard: number): void {
    this.seen.wipes++;
    this.kill(shard);
    this.#lives[shard] = (this.#lives[shard] as number) + 1;
    this.#stores[shard] = new Rows();
    this.#tables[shard] = this.#createTable(shard);
    if (this.#options.promotions !== undefined) this.#register(shard);
  }

  /** Runs what falls due in the next while. */
  run(durationMs: number): void {
    const untilMs = this.nowMs + durationMs;
    for (let next = this.#takeDue(untilMs); next !== undefined; next = this.#takeDue(untilMs)) {
      this.#clock.setMs(next.atMs);
      next.run();
      this.check();
    }
    this.#clock.setMs(untilMs);
  }

  after(delayMs: number, run: () => void): { atMs: number; order: number; run: () => void } {
    const timer = { atMs: this.nowMs + delayMs, order: this.#order++, run };
    this.#timers.push(timer);
    return timer;
  }

  rowsOf(shard: number, vshard: number): string {
    return (this.#stores[shard] as Rows).of(vshard);
  }

  copiesOf(vshard: number): number[] {
    const { copies, replicationFactor } = this.snapshot;
    return [...copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor)];
  }

  /** Throws when a copy that is valid at an LSN has something else than its primary had there. */
  check(): void {
    for (let vshard = 0; vshard < this.#options.vshards; vshard++) {
      const [, ...replicas] = this.copiesOf(vshard);
      for (const shard of this.copiesOf(vshard)) {
        const head = this.tableOf(shard).ownHead(vshard);
        if (this.#workers[shard] === undefined || this.mapOf(shard).owners[vshard] !== shard) continue;
        // It has come back, or has come here: what it found is what its first LSN stands for.
        if (head > 0 && this.#history[vshard]?.has(head) !== true)
          this.#history[vshard]?.set(head, this.rowsOf(shard, vshard));
      }
      for (const shard of replicas) {
        const lsn = this.tableOf(shard).appliedLsn(vshard, shard);
        if (lsn < 0 || this.#workers[shard] === undefined) continue; // a dead worker may be half way to its next LSN
        if (this.#inherited.get(`${shard}:${vshard}`) === lsn) continue; // and its successor has not gone on yet
        const expected = this.#history[vshard]?.get(lsn);
        const found = this.rowsOf(shard, vshard);
        if (found !== expected)
          throw new Error(`vshard ${vshard} on shard ${shard} at LSN ${lsn} has ${found}, its primary had ${expected}`);
      }
    }
  }

  #start(shard: number): void {
    const next = (this.#incarnations[shard] as number) + 1;
    const incarnation = Math.max(next, firstShardIncarnation(this.#lives[shard] as number));
    this.#incarnations[shard] = incarnation;
    const alive = (): boolean => this.#workers[shard]?.incarnation === incarnation;
    const engine = new ToyEngine(this.#stores[shard] as Rows, () => this.#mayCrash());
    const scheduler = {
      timer: (delayMs: number, callback: () => void) => {
        const timer = this.after(delayMs, () => {
          if (alive()) this.#guard(shard, callback);
        });
        const cancel = (): void => {
          const at = this.#timers.indexOf(timer);
          if (at >= 0) this.#timers.splice(at, 1);
        };
        return { cancel, ref: () => undefined, unref: () => undefined };
      },
    } as unknown as Scheduler;
    const table = this.tableOf(shard);
    const options = {
      shard,
      incarnation,
      topology: this.#topologies[shard] as LocalTopology,
      table,
      nowMs: () => this.nowMs,
      engines: [engine],
    };
    const copies = new Copies({ ...options, isFresh: this.#incarnations[shard] === 1 });
    const isLeased = (): boolean => this.isLeased(shard);
    const primary = new Primary({
      ...options,
      acks: 2,
      incarnation,
      clock: this.#clock,
      scheduler,
      requestTimeoutMs: TIMEOUT_MS,
      own: (vshard) => copies.own(vshard),
      lease: {
        get isValid() {
          return isLeased();
        },
      },
      requester: (peer) => (alive() ? this.#requester(shard, peer, incarnation) : undefined),
      logEntries: this.#options.logEntries,
    });
    // What a predecessor left half written is what its head stands for from now on.
    for (const [vshard, owner] of this.mapOf(shard).owners.entries())
      if (owner === shard && table.ownHead(vshard) >= 0)
        this.#history[vshard]?.set(table.ownHead(vshard), engine.store.of(vshard));
    if (incarnation > 1)
      for (let vshard = 0; vshard < this.#options.vshards; vshard++)
        this.#inherited.set(`${shard}:${vshard}`, table.appliedLsn(vshard, shard));
    this.#workers[shard] = { incarnation, engine, copies, primary };
    this.#guard(shard, () => primary.start());
  }

  /** What one worker asks a peer with: messages arrive in order, late, and only at the workers that they were sent between. */
  #requester(from: number, to: number, incarnation: number): PeerRequester {
    const target = this.#incarnations[to] as number;
    return {
      maxPayloadBytes: MESSAGE_BYTES,
      request: (type, vshard, priority, deadlineAtMs, payload, sink) => {
        const bytes = payloadBytes(payload);
        let open = true;
        const end = (act: (sink: ReplySink) => void): void => {
          if (!open) return;
          open = false;
          this.#open.delete(entry);
          if (this.#workers[from]?.incarnation === incarnation) this.#guard(from, () => act(sink));
        };
        const entry = { from, to, fail: (error: ShardloomError) => end((s) => s.onFailure(error)) };
        this.#open.add(entry);
        this.#timer(deadlineAtMs, () => {
          if (open) this.seen.timeouts++;
          entry.fail(new ShardloomError("ERR_TIMEOUT", "Cannot wait any longer"));
        });
        this.#deliver(`${from}>${to}`, () => {
          const worker = this.#workers[to];
          if (worker === undefined || worker.incarnation !== target) return;
          this.#guard(to, () => {
            const reply = handle(worker.copies, type, bytes, MESSAGE_BYTES);
            if (type === REPLICA_SNAPSHOT) this.seen.snapshots++;
            if (type === REPLICA_FETCH) this.seen.fetches++;
            this.#deliver(`${to}<${from}`, () =>
              end((s) => {
                if (reply instanceof Error) s.onFailure(ShardloomError.from(reply));
                else s.onReply({ ...reply, serviceUs: 0, queueUs: 0 });
              }),
            );
          });
        });
        return new PendingRequest(type, vshard, priority, deadlineAtMs, payload, sink, undefined, undefined);
      },
    };
  }

  #deliver(link: string, act: () => void): void {
    const slow = this.#random.float() < this.slowChance;
    const soonestMs = Math.max(this.#linkAtMs.get(link) ?? 0, this.#cutUntilMs.get(link) ?? 0);
    const atMs = Math.max(soonestMs, this.nowMs + 1 + this.#below(slow ? 2 * TIMEOUT_MS : 5));
    this.#linkAtMs.set(link, atMs);
    this.#timer(atMs, act);
  }

  #timer(atMs: number, run: () => void): void {
    this.#timers.push({ atMs, order: this.#order++, run });
  }

  #takeDue(untilMs: number): { atMs: number; run: () => void } | undefined {
    let found = -1;
    for (let at = 0; at < this.#timers.length; at++) {
      const timer = this.#timers[at] as { atMs: number; order: number };
      const best = this.#timers[found];
      if (timer.atMs > untilMs) continue;
      if (best === undefined || timer.atMs < best.atMs || (timer.atMs === best.atMs && timer.order < best.order))
        found = at;
    }
    return found < 0 ? undefined : this.#timers.splice(found, 1)[0];
  }

  /** Runs what a worker does; when it dies in it, the rest does not happen. */
  #guard(shard: number, act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      this.kill(shard);
    }
  }

  #mayCrash(): void {
    if (this.#random.float() < this.crashChance) throw new Crash();
  }

  #below(limit: number): number {
    return Math.floor(this.#random.float() * limit);
  }
}

export function payloadBytes(payload: Payload): ArrayBuffer {
  const buffer = new ArrayBuffer((payload.byteLength + 7) & ~7);
  payload.write(viewsOf(buffer), 0);
  return buffer;
}

function viewsOf(buffer: ArrayBuffer) {
  return {
    bytes: new Uint8Array(buffer),
    i32: new Int32Array(buffer),
    f32: new Float32Array(buffer),
    f64: new Float64Array(buffer),
  };
}

/** Calls a handler of the copies as a shard does. A worker that dies in it answers nothing. */
export function handle(
  copies: Pick<Copies, "handlers">,
  type: number,
  buffer: ArrayBuffer,
  limitBytes: number,
): (ReturnType<typeof viewsOf> & { offset: number; length: number }) | ShardloomError {
  const request: EngineRequest = { ...viewsOf(buffer), offset: 0, length: buffer.byteLength };
  let answer = { ...viewsOf(new ArrayBuffer(0)), offset: 0, length: 0 };
  const reply = {
    limitBytes,
    hold: () => undefined,
    claim(lengthBytes: number) {
      answer = { ...viewsOf(new ArrayBuffer((lengthBytes + 7) & ~7)), offset: 0, length: lengthBytes };
      Object.assign(reply, answer);
    },
  } as unknown as EngineReply;
  try {
    copies.handlers.get(type)?.(request, reply);
    return answer;
  } catch (error) {
    if (!ShardloomError.is(error)) throw error;
    return error;
  }
}
