/**
 * How far the copies on this node are, in versions, so that others can be told only what has changed.
 *
 * Heads are told of while the node's lease is good: after it others may be primaries, and their copies would be taken for level with what they have not.
 *
 * Invariant: the version grows with every change that `collect` finds; what is told of a version is what the table had when that was
 * collected, or something newer.
 */
import type { ToldSample } from "../topology/heartbeat-codec.ts";
import type { ReplicaTable } from "../topology/replica-table.ts";
import type { NodeTopology } from "./node-topology.ts";

interface OwnCopy {
  /** Place in the map's list of copies. */
  readonly index: number;
  readonly vshard: number;
  readonly shard: number;
  readonly primary: boolean;
  lsn: number;
  /** Version in which it changed last; 0: it was never known. */
  changedIn: number;
}

export class OwnSamples {
  readonly #topology: NodeTopology;
  readonly #table: ReplicaTable;
  readonly #isServing: (shard: number) => boolean;
  #copies: readonly OwnCopy[] = [];
  #mapEpoch = -1;
  #version = 0;

  /** @param isServing Whether a shard of this node is still the primary of what the map says. */
  constructor(topology: NodeTopology, table: ReplicaTable, isServing: (shard: number) => boolean) {
    this.#topology = topology;
    this.#table = table;
    this.#isServing = isServing;
  }

  /** Looks at all copies. Cost: O(copies on this node). @returns the version of what it found */
  collect(): number {
    this.#refresh();
    const next = this.#version + 1;
    for (const copy of this.#copies) {
      const { vshard, shard } = copy;
      const lsn = copy.primary ? this.#headOf(vshard, shard) : this.#table.appliedLsn(vshard, shard);
      if (lsn === copy.lsn) continue;
      copy.lsn = lsn;
      copy.changedIn = next;
      this.#version = next;
    }
    return this.#version;
  }

  /** What has changed after a version, up to the one that was collected last. */
  changedSince(version: number): ToldSample[] {
    return this.#copies.flatMap(({ index, lsn, changedIn }) => (changedIn > version ? [{ index, lsn }] : []));
  }

  /** The head first: what was a primary's when it was read still is after it, or not known to be. */
  #headOf(vshard: number, shard: number): number {
    const head = this.#table.ownHead(vshard);
    return this.#isServing(shard) ? head : -1;
  }

  #refresh(): void {
    const { mapEpoch, copies, replicationFactor } = this.#topology.current;
    if (mapEpoch === this.#mapEpoch) return;
    this.#mapEpoch = mapEpoch;
    const own = new Set(this.#topology.ownShards);
    this.#version++;
    this.#copies = [...copies].flatMap((shard, index): OwnCopy[] => {
      if (!own.has(shard) || replicationFactor === 1) return [];
      const vshard = Math.floor(index / replicationFactor);
      return [{ index, vshard, shard, primary: index % replicationFactor === 0, lsn: -1, changedIn: 0 }];
    });
  }
}
