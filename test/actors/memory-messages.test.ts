/** Reads of memory as messages: what a worker answers is what verbs answer, whatever the reference; and damaged messages are refused, never believed. */
import { expect, test } from "vitest";
import type { EngineReply, EngineRequest, WireMemory } from "../../actors/engine.ts";
import { createMemoryEngine } from "../../actors/memory-engine.ts";
import {
  LEAST_READ_REPLY_BYTES,
  MAX_READ_REPLY_BYTES,
  type ReadPart,
  readReadReply,
  readReadRequest,
  readRequestBytes,
  type WantedPart,
  writeReadRequest,
} from "../../actors/memory-messages.ts";
import type { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS, statusName, Verbs } from "../../native-bridge/verbs.ts";
import { MEMORY_READ } from "../../src/wire/message-types.ts";
import { generator, LONG, memory, seedOf } from "../native-bridge/memory-support.ts";
import { wireMemory } from "./vector/support.ts";

const ROUNDS = LONG ? 20_000 : 500;
const HEAP_BYTES = 65_536;
const STRANGE = [Number.NaN, -1, 0.5, 2 ** 31, 2 ** 32 - 1, 2 ** 32, Number.POSITIVE_INFINITY];

/** An engine that is called as a ring would: with memory that holds something else already. */
class Worker {
  readonly request: WireMemory = wireMemory(MAX_READ_REPLY_BYTES);
  readonly reply: WireMemory = wireMemory(2 * MAX_READ_REPLY_BYTES);
  readonly #handle: (request: EngineRequest, reply: EngineReply) => void;

  constructor(arena: Arena) {
    this.#handle = createMemoryEngine({ arena }).handlers.get(MEMORY_READ) as (typeof this)["call"];
  }

  call(request: EngineRequest, reply: EngineReply): void {
    this.#handle(request, reply);
  }

  /** @returns the length of the answer, which begins at 8 */
  answer(length: number, limitBytes: number = MAX_READ_REPLY_BYTES): number {
    let claimed = -1;
    this.reply.bytes.fill(0xee);
    const claim = (bytes: number): void => {
      expect(claimed).toBe(-1);
      expect(bytes).toBeLessThanOrEqual(limitBytes);
      claimed = bytes;
    };
    const reply = { ...this.reply, offset: 8, limitBytes, claim, hold: () => undefined };
    this.#handle({ ...this.request, offset: 0, length }, reply);
    return claimed;
  }

  read(parts: readonly WantedPart[], mostBytes = MAX_READ_REPLY_BYTES): ReadPart[] {
    writeReadRequest(this.request, 0, { parts, mostBytes });
    const length = this.answer(readRequestBytes(parts.length), mostBytes);
    return readReadReply({ ...this.reply, offset: 8, length }, parts);
  }
}

test("any list of references ends as with the verbs, in statuses and in bytes", () => {
  const seed = seedOf("memory reads");
  const random = generator(seed);
  const { arena, table } = memory(seed);
  const heap = arena.allocate(HEAP_BYTES);
  for (let byte = 0; byte < HEAP_BYTES; byte++) arena.bytes[heap + byte] = random();
  for (let word = heap / 4; word < (heap + HEAP_BYTES) / 4; word += 4)
    arena.i32[word] = (arena.i32[word] as number) & ~1;
  const refs: RegionRef[] = [];
  for (let region = 0; region < 40; region++) {
    const stride = [0, 48, 96, 4_096][random() % 4] as number;
    const byteLength = stride === 0 ? 1 + (random() % 9_000) : stride * (1 + (random() % 3));
    const byteOffset = heap + (random() % ((HEAP_BYTES - byteLength) >>> 4)) * 16;
    const ref = table.register({ byteOffset, byteLength, access: 1 + (random() % 7), cellStrideBytes: stride });
    refs.push(ref);
    if (random() % 5 === 0) table.deregister(ref);
  }
  const verbs = new Verbs(arena);
  const worker = new Worker(arena);
  const seen = new Set<string>();
  const wrong: object[] = [];
  const strange = (value: number): number => {
    const way = random() % 12;
    return way > 1 ? value : way === 1 ? value + (random() % 64) - 32 : (STRANGE[random() % STRANGE.length] as number);
  };
  for (let round = 0; round < ROUNDS; round++) {
    const parts = Array.from({ length: 1 + (random() % 12) }, (): WantedPart => {
      const { address, rkey, length } = refs[random() % refs.length] as RegionRef;
      const generation = random() % 6 === 0 ? { generation: strange(arena.i32[(address >>> 2) + 2] as number) } : {};
      const short = random() % 3 === 0 ? random() % (length + 1) : Math.min(length, 48);
      const ref = { address: strange(address), rkey: strange(rkey), length: strange(short), ...generation };
      const take = ref.length >>> 0 === ref.length ? Math.min(ref.length, 10_000) : 0;
      return { ref, from: 0, take };
    });
    const mostBytes = random() % 2 === 0 ? MAX_READ_REPLY_BYTES : LEAST_READ_REPLY_BYTES + (random() % 3_000);
    for (const [at, part] of worker.read(parts, mostBytes).entries()) {
      const { ref, take } = parts[at] as WantedPart;
      const target = new Uint8Array(Math.min(ref.length, HEAP_BYTES) >>> 0);
      const status = verbs.read(ref, target);
      // The local buffer is no matter of who answers.
      const expected = statusName(status === STATUS.LOCAL_LENGTH_ERROR ? STATUS.SUCCESS : status);
      seen.add(statusName(status));
      const isAlone = mostBytes === MAX_READ_REPLY_BYTES && status === STATUS.SUCCESS && parts.length === 1;
      const most = status === STATUS.SUCCESS ? take : 0;
      const given = worker.reply.bytes.subarray(part.offset, part.offset + part.length);
      const isSame = Buffer.compare(given, target.subarray(0, part.length)) === 0;
      const isRight = part.length <= most && (!isAlone || part.length === take) && isSame;
      if (statusName(part.status) !== expected || !isRight) wrong.push({ ref, take, part, expected });
    }
  }
  expect(wrong).toEqual([]);
  for (const status of [
    "SUCCESS",
    "INVALID_RKEY",
    "OUT_OF_BOUNDS",
    "REMOTE_ACCESS_ERROR",
    "REGION_REVOKED",
    "STALE_CELL",
    "SPANS_CELLS",
  ])
    expect(seen).toContain(status);
});

