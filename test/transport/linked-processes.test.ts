/** What nodes in two processes say to each other: messages of every type, there and back; and many clients of one node at once. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { ActorRouter, type ActorTable } from "../../actors/actor-router.ts";
import { createBridge } from "../../native-bridge/bridge.ts";
import { createActorRef } from "../../src/actor/actor-ref.ts";
import { ClientThread } from "../../src/client-thread.ts";
import { callDefaults, resolveClusterOptions } from "../../src/cluster-options.ts";
import { ShardloomError } from "../../src/errors.ts";
import { CollectionExchange } from "../../src/plane/collection-exchange.ts";
import type { ClusterNode } from "../../src/plane/node-members.ts";
import { crc32 } from "../../src/runtime/checksum.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRuntime } from "../../src/runtime/runtime.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createReplicaBlock } from "../../src/topology/replica-table.ts";
import { createWireTransport, type WireTransport } from "../../src/transport/wire-transport.ts";
import { ACTOR_ASK, MESSAGE_TYPES, RUNTIME_CANCEL } from "../../src/wire/message-types.ts";
import { createValueCodec } from "../../src/wire/value-codec.ts";
import { type Asked, LinkedNode, payload } from "../plane/linked-nodes.ts";
import { counter } from "../support/actors.ts";
import { eventually } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import type { EchoReport, LinkedOptions, NodeReport } from "./linked.child.ts";
import { patterned } from "./parties.ts";
import { transportOf } from "./under-test.ts";

const CHILD = fileURLToPath(new URL("./linked.child.js", import.meta.url));
const LONG = process.env["SHARDLOOM_LONG"] === "1";

interface Listening {
  readonly address: string;
  readonly actors?: ActorTable;
}

let authority: TestAuthority;
let child: ChildProcess | undefined;
const open: { close(): void }[] = [];
beforeAll(async () => {
  authority = await TestAuthority.create();
});
afterEach(() => {
  for (const each of open.splice(0)) each.close();
  child?.kill("SIGKILL");
});

/** The next thing that the other process says. */
function said<T>(): Promise<T> {
  return new Promise((resolve) => child?.once("message", (message) => resolve(message as T)));
}

