import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  createSnapshot,
  decodeSnapshot,
  encodeSnapshot,
  holdsCopy,
  MAX_COPIES,
  MAX_SHARDS,
  MAX_VSHARDS,
  MEMBER_STATE,
  MEMBER_STATE_NAMES,
  NO_SHARD,
  ownerOf,
  type SnapshotOptions,
  snapshotBytes,
  type TopologySnapshot,
  vshardOfActor,
  vshardOfHash,
  vshardOfId,
  withStates,
} from "../../src/topology/snapshot.ts";
import { hashId } from "../../src/topology/stable-hash.ts";

/** Any valid snapshot: lists of distinct shards of any length, padded. */
const anySnapshot = fc
  .record({
    shards: fc.integer({ min: 1, max: 16 }),
    bits: fc.integer({ min: 4, max: 6 }),
    replicationFactor: fc.integer({ min: 1, max: 5 }),
    topologyEpoch: fc.integer({ min: 0, max: 0x7fffffff }),
  })
  .chain(({ shards, bits, replicationFactor, topologyEpoch }) => {
    const vshards = 1 << bits;
    const all = Array.from({ length: shards }, (_, shard) => shard);
    const list = fc.shuffledSubarray(all, { minLength: 1, maxLength: Math.min(shards, replicationFactor) });
    return fc
      .record({
        lists: fc.array(list, { minLength: vshards, maxLength: vshards }),
        states: fc.uint8Array({ minLength: shards, maxLength: shards, max: MEMBER_STATE.REMOVED }),
        zones: fc.uint16Array({ minLength: shards, maxLength: shards }),
      })
      .map(({ lists, states, zones }) => {
        const copies = new Uint16Array(vshards * replicationFactor).fill(NO_SHARD);
        for (const [vshard, held] of lists.entries()) copies.set(held, vshard * replicationFactor);
        return createSnapshot({ shards, vshards, topologyEpoch, replicationFactor, copies, states, zones });
      });
  });

