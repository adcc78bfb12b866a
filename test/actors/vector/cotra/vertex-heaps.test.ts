/** Heaps and sets of a search against arrays that are sorted anew each time. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { MAX_AHEAD, SequenceWindow } from "../../../../actors/vector/cotra/sequence-window.ts";
import { CandidateHeap, TopHeap } from "../../../../actors/vector/cotra/vertex-heaps.ts";
import { VertexSet } from "../../../../actors/vector/cotra/vertex-set.ts";

interface Pair {
  readonly vertex: number;
  readonly distance: number;
}

/** Few distances, so that many are equal. */
const pairs = fc.uniqueArray(fc.record({ vertex: fc.nat(500), distance: fc.nat(9) }), {
  selector: ({ vertex }) => vertex,
  maxLength: 300,
});

function byDistance(list: readonly Pair[]): Pair[] {
  return [...list].sort((a, b) => a.distance - b.distance || a.vertex - b.vertex);
}

test("candidates come nearest first, equal distances by vertex", () => {
  fc.assert(
    fc.property(pairs, (list) => {
      const heap = new CandidateHeap();
      for (const { vertex, distance } of list) heap.push(vertex, distance);
      const popped: Pair[] = [];
      while (heap.size > 0) {
        popped.push({ vertex: heap.firstVertex, distance: heap.firstDistance });
        heap.pop();
      }
      expect(popped).toEqual(byDistance(list));
      expect(heap.firstDistance).toBe(Number.POSITIVE_INFINITY);
    }),
  );
});

test("the top keeps the best whatever the order, and its bound is their last distance once it is full", () => {
  fc.assert(
    fc.property(pairs, fc.integer({ min: 1, max: 40 }), (list, capacity) => {
      const heap = new TopHeap(capacity);
      list.forEach(({ vertex, distance }, at) => {
        heap.offer(vertex, distance);
        const best = byDistance(list.slice(0, at + 1)).slice(0, capacity);
        expect(heap.bound).toBe(best.length < capacity ? Number.POSITIVE_INFINITY : best.at(-1)?.distance);
      });
      expect(heap.nearest(capacity)).toEqual(byDistance(list).slice(0, capacity));
      expect(heap.nearest(3)).toEqual(byDistance(list).slice(0, Math.min(3, capacity)));
    }),
  );
});

test("a set of vertices holds what was added, over many growths", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.nat(50), fc.nat(2 ** 31 - 2)), { maxLength: 2000 }), (list) => {
      const set = new VertexSet();
      const model = new Set<number>();
      for (const vertex of list) {
        expect(set.has(vertex)).toBe(model.has(vertex));
        expect(set.add(vertex)).toBe(!model.has(vertex));
        model.add(vertex);
      }
      expect(set.size).toBe(model.size);
      for (const vertex of model) expect(set.has(vertex)).toBe(true);
    }),
    { numRuns: 50 },
  );
});

test("a window takes each number once, in any order, and refuses what is too far ahead", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(60), { maxLength: 300 }), (list) => {
      const window = new SequenceWindow();
      const seen = new Set<number>();
      for (const sequence of list) {
        expect(window.accept(sequence)).toBe(seen.has(sequence) ? "duplicate" : "new");
        seen.add(sequence);
      }
    }),
  );
  const window = new SequenceWindow();
  expect(window.accept(MAX_AHEAD)).toBe("new");
  expect(window.accept(MAX_AHEAD + 1)).toBe("overrun");
  expect(window.accept(0)).toBe("new");
  expect(window.accept(MAX_AHEAD + 1)).toBe("new");
});
