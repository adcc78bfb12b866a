/** Torn cells lose nothing that was acknowledged; damaged rings are noticed before a wrong record is handed out. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { VectorCollectionOptions } from "../../actors/vector/vector-options.ts";
import type { StoredVector } from "../../actors/vector/vector-replies.ts";
import { BridgeClient, BridgeServer, createBridge } from "../../native-bridge/bridge.ts";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";
import { RING_POISONED } from "../../native-bridge/spsc-ring.ts";
import { corruptRing, tearRegion } from "../../src/sim/memory-faults.ts";
import { DocumentStore } from "../../src/store/document-store.ts";
import { idLengthOf, idWordOf, writeId } from "../../src/store/id-codec.ts";
import { Bed, type Document, makeContext, pack } from "../actors/vector/support.ts";

const seed = Number(process.env["SEED"]);
const fraction = fc.nat(2 ** 30 - 1).map((value) => value / 2 ** 30);

describe("a torn cell", () => {
  const OPTIONS: VectorCollectionOptions = { dimensions: 3, metric: "cosine" };
  const OWNER = 0;

  function document(id: number, value: number): Document {
    return { id, vector: [value, 1, id], payload: { id, value } };
  }

  /** Ids 0–19 in their second version, without 4–7, whose rows are free. */
  function prepared(): { bed: Bed; recover: () => Bed } {
    const bed = new Bed({ capacityBytes: 2 * 1024 * 1024 });
    const rootAddress = bed.open(OPTIONS).root.address;
    const ids = Array.from({ length: 20 }, (_, id) => id);
    bed.upsert(
      3,
      ids.map((id) => document(id, 0)),
    );
    bed.upsert(
      3,
      ids.map((id) => document(id, 100 + id)),
    );
    bed.delete([4, 5, 6, 7]);
    const { memory } = bed;
    const collections = [{ collectionId: 1, options: OPTIONS, rootAddress }];
    return { bed, recover: () => new Bed({ memory, seed: 99, recover: { collections } }) };
  }

  function expectWhole(bed: Bed): void {
    const ids = Array.from({ length: 20 }, (_, id) => id);
    for (const [id, stored] of bed.get(ids).entries()) {
      if (id >= 4 && id < 8) expect(stored).toBeUndefined();
      else {
        const { vector, payload } = stored as StoredVector;
        expect([...(vector as Float32Array)]).toEqual([100 + id, 1, id]);
        expect([...(payload as Uint8Array)]).toEqual([...pack({ id, value: 100 + id })]);
      }
    }
    expect(bed.count()).toBe(16);
    const hits = bed.search([100, 1, 0], 1000).hits;
    expect(hits.map(({ id }) => id).toSorted((one, other) => Number(one) - Number(other))).toEqual(
      ids.filter((id) => id < 4 || id >= 8),
    );
  }

  it("is in every state that a death may leave, and recovery loses no vector", () => {
    const seen = new Map<string, number>();
    fc.assert(
      fc.property(fraction, fraction, (first, second) => {
        const { bed, recover } = prepared();
        const torn = tearRegion(bed.memory, OWNER, first);
        expect(torn).toBeDefined();
        const what = (torn as string).replace(/ (\d+ )?at \d+$/, "");
        seen.set(what, (seen.get(what) ?? 0) + 1);
        const successor = recover();
        expectWhole(successor);
        successor.upsert(3, [document(30, 1), document(31, 1)]); // into free rows
        expect(successor.delete([30, 31])).toBeDefined();
        expect(tearRegion(bed.memory, OWNER, second)).toBeDefined();
        expectWhole(recover());
      }),
      { seed, numRuns: 300 },
    );
    for (const what of ["root", "free row", "row"]) expect(seen.get(what), what).toBeGreaterThan(10);
  });

  it("shows as odd to who reads it before the recovery", () => {
    // Without this the test above would hold for a fault that does nothing.
    const { bed } = prepared();
    const before = Uint8Array.from(bed.context.arena.bytes);
    tearRegion(bed.memory, OWNER, 0.999);
    const { bytes } = bed.context.arena;
    expect(before.some((byte, at) => byte !== bytes[at])).toBe(true);
  });

  it("loses no document of a text collection either", () => {
    fc.assert(
      fc.property(fraction, (size) => {
        const memory = new Bed({ capacityBytes: 2 * 1024 * 1024 }).memory;
        const store = DocumentStore.create(storeContext(memory, 1), 7, 42);
        for (let id = 0; id < 12; id++) put(store, id, -1);
        for (let row = 0; row < 12; row += 2) put(store, row, row);
        store.remove(5);
        expect(tearRegion(memory, OWNER, size)).toBeDefined();
        const context = storeContext(memory, 2);
        const adopted = new Map(context.regions.adopt(OWNER, OWNER).map((region) => [region.address, region]));
        const again = DocumentStore.recover(context, 7, 42, store.root.ref.address, adopted) as DocumentStore;
        expect(again.count).toBe(11);
        for (let row = 0; row < 12; row++) {
          if (row === 5) continue;
          expect(again.vshardOf(row)).toBe(row);
          expect(again.idOf(row)).toBe(row);
        }
        put(again, 5, -1);
        expect(again.count).toBe(12);
      }),
      { seed, numRuns: 100 },
    );
  });

  it("needs a collection", () => {
    const bed = new Bed({ capacityBytes: 2 * 1024 * 1024 });
    expect(tearRegion(bed.memory, OWNER, 0.5)).toBeUndefined();
    const rootAddress = bed.open(OPTIONS).root.address;
    expect(tearRegion(bed.memory, OWNER + 1, 0.5)).toBeUndefined();
    expect(tearRegion(bed.memory, OWNER, 0.5)).toBe(`root at ${rootAddress}`);
  });

  function storeContext(memory: WebAssembly.Memory, seedOfKeys: number) {
    const { arena, regions } = makeContext(memory, OWNER, seedOfKeys);
    return { arena, regions, nowMs: () => 0 };
  }
});

