import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  DEFAULT_VIRTUAL_NODES,
  HashRing,
  RING_VERSION,
  type RingMember,
  ringPositions,
} from "../../src/topology/hash-ring.ts";
import { hashString } from "../../src/topology/stable-hash.ts";

function ringOf(...members: (string | RingMember)[]): HashRing {
  const ring = new HashRing();
  for (const member of members) ring.add(typeof member === "string" ? { name: member } : member);
  return ring;
}

function names(count: number, prefix = "node-"): string[] {
  return Array.from({ length: count }, (_, index) => `${prefix}${index}`);
}

function keys(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `key-${index}`);
}

const GOLDEN = {
  positions: [147_974_873, 323_176_691, 2_362_294_546, 2_458_916_295, 2_593_683_675],
  checksum: 380_308_887,
  copies: ["cad", "adc", "dbc", "dbc", "acd", "acd", "dbc", "bcd", "acd", "cdb"],
};

describe("hash ring: golden vectors of version 1, which no later release may change", () => {
  it("has this version and this many virtual nodes", () => {
    expect([RING_VERSION, DEFAULT_VIRTUAL_NODES]).toEqual([1, 150]);
  });

  it("puts virtual nodes at XXH32 of the name, seeded by their number", () => {
    expect([...ringPositions("node-a", 5)]).toEqual(GOLDEN.positions);
    const seeded = Array.from({ length: 5 }, (_, seed) => hashString("node-a", seed));
    expect(seeded.toSorted((a, b) => a - b)).toEqual(GOLDEN.positions);
    expect(checksum(ringPositions("node-a", DEFAULT_VIRTUAL_NODES))).toBe(GOLDEN.checksum);
  });

  it("finds the owners and copies of ten keys", () => {
    const ring = ringOf({ name: "a", zone: "x" }, { name: "b", zone: "x" }, { name: "c", zone: "y", weight: 2 }, "d");
    const found = keys(10).map((key) => ring.copiesOf(key, 3).join(""));
    expect(found).toEqual(GOLDEN.copies);
    expect(found.map(([owner]) => owner)).toEqual(keys(10).map((key) => ring.ownerOf(key)));
  });
});

function checksum(positions: Uint32Array): number {
  return positions.reduce((sum, position) => (Math.imul(sum, 31) + position) >>> 0, 0);
}

