/**
 * Heartbeats of one node: pings every other node over datagrams and takes from the answers that the node lives, in which states its
 * shards are, and how far the copies on it have come.
 *
 * A pong gives the time of its ping back. What it tells was true when it was sent, hence at some time after the ping was: the samples
 * go into the replica table as of then, on this node's clock. However long the network took, a sample is never taken for fresher
 * than it is, and no other node's clock is looked at.
 *
 * Only what has changed is sent: a ping says which version of the samples its sender has whole, and the pong what has changed since.
 * Whoever has a version whole knows of everything else that it is as it was.
 *
 * Invariant: what is damaged, of an older life or older than what was taken changes nothing; of a new life, nothing of the last counts.
 */
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import {
  decodeHeartbeat,
  encodePing,
  encodePong,
  type Ping,
  type Pong,
  pongRoom,
  SAMPLE_BYTES,
  SHARD_BYTES,
  type ToldSample,
  type ToldShard,
} from "../topology/heartbeat-codec.ts";
import { stateNumber } from "../topology/member.ts";
import type { ReplicaTable } from "../topology/replica-table.ts";
import { MEMBER_STATE_NAMES, type MemberStateName } from "../topology/snapshot.ts";
import type { NodeTopology } from "./node-topology.ts";
import { OwnSamples } from "./own-samples.ts";

/** What heartbeats need of the links to other nodes. */
export interface HeartbeatLinks {
  /** Sends without any promise; to a node that is not connected nothing is sent. */
  sendDatagram(peer: string, bytes: Uint8Array): void;
  onDatagram(listener: (peer: string, bytes: Uint8Array) => void): void;
  /** A node has told that a shard's worker serves or starts, or is gone for good. */
  onShard(
    listener: (event: { readonly shard: number; readonly incarnation: number; readonly state: "up" | "lost" }) => void,
  ): void;
  /** A connection to a node is open, or has gone. */
  onNode(
    listener: (event: { readonly peer: string; readonly incarnation: number; readonly state: "up" | "down" }) => void,
  ): void;
}

/** What heartbeats are made with. */
export interface NodeHeartbeatsOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly topology: NodeTopology;
  readonly table: ReplicaTable;
  readonly links: HeartbeatLinks;
  /** Whether a shard of this node is still the primary of what the map says, by the node's lease. */
  readonly isServing: (shard: number) => boolean;
  /** Of this node, as in {@link NodeTopologyOptions.nodes}. */
  readonly incarnation: number;
  /** Time between two pings. @default 200 */
  readonly intervalMs?: number;
  /** Longest datagram. @default 1200 */
  readonly maxDatagramBytes?: number;
}

/** Counters of one node's heartbeats; they only grow. */
export interface HeartbeatCounters {
  pings: number;
  /** Parts that were sent. */
  pongs: number;
  /** Parts that were taken. */
  taken: number;
  /** Damaged, out of date, or of nobody that is known. */
  dropped: number;
}

const INTERVAL_MS = 200;
const MAX_DATAGRAM_BYTES = 1_200;
/** Every so many pongs to a peer one tells everything. */
const FULL_EVERY = 50;

/** What is known of another node. */
interface Peer {
  readonly name: string;
  /** Datagrams sent to it. */
  sent: number;
  /** Pongs sent to it. */
  answered: number;
  /** Its life; what follows is of this one. */
  incarnation: number;
  /** Sequence of its last ping that was answered. */
  pinged: number;
  /** Ping of this node whose answer was taken last. */
  answers: number;
  /** Version of its samples that this node has whole. */
  whole: number;
  /** Parts of the answer that is being taken. */
  readonly parts: Set<number>;
  /** The map that `heads` are told by. */
  mapVersion: number;
  /** Heads of its vshards, by vshard. */
  readonly heads: Map<number, number>;
}

/** Sends and takes the heartbeats of one node. */
export class NodeHeartbeats {
  readonly counters: HeartbeatCounters = { pings: 0, pongs: 0, taken: 0, dropped: 0 };
  readonly #options: NodeHeartbeatsOptions;
  readonly #peers: Map<string, Peer> = new Map();
  readonly #own: OwnSamples;
  #timer: Timer | undefined;

