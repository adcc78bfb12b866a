/**
 * A bridge between two real threads, under cancellation, credits and a reply ring that is too small.
 * Acceptable outcomes of a request: exactly one of *answered* (with its own value) and *cancelled*; nothing is lost:
 * sent = started + skipped, started = answered + stale + discarded. `SHARDLOOM_LONG=1`: 10 million requests.
 */
import { expect, test } from "vitest";
import { BridgeClient, type BridgeStats, createBridge } from "../../native-bridge/bridge.ts";
import { Doorbell } from "../../native-bridge/doorbell.ts";
import { AdaptiveSpin, waitUntil } from "../../native-bridge/idle-strategy.ts";
import type { BridgeStressInput, BridgeStressOutcome } from "./bridge-stress.worker.ts";
import { announceSeed, LONG, nextRandom, nowUs, runWorker } from "./support.ts";

const REQUESTS = LONG ? 10_000_000 : 100_000;

interface Sent {
  readonly stats: BridgeStats;
  readonly requests: number;
  readonly tells: number;
  readonly answered: number;
  readonly wrong: string;
}

/** Sends until `total` requests have ended; the only caller of the client. */
function drive(client: BridgeClient, bell: Doorbell, seed: number, total: number): Sent {
  const spin = new AdaptiveSpin({ nowUs, maxSpinUs: 50 });
  const values = new Int32Array(client.creditMessages);
  let random = seed;
  let requests = 0;
  let tells = 0;
  let answered = 0;
  let wrong = "";
  const take = (_type: number, offset: number, lengthBytes: number, slot: number, sequence: number): void => {
    if (!client.complete(slot, sequence)) return;
    answered++;
    const at = offset >> 2;
    const expected = (values[slot] as number) + 1;
    for (let word = 0; word < lengthBytes >> 2; word++) {
      if (client.replies.i32[at + word] !== expected && wrong === "")
        wrong = `slot ${slot}: word ${word} is ${client.replies.i32[at + word]}, not ${expected}`;
    }
  };
  const ready = (): boolean => !client.replies.isEmpty() || client.pressure() === "open";
  while (requests < total && wrong === "") {
    random = nextRandom(random);
    const isTell = (random & 15) === 0;
    const length = 4 + ((random >>> 8) & 0xff);
    const offset = isTell ? client.tryTell(3, length, 1) : client.tryRequest(1, length, 1);
    if (offset < 0) {
      if (!waitUntil(ready, bell, spin, nowUs, 20_000))
        return { stats: client.stats(), requests, tells, answered, wrong: `stalled with code ${offset}` };
      client.drainReplies(take, 1000);
      continue;
    }
    client.requests.i32[offset >> 2] = requests;
    client.commit(offset);
    if (isTell) {
      tells++;
      continue;
    }
    values[client.lastSlot] = requests++;
    if ((random & 0x70) === 0) client.cancel(client.lastSlot, client.lastSequence);
    if ((random & 0x1f00000) === 0) {
      client.flush();
      client.drainReplies(take, 1000);
    }
  }
  client.flush();
  const settled = (): boolean => !client.replies.isEmpty();
  while (client.stats().openMessages > 0 && wrong === "") {
    if (client.drainReplies(take, 1000) === 0 && !waitUntil(settled, bell, spin, nowUs, 20_000))
      wrong = "open requests were never answered";
  }
  return { stats: client.stats(), requests, tells, answered, wrong };
}

test.each([
  ["roomy replies", 2 ** 16, 64],
  ["replies that overflow", 1024, 128],
])(
  "stress: every request ends exactly once (%s)",
  async (_name, replyCapacityBytes, replyBytes) => {
    const seed = announceSeed(`bridge stress, ${REQUESTS} requests`);
    const memory = createBridge({ requestCapacityBytes: 2 ** 14, replyCapacityBytes, creditMessages: 200 });
    const bells = new SharedArrayBuffer(256);
    const input: BridgeStressInput = { memory, bells, replyBytes };
    const outcome = runWorker<BridgeStressOutcome>(new URL("./bridge-stress.worker.js", import.meta.url), input);
    await new Promise((resolve) => setImmediate(resolve));
    const client = new BridgeClient(memory, new Doorbell(bells, 0), { nowUs });
    const sent = drive(client, new Doorbell(bells, 128), seed, REQUESTS);
    client.close();
    const server = await outcome;
    const { stats } = sent;
    client.drainReplies((_type, _offset, _length, slot, sequence) => client.complete(slot, sequence), 1000);
    const after = client.stats();
    expect(sent.wrong).toBe("");
    expect(sent.requests).toBe(REQUESTS);
    expect(server.tells).toBe(sent.tells);
    expect(stats.cancelled).toBeGreaterThan(REQUESTS / 100);
    expect(sent.answered + stats.cancelled).toBe(REQUESTS);
    expect(server.requests + after.skipped).toBe(REQUESTS);
    expect(sent.answered + after.staleReplies + after.discarded).toBeLessThanOrEqual(server.requests);
    // Late replies may still lie in the ring of a client that has closed: nothing else may be missing.
    expect(
      sent.answered + after.staleReplies + after.discarded + (after.replies.produced - after.replies.consumed),
    ).toBe(server.requests);
    expect(stats.openMessages).toBe(0);
    expect(stats.openBytes).toBe(0);
    expect(after.queueWait.samples).toBeGreaterThan(REQUESTS / 64 / 10);
    if (replyCapacityBytes === 1024) expect(after.overflowed).toBeGreaterThan(0);
  },
  LONG ? 600_000 : 60_000,
);