describe("hash ring: members", () => {
  it("counts n members after n additions, however often each is repeated", () => {
    const ring = new HashRing();
    for (const name of names(7)) expect(ring.add({ name })).toBe(true);
    for (const name of names(7)) expect(ring.add({ name })).toBe(false);
    expect(ring.count).toBe(7);
    expect(ring.names).toEqual(names(7));
    const before = keys(200).map((key) => ring.ownerOf(key));
    ring.add({ name: "node-3" });
    expect(keys(200).map((key) => ring.ownerOf(key))).toEqual(before);
  });

  it("does nothing when an absent member is removed", () => {
    const ring = ringOf("a", "b");
    expect(ring.remove("c")).toBe(false);
    expect(ring.count).toBe(2);
    expect(ring.remove("a")).toBe(true);
    expect(ring.remove("a")).toBe(false);
    expect([ring.count, ring.has("a"), ring.has("b")]).toEqual([1, false, true]);
    expect(keys(50).every((key) => ring.ownerOf(key) === "b")).toBe(true);
  });

  it("changes weight and zone of a member in place", () => {
    const ring = ringOf("a", "b");
    expect(ring.add({ name: "a", weight: 3 })).toBe(true);
    expect(ring.add({ name: "a", weight: 3, zone: "z" })).toBe(true);
    expect(ring.add({ name: "a", weight: 3, zone: "z" })).toBe(false);
    expect(ring.count).toBe(2);
  });

  it("fails typed while it is empty, also after it was not", () => {
    const ring = new HashRing();
    const empty = expect.objectContaining({ code: "ERR_EMPTY_RING", retryable: true });
    expect(() => ring.ownerOf("a")).toThrow(empty);
    ring.add({ name: "a" });
    expect(ring.ownerOf("a")).toBe("a");
    ring.remove("a");
    expect(() => ring.copiesOf("a", 2)).toThrow(empty);
  });

  it.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY, -0, 101])("refuses the weight %s", (weight) => {
    const ring = ringOf("b");
    expect(() => ring.add({ name: "a", weight })).toThrow(
      `Cannot add ring member as weight of a must be a number above 0 and at most 100: current value is ${weight}`,
    );
    expect(ring.names).toEqual(["b"]);
  });

  it("refuses a zero weight for every member, not only for some", () => {
    const ring = new HashRing();
    for (const name of names(3)) expect(() => ring.add({ name, weight: 0 })).toThrow(/current value is 0$/);
    expect(ring.count).toBe(0);
  });

  it("refuses bad names, zones, counts and hashes", () => {
    const ring = ringOf("a");
    expect(() => ring.add({ name: "" })).toThrow(/name must be a non-empty string/);
    expect(() => ring.add({ name: "b", zone: 5 as never })).toThrow(/zone of b must be text: current value is 5/);
    expect(() => new HashRing({ virtualNodes: 0 })).toThrow(/virtualNodes must be an integer between 1 and 4096/);
    for (const copies of [0, -1, 1.5, Number.NaN]) expect(() => ring.copiesOf("k", copies)).toThrow(/copies must be/);
    for (const hash of [-1, 0.5, 2 ** 32, Number.NaN]) expect(() => ring.ownerOf(hash)).toThrow(/hash must be/);
    expect(ring.ownerOf(0) + ring.ownerOf(2 ** 32 - 1)).toBe("aa");
  });
});

describe("hash ring: keys", () => {
  it("takes a hash for a key's", () => {
    const ring = ringOf(...names(9));
    for (const key of keys(100)) expect(ring.ownerOf(hashString(key))).toBe(ring.ownerOf(key));
  });

  it("gives a position to the member at it, and what lies behind the last one to the first", () => {
    const ring = ringOf("a", "b");
    const all = ["a", "b"].flatMap((name) =>
      [...ringPositions(name, DEFAULT_VIRTUAL_NODES)].map((position) => ({ name, position })),
    );
    all.sort((x, y) => x.position - y.position);
    for (const { name, position } of all) expect(ring.ownerOf(position)).toBe(name);
    expect(ring.ownerOf((all.at(-1)?.position ?? 0) + 1)).toBe(all[0]?.name);
    expect(ring.ownerOf((all[10]?.position ?? 0) + 1)).toBe(all[11]?.name);
  });

  it("does not depend on the order of additions (property)", () => {
    const members = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(
        members.chain((list) => fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length }))),
        ([list, shuffled]) => {
          const one = ringOf(...list);
          const other = ringOf("passing", ...shuffled);
          other.ownerOf("x");
          other.remove("passing");
          for (const key of keys(40)) expect(other.copiesOf(key, 3)).toEqual(one.copiesOf(key, 3));
        },
      ),
      { numRuns: 50 },
    );
  });

  it("moves about 1/(n+1) of the keys to a newcomer and none between others (property)", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 24 }), fc.stringMatching(/^[a-z]{1,8}$/), (count, prefix) => {
        const ring = ringOf(...names(count, `${prefix}-`));
        const sample = keys(4000);
        const before = sample.map((key) => ring.ownerOf(key));
        ring.add({ name: `${prefix}-new` });
        const after = sample.map((key) => ring.ownerOf(key));
        const moved = after.filter((owner, at) => owner !== before[at]);
        expect(moved.every((owner) => owner === `${prefix}-new`)).toBe(true);
        const fair = sample.length / (count + 1);
        // A share varies by 1/√150 = 8 % and the sample by √fair; five of each.
        expect(Math.abs(moved.length - fair)).toBeLessThan(5 * (0.082 * fair + Math.sqrt(fair)));
        ring.remove(`${prefix}-new`);
        expect(sample.map((key) => ring.ownerOf(key))).toEqual(before);
      }),
      { numRuns: 40 },
    );
  });

  it("gives each member its weight's share", () => {
    const ring = ringOf({ name: "a", weight: 1 }, { name: "b", weight: 2 }, { name: "c", weight: 5 });
    const counts = new Map<string, number>();
    for (const key of keys(40_000)) counts.set(ring.ownerOf(key), (counts.get(ring.ownerOf(key)) ?? 0) + 1);
    for (const [name, weight] of [
      ["a", 1],
      ["b", 2],
      ["c", 5],
    ] as const) {
      const share = (counts.get(name) ?? 0) / 5000;
      expect(share).toBeGreaterThan(weight * 0.75);
      expect(share).toBeLessThan(weight * 1.25);
    }
  });

  it("gives a member of the least weight a place", () => {
    const ring = new HashRing({ virtualNodes: 1 });
    ring.add({ name: "a", weight: 0.001 });
    expect(ring.ownerOf("k")).toBe("a");
  });
});