  constructor(options: NodeHeartbeatsOptions) {
    this.#options = options;
    const { topology, table, links, isServing } = options;
    this.#own = new OwnSamples(topology, table, isServing);
    for (const { id, kind } of topology.membership.members)
      if (kind === "node" && id !== topology.self) this.#peers.set(id, newPeer(id));
    links.onDatagram((peer, bytes) => this.#onDatagram(peer, bytes));
    links.onShard(({ shard, incarnation, state }) => {
      // It may be starting: its own node tells next when it serves.
      if (state === "up") topology.shardTold(shard, incarnation, "joining");
      else topology.shardLost(shard, incarnation);
    });
    links.onNode(({ peer: name, incarnation, state }) => {
      const peer = this.#peers.get(name);
      if (peer === undefined) return;
      topology.nodeRestarted(name, incarnation);
      if (incarnation > peer.incarnation) this.#renew(peer, incarnation);
      if (state === "up" && this.#timer !== undefined) this.#ping(peer);
    });
  }

  /** Pings everybody now and then on. */
  start(): void {
    const { scheduler, intervalMs = INTERVAL_MS } = this.#options;
    for (const peer of this.#peers.values()) this.#ping(peer);
    this.#timer = scheduler.timer(intervalMs, () => this.start());
    this.#timer.unref();
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #ping(peer: Peer): void {
    const { clock, links, topology, incarnation } = this.#options;
    this.counters.pings++;
    const ping: Ping = {
      kind: "ping",
      name: topology.self,
      incarnation,
      sequence: ++peer.sent,
      t0: clock.nowMs(),
      have: peer.whole,
      haveOf: peer.incarnation,
    };
    links.sendDatagram(peer.name, encodePing(ping));
  }

  #onDatagram(from: string, bytes: Uint8Array): void {
    const peer = this.#peers.get(from);
    const heartbeat = decodeHeartbeat(bytes);
    if (peer === undefined || heartbeat === undefined || heartbeat.name !== from || !this.#isAlive(peer, heartbeat)) {
      this.counters.dropped++;
      return;
    }
    const taken = heartbeat.kind === "ping" ? this.#answer(peer, heartbeat) : this.#take(peer, heartbeat);
    if (taken) this.counters.taken++;
    else this.counters.dropped++;
  }

  /** Takes a sign of life. False when it is of a life that is over; one that was overtaken may be. */
  #isAlive(peer: Peer, { incarnation, sequence }: Ping | Pong): boolean {
    const { topology } = this.#options;
    if (incarnation < peer.incarnation) return false;
    topology.nodeHeard(peer.name, incarnation, sequence);
    if (incarnation > peer.incarnation) this.#renew(peer, incarnation);
    return topology.membership.get(peer.name)?.incarnation === incarnation;
  }

  /** Forgets what was known of a life that is over: its memory is gone. */
  #renew(peer: Peer, incarnation: number): void {
    const { topology, table } = this.#options;
    peer.incarnation = incarnation;
    peer.pinged = peer.answers = peer.whole = -1;
    peer.parts.clear();
    peer.heads.clear();
    const { copies, replicationFactor } = topology.current;
    for (const [index, shard] of copies.entries())
      if (this.#isOf(shard, peer)) table.publishUnknown(Math.floor(index / replicationFactor), shard);
  }

  #answer(peer: Peer, ping: Ping): boolean {
    const { topology, links, incarnation, maxDatagramBytes = MAX_DATAGRAM_BYTES } = this.#options;
    if (ping.sequence <= peer.pinged) return false; // it was answered, or a later one was
    peer.pinged = ping.sequence;
    const version = this.#own.collect();
    const full = ping.haveOf !== incarnation || ping.have > version || peer.answered++ % FULL_EVERY === 0;
    const base = full ? -1 : ping.have;
    const parts = packed(
      pongRoom(maxDatagramBytes, topology.self),
      this.#ownShards(),
      this.#own.changedSince(Math.max(0, base)),
    );
    for (const [part, { shards, samples }] of parts.entries()) {
      this.counters.pongs++;
      const pong: Pong = {
        kind: "pong",
        name: topology.self,
        incarnation,
        sequence: ++peer.sent,
        t0: ping.t0,
        answers: ping.sequence,
        answersOf: ping.incarnation,
        version,
        base,
        mapEpoch: topology.current.mapVersion,
        part,
        parts: parts.length,
        shards,
        samples,
      };
      links.sendDatagram(peer.name, encodePong(pong));
    }
    return true;
  }

