/** A query on its way, in every code: CoTra's and Compass' messages bring the very bytes that the vertices are compared with. */
import { describe, expect, test } from "vitest";
import { fromHalf } from "../../../../actors/vector/codes/half.ts";
import { collaboratePayload, readCollaborateRequest } from "../../../../actors/vector/cotra/collaborate-codec.ts";
import { decodeMessage, encodeMessage, MESSAGE } from "../../../../actors/vector/cotra/cotra-messages.ts";
import { resolveSettings, settingsToBytes } from "../../../../actors/vector/cotra/cotra-options.ts";
import { GraphCode } from "../../../../actors/vector/graph/graph-code.ts";
import {
  nearRequestBytes,
  readNearRequest,
  writeNearRequest,
} from "../../../../actors/vector/strategy/near-messages.ts";
import { resolveVectorOptions } from "../../../../actors/vector/vector-options.ts";
import { wireMemory } from "../support.ts";

const COLLECTION = 7;

/** Whole numbers, which all codes but b1 hold as they are; as many as fill no word. */
const VECTOR = Float32Array.from({ length: 13 }, (_, at) => (at * 37 + 1) % 101);
const SIGNED = VECTOR.map((x, at) => (at % 3 === 0 ? -x : x));

/** What a code says, read by its definition. */
const MEANINGS: Readonly<Record<string, (code: Uint8Array, at: number) => number>> = {
  f32: (code, at) => new DataView(code.buffer, code.byteOffset).getFloat32(4 * at, true),
  f16: (code, at) => fromHalf(new DataView(code.buffer, code.byteOffset).getUint16(2 * at, true)),
  u8: (code, at) => code[at] as number,
  i8: (code, at) => ((code[at] as number) << 24) >> 24,
  b1: (code, at) => ((code[at >>> 3] as number) >>> (at & 7)) & 1,
};

const KINDS = [
  { quantization: "f32", metric: "l2", vector: SIGNED, bytes: 52 },
  { quantization: "f16", metric: "l2", vector: SIGNED, bytes: 26 },
  { quantization: "u8", metric: "l2", vector: VECTOR, bytes: 13 },
  { quantization: "i8", metric: "l2", vector: SIGNED, bytes: 13 },
  { quantization: "b1", metric: "cosine", vector: SIGNED, bytes: 2 },
] as const;

const header = { from: 1, origin: 0, serial: 3, sequence: 4 };
const settings = settingsToBytes(resolveSettings({}));
const pairs = { vertices: Int32Array.of(5), distances: Float32Array.of(0.5) };

/** Each carries the code there and gives back what came. */
const CARRIERS: Readonly<Record<string, (query: Uint8Array) => Uint8Array>> = {
  "a request to collaborate": (query) => {
    const payload = collaboratePayload({ collectionId: COLLECTION, k: 10, ef: 64, timeoutMs: 50, query });
    const memory = wireMemory(payload.byteLength + 8);
    payload.write(memory, 0);
    return readCollaborateRequest({ ...memory, offset: 0, length: payload.byteLength }).query;
  },
  "CoTra's start": (query) => {
    const body = { remainingMs: 9, k: 10, ef: 64, settings, primaries: [2, 1], leader: 2, seeds: pairs, query };
    const message = decodeMessage(encodeMessage({ type: MESSAGE.START, ...header, ...body }));
    return message.type === MESSAGE.START ? message.query : new Uint8Array(0);
  },
  "CoTra's ask": (query) => {
    const body = { flags: 0, bound: Number.POSITIVE_INFINITY, ids: Int32Array.of(1, 2, 3), query };
    const message = decodeMessage(encodeMessage({ type: MESSAGE.ASK, ...header, ...body }));
    return message.type === MESSAGE.ASK ? message.query : new Uint8Array(0);
  },
  "Compass' request": (code) => {
    const limits = { wanted: 18, ef: 64, version: 0, recallPpm: 0, level: 0 };
    const request = { collectionId: COLLECTION, ...limits, entries: [5, 9, 11], leaves: [], code };
    const memory = wireMemory(nearRequestBytes(request));
    writeNearRequest(memory, 0, request);
    return Uint8Array.from(readNearRequest({ ...memory, offset: 0, length: nearRequestBytes(request) }).code);
  },
};

describe.each(KINDS)("a query as $quantization", ({ quantization, metric, vector, bytes }) => {
  test.each(Object.entries(CARRIERS))("comes whole in %s", (_, carry) => {
    const code = new GraphCode(
      resolveVectorOptions({ dimensions: vector.length, metric, quantization, strategy: "cotra" }),
    );
    expect(code.encode(vector)).toBe(true);
    const came = carry(code.bytes.slice());
    expect(came).toHaveLength(bytes);
    const meaning = MEANINGS[quantization] as (code: Uint8Array, at: number) => number;
    const said = Array.from(vector, (_x, at) => meaning(came, at));
    expect(said).toEqual(Array.from(vector, (x) => (quantization === "b1" ? Number(x > 0) : x)));
  });
});
