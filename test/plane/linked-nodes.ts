/**
 * Nodes for tests of links: real links, real bridges and real client planes in one thread, and shards that a test plays.
 *
 * Invariant: time is virtual, and moves only in `until`; what waits in `Atomics.waitAsync` is woken by real doorbells.
 */
import { type BridgeOptions, BridgeServer, createBridge } from "../../native-bridge/bridge.ts";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import type { ShardloomError } from "../../src/errors.ts";
import { ClientPlane } from "../../src/plane/client-plane.ts";
import { NodeLinks } from "../../src/plane/node-links.ts";
import type { ClusterNode } from "../../src/plane/node-members.ts";
import type { Payload, PendingRequest, RequestHeader } from "../../src/routing/requester.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createVirtualTime, type VirtualTime } from "../../src/runtime/scheduler.ts";
import { createSnapshot, type SnapshotOptions } from "../../src/topology/snapshot.ts";
import { LocalTopology } from "../../src/topology/topology-source.ts";
import type { NodeTransport } from "../../src/transport/transport.ts";
import { writeEnvelope } from "../../src/wire/envelope.ts";
import { ENVELOPE_BYTES, FLAG_ERROR, FLAG_REPLY } from "../../src/wire/envelope-layout.ts";
import { encodeError } from "../../src/wire/error-codec.ts";
import { VECTOR_GET } from "../../src/wire/message-types.ts";
import { MemoryNetwork } from "../support/memory-network.ts";

/** What a played shard was given. */
export interface Received {
  readonly type: number;
  readonly words: Int32Array;
  readonly payload: Uint8Array;
  readonly slot: number;
  readonly sequence: number;
}

/** A worker that a test plays: it answers with its payload, unless it is told to hold its answers. */
export class PlayedShard {
  readonly shard: number;
  readonly incarnation: number;
  readonly received: Received[] = [];
  readonly held: Received[] = [];
  hold = false;
  /** Takes nothing out of its ring. */
  asleep = false;
  readonly server: BridgeServer;
  readonly #memory = new SharedArrayBuffer(DOORBELL_BYTES);

  constructor(node: LinkedNode, shard: number, incarnation: number, bridge?: BridgeOptions) {
    this.shard = shard;
    this.incarnation = incarnation;
    const memory = createBridge(bridge);
    const [client] = node.links.clients;
    if (client === undefined) throw new Error("a node alone has no links");
    client.attach(shard, memory, this.#memory, incarnation);
    this.server = new BridgeServer(memory, new Doorbell(client.block));
  }

  serve(): void {
    if (this.asleep) return;
    this.server.drainRequests((type, offset, length, slot, sequence) => {
      const { i32, bytes } = this.server.requests;
      const received: Received = {
        type,
        words: i32.slice(offset >> 2, (offset + ENVELOPE_BYTES) >> 2),
        payload: bytes.slice(offset + ENVELOPE_BYTES, offset + length),
        slot,
        sequence,
      };
      this.received.push(received);
      if (slot < 0) return;
      if (this.hold) this.held.push(received);
      else this.answer(received, received.payload);
    }, 256);
    this.server.flush();
  }

  answer({ type, slot, sequence }: Received, payload: Uint8Array | ShardloomError): void {
    const failed = !(payload instanceof Uint8Array);
    const body = failed ? encodeError(payload) : payload;
    const { server, shard, incarnation } = this;
    server.claimReply(type, ENVELOPE_BYTES + body.length, slot, sequence);
    const flags = failed ? FLAG_REPLY | FLAG_ERROR : FLAG_REPLY;
    const origin = { node: 0, shard, incarnation };
    // biome-ignore format: one call
    writeEnvelope(server.replyI32, server.replyOffset, origin, type, flags, 1, sequence, 0, 0, 1, 7, 9, body.length);
    server.replyBytes.set(body, server.replyOffset + ENVELOPE_BYTES);
    server.commitReply();
    server.flush();
  }
}

/** What a node reaches the other by. */
interface LinkedNetwork {
  transport(name: string): NodeTransport;
}

/** Virtual, as a rule; real time between processes. */
type LinkedTime = Pick<VirtualTime, "clock" | "scheduler">;

/** A node with one asking thread, "main". */
export class LinkedNode {
  readonly links: NodeLinks;
  readonly plane: ClientPlane;
  readonly name: string;
  readonly topology: LocalTopology;
  /** Of the asking thread, by remote shard. */
  readonly bridges: Map<number, SharedArrayBuffer> = new Map();
  readonly #time: LinkedTime;

