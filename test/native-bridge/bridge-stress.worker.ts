/** The answering thread of the bridge stress: answers some requests at once, others later and out of order. */
import { parentPort, workerData } from "node:worker_threads";
import { BridgeServer } from "../../native-bridge/bridge.ts";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { AdaptiveSpin, waitUntil } from "../../native-bridge/idle-strategy.ts";
import { nowUs } from "./support.ts";

export interface BridgeStressInput {
  readonly memory: SharedArrayBuffer;
  readonly bells: SharedArrayBuffer;
  readonly replyBytes: number;
}

export interface BridgeStressOutcome {
  readonly requests: number;
  readonly tells: number;
  readonly mostHeld: number;
}

const { memory, bells, replyBytes } = workerData as BridgeStressInput;
const mine = new Doorbell(bells, 0);
const server = new BridgeServer(memory, new Doorbell(bells, 128), { nowUs });
const spin = new AdaptiveSpin({ nowUs, maxSpinUs: 50 });
const later: { value: number; slot: number; sequence: number }[] = [];
let requests = 0;
let tells = 0;
let mostHeld = 0;

function reply(value: number, slot: number, sequence: number): void {
  server.claimReply(2, replyBytes, slot, sequence);
  const at = server.replyOffset >> 2;
  for (let word = 0; word < replyBytes >> 2; word++) server.replyI32[at + word] = value + 1;
  server.commitReply();
}

const handle = (_type: number, offset: number, _length: number, slot: number, sequence: number): void => {
  const value = server.requests.i32[offset >> 2] as number;
  if (slot < 0) {
    tells++;
    return;
  }
  requests++;
  if (value % 5 === 0) later.push({ value, slot, sequence });
  else reply(value, slot, sequence);
};

const ready = (): boolean => !server.requests.isEmpty() || server.requests.isDone() || server.canMoveOverflow();
for (;;) {
  const count = server.drainRequests(handle, 64);
  for (let waiting = later.pop(); waiting !== undefined; waiting = later.pop())
    reply(waiting.value, waiting.slot, waiting.sequence);
  server.flush();
  if (server.requests.isDamaged()) throw new Error(`damage after ${requests} requests and ${tells} tells`);
  if (server.hasOverflow()) mostHeld++;
  if (count < 0) break;
  if (count === 0) waitUntil(ready, mine, spin, nowUs, 1000);
}
const outcome: BridgeStressOutcome = { requests, tells, mostHeld };
parentPort?.postMessage(outcome);