describe("topology snapshot", () => {
  it("places round robin, all up, all in one zone, unless told otherwise", () => {
    const snapshot = createSnapshot({ shards: 3, vshards: 8, replicationFactor: 2 });
    expect([...snapshot.copies]).toEqual([0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2]);
    expect([...snapshot.owners]).toEqual([0, 1, 2, 0, 1, 2, 0, 1]);
    expect([...snapshot.states].map((state) => MEMBER_STATE_NAMES[state])).toEqual(["up", "up", "up"]);
    expect([[...snapshot.zones], snapshot.topologyEpoch]).toEqual([[0, 0, 0], 1]);
    expect(snapshot.groups.map(({ copies }) => [...copies])).toEqual([
      [0, 1],
      [1, 2],
      [2, 0],
    ]);
    expect(snapshot.groups.map(({ vshards }) => [...vshards])).toEqual([
      [0, 3, 6],
      [1, 4, 7],
      [2, 5],
    ]);
    expect([...snapshot.groupOf]).toEqual([0, 1, 2, 0, 1, 2, 0, 1]);
  });

  it("pads lists when there are fewer shards than copies", () => {
    const snapshot = createSnapshot({ shards: 2, vshards: 2, replicationFactor: 3 });
    expect([...snapshot.copies]).toEqual([0, 1, NO_SHARD, 1, 0, NO_SHARD]);
    expect(snapshot.groups.map(({ copies }) => [...copies])).toEqual([
      [0, 1],
      [1, 0],
    ]);
  });

  it("groups exactly the vshards with the same copies in the same order (property)", () => {
    fc.assert(
      fc.property(anySnapshot, (snapshot) => {
        const { vshards, replicationFactor, copies, groups, groupOf, owners } = snapshot;
        const keyOf = (vshard: number): string =>
          copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor).join();
        expect(groups.flatMap((group) => [...group.vshards]).sort((a, b) => a - b)).toEqual([...groupOf.keys()]);
        for (const [at, group] of groups.entries()) {
          expect(group.index).toBe(at);
          expect([...group.vshards]).toEqual([...group.vshards].sort((a, b) => a - b));
          expect([...group.copies].includes(NO_SHARD) || group.copies.length === 0).toBe(false);
          for (const vshard of group.vshards) {
            expect(groupOf[vshard]).toBe(at);
            expect(owners[vshard]).toBe(group.copies[0]);
            for (let shard = 0; shard < snapshot.shards; shard++) {
              expect(holdsCopy(snapshot, shard, vshard)).toBe(group.copies.includes(shard));
            }
          }
        }
        expect(groups.length).toBe(new Set(Array.from({ length: vshards }, (_, vshard) => keyOf(vshard))).size);
      }),
      { numRuns: 50 },
    );
  });

  it("finds the vshard of ids, hashes and actors", () => {
    const snapshot = createSnapshot({ shards: 3, vshards: 64 });
    for (const id of ["a", "doc-17", 0, 17, -3.5]) {
      expect(vshardOfId(snapshot, id)).toBe(hashId(id) % 64);
      expect(vshardOfHash(snapshot, hashId(id))).toBe(hashId(id) % 64);
      expect(ownerOf(snapshot, vshardOfId(snapshot, id))).toBe((hashId(id) % 64) % 3);
    }
    const actors = new Set(Array.from({ length: 1000 }, (_, key) => vshardOfActor(snapshot, "cart", `${key}`)));
    expect(actors.size).toBe(64);
    expect(vshardOfHash(createSnapshot({ shards: 1, vshards: 1 }), 0xffffffff)).toBe(0);
  });

  it("takes other states for the next epoch, and leaves the old snapshot as it was", () => {
    const before = createSnapshot({ shards: 2, vshards: 4, topologyEpoch: 9 });
    const after = withStates(before, Uint8Array.of(MEMBER_STATE.DOWN, MEMBER_STATE.UP));
    expect([after.topologyEpoch, [...after.states], after.copies]).toEqual([10, [3, 1], before.copies]);
    expect([before.topologyEpoch, [...before.states]]).toEqual([9, [1, 1]]);
    expect(() => withStates(before, new Uint8Array(3))).toThrow(/states.length must be 2: current value is 3/);
  });

  it.each<[Partial<SnapshotOptions>, RegExp]>([
    [{ vshards: 3 }, /vshards must be a power of two between 1 and 32768: current value is 3/],
    [{ vshards: 0 }, /vshards/],
    [{ vshards: 65_536 }, /vshards/],
    [{ shards: 0 }, /shards must be an integer between 1 and 8 \(vshards\): current value is 0/],
    [{ shards: 9 }, /shards/],
    [{ shards: 257, vshards: 512 }, /shards must be an integer between 1 and 256/],
    [{ replicationFactor: 0 }, /replicationFactor must be an integer between 1 and 16/],
    [{ replicationFactor: 17 }, /replicationFactor/],
    [{ topologyEpoch: -1 }, /topologyEpoch/],
    [{ topologyEpoch: 2 ** 31 }, /topologyEpoch/],
    [{ copies: new Uint16Array(7) }, /copies.length must be 8: current value is 7/],
    [{ zones: new Uint16Array(1) }, /zones.length must be 2/],
    [{ copies: new Uint16Array(8).fill(NO_SHARD) }, /copies of vshard 0/],
    [
      { copies: Uint16Array.of(0, 0, 0, 0, 0, 0, 0, 2) },
      /copies of vshard 7 must be distinct shards below 2.* value is 2/,
    ],
    [{ replicationFactor: 2, copies: new Uint16Array(16) }, /copies of vshard 0 must be distinct/],
    [
      {
        shards: 3,
        replicationFactor: 3,
        copies: new Uint16Array(24).map((_, at) => [0, NO_SHARD, 1][at % 3] as number),
      },
      /none of them after a gap: current value is 1/,
    ],
  ])("%# refuses what is out of range, by value and rule", (options, message) => {
    expect(() => createSnapshot({ shards: 2, vshards: 8, ...options })).toThrow(message);
  });
});