  constructor(network: LinkedNetwork, time: LinkedTime, options: NodeOptions) {
    const { name, members, incarnation = 1 } = options;
    const runtime = { clock: time.clock, scheduler: time.scheduler, random: createSeededRandom(7) };
    this.name = name;
    this.#time = time;
    this.topology = new LocalTopology(createSnapshot({ shards: 2, vshards: 16, ...options.snapshot }));
    const nodes = { self: name, incarnation, members, transport: network.transport(name) };
    this.links = new NodeLinks({ ...runtime, ...nodes, topology: this.topology });
    this.plane = new ClientPlane({ ...runtime, name: "main", topology: this.topology, spinLimitUs: 0 });
    for (const shard of this.links.shards) this.attach(shard, options.bridge);
  }

  /** Gives the asking thread a bridge to a remote shard, as the control plane does. */
  attach(shard: number, options?: BridgeOptions): void {
    const bridge = createBridge(options);
    this.bridges.set(shard, bridge);
    this.links.serve("main", shard, bridge, this.plane.block);
    this.plane.attach(shard, bridge, this.links.block);
  }

  ask(shard: number, bytes: Uint8Array, options: AskOptions = {}): Asked {
    const { type = VECTOR_GET, timeoutMs = 60_000, priority = 1, header } = options;
    const asked: Asked = { outcome: undefined, pending: undefined };
    const nowMs = this.#time.clock.nowMs();
    const sink = {
      onReply: (frame: { bytes: Uint8Array; offset: number; length: number }): void =>
        settle(asked, frame.bytes.slice(frame.offset, frame.offset + frame.length)),
      onFailure: (error: ShardloomError): void => settle(asked, error),
    };
    const requester = this.plane.requester(shard);
    asked.pending = requester.request(type, 3, priority, nowMs + timeoutMs, payload(bytes), sink, nowMs, header);
    return asked;
  }
}

export interface NodeOptions {
  readonly name: string;
  readonly members: readonly ClusterNode[];
  readonly incarnation?: number;
  readonly snapshot?: Partial<SnapshotOptions>;
  readonly bridge?: BridgeOptions;
}

export interface AskOptions {
  readonly type?: number;
  readonly timeoutMs?: number;
  readonly priority?: number;
  readonly header?: RequestHeader;
}

export interface Asked {
  outcome: Uint8Array | ShardloomError | undefined;
  pending: PendingRequest | undefined;
}

function settle(asked: Asked, outcome: Uint8Array | ShardloomError): void {
  if (asked.outcome !== undefined) throw new Error("a request ended twice");
  asked.outcome = outcome;
}

export function payload(bytes: Uint8Array): Payload {
  return { byteLength: bytes.length, write: (target, offset) => target.bytes.set(bytes, offset) };
}

/** Two nodes, "a" with shard 0 and "b" with shard 1, where "a" asks and shard 1 is played. */
export class Pair {
  readonly time: VirtualTime = createVirtualTime(1_000);
  readonly network: MemoryNetwork = new MemoryNetwork(this.time.scheduler);
  readonly members: readonly ClusterNode[] = [
    { name: "a", shards: [0] },
    { name: "b", shards: [1] },
  ];
  readonly a: LinkedNode;
  b: LinkedNode;
  shard: PlayedShard;

  constructor(
    options: {
      readonly a?: Partial<NodeOptions>;
      readonly b?: Partial<NodeOptions>;
      readonly bridge?: BridgeOptions;
    } = {},
  ) {
    this.a = this.node("a", options.a);
    this.b = this.node("b", options.b);
    this.shard = new PlayedShard(this.b, 1, 65_537, options.bridge);
  }

  node(name: string, options: Partial<NodeOptions> = {}): LinkedNode {
    return new LinkedNode(this.network, this.time, { name, members: this.members, ...options });
  }

  start(): this {
    this.a.links.start([]);
    this.b.links.start([]);
    return this;
  }

  /** Lets time pass, and the shard serve, until something holds. */
  async until(what: string, holds: () => boolean, limitMs = 20_000): Promise<void> {
    const endMs = this.time.clock.nowMs() + limitMs;
    while (!holds()) {
      if (this.time.clock.nowMs() > endMs) throw new Error(`${what} did not happen within ${limitMs} virtual ms`);
      await this.time.advance(1);
      await new Promise((resolve) => setImmediate(resolve));
      this.shard.serve();
    }
  }

  /** Until the node knows the shard of the other. */
  connected(): Promise<void> {
    return this.until("connecting", () => this.a.links.stats()[0]?.state === "up" && this.a.links.incarnationOf(1) > 0);
  }

  close(): void {
    for (const node of [this.a, this.b]) {
      node.plane.close();
      node.links.close();
    }
  }
}
