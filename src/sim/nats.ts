/**
 * A stand-in for NATS with JetStream: streams and key-value buckets of one server, reached over connections in world time.
 *
 * Invariant: the server applies one request at a time and each at most once, so that streams and keys are linearizable; but a client may have given
 * up when its request is applied.
 *
 * Faults, site and target "nats". Drawn for each request that changes something: `nats-late-apply` (it arrives after its client gave up). Timed,
 * by {@link SimNats.begin}: `nats-frozen` (requests wait; those whose clients give up meanwhile are applied all the same) and `nats-restarted`
 * (what is stored stays, connections drop; of what is under way each request is applied or lost, and every answer is lost).
 *
 * | JetStream | here |
 * | --- | --- |
 * | publish with `Nats-Expected-Last-Sequence`, get, `KV.get`, `update`, `delete`, `watch` (last value per key) | supported |
 * | requests while disconnected | kept and sent once connected again, as by the client library |
 * | error 10071 (wrong last sequence) | `ERR_STALE_EPOCH` with `details.last` |
 * | replicas, direct get (stale reads), limits, TTL, message ids | absent |
 */
import type { Random } from "../runtime/random.ts";
import type { FaultyService } from "./fault-driver.ts";
import { FAULT_TABLE } from "./fault-table.ts";
import type { FaultInjector, TimedFault } from "./fault-types.ts";
import type { Loop } from "./loop-types.ts";
import { createNatsClient, type Link, type NatsClient, type Watcher } from "./nats-client.ts";
import { type KeyEntry, NatsStore } from "./nats-store.ts";

/** One way of a packet, typical, in µs. */
const LATENCY_US = 150;
/** One packet in so many takes that many times longer. */
const TAIL = { oneIn: 64, factor: 30 } as const;
/** How long a restarted server is away, and how long clients then wait at most before they try again. */
const RESTART_US = 500_000;
const RECONNECT_US = 2_000_000;

/** What a stand-in is made of. */
export interface SimNatsOptions {
  readonly loop: Loop;
  readonly faults: FaultInjector;
  /** Name of the server, of its faults' site and of their target. @default "nats" */
  readonly name?: string;
}

/** A request on its way or at the server. */
interface Request {
  readonly apply: () => void;
  /** Whether it has been applied or lost. */
  done: boolean;
}

/** A client process's link. */
interface Connection {
  readonly client: string;
  readonly loop: Loop;
  alive: boolean;
  connected: boolean;
  /** How often it was dropped: what was sent before does not arrive after. */
  drops: number;
  /** Requests that wait for a connection. */
  unsent: (() => void)[];
  readonly watchers: Set<Watcher>;
  /** Packets of one direction arrive in order. */
  toServerUs: number;
  toClientUs: number;
}

/** The server. */
export class SimNats implements FaultyService {
  readonly site: string;
  readonly #loop: Loop;
  readonly #faults: FaultInjector;
  readonly #random: Random;
  readonly #store: NatsStore;
  readonly #connections: Map<string, Connection> = new Map();
  /** On their way to the server, in the order of sending. */
  readonly #underWay: Set<Request> = new Set();
  /** At the server, which is frozen. */
  #queue: Request[] = [];
  #frozenUntilUs = 0;
  #downUntilUs = 0;

  constructor(options: SimNatsOptions) {
    this.site = options.name ?? "nats";
    this.#loop = options.loop;
    this.#faults = options.faults;
    this.#random = options.loop.stream(this.site);
    this.#store = new NatsStore((bucket, entry) => this.#changed(bucket, entry));
  }

  /** What is stored, for checks: reading it takes no time. */
  get store(): NatsStore {
    return this.#store;
  }