test("parts of a range are those bytes of it, and none beyond its end", () => {
  const { arena, table } = memory(7);
  const byteOffset = arena.allocate(4_096);
  for (let at = 0; at < 4_096; at++) arena.bytes[byteOffset + at] = at * 7;
  const ref = table.register({ byteOffset, byteLength: 4_096, access: 1 });
  const worker = new Worker(arena);
  const [middle, end, beyond, none] = worker.read([
    { ref, from: 1_000, take: 96 },
    { ref, from: 4_000, take: 96 },
    { ref: { ...ref, length: 4_000 }, from: 3_990, take: 11 },
    { ref, from: 4_096, take: 0 },
  ]);
  expect([middle, end, beyond, none].map((part) => [part?.status, part?.length])).toEqual([
    [STATUS.SUCCESS, 96],
    [STATUS.SUCCESS, 96],
    [STATUS.OUT_OF_BOUNDS, 0],
    [STATUS.SUCCESS, 0],
  ]);
  const at = (middle as ReadPart).offset;
  expect(worker.reply.bytes.slice(at, at + 96)).toEqual(arena.bytes.slice(byteOffset + 1_000, byteOffset + 1_096));
});

test("damaged requests and replies are refused, or are others that are whole", () => {
  const seed = seedOf("damaged memory reads");
  const random = generator(seed);
  const { arena, table } = memory(seed);
  const byteOffset = arena.allocate(4_096);
  arena.bytes.fill(0xab, byteOffset, byteOffset + 4_096);
  const ref = table.register({ byteOffset, byteLength: 4_096, access: 1 });
  arena.bytes.fill(0xcd, arena.allocate(65_536)); // what no key opens
  const worker = new Worker(arena);
  const parts = Array.from(
    { length: 4 },
    (_, at): WantedPart => ({ ref: { ...ref, length: 100 * at }, from: 0, take: 100 * at }),
  );
  let refused = 0;
  for (let round = 0; round < ROUNDS; round++) {
    writeReadRequest(worker.request, 0, { parts, mostBytes: 4_096 });
    const cut = random() % 4 === 0 ? random() % 64 : 0;
    for (let bits = random() % 4; bits > 0; bits--) {
      const byte = random() % readRequestBytes(parts.length);
      worker.request.bytes[byte] = (worker.request.bytes[byte] as number) ^ (1 << (random() % 8));
    }
    const received = { ...worker.request, offset: 0, length: readRequestBytes(parts.length) - (cut & ~7) };
    let wanted: readonly WantedPart[];
    let length: number;
    try {
      wanted = readReadRequest(received).parts;
      length = worker.answer(received.length, 4_096);
    } catch (error) {
      expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_(CORRUPT|RECORD_TOO_LARGE)$/) });
      refused++;
      continue;
    }
    for (const part of readReadReply({ ...worker.reply, offset: 8, length }, wanted))
      expect(worker.reply.bytes.subarray(part.offset, part.offset + part.length).every((byte) => byte === 0xab)).toBe(
        true,
      );
    // The reply on its way to who asked.
    const byte = 8 + (random() % length);
    worker.reply.bytes[byte] = (worker.reply.bytes[byte] as number) ^ (1 << (random() % 8));
    const less = random() % 3 === 0 ? 8 * (random() % 8) : 0;
    try {
      for (const part of readReadReply({ ...worker.reply, offset: 8, length: length - less }, wanted)) {
        expect(part.offset + part.length).toBeLessThanOrEqual(8 + length);
        expect(STATUS.INVALID_REQUEST).toBeGreaterThanOrEqual(part.status);
      }
    } catch (error) {
      expect(error).toMatchObject({ code: "ERR_CORRUPT" });
      refused++;
    }
  }
  expect(refused).toBeGreaterThan(ROUNDS / 10);
});
