/**
 * The vshards that come to a primary: which of those that are its own by the map it has not got in their present term, and their way here.
 *
 * Invariant: a vshard is on its way from the moment at which a map is known that makes it this shard's until it is filled, or a map is known that gives
 * it to another one.
 */
import { ShardloomError } from "../../src/errors.ts";
import { baseLsnOf, nodeIncarnationOf } from "../../src/topology/member.ts";
import { MEMBER_STATE, NO_SHARD, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import type { CopiesOptions, OwnCopy } from "./copies-options.ts";
import { Refill } from "./refill.ts";
import type { ReplicaLinkOptions } from "./replica-link-options.ts";
import type { ReplicaSource } from "./replica-messages.ts";

/** What arrivals need. */
export interface ArrivalsOptions
  extends CopiesOptions,
    Pick<ReplicaLinkOptions, "clock" | "scheduler" | "requestTimeoutMs" | "requester"> {
  /** What this shard has of a vshard that it becomes the primary of. @default what the replica table says */
  readonly own?: (vshard: number) => OwnCopy;
}

/** What they tell. */
export interface ArrivalEvents {
  /** What this shard served of a vshard was in a term that is over. */
  readonly onLeft: (vshard: number) => void;
  readonly onFilled: (vshard: number, lsn: number, exact: boolean) => void;
}

export class Arrivals {
  readonly #options: ArrivalsOptions;
  readonly #events: ArrivalEvents;
  readonly #refill: Refill;
  /** For which terms, and from which peers, vshards are on their way. */
  readonly #wanted: Map<number, string> = new Map();
  /** Peers whose worker was replaced in this worker's life. */
  readonly #replaced: Set<number> = new Set();

  constructor(options: ArrivalsOptions, source: ReplicaSource, events: ArrivalEvents) {
    const { shard, table, topology, log, incarnation } = options;
    this.#options = options;
    this.#events = events;
    // What is sure of a local copy is what a primary of this life has brought level: its head is known, and was above all lives before.
    const isUnsure = (vshard: number, peer: number, lsn: number): boolean => {
      const head = table.recoverHead(vshard);
      return (peer < 0 || !table.isRemote(peer)) && (head === 0 || lsn < baseLsnOf(head));
    };
    this.#refill = new Refill({
      ...options,
      source,
      vshards: new Map(),
      onFilling: (vshard) => table.publishSyncing(vshard, shard, table.floorLsn(vshard, shard)),
      onFilled: events.onFilled,
      ...(log === undefined || nodeIncarnationOf(incarnation) === 1 ? {} : { isUnsure }),
      isRemote: (peer) => table.isRemote(peer),
      isGone: (peer) => topology.current().states[peer] === MEMBER_STATE.DOWN,
      isAway: (peer) => this.#replaced.has(peer) && topology.current().states[peer] === MEMBER_STATE.JOINING,
    });
  }

  /** Vshards that are on their way. */
  get left(): ReadonlySet<number> {
    return this.#refill.left;
  }

  start(): void {
    this.#refill.start();
  }

  ask(): void {
    this.#refill.ask();
  }

  peerAttached(peer: number): void {
    this.#replaced.add(peer);
    this.#refill.peerAttached(peer);
  }

  close(): void {
    this.#refill.close();
  }

  /** @throws {ShardloomError} `ERR_UNAVAILABLE` while a vshard is on its way. */
  assertHere(vshard: number): void {
    const { shard } = this.#options;
    if (!this.left.has(vshard)) return;
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot write as shard ${shard} gets its rows from copies first: vshard ${vshard} is not back yet`,
      { details: { shard, vshard, written: false } },
    );
  }

  /** Takes a map in: what is to come, and what is not to come any more. */
  want(snapshot: TopologySnapshot): void {
    const { shard, incarnation, table, own } = this.#options;
    if (snapshot.replicationFactor === 1) return;
    for (const vshard of [...this.left]) if (snapshot.owners[vshard] !== shard) this.#refill.drop(vshard);
    for (let vshard = 0; vshard < snapshot.vshards; vshard++) {
      const term = snapshot.terms[vshard] as number;
      if (snapshot.owners[vshard] !== shard || table.hasOwnHead(vshard)) continue;
      if (term === 1 && nodeIncarnationOf(incarnation) === 1) continue; // nobody had it before
      const peers = peersOf(snapshot, vshard);
      const wanted = `${term}: ${peers.join()}`; // one of them may be removed meanwhile
      if (this.left.has(vshard) && this.#wanted.get(vshard) === wanted) continue;
      this.#events.onLeft(vshard);
      this.#wanted.set(vshard, wanted);
      const found = own?.(vshard) ?? { lsn: table.floorLsn(vshard, shard), exact: false };
      this.#refill.add(vshard, { peers, own: found });
    }
  }
}

/** The shards that hold the other copies of a vshard. */
export function peersOf({ copies, replicationFactor }: TopologySnapshot, vshard: number): number[] {
  const list = copies.subarray(vshard * replicationFactor + 1, (vshard + 1) * replicationFactor);
  return [...list].filter((peer) => peer !== NO_SHARD);
}
