/**
 * The bridges between workers: one for each ordered pair, the first of which asks and the second of which serves.
 *
 * Invariant: no bridge outlives the worker at either end; a replacement gets new ones before it starts.
 */
import { type BridgeOptions, createBridge } from "../../native-bridge/bridge.ts";

/** Stands where a shard would talk to itself. */
const NO_BRIDGE: SharedArrayBuffer = new SharedArrayBuffer(0);

/** Bridges of all ordered pairs of shards. */
export class Mesh {
  readonly #options: BridgeOptions;
  readonly #bridges: SharedArrayBuffer[][];

  constructor(shards: number, options: BridgeOptions) {
    this.#options = options;
    this.#bridges = Array.from({ length: shards }, (_, from) =>
      Array.from({ length: shards }, (_unused, to) => this.#create(from, to)),
    );
  }

  /** The bridge on which `from` asks `to`. */
  bridge(from: number, to: number): SharedArrayBuffer {
    return (this.#bridges[from] as SharedArrayBuffer[])[to] as SharedArrayBuffer;
  }

  /** Makes new bridges between a shard and all others. */
  renew(shard: number): void {
    for (let peer = 0; peer < this.#bridges.length; peer++) {
      (this.#bridges[shard] as SharedArrayBuffer[])[peer] = this.#create(shard, peer);
      (this.#bridges[peer] as SharedArrayBuffer[])[shard] = this.#create(peer, shard);
    }
  }

  #create(from: number, to: number): SharedArrayBuffer {
    return from === to ? NO_BRIDGE : createBridge(this.#options);
  }
}
