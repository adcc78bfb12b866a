import { describe, expect, it } from "vitest";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { ConfigSet, LinearizedSet } from "../../src/sim/config-set.ts";
import { below } from "./histories.ts";

/** So many configurations that about 8 pairs of them have one 32-bit hash. */
const CONFIGURATIONS = 1 << 18;
const OPERATIONS = 64;

describe("ConfigSet", () => {
  it.each([
    ["with an end", OPERATIONS],
    ["without an end", 0],
  ])("tells apart sets of operations %s, whatever their hashes", (_, bounded) => {
    const random = createSeededRandom(1);
    const set = new LinearizedSet(OPERATIONS, bounded);
    const seen = new ConfigSet();
    let added = 0;
    for (let step = 0; step < CONFIGURATIONS; step++) {
      // 24 random bits changed: of 2^64 sets none comes twice.
      for (let bits = random.u32() & 0xffffff, place = below(random, 41); bits !== 0; bits >>>= 1, place++) {
        if ((bits & 1) === 0) continue;
        if (set.has(place)) set.remove(place);
        else set.add(place);
      }
      if (seen.add(set, 0)) added++;
    }
    expect(added).toBe(CONFIGURATIONS);
    expect(seen.size).toBe(CONFIGURATIONS);
    expect(seen.add(set, 0)).toBe(false);
    expect(seen.add(set, 1)).toBe(true);
  });

  it("agrees with a set of texts, over windows that move, grow and shrink", () => {
    const random = createSeededRandom(5);
    const operations = 200;
    const bounded = 150;
    const set = new LinearizedSet(operations, bounded);
    const seen = new ConfigSet();
    const texts = new Set<string>();
    const members = new Set<number>();
    let first = 0;
    for (let step = 0; step < 20_000; step++) {
      // Mostly near the first that is not linearised, as in a search; now and then anywhere.
      const operation =
        random.float() < 0.9 ? Math.min(first + below(random, 6), operations - 1) : below(random, operations);
      if (members.delete(operation)) set.remove(operation);
      else {
        members.add(operation);
        set.add(operation);
      }
      for (first = 0; members.has(first); ) first++;
      const state = below(random, 2);
      const text = `${[...members].sort((a, b) => a - b).join()};${state}`;
      expect(set.has(operation)).toBe(members.has(operation));
      expect(seen.add(set, state)).toBe(!texts.has(text));
      texts.add(text);
    }
    expect(seen.size).toBe(texts.size);
    expect(texts.size).toBeLessThan(20_000);
  });
});