const zoned = fc
  .uniqueArray(fc.record({ name: fc.stringMatching(/^[a-z]{1,4}$/), zone: fc.constantFrom("x", "y", "z", "w") }), {
    selector: ({ name }) => name,
    minLength: 1,
    maxLength: 14,
  })
  .filter((members) => members.length > 0);

describe("hash ring: copies", () => {
  it("counts all copies, on distinct members, and has no more than there are", () => {
    const ring = ringOf(...names(5));
    for (const key of keys(200)) {
      const copies = ring.copiesOf(key, 3);
      expect(new Set(copies).size).toBe(3);
      expect(copies[0]).toBe(ring.ownerOf(key));
      expect(ring.copiesOf(key, 1)).toEqual([ring.ownerOf(key)]);
      expect(ring.copiesOf(key, 9).toSorted()).toEqual(names(5));
      expect(ring.copiesOf(key, 9).slice(0, 3)).toEqual(copies);
    }
  });

  it("holds as many members as it may in one zone", () => {
    const ring = new HashRing({ virtualNodes: 1 });
    for (let at = 0; at < 65_536; at++) ring.add({ name: `m${at}` });
    expect(new Set(ring.copiesOf("key", 3)).size).toBe(3);
  });

  it("spreads copies over zones as evenly as zones allow (property)", () => {
    fc.assert(
      fc.property(zoned, fc.integer({ min: 1, max: 8 }), (members, wanted) => {
        const ring = ringOf(...members);
        const zoneOf = new Map(members.map(({ name, zone }) => [name, zone]));
        const sizes = tally(members.map(({ zone }) => zone));
        for (const key of keys(30)) {
          const copies = ring.copiesOf(key, wanted);
          expect(new Set(copies).size).toBe(Math.min(wanted, members.length));
          const used = tally(copies.map((name) => zoneOf.get(name) as string));
          for (const [zone, size] of sizes) {
            const here = used.get(zone) ?? 0;
            for (const there of used.values()) expect(there - here > 1 && here < size).toBe(false);
          }
        }
      }),
      { numRuns: 150 },
    );
  });

  it("replaces at most the removed member among a key's copies (property)", () => {
    fc.assert(
      fc.property(zoned, fc.integer({ min: 1, max: 5 }), fc.nat(), (members, wanted, pick) => {
        const ring = ringOf(...members);
        const gone = members[pick % members.length]?.name as string;
        fc.pre(members.length > 1);
        const before = keys(30).map((key) => ring.copiesOf(key, wanted));
        ring.remove(gone);
        for (const [at, key] of keys(30).entries()) {
          const old = before[at] as string[];
          const now = ring.copiesOf(key, wanted);
          if (old.includes(gone)) expect(now).toEqual(expect.arrayContaining(old.filter((name) => name !== gone)));
          else expect(now).toEqual(old);
        }
      }),
      { numRuns: 150 },
    );
  });
});

function tally(values: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}
