/**
 * A node in a process of its own that others reach over a network: either links and a shard that gives back what it is given, or a whole node with
 * actors.
 *
 * Invariant: it says where it is reached once it listens, answers what its parent asks, and ends with it.
 */
import { realPlatform } from "../../src/cluster-workers.ts";
import { Cluster } from "../../src/index.ts";
import type { ClusterNode } from "../../src/plane/node-members.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { Credentials } from "../../src/transport/session.ts";
import { createWireTransport } from "../../src/transport/wire-transport.ts";
import { LinkedNode, PlayedShard } from "../plane/linked-nodes.ts";
import { ACTORS_URL } from "../support/cluster.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { transportOf } from "./under-test.ts";

/** What the parent says first. */
export interface LinkedOptions {
  readonly scheme: "tls" | "https";
  readonly self: string;
  readonly members: readonly ClusterNode[];
  readonly credentials: Credentials;
  /** A shard that is played, or a node with a worker. */
  readonly kind: "echo" | "node";
}

/** What a played shard was given: type and checksum of each message, in order. */
export interface EchoReport {
  readonly received: readonly (readonly [type: number, checksum: number])[];
}

/** Nodes that a whole node is connected to. */
export interface NodeReport {
  readonly up: number;
}

process.once("disconnect", () => process.exit(0));
process.once("message", (options: LinkedOptions) => {
  void run(options);
});

async function run({ scheme, self, members, credentials, kind }: LinkedOptions): Promise<void> {
  const transport = await createWireTransport({
    scheduler: systemScheduler,
    cluster: "test",
    self,
    transports: [transportOf(scheme)],
    listen: [new URL(`${scheme}://127.0.0.1:0`)],
    addressOf: () => undefined,
    credentials,
    identify: identifyTestNode,
  });
  const say = (message: object): void => void process.send?.(message);
  const address = transport.addresses[0]?.href;
  if (kind === "echo") {
    const node = new LinkedNode(
      { transport: () => transport },
      { clock: systemClock, scheduler: systemScheduler },
      { name: self, members },
    );
    const shard = new PlayedShard(node, 1, 65_537);
    setInterval(() => shard.serve(), 1);
    process.on("message", (asked: "hold" | "report") => {
      if (asked === "hold") shard.hold = true;
      const received = shard.received.map(({ type, payload }) => [type, crc32(payload)] as const);
      say({ received } satisfies EchoReport);
    });
    node.links.start([]);
    return say({ address });
  }
  const nodes = { self, incarnation: 1, members, transport };
  const options = { workers: 1, vshards: 16, memoryBytes: 64 * 1024 * 1024, actors: [ACTORS_URL] };
  const cluster = await Cluster.startOn({ platform: realPlatform(), nodes }, options);
  process.on("message", () => {
    say({ up: cluster.linkStats().filter(({ state }) => state === "up").length } satisfies NodeReport);
  });
  say({ address, actors: (await cluster.port()).actors });
}