function put(store: DocumentStore, id: number, row: number): void {
  const bytes = new Uint8Array(64);
  const idWord = idWordOf(id);
  writeId(bytes, 0, id, idWord);
  store.reserve(1, 64);
  store.put(row, bytes, 0, idWord, idLengthOf(idWord), 4, id, id);
}

describe("a damaged ring", () => {
  function connected() {
    const memory = createBridge({ requestCapacityBytes: 1024, replyCapacityBytes: 1024, creditMessages: 16 });
    const bell = (): Doorbell => new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    return { memory, client: new BridgeClient(memory, bell()), server: new BridgeServer(memory, bell()) };
  }

  function send(client: BridgeClient, value: number): void {
    const offset = client.tryRequest(9, 8, 2);
    if (offset < 0) return;
    client.requests.i32[offset >> 2] = value;
    client.commit(offset);
    client.flush();
  }

  function drain(server: BridgeServer, into: number[]): number {
    return server.drainRequests((_type, offset) => into.push(server.requests.i32[offset >> 2] as number), 64);
  }

  it("hands out what came before the damage, in order, and nothing after it", () => {
    const seen = new Set<string>();
    fc.assert(
      fc.property(fraction, fc.nat(30), fc.integer({ min: 1, max: 10 }), (size, before, count) => {
        const { memory, client, server } = connected();
        const got: number[] = [];
        for (let value = 0; value < before; value++) {
          send(client, value);
          drain(server, got);
          while (client.cancel(client.lastSlot, client.lastSequence)) void 0;
        }
        for (let value = before; value < before + count; value++) send(client, value);
        const what = corruptRing([memory], size);
        seen.add(String(what));
        let code = 0;
        for (let look = 0; look < 1100 && code !== RING_POISONED; look++) code = drain(server, got);
        expect(code).toBe(RING_POISONED);
        expect(got).toEqual(Array.from({ length: before }, (_, value) => value)); // the damaged one is the first unread
        send(client, 99);
        expect(drain(server, got)).toBe(RING_POISONED);
        expect(client.tryRequest(9, 8, 2)).toBe(RING_POISONED);
      }),
      { seed, numRuns: 200 },
    );
    expect([...seen].toSorted()).toEqual(
      ["lost size", "size", "type"].map((what) => `${what} of requests of bridge 0`),
    );
  });

  it("that was empty poisons itself when it is looked at, or is healed by the next record", () => {
    const { memory, client, server } = connected();
    expect(corruptRing([memory], 0.25)).toBe("size of requests of bridge 0");
    send(client, 1);
    const got: number[] = [];
    drain(server, got);
    expect(got).toEqual([1]);
    expect(corruptRing([memory], 0.25)).toBe("size of requests of bridge 0");
    expect(drain(server, got)).toBe(RING_POISONED);
    expect(got).toEqual([1]);
    expect(corruptRing([], 0.5)).toBeUndefined();
  });
});
