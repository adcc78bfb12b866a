/**
 * Where a thread gets the newest topology snapshot from: a block of shared memory on one host, or what it was told.
 *
 * Invariant: `current()` never gives an older epoch than it gave before. The shared block has one writer (the control plane);
 * readers copy it under its version word and try again when it changed meanwhile, so no reader sees half a map.
 */
import { invalidArgument } from "../errors.ts";
import { decodeSnapshot, encodeSnapshot, snapshotBytes, type TopologySnapshot } from "./snapshot.ts";

/** The newest snapshot that a thread knows. */
export interface TopologySource {
  /** Cost: one atomic load while nothing changed. */
  current(): TopologySnapshot;
  /** Takes a snapshot that came with an answer, when it is newer than what this thread knows. */
  learn(snapshot: TopologySnapshot): void;
}

const VERSION = 0;
const EPOCH = 1;
const LENGTH = 2;
const HEADER_BYTES = 16;
/** Looks at a block that is being written before an older snapshot is used meanwhile. */
const PATIENCE = 1_000;

/** Creates the block that holds snapshots of this shape, with the first one in it. */
export function createTopologyBlock(first: TopologySnapshot): SharedArrayBuffer {
  const block = new SharedArrayBuffer(HEADER_BYTES + snapshotBytes(first));
  new SharedTopology(block, first).publish(first);
  return block;
}

/** The topology of one host, in memory that all its threads share. */
export class SharedTopology implements TopologySource {
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  #snapshot: TopologySnapshot | undefined;

  /** @param first What this thread knows already. @default nothing: the block is read at once */
  constructor(block: SharedArrayBuffer, first?: TopologySnapshot) {
    this.#words = new Int32Array(block, 0, HEADER_BYTES >> 2);
    this.#bytes = new Uint8Array(block, HEADER_BYTES);
    this.#snapshot = first;
  }

  current(): TopologySnapshot {
    const known = this.#snapshot;
    // Acquires: bytes of an epoch are stored before the epoch.
    if (known !== undefined && known.topologyEpoch >= Atomics.load(this.#words, EPOCH)) return known;
    const newest = this.#read();
    this.#snapshot = newest;
    return newest;
  }

  learn(snapshot: TopologySnapshot): void {
    if (snapshot.topologyEpoch > this.current().topologyEpoch) this.#snapshot = snapshot;
  }

  /** Makes a snapshot the current one of all threads. Only the control plane calls this. */
  publish(snapshot: TopologySnapshot): void {
    const newest = Atomics.load(this.#words, EPOCH);
    if (snapshot.topologyEpoch < newest)
      throw invalidArgument("publish topology", "topologyEpoch", `at least ${newest}`, snapshot.topologyEpoch);
    const bytes = encodeSnapshot(snapshot);
    if (bytes.length > this.#bytes.length)
      throw invalidArgument("publish topology", "snapshot", `of at most ${this.#bytes.length} bytes`, bytes.length);
    Atomics.add(this.#words, VERSION, 1); // odd: being written
    this.#bytes.set(bytes);
    this.#words[LENGTH] = bytes.length;
    Atomics.store(this.#words, EPOCH, snapshot.topologyEpoch);
    Atomics.add(this.#words, VERSION, 1);
    this.#snapshot = snapshot;
  }

  #read(): TopologySnapshot {
    for (let tries = 1; ; tries++) {
      const version = Atomics.load(this.#words, VERSION);
      const bytes = this.#bytes.slice(0, this.#words[LENGTH]);
      // A read-modify-write: the loads of the bytes cannot come after it, on any processor.
      if ((version & 1) === 0 && Atomics.add(this.#words, VERSION, 0) === version) return decodeSnapshot(bytes);
      // The writer has been put aside in the middle: what this thread knows is good until it is done.
      if (tries >= PATIENCE && this.#snapshot !== undefined) return this.#snapshot;
    }
  }
}

/** The topology that one thread was told: for tests, remote clients and simulated nodes. */
export class LocalTopology implements TopologySource {
  #snapshot: TopologySnapshot;

  constructor(snapshot: TopologySnapshot) {
    this.#snapshot = snapshot;
  }

  current(): TopologySnapshot {
    return this.#snapshot;
  }

  learn(snapshot: TopologySnapshot): void {
    if (snapshot.topologyEpoch > this.#snapshot.topologyEpoch) this.#snapshot = snapshot;
  }
}
