/**
 * The map record of a cluster as one node knows it: read, changed by compare-and-set, taken from other nodes.
 *
 * Invariant: what is given to `onMap` was in the store, in rising versions, each once. A change that is in doubt is not given before it was seen there.
 */
import { ShardloomError } from "../errors.ts";
import { type ClusterMap, decodeMap, encodeMap, firstMap, MAP_KEY } from "../topology/cluster-map.ts";
import type { LeaseStore } from "../topology/lease-store.ts";

/** What a record is kept with. */
export interface MapRecordOptions {
  readonly store: LeaseStore;
  /** Unique among all lives of all nodes. */
  readonly writer: string;
  readonly timeoutMs: number;
  readonly onMap: (map: ClusterMap) => void;
}

/** Changes of others that one change may meet before it gives up. */
const MAX_TRIES = 32;

export class MapRecord {
  readonly #options: MapRecordOptions;
  #map: ClusterMap | undefined;
  #writes = 0;

  constructor(options: MapRecordOptions) {
    this.#options = options;
  }

  /** The newest that is known; undefined before the first was read. */
  get map(): ClusterMap | undefined {
    return this.#map;
  }

  /** Somebody else has read it. */
  learn(map: ClusterMap): void {
    if (this.#map !== undefined && map.version <= this.#map.version) return;
    this.#map = map;
    this.#options.onMap(map);
  }

  /** Reads what there is. @throws {ShardloomError} `ERR_TIMEOUT`, `ERR_CLOSED` */
  async refresh(): Promise<void> {
    const entry = await this.#options.store.get(MAP_KEY, this.#options.timeoutMs);
    if (entry !== undefined) this.learn(decodeMap(entry.value));
  }

  /**
   * Changes the record.
   *
   * @param change Makes the next record of the present one; undefined: there is nothing to change. It may be called several times.
   * @returns whether the record is as it is wanted
   * @throws {ShardloomError} `ERR_TIMEOUT`: in doubt; `ERR_CLOSED`.
   */
  async change(change: (map: ClusterMap) => ClusterMap | undefined): Promise<boolean> {
    const { store, timeoutMs, writer } = this.#options;
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const entry = await store.get(MAP_KEY, timeoutMs);
      const now = entry === undefined ? firstMap() : decodeMap(entry.value);
      this.learn(now);
      const next = change(now);
      if (next === undefined) return true;
      const written: ClusterMap = { ...next, writer: `${writer}/${++this.#writes}` };
      try {
        await store.put(MAP_KEY, encodeMap(written), entry?.revision ?? 0, timeoutMs);
      } catch (error) {
        if (ShardloomError.is(error) && error.code === "ERR_STALE_EPOCH") continue; // somebody else was first
        if (!(ShardloomError.is(error) && error.code === "ERR_TIMEOUT")) throw error;
        const found = await store.get(MAP_KEY, timeoutMs);
        const isOurs = found !== undefined && decodeMap(found.value).writer === written.writer;
        if (!isOurs) continue; // as it was, or another one's; it may yet come, from the same revision only
      }
      this.#adopt(written);
      return true;
    }
    return false;
  }

  #adopt(map: ClusterMap): void {
    if (this.#map !== undefined && map.version < this.#map.version) return;
    const isNew = map.version !== this.#map?.version;
    this.#map = map;
    if (isNew) this.#options.onMap(map);
  }
}