async function start(options: Pick<LinkedOptions, "scheme" | "members" | "kind">): Promise<Listening> {
  child = fork(CHILD, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const listening = said<Listening>();
  child.send({ ...options, self: "peer", credentials: await authority.issue("peer") } satisfies LinkedOptions);
  return listening;
}

async function networkOf(self: string, scheme: "tls" | "https", { address }: Listening): Promise<WireTransport> {
  return createWireTransport({
    scheduler: systemScheduler,
    cluster: "test",
    self,
    transports: [transportOf(scheme)],
    listen: [],
    addressOf: () => new URL(address),
    credentials: await authority.issue(self),
    identify: identifyTestNode,
  });
}

function linked(transport: WireTransport, name: string, members: readonly ClusterNode[]): LinkedNode {
  const time = { clock: systemClock, scheduler: systemScheduler };
  const snapshot = { shards: members.reduce((sum, { shards }) => sum + shards.length, 0) };
  const node = new LinkedNode({ transport: () => transport }, time, { name, members, snapshot });
  open.push(node.plane, node.links);
  return node;
}

describe.each(["tls", "https"] as const)("two processes over %s", (scheme) => {
  test("exchange messages of every type", async () => {
    const members: ClusterNode[] = [
      { name: "here", shards: [0] },
      { name: "peer", shards: [1] },
    ];
    const listening = await start({ scheme, members, kind: "echo" });
    const here = linked(await networkOf("here", scheme, listening), "here", members);
    here.links.start([]);
    const types = Object.values(MESSAGE_TYPES).filter(({ id }) => id !== RUNTIME_CANCEL);
    const bodies = types.map((_, at) => patterned(8 + ((at * 7_919) % 3_000), at));
    const asked = types.map(({ id, reply }, at): Asked | undefined => {
      const body = bodies[at] as Uint8Array;
      if (reply) return here.ask(1, body, { type: id });
      void here.plane.requester(1).tell(id, 3, 1, payload(body));
      return undefined;
    });
    await eventually(
      "all are answered",
      () => asked.every((each) => each === undefined || each.outcome !== undefined),
      30_000,
    );
    for (const [at, each] of asked.entries()) if (each !== undefined) expect(each.outcome).toEqual(bodies[at]);
    const report = said<EchoReport>();
    child?.send("hold");
    const expected = types.map(({ id }, at) => [id, crc32(bodies[at] as Uint8Array)]);
    expect((await report).received).toEqual(expected);
    // One that nobody waits for any more: the other process learns of that too.
    const left = here.ask(1, Uint8Array.of(1), { type: ACTOR_ASK });
    const received = async (type: number, count: number): Promise<boolean> => {
      const told = said<EchoReport>();
      child?.send("report");
      return (await told).received.filter(([of]) => of === type).length === count;
    };
    await eventually("it is asked", () => received(ACTOR_ASK, 2), 30_000);
    if (left.pending !== undefined)
      here.plane.requester(1).cancel(left.pending, new ShardloomError("ERR_ABORTED", "Cannot go on as it is given up"));
    await eventually("it is cancelled", () => received(RUNTIME_CANCEL, 1), 30_000);
  });
});

test.each(LONG ? (["tls", "https"] as const) : (["tls"] as const))(
  "64 clients ask one node at once over %s, and leave it as it was",
  async (scheme) => {
    const CLIENTS = 64;
    const AT_ONCE = 8;
    const ASKS = 25;
    const names = Array.from({ length: CLIENTS }, (_, at) => `client-${at}`);
    const members: ClusterNode[] = [{ name: "peer", shards: [0] }, ...names.map((name) => ({ name, shards: [] }))];
    const listening = await start({ scheme, members, kind: "node" });
    const table = listening.actors as ActorTable;
    const clients = await Promise.all(names.map((name) => clientOf(name, scheme, listening, members)));
    // A few at a time: a greeting has a limit that so many at once could miss on a busy machine.
    for (let from = 0; from < CLIENTS; from += AT_ONCE) {
      const some = clients.slice(from, from + AT_ONCE);
      for (const { links } of some) {
        new CollectionExchange(links, systemScheduler, { news: () => [], learn: () => Promise.resolve() });
        links.start(table);
      }
      await eventually("they are served", () => some.every(({ links }) => links.incarnationOf(0) > 0), 60_000);
    }
    const own = await Promise.all(
      clients.map(async ({ actor }, at) => {
        const counts: number[] = [];
        for (let ask = 0; ask < ASKS; ask++) {
          counts.push(await actor(`own-${at}`).add(1));
          if (ask % 5 === 0) await actor("shared").add(1);
        }
        return counts;
      }),
    );
    const inOrder = Array.from({ length: ASKS }, (_, ask) => ask + 1);
    for (const counts of own) expect(counts).toEqual(inOrder);
    const [first] = clients;
    expect(await first?.actor("shared").read()).toBe((CLIENTS * ASKS) / 5);
    const connected = async (): Promise<number> => {
      const report = said<NodeReport>();
      child?.send("report");
      return (await report).up;
    };
    expect(await connected()).toBe(CLIENTS);
    for (const { close } of clients.slice(1)) close();
    await eventually("the others are gone", async () => (await connected()) === 1, 60_000);
    expect(await first?.actor("own-63").read()).toBe(ASKS);
  },
  240_000,
);

/** A client that is a node without shards: all that a process of its own would have. */
async function clientOf(
  name: string,
  scheme: "tls" | "https",
  listening: Listening,
  members: readonly ClusterNode[],
): Promise<{ links: LinkedNode["links"]; close: () => void; actor: (key: string) => ReturnType<typeof refTo> }> {
  const both = members.filter((member) => member.name === "peer" || member.name === name);
  const { links, plane, topology } = linked(await networkOf(name, scheme, listening), name, both);
  const options = resolveClusterOptions({});
  const thread = new ClientThread({
    name: "client",
    runtime: systemRuntime,
    topology,
    replicas: createReplicaBlock(topology.current()),
    defaults: callDefaults(options),
    admission: options.admission,
    spinLimitUs: 0,
  });
  const bridge = createBridge({ requestCapacityBytes: 65_536, replyCapacityBytes: 65_536 });
  links.serve("client", 0, bridge, thread.block);
  thread.attach(0, bridge, links.block);
  open.unshift(thread);
  const router = new ActorRouter({
    coordinator: thread.coordinator,
    codec: createValueCodec(),
    table: listening.actors as ActorTable,
  });
  const close = (): void => {
    for (const each of [thread, plane, links]) each.close();
  };
  return { links, close, actor: (key) => refTo(router, key) };
}

function refTo(router: ActorRouter, key: string) {
  return createActorRef(counter, key, router);
}
