/**
 * The bridges between workers: one for each ordered pair, the first of which asks and the second of which serves.
 *
 * Invariant: no bridge outlives the worker at either end; a replacement gets new ones before it starts.
 */
import { type BridgeOptions, createBridge } from "../../native-bridge/bridge.ts";

/** Stands where a shard would talk to itself. */
const NO_BRIDGE: SharedArrayBuffer = new SharedArrayBuffer(0);

/** Bridges of all ordered pairs of a node's shards. */
export class Mesh {
  readonly #options: BridgeOptions;
  readonly #shards: readonly number[];
  /** By the asking and then by the answering shard. */
  readonly #bridges: Map<number, Map<number, SharedArrayBuffer>>;

  constructor(shards: readonly number[], options: BridgeOptions) {
    this.#options = options;
    this.#shards = shards;
    this.#bridges = new Map(shards.map((from) => [from, new Map(shards.map((to) => [to, this.#create(from, to)]))]));
  }

  /** The bridge on which `from` asks `to`. */
  bridge(from: number, to: number): SharedArrayBuffer {
    return this.#bridges.get(from)?.get(to) as SharedArrayBuffer;
  }

  /** Makes new bridges between a shard and all others. */
  renew(shard: number): void {
    for (const peer of this.#shards) {
      this.#bridges.get(shard)?.set(peer, this.#create(shard, peer));
      this.#bridges.get(peer)?.set(shard, this.#create(peer, shard));
    }
  }

  #create(from: number, to: number): SharedArrayBuffer {
    return from === to ? NO_BRIDGE : createBridge(this.#options);
  }
}