describe("topology snapshot as bytes", () => {
  it("comes back as it was (property)", () => {
    fc.assert(
      fc.property(anySnapshot, fc.integer({ min: 0, max: 7 }), (snapshot, shift) => {
        const bytes = encodeSnapshot(snapshot);
        expect(bytes.length).toBe(snapshotBytes(snapshot));
        // In a message the bytes begin anywhere.
        const inside = new Uint8Array(bytes.length + shift + 3).fill(0xaa);
        inside.set(bytes, shift);
        const decoded = decodeSnapshot(inside.subarray(shift, shift + bytes.length));
        expect(decoded).toEqual(snapshot);
        inside.fill(0);
        expect(decoded).toEqual(snapshot);
      }),
      { numRuns: 100 },
    );
  });

  it("comes back as it was at its largest", () => {
    const largest = createSnapshot({ shards: MAX_SHARDS, vshards: MAX_VSHARDS, replicationFactor: MAX_COPIES });
    const decoded = decodeSnapshot(encodeSnapshot(largest));
    expect(decoded.groups.length).toBe(MAX_SHARDS);
    expect(Buffer.compare(encodeSnapshot(decoded), encodeSnapshot(largest))).toBe(0);
  });

  it("has a fixed layout, little-endian", () => {
    const bytes = encodeSnapshot(
      createSnapshot({ shards: 2, vshards: 2, topologyEpoch: 0x01020304, zones: Uint16Array.of(5, 6) }),
    );
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "040302010403020101000000020000000200000001000000010000000100000000000100000001000500060000000101",
    );
  });

  it("is refused typed wherever it is cut off", () => {
    const bytes = encodeSnapshot(createSnapshot({ shards: 2, vshards: 4, replicationFactor: 2 }));
    const corrupt = expect.objectContaining({ code: "ERR_CORRUPT" });
    for (let end = 0; end < bytes.length; end++) expect(() => decodeSnapshot(bytes.subarray(0, end))).toThrow(corrupt);
    expect(() => decodeSnapshot(Uint8Array.of(...bytes, 0))).toThrow(corrupt);
  });

  it("is refused typed, or is another valid snapshot, when bytes change (property)", () => {
    const first = createSnapshot({ shards: 4, vshards: 16, replicationFactor: 3, topologyEpoch: 7 });
    const changes = fc.array(fc.tuple(fc.nat(snapshotBytes(first) - 1), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 4,
    });
    let refused = 0;
    let taken = 0;
    fc.assert(
      fc.property(changes, (list) => {
        const bytes = encodeSnapshot(first);
        for (const [at, value] of list) bytes[at] = value;
        let decoded: TopologySnapshot;
        try {
          decoded = decodeSnapshot(bytes);
        } catch (error) {
          expect(error).toMatchObject({
            code: "ERR_CORRUPT",
            message: expect.stringMatching(/^Cannot decode topology as /),
          });
          refused++;
          return;
        }
        expect(encodeSnapshot(decoded)).toEqual(bytes);
        taken++;
      }),
      { numRuns: 2000 },
    );
    expect([refused > 200, taken > 20]).toEqual([true, true]);
  });

  it("is refused when headers lie about sizes", () => {
    const corrupt = expect.objectContaining({ code: "ERR_CORRUPT" });
    for (const header of [
      [1, 0, 1, 1],
      [1, 1, 0, 1],
      [1, -1, 1, 1],
      [1, 1, 1, 0],
      [1, 1, 1, -4],
      [1, 1, 1, 0x7fffffff],
      [1, 0x7fffffff, 0x7fffffff, 0x7fffffff],
      [1, 257, 512, 1],
      [-1, 1, 1, 1],
    ]) {
      const [, shards = 0, vshards = 0, factor = 0] = header;
      const length = Math.max(16, Math.min(4096, 16 + 2 * vshards * factor + 3 * shards));
      const bytes = new Uint8Array(length);
      new Int32Array(bytes.buffer, 0, 4).set(header);
      expect(() => decodeSnapshot(bytes)).toThrow(corrupt);
    }
  });
});