  #ownShards(): ToldShard[] {
    const { topology } = this.#options;
    return topology.membership.members.flatMap((member) => {
      if (member.kind !== "shard" || member.node !== topology.self) return [];
      return [{ shard: member.shard, state: stateNumber(member.state), incarnation: member.incarnation }];
    });
  }

  #take(peer: Peer, pong: Pong): boolean {
    const { topology, clock, incarnation: life } = this.#options;
    const { answers, t0, version, base, parts } = pong;
    // The clock of a life before this one may have been another.
    if (pong.answersOf !== life || answers < peer.answers || answers > peer.sent || t0 > clock.nowMs()) return false;
    if (pong.mapEpoch !== topology.current.mapVersion) return false;
    if (pong.mapEpoch !== peer.mapVersion) peer.heads.clear(); // of what others are primaries of by now
    peer.mapVersion = pong.mapEpoch;
    if (answers > peer.answers) peer.parts.clear();
    peer.answers = answers;
    for (const { shard, state, incarnation } of pong.shards)
      if (this.#isOf(shard, peer)) topology.shardTold(shard, incarnation, MEMBER_STATE_NAMES[state] as MemberStateName);
    for (const sample of pong.samples) this.#store(peer, sample, t0);
    peer.parts.add(pong.part);
    if (peer.parts.size === parts && base <= peer.whole) {
      peer.whole = version;
      // What was not told has not changed: it is known as of now.
      for (const [vshard, head] of peer.heads) this.#options.table.publishSampledHead(vshard, head, t0);
    }
    return true;
  }

  #store(peer: Peer, { index, lsn }: ToldSample, asOfMs: number): void {
    const { topology, table } = this.#options;
    const { copies, replicationFactor } = topology.current;
    const shard = copies[index];
    if (shard === undefined || !this.#isOf(shard, peer)) return;
    const vshard = Math.floor(index / replicationFactor);
    if (index % replicationFactor !== 0) {
      if (lsn < 0) table.publishUnknown(vshard, shard);
      else table.publishApplied(vshard, shard, lsn, Number.NEGATIVE_INFINITY);
    } else if (lsn < 0) {
      peer.heads.delete(vshard);
    } else {
      peer.heads.set(vshard, lsn);
      table.publishSampledHead(vshard, lsn, asOfMs);
    }
  }

  #isOf(shard: number, peer: Peer): boolean {
    return this.#options.topology.memberOf(shard)?.node === peer.name;
  }
}

function newPeer(name: string): Peer {
  const unheard = { incarnation: 0, pinged: -1, answers: -1, whole: -1, mapVersion: -1 };
  return { name, sent: 0, answered: 0, ...unheard, parts: new Set(), heads: new Map() };
}

/** Distributes shards and samples over as few parts as they fit into; at least one, which may be empty. */
function packed(
  room: number,
  shards: readonly ToldShard[],
  samples: readonly ToldSample[],
): { shards: ToldShard[]; samples: ToldSample[] }[] {
  const parts: { shards: ToldShard[]; samples: ToldSample[] }[] = [{ shards: [], samples: [] }];
  let left = room;
  const part = (bytes: number): { shards: ToldShard[]; samples: ToldSample[] } => {
    if (bytes > left) {
      parts.push({ shards: [], samples: [] });
      left = room;
    }
    left -= bytes;
    return parts.at(-1) as { shards: ToldShard[]; samples: ToldSample[] };
  };
  for (const shard of shards) part(SHARD_BYTES).shards.push(shard);
  for (const sample of samples) part(SAMPLE_BYTES).samples.push(sample);
  return parts;
}
