/**
 * Snapshots whose every word follows from their epoch, so that a reader sees at once when two epochs were mixed.
 *
 * Invariant: snapshots of neighbouring epochs differ in nearly every word.
 */
import { createSnapshot, type TopologySnapshot } from "../../src/topology/snapshot.ts";

const SHARDS = 64;
const VSHARDS = 128;
const COPIES = 3;
/** Contents repeat after so many epochs, so that a publisher need not make each anew. */
const CONTENTS = 64;

const made: (TopologySnapshot | undefined)[] = [];

/** Cost: no more than a copy of ten words once every content has been asked for. */
export function snapshotOfEpoch(topologyEpoch: number): TopologySnapshot {
  const turn = topologyEpoch % CONTENTS;
  made[turn] ??= createSnapshot({
    shards: SHARDS,
    vshards: VSHARDS,
    replicationFactor: COPIES,
    copies: Uint16Array.from(
      { length: VSHARDS * COPIES },
      (_, at) => (Math.floor(at / COPIES) + (at % COPIES) + turn) % SHARDS,
    ),
    states: Uint8Array.from({ length: SHARDS }, (_, shard) => (shard + turn) % 6),
    zones: Uint16Array.from({ length: SHARDS }, (_, shard) => (shard + 251 * turn) & 0xffff),
  });
  return { ...made[turn], topologyEpoch };
}

/** Whether a snapshot is the whole one of its epoch, and of no other. */
export function isWhole(snapshot: TopologySnapshot): boolean {
  const { copies, states, zones } = snapshotOfEpoch(snapshot.topologyEpoch);
  return (
    copies.every((shard, at) => shard === snapshot.copies[at]) &&
    states.every((state, at) => state === snapshot.states[at]) &&
    zones.every((zone, at) => zone === snapshot.zones[at])
  );
}

/** What a test gives its publisher. */
export interface PublisherInput {
  readonly block: SharedArrayBuffer;
  /** Shape: `Int32Array[1]`: 1 when the reader has begun, 2 when it has seen enough. */
  readonly reader: SharedArrayBuffer;
}
