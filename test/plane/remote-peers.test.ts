/** Who is given new bridges to the shards of other nodes, and when. */
import { expect, test } from "vitest";
import type { ControlClient } from "../../src/plane/control-types.ts";
import type { NodeLinks, RemoteShardEvent } from "../../src/plane/node-links.ts";
import { RemotePeers } from "../../src/plane/remote-peers.ts";
import { firstShardIncarnation } from "../../src/topology/member.ts";

const BRIDGE = { requestCapacityBytes: 4_096, replyCapacityBytes: 4_096 };

function bed() {
  const told: string[] = [];
  let tellShard: (event: RemoteShardEvent) => void = () => undefined;
  let incarnation = 0;
  const links = {
    clients: [],
    shards: [1],
    block: new SharedArrayBuffer(1_024),
    onShard: (listener: typeof tellShard) => {
      tellShard = listener;
    },
    onDamaged: () => undefined,
    serve: () => undefined,
    incarnationOf: () => incarnation,
  } as unknown as NodeLinks;
  const client = { name: "main", attach: () => told.push("client") } as unknown as ControlClient;
  const worker = {
    shard: 0,
    block: new SharedArrayBuffer(1_024),
    tell: (peer: { readonly incarnation: number }) => void told.push(`worker ${peer.incarnation}`),
  };
  new RemotePeers({ links, bridge: BRIDGE, mesh: BRIDGE }, { clients: () => [client], workers: () => [worker] });
  return (of: number, state: RemoteShardEvent["state"] = "up"): string[] => {
    incarnation = of;
    tellShard({ shard: 1, incarnation, state });
    return told.splice(0);
  };
}

test("the first worker of a remote shard that is heard of has the first bridges; a later one gets new ones", () => {
  const hear = bed();
  expect(hear(1, "lost")).toEqual([]);
  expect(hear(1)).toEqual([]);
  expect(hear(1)).toEqual([]);
  expect(hear(2)).toEqual(["client", "worker 2"]);
  expect(hear(1)).toEqual([]);
});

test("workers are told of the first one of a node that had a life before, as it may have forgotten what it held", () => {
  const hear = bed();
  const first = firstShardIncarnation(2);
  expect(hear(first)).toEqual([`worker ${first}`]);
  expect(hear(first)).toEqual([]);
  expect(hear(first + 1)).toEqual(["client", `worker ${first + 1}`]);
});
