/**
 * Whom a shard believes to be the primary of a vshard that it holds a copy of.
 *
 * Invariant: once a primary was heard in a map, nobody is believed who is primary in an older one. A shard that takes itself for the primary believes
 * nobody: it must hear of the newer map first, as until then it changes the rows itself.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { TopologySnapshot } from "../../src/topology/snapshot.ts";

export class Fences {
  readonly #shard: number;
  /** By vshard, the newest map in which a primary was heard, where it is newer than the one known here. */
  readonly #heard: Map<number, { readonly mapVersion: number; readonly shard: number }> = new Map();

  constructor(shard: number) {
    this.#shard = shard;
  }

  /** Whether a primary was heard in a newer map than this one. */
  isAhead(vshard: number, { mapVersion }: TopologySnapshot): boolean {
    return (this.#heard.get(vshard)?.mapVersion ?? 0) > mapVersion;
  }

  /**
   * A shard speaks as the primary in the newest map that it knows.
   *
   * @throws {ShardloomError} `ERR_STALE_EPOCH` when another one is, or it is not known here yet.
   */
  assertNewest(vshard: number, shard: number, mapVersion: number, snapshot: TopologySnapshot): void {
    const { owners, terms } = snapshot;
    const isNews = mapVersion > snapshot.mapVersion;
    if (isNews && owners[vshard] === this.#shard)
      throw refused(`its map must be known here: of version ${snapshot.mapVersion} at most`, mapVersion);
    if (!isNews && owners[vshard] !== shard)
      throw refused(`the primary of vshard ${vshard} must be its sender`, owners[vshard]);
    const term = terms[vshard] as number;
    if (!isNews && mapVersion < term) throw refused(`its map must be of version ${term} at least`, mapVersion);
    const heard = this.#heard.get(vshard);
    if (heard !== undefined && heard.mapVersion > mapVersion && heard.shard !== shard)
      throw refused(`its map must be of version ${heard.mapVersion} at least`, mapVersion);
    if (isNews) this.#heard.set(vshard, { mapVersion, shard });
    else if (heard !== undefined && heard.mapVersion <= snapshot.mapVersion) this.#heard.delete(vshard);
  }
}

/** Why a message of a primary is not taken. */
export function refused(rule: string, value: unknown): ShardloomError {
  return new ShardloomError("ERR_STALE_EPOCH", `Cannot replicate as ${rule}: current value is ${String(value)}`);
}
