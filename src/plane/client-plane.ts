/**
 * One client thread's side of the data plane: a requester per shard, one reply pump, one doorbell.
 *
 * Invariant: `requester(shard)` always gives the requester of the shard's current worker; when a worker is lost, its
 * requester has failed everything it held before the next one takes its place.
 */
import { BridgeClient } from "../../native-bridge/bridge.ts";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { AdaptiveSpin } from "../../native-bridge/idle-strategy.ts";
import { ShardloomError } from "../errors.ts";
import { ReplyPump } from "../routing/reply-pump.ts";
import { Requester } from "../routing/requester.ts";
import { createRequesterStats, type RequesterStats } from "../routing/requester-stats.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { TopologySource } from "../topology/topology-source.ts";
import type { EnvelopeOrigin } from "../wire/envelope.ts";
import { decodeErrorAt } from "../wire/error-codec.ts";

/** Shard number that a client thread sends under: no shard. */
export const CLIENT_SHARD = 0xffff;

/** What a client plane needs from its thread. */
export interface ClientPlaneOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly topology: TopologySource;
  /** Longest spin for a reply before the thread parks, microseconds. */
  readonly spinLimitUs: number;
  /** The thread's doorbell, when another thread has made it. @default a new one */
  readonly block?: SharedArrayBuffer;
}

/** The requesters of one client thread. */
export class ClientPlane {
  readonly name: string;
  readonly block: SharedArrayBuffer;
  readonly #options: ClientPlaneOptions;
  readonly #pump: ReplyPump;
  /** By shard; another node's client has none for the shards of others. */
  readonly #requesters: (Requester | undefined)[] = [];
  /** Sums of requesters that are gone. */
  readonly #past: RequesterStats = createRequesterStats();
  readonly #origin: EnvelopeOrigin;
  #closed: ShardloomError | undefined;
  #onDamaged: (shard: number) => void = () => undefined;

  constructor(options: ClientPlaneOptions) {
    const { clock, scheduler, spinLimitUs } = options;
    this.name = options.name;
    this.block = options.block ?? new SharedArrayBuffer(DOORBELL_BYTES);
    this.#options = options;
    this.#origin = { node: 0, shard: CLIENT_SHARD, incarnation: 1 };
    const spin = new AdaptiveSpin({ nowUs: () => clock.nowUs(), maxSpinUs: spinLimitUs });
    this.#pump = new ReplyPump({ clock, scheduler, bell: new Doorbell(this.block), spin });
  }

  /** The requester of the shard's current worker. */
  requester(shard: number): Requester {
    if (this.#closed !== undefined) throw this.#closed;
    return this.#requesters[shard] as Requester;
  }

  /** Connects to the worker that serves, or is about to serve, a shard. */
  attach(shard: number, bridge: SharedArrayBuffer, block: SharedArrayBuffer): void {
    const previous = this.#requesters[shard];
    if (previous !== undefined)
      this.lose(
        shard,
        new ShardloomError("ERR_WORKER_LOST", `Cannot finish request as the worker of shard ${shard} was replaced`),
      );
    const { clock, topology } = this.#options;
    const client = new BridgeClient(bridge, new Doorbell(block), { nowUs: () => clock.nowUs() });
    const requester: Requester = new Requester(client, {
      clock,
      origin: this.#origin,
      targetShard: shard,
      topology,
      decodeError: decodeErrorAt,
      onDirty: this.#pump.kick,
      onDamaged: () => this.#damaged(shard, requester),
    });
    this.#requesters[shard] = requester;
    this.#pump.add(requester);
  }

  /** Fails what the shard's worker held; requests that follow fail too, until `attach` brings the next worker. */
  lose(shard: number, error: ShardloomError): void {
    const requester = this.#requesters[shard];
    if (requester === undefined || requester.lost) return;
    this.#pump.remove(requester);
    requester.fail(error);
    addStats(this.#past, requester.stats);
  }

  /** Who gives this thread another bridge to a shard when a record of its bridge is damaged. */
  watch(onDamaged: (shard: number) => void): void {
    this.#onDamaged = onDamaged;
  }

  #damaged(shard: number, requester: Requester): void {
    if (this.#requesters[shard] !== requester || requester.lost) return;
    this.lose(
      shard,
      new ShardloomError("ERR_WORKER_LOST", `Cannot finish request as the answers of shard ${shard} are damaged`, {
        details: { shard, reason: "ERR_CORRUPT" },
      }),
    );
    this.#options.scheduler.defer(() => this.#onDamaged(shard));
  }

  /** Sums of all requesters that this thread has had. */
  stats(): RequesterStats {
    const sum = { ...this.#past };
    for (const requester of this.#requesters) if (requester?.lost === false) addStats(sum, requester.stats);
    return sum;
  }

  /** Fails what is open and refuses what comes. */
  close(): void {
    if (this.#closed !== undefined) return;
    this.#closed = new ShardloomError("ERR_CLOSED", "Cannot send request as the cluster is closed");
    for (const requester of this.#requesters) requester?.fail(this.#closed);
    this.#pump.close();
  }
}

function addStats(sum: RequesterStats, stats: RequesterStats): void {
  for (const key of Object.keys(sum) as (keyof RequesterStats)[]) sum[key] += stats[key];
}
