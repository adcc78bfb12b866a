/**
 * A node in a process of its own, with two shards, whose memory its parent's node reads by message.
 *
 * Invariant: it says where it is reached once it serves, does what its parent says, one thing after the other, and ends with it.
 */
import { endWrite, tryBeginWrite } from "../../native-bridge/cell.ts";
import { realPlatform } from "../../src/cluster-workers.ts";
import { ACCESS, Cluster } from "../../src/index.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { Credentials } from "../../src/transport/session.ts";
import { createWireTransport } from "../../src/transport/wire-transport.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { transportOf } from "../transport/under-test.ts";
import { ACTOR_URLS, MEMORY_NODES, MEMORY_OPTIONS, type MemoryCommand, patternAt } from "./memory-nodes.ts";

let cluster: Cluster | undefined;
process.once("disconnect", () => process.exit(0));
process.on("message", (command: MemoryCommand) => {
  void act(command).then((answer) => process.send?.(answer));
});

async function act(command: MemoryCommand): Promise<object> {
  if (command.do === "start") return start(command.credentials);
  const { arena, regions } = cluster as Cluster;
  switch (command.do) {
    case "register": {
      const { byteLength, isCell } = command;
      const byteOffset = arena.allocate(byteLength);
      for (let at = isCell ? 32 : 0; at < byteLength; at++) arena.bytes[byteOffset + at] = patternAt(at);
      const cells = isCell ? { cellStrideBytes: byteLength } : {};
      return regions.register({ byteOffset, byteLength, access: ACCESS.READ, ...cells });
    }
    case "deregister":
      regions.deregister(command.ref);
      return {};
    case "write": {
      const { address, length } = command.ref;
      let value = 0;
      const write = (): void => {
        if (tryBeginWrite(arena.i32, address)) {
          arena.bytes.fill(++value & 0xff, address + 32, address + length);
          endWrite(arena.i32, address);
        }
        setTimeout(write, 2 ** (value % 8)); // some pauses are too short for a read, some are long enough on any machine
      };
      write();
      return {};
    }
  }
}

async function start(credentials: Credentials): Promise<object> {
  const [, { name: self }] = MEMORY_NODES;
  const transport = await createWireTransport({
    scheduler: systemScheduler,
    cluster: "test",
    self,
    transports: [transportOf("tls")],
    listen: [new URL("tls://127.0.0.1:0")],
    addressOf: () => undefined,
    credentials,
    identify: identifyTestNode,
  });
  const nodes = { self, incarnation: 1, members: MEMORY_NODES, transport };
  const options = { ...MEMORY_OPTIONS, workers: 2, actors: ACTOR_URLS };
  cluster = await Cluster.startOn({ platform: realPlatform(), nodes }, options);
  return { address: transport.addresses[0]?.href };
}
