/** worker_threads entry point of the requester tests: answers one bridge as it is told, and blocks while its gate is shut. */
import { workerData } from "node:worker_threads";
import { BridgeServer } from "../../native-bridge/bridge.ts";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { ShardloomError } from "../../src/errors.ts";
import { writeEnvelope } from "../../src/wire/envelope.ts";
import { ENVELOPE_BYTES, FLAG_ERROR, FLAG_REPLY } from "../../src/wire/envelope-layout.ts";
import { encodeError } from "../../src/wire/error-codec.ts";
import { GATE, OP, type PeerMemory } from "./peer.ts";

const memory = workerData as PeerMemory;
const gate = new Int32Array(memory.gate);
const bell = new Doorbell(memory.block);
const server = new BridgeServer(memory.bridge, new Doorbell(memory.client));
const { i32 } = server.requests;
const origin = { node: 0, shard: 0, incarnation: 1 };
const held: { slot: number; sequence: number; value: number; atMs: number }[] = [];
let count = 0;
let last = -1;
let inOrder = 1;

function answer(slot: number, sequence: number, value: number, flags: number = FLAG_REPLY): void {
  const body = flags === FLAG_REPLY ? undefined : encodeError(new ShardloomError("ERR_INTERNAL", "refused on purpose"));
  const length = body === undefined ? 16 : body.length;
  server.claimReply(1, ENVELOPE_BYTES + length, slot, sequence);
  writeEnvelope(server.replyI32, server.replyOffset, origin, 1, flags, 1, sequence, 0, 0, 1, 0, 0, length);
  const at = server.replyOffset + ENVELOPE_BYTES;
  if (body === undefined) server.replyI32.set([value, count, inOrder, 0], at >> 2);
  else server.replyBytes.set(body, at);
  server.commitReply();
}

function onRequest(_type: number, offset: number, _length: number, slot: number, sequence: number): void {
  const at = (offset + ENVELOPE_BYTES) >> 2;
  const op = i32[at] as number;
  const value = i32[at + 1] as number;
  count++;
  if (value >= 0) {
    if (value <= last) inOrder = 0;
    last = value;
  }
  if (op === OP.RELEASE) for (const request of held.splice(0)) answer(request.slot, request.sequence, request.value);
  if (slot < 0 || op === OP.NEVER) return;
  if (op === OP.HOLD || op === OP.DELAY)
    held.push({ slot, sequence, value, atMs: op === OP.DELAY ? performance.now() + value : Infinity });
  else answer(slot, sequence, value, op === OP.FAIL ? FLAG_REPLY | FLAG_ERROR : FLAG_REPLY);
}

while (Atomics.load(gate, 0) !== GATE.STOP) {
  Atomics.add(gate, 1, 1);
  if (Atomics.load(gate, 0) === GATE.SHUT) {
    Atomics.wait(gate, 0, GATE.SHUT, 100);
    continue;
  }
  const handled = server.drainRequests(onRequest, 64);
  while (held.length > 0 && (held[0]?.atMs ?? Infinity) <= performance.now()) {
    const due = held.shift();
    if (due !== undefined) answer(due.slot, due.sequence, due.value);
  }
  server.flush();
  if (handled > 0) continue;
  const ticket = bell.prepareWait();
  if (server.requests.isEmpty() && Atomics.load(gate, 0) === GATE.OPEN) bell.wait(ticket, 2);
  else bell.cancelWait();
}
