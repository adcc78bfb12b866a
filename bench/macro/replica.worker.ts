/** One shard of a `ReplicaStage`: takes one request at a time, sleeps as long as it says, answers, and counts. */
import { workerData } from "node:worker_threads";
import { BridgeServer } from "../../native-bridge/bridge.ts";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { writeEnvelope } from "../../src/wire/envelope.ts";
import { ENVELOPE_BYTES, FLAG_REPLY } from "../../src/wire/envelope-layout.ts";
import type { ReplicaMemory } from "./replica-stage.ts";

const { shard, bridge, block, client, control } = workerData as ReplicaMemory;
const words = new Int32Array(control);
const bell = new Doorbell(block);
const server = new BridgeServer(bridge, new Doorbell(client));
const { i32 } = server.requests;
const origin = { node: 0, shard, incarnation: 1 };
const nobody = new Int32Array(new SharedArrayBuffer(4));

function onRequest(type: number, offset: number, _length: number, slot: number, sequence: number): void {
  const at = (offset + ENVELOPE_BYTES) >> 2;
  const serviceUs = i32[at] as number;
  const count = i32[at + 1] as number;
  const vshards = i32.slice(at + 2, at + 2 + count);
  Atomics.wait(nobody, 0, 0, serviceUs / 1000);
  Atomics.add(words, 1 + shard, 1);
  const length = 8 + 4 * count;
  server.claimReply(type, ENVELOPE_BYTES + length, slot, sequence);
  const { replyOffset, replyI32 } = server;
  writeEnvelope(replyI32, replyOffset, origin, type, FLAG_REPLY, 1, sequence, 0, 0, 1, serviceUs, 0, length);
  const reply = (replyOffset + ENVELOPE_BYTES) >> 2;
  replyI32[reply] = shard;
  replyI32[reply + 1] = count;
  replyI32.set(vshards, reply + 2);
  server.commitReply();
}

while (Atomics.load(words, 0) === 0) {
  const handled = server.drainRequests(onRequest, 1);
  server.flush();
  if (handled > 0) continue;
  const ticket = bell.prepareWait();
  if (server.requests.isEmpty()) bell.wait(ticket, 100);
  else bell.cancelWait();
}
