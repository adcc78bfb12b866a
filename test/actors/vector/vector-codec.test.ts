/** Requests and replies: what one side writes the other reads, and no mutated request gets past the decoders unharmed. */
import { describe, expect, test } from "vitest";
import { OPEN_REQUEST_BYTES, readOpenRequest, writeOpenRequest } from "../../../actors/vector/collection-requests.ts";
import { resolveVectorOptions } from "../../../actors/vector/vector-options.ts";
import {
  filterRequestBytes,
  INCLUDE,
  idsRequestBytes,
  SEARCH_EXACT,
  searchRequestBytes,
  upsertRequestBytes,
  writeFilterRequest,
  writeIdsRequest,
  writeSearchRequest,
  writeUpsertRequest,
} from "../../../actors/vector/vector-requests.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { idWordOf, readId, type VectorId, writeId } from "../../../src/store/id-codec.ts";
import { hashId } from "../../../src/topology/stable-hash.ts";
import {
  VECTOR_COUNT,
  VECTOR_DELETE,
  VECTOR_GET,
  VECTOR_OPEN,
  VECTOR_SEARCH,
  VECTOR_UPSERT,
} from "../../../src/wire/message-types.ts";
import { Bed, pack, randomFrom, toItem, wireMemory } from "./support.ts";

test("options survive the open request", () => {
  const options = resolveVectorOptions({
    dimensions: 77,
    metric: "inner-product",
    quantization: "f16",
    connectivity: 32,
    expansionAdd: 200,
    expansionSearch: 90,
    scanRows: 5,
  });
  const memory = wireMemory(128);
  writeOpenRequest(memory, 8, 42, options);
  expect(readOpenRequest({ ...memory, offset: 8, length: OPEN_REQUEST_BYTES })).toEqual({
    collectionId: 42,
    options,
    checkOnly: false,
  });
  writeOpenRequest(memory, 8, 42, options, true);
  expect(readOpenRequest({ ...memory, offset: 8, length: OPEN_REQUEST_BYTES }).checkOnly).toBe(true);
});

test("ids survive, in shared memory", () => {
  const { bytes } = wireMemory(8192);
  const ids: VectorId[] = ["a", "ä𝄞", "x".repeat(512), "y".repeat(25), 0, -1.5, 2 ** 60];
  for (const id of ids) {
    const word = idWordOf(id);
    writeId(bytes, 5, id, word);
    expect(readId(bytes, 5, word)).toBe(id);
  }
});

test.each<[string, unknown]>([
  ["an empty string", ""],
  ["a string of 4097 bytes", "z".repeat(4097)],
  ["NaN", Number.NaN],
  ["an infinity", Number.POSITIVE_INFINITY],
  ["undefined", undefined],
  ["null", null],
  ["an object", {}],
  ["a bigint", 1n],
])("%s is refused as an id", (_name, id) => {
  expect(() => idWordOf(id as VectorId)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
});

describe("mutated requests", () => {
  const documents = Array.from({ length: 6 }, (_, i) => ({
    id: i % 2 ? i : `id-${i}`,
    vector: [i, 1, 2],
    payload: { i },
  }));
  const items = documents.map(toItem);
  const ids = documents.map((document) => document.id);
  const search = {
    collectionId: 1,
    k: 3,
    ef: 0,
    flags: INCLUDE.PAYLOAD | SEARCH_EXACT,
    queries: Float32Array.of(1, 2, 3, 4, 5, 6),
    dimensions: 3,
    filter: pack({ i: { lt: 4 } }),
  };
  const kinds: [string, number, number, (m: ReturnType<typeof wireMemory>) => void][] = [
    [
      "open",
      VECTOR_OPEN,
      OPEN_REQUEST_BYTES,
      (m) => writeOpenRequest(m, 0, 1, resolveVectorOptions({ dimensions: 3, metric: "l2" })),
    ],
    ["upsert", VECTOR_UPSERT, upsertRequestBytes(3, items), (m) => writeUpsertRequest(m, 0, 1, 3, items)],
    ["get", VECTOR_GET, idsRequestBytes(ids), (m) => writeIdsRequest(m, 0, 1, ids, ids.map(hashId), 3)],
    ["delete", VECTOR_DELETE, idsRequestBytes(ids), (m) => writeIdsRequest(m, 0, 1, ids, ids.map(hashId))],
    ["count", VECTOR_COUNT, filterRequestBytes(search.filter), (m) => writeFilterRequest(m, 0, 1, search.filter)],
    ["search", VECTOR_SEARCH, searchRequestBytes(search), (m) => writeSearchRequest(m, 0, search)],
  ];

  test.each(kinds)(
    "%s: every mutation is answered or refused typed, and the shard still serves",
    (_name, type, bytes, write) => {
      const seed = Number(process.env["SEED"] ?? 31);
      const next = randomFrom(seed + type);
      const rounds = Number(process.env["FUZZ_ROUNDS"] ?? 20_000);
      const bed = new Bed({ capacityBytes: 16 * 1024 * 1024 });
      bed.open({ dimensions: 3, metric: "l2" });
      bed.upsert(3, documents);
      const clean = wireMemory(bytes);
      write(clean);
      const memory = wireMemory(bytes + 64);
      let refused = 0;
      const opened = new Set<number>();
      const dropAll = (): void => {
        for (const collectionId of opened) bed.drop(collectionId, true);
        opened.clear();
      };
      for (let round = 0; round < rounds; round++) {
        memory.bytes.set(clean.bytes);
        const mutations = 1 + Math.floor(next() * 3);
        for (let i = 0; i < mutations; i++) {
          if (next() < 0.5) memory.bytes[Math.floor(next() * bytes)] = Math.floor(next() * 256);
          else
            memory.i32[Math.floor((next() * bytes) / 4)] = [
              -1, 0, 1, 0x7fffffff, -0x80000000, 0x00ffffff, 1000, 70_000,
            ][Math.floor(next() * 8)] as number;
        }
        const length = next() < 0.2 ? Math.floor(next() * bytes) : bytes;
        try {
          bed.send(type, { ...memory, offset: 0, length }, () => undefined);
          opened.add(memory.i32[0] as number);
        } catch (error) {
          if (!ShardloomError.is(error)) throw error;
          expect(["ERR_INTERNAL", "ERR_CLOSED"]).not.toContain(error.code);
          refused++;
        }
        if (type === VECTOR_OPEN && opened.size > 20) dropAll(); // or the arena fills with collections
      }
      expect(refused).toBeGreaterThan(rounds / 20);
      if (type === VECTOR_OPEN) {
        dropAll();
        bed.drop(1, true); // it may have been dropped and opened again in another shape
        bed.open({ dimensions: 3, metric: "l2" });
      }
      bed.upsert(3, [{ id: "still", vector: [9, 9, 9] }]);
      expect(bed.search([9, 9, 9], 1).hits[0]).toMatchObject({ score: 0 });
      for (const document of bed.get(["still"])) expect(document?.vector).toEqual(Float32Array.of(9, 9, 9));
    },
  );
});