  /**
   * Connects a process. The one that had the name before is gone: its calls never settle, what it sent may still be applied.
   *
   * @param client Name of the process, such as its node's.
   * @param loop Where answers arrive: that of the process's thread. @default the world's
   */
  connect(client: string, loop: Loop = this.#loop): NatsClient {
    this.disconnect(client);
    const connection: Connection = {
      client,
      loop,
      alive: true,
      connected: this.#loop.nowUs >= this.#downUntilUs,
      drops: 0,
      unsent: [],
      watchers: new Set(),
      toServerUs: 0,
      toClientUs: 0,
    };
    this.#connections.set(client, connection);
    if (!connection.connected) this.#reconnect(connection);
    return createNatsClient(this.#linkOf(connection), loop);
  }

  /** A process is gone. */
  disconnect(client: string): void {
    const connection = this.#connections.get(client);
    if (connection !== undefined) connection.alive = false;
    this.#connections.delete(client);
  }

  /** A timed fault on this server begins: frozen or restarted. @returns whether it is one of those */
  begin(fault: TimedFault): boolean {
    if (fault.kind === "nats-frozen") this.#freeze(fault.durationMs * 1000);
    else if (fault.kind === "nats-restarted") this.#restart();
    else return false;
    return true;
  }

  /** The server answers, and everybody is connected. */
  heal(): void {
    this.#frozenUntilUs = 0;
    this.#downUntilUs = 0;
    this.#thaw();
    for (const connection of this.#connections.values()) this.#connected(connection);
  }

  #freeze(durationUs: number): void {
    const untilUs = this.#loop.nowUs + durationUs;
    this.#frozenUntilUs = Math.max(this.#frozenUntilUs, untilUs);
    this.#loop.at(untilUs, () => this.#thaw());
  }

  #thaw(): void {
    if (this.#loop.nowUs < this.#frozenUntilUs) return;
    for (const request of this.#queue.splice(0)) this.#apply(request);
  }

  #restart(): void {
    this.#loop.trace("nats-restart", this.site);
    this.#downUntilUs = this.#loop.nowUs + RESTART_US;
    this.#frozenUntilUs = 0;
    // A request of which the server had read the last byte counts, whatever it could still answer.
    const pending = [...this.#queue.splice(0), ...this.#underWay];
    for (const connection of this.#connections.values()) {
      connection.connected = false;
      connection.drops++;
    }
    for (const request of pending) {
      if (this.#random.float() < 0.5) this.#apply(request);
      else request.done = true;
    }
    this.#underWay.clear();
    for (const connection of this.#connections.values()) this.#reconnect(connection);
  }

  #reconnect(connection: Connection): void {
    const { drops } = connection;
    const afterUs = Math.max(0, this.#downUntilUs - this.#loop.nowUs) + this.#random.float() * RECONNECT_US;
    this.#loop.at(this.#loop.nowUs + Math.ceil(afterUs), () => {
      if (connection.drops === drops) this.#connected(connection);
    });
  }

  #connected(connection: Connection): void {
    if (!connection.alive || connection.connected) return;
    connection.connected = true;
    for (const send of connection.unsent.splice(0)) send();
    for (const watcher of connection.watchers) this.#subscribe(connection, watcher);
  }

  #linkOf(connection: Connection): Link {
    return {
      isAlive: () => connection.alive,
      request: (what, changes, timeoutUs, apply, answer) => {
        this.#loop.trace("nats", connection.client, what);
        const lateFromUs = changes ? this.#loop.nowUs + timeoutUs : undefined;
        const send = (): void =>
          this.#send(connection, lateFromUs, () => {
            const outcome = settle(() => apply(this.#store));
            this.#toClient(connection, () => answer(outcome));
          });
        if (connection.connected) send();
        else connection.unsent.push(send);
      },
      watch: (watcher) => {
        connection.watchers.add(watcher);
        if (connection.connected) this.#subscribe(connection, watcher);
      },
      unwatch: (watcher) => {
        connection.watchers.delete(watcher);
      },
      close: () => this.disconnect(connection.client),
    };
  }

  /** @param lateFromUs For a request that changes something: when its client gives up */
  #send(connection: Connection, lateFromUs: number | undefined, apply: () => void): void {
    const request: Request = { apply, done: false };
    const late = lateFromUs === undefined ? undefined : this.#faults.draw("nats-late-apply", this.site);
    if (lateFromUs !== undefined && late !== undefined) {
      // Not of this connection any more: what is late waits somewhere behind it, and survives it.
      const lateUs = lateFromUs + Math.ceil(late.size * FAULT_TABLE["nats-late-apply"].scale * 1000);
      this.#loop.at(lateUs, () => this.#arrived(request));
      return;
    }
    this.#underWay.add(request);
    connection.toServerUs = Math.max(connection.toServerUs + 1, this.#loop.nowUs + this.#latencyUs());
    this.#loop.at(connection.toServerUs, () => {
      this.#underWay.delete(request);
      this.#arrived(request);
    });
  }

  #arrived(request: Request): void {
    if (this.#loop.nowUs < this.#downUntilUs && !request.done) {
      this.#loop.at(this.#downUntilUs, () => this.#arrived(request));
    } else if (this.#loop.nowUs < this.#frozenUntilUs) this.#queue.push(request);
    else this.#apply(request);
  }

  #apply(request: Request): void {
    if (request.done) return;
    request.done = true;
    request.apply();
  }

  #toClient(connection: Connection, deliver: () => void): void {
    const { drops } = connection;
    if (!connection.connected) return;
    connection.toClientUs = Math.max(connection.toClientUs + 1, this.#loop.nowUs + this.#latencyUs());
    connection.loop.at(connection.toClientUs, () => {
      if (connection.alive && connection.drops === drops) deliver();
    });
  }

  /** Sends a watcher what it has not seen yet; what changes from then on follows. */
  #subscribe(connection: Connection, watcher: Watcher): void {
    const { drops } = connection;
    this.#send(connection, undefined, () => {
      if (!connection.watchers.has(watcher) || connection.drops !== drops) return;
      watcher.subscription = drops;
      for (const entry of this.#store.changesAfter(watcher.bucket, watcher.revision)) {
        this.#tell(connection, watcher, entry);
      }
    });
  }

  #changed(bucket: string, entry: KeyEntry): void {
    for (const connection of this.#connections.values()) {
      for (const watcher of connection.watchers) {
        if (watcher.bucket === bucket && watcher.subscription === connection.drops)
          this.#tell(connection, watcher, entry);
      }
    }
  }

  #tell(connection: Connection, watcher: Watcher, entry: KeyEntry): void {
    if (entry.key.startsWith(watcher.prefix)) this.#toClient(connection, () => watcher.take(entry));
  }

  #latencyUs(): number {
    const tail = this.#random.float() * TAIL.oneIn < 1 ? TAIL.factor : 1;
    return Math.ceil(LATENCY_US * (0.5 + this.#random.float()) * tail);
  }
}

/** Runs a function now, and gives what returns or throws as it did. */
function settle<T>(run: () => T): () => T {
  try {
    const value = run();
    return () => value;
  } catch (error) {
    return () => {
      throw error;
    };
  }
}
