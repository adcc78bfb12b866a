import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { type FusedHit, type FusionSource, fuseByRank, fuseByScore } from "../../src/routing/fusion.ts";
import { compareRanked, type Ranked } from "../../src/routing/merge.ts";
import type { RankDirection } from "../../src/routing/ranked.ts";

const RUNS = { numRuns: 400 };
const EVERYTHING = 1_000;

function ranking(direction: RankDirection, hits: readonly Ranked[], weight?: number): FusionSource {
  const sign = direction === "ascending" ? 1 : -1;
  const sorted = [...hits].sort((a, b) => compareRanked(a, b, sign));
  return { direction, hits: sorted, ...(weight === undefined ? {} : { weight }) };
}

function source(score: fc.Arbitrary<number>): fc.Arbitrary<FusionSource> {
  const hit = fc.record({ id: fc.integer({ min: 0, max: 15 }), score, version: fc.constant(1) });
  return fc
    .tuple(
      fc.constantFrom<RankDirection>("ascending", "descending"),
      fc.uniqueArray(hit, { selector: (entry) => entry.id, maxLength: 10 }),
      fc.option(fc.constantFrom(0, 0.25, 1, 3), { nil: undefined }),
    )
    .map(([direction, hits, weight]) => ranking(direction, hits, weight));
}

function sourcesOf(score: fc.Arbitrary<number>): fc.Arbitrary<FusionSource[]> {
  return fc
    .array(source(score), { minLength: 1, maxLength: 4 })
    .filter((sources) => sources.some((one) => one.weight !== 0));
}

const quarters = fc.integer({ min: 0, max: 12 }).map((n) => n / 4);

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    return ShardloomError.is(error) ? error.code : `not ours: ${String(error)}`;
  }
  return "no error";
}

/** What holds of any fusion, whatever its scores. */
function assertForm(fused: readonly FusedHit[], sources: readonly FusionSource[]): void {
  const wanted = new Set(sources.filter((one) => one.weight !== 0).flatMap((one) => one.hits.map((hit) => hit.id)));
  expect(new Set(fused.map((hit) => hit.id))).toEqual(wanted);
  expect(fused).toHaveLength(wanted.size);
  for (const [at, hit] of fused.entries()) {
    if (at > 0) expect(compareRanked(fused[at - 1] as FusedHit, hit, -1)).toBeLessThan(0);
    expect(hit.sources).toHaveLength(sources.length);
    let sum = 0;
    for (const [index, part] of hit.sources.entries()) {
      const { hits } = sources[index] as FusionSource;
      const place = hits.findIndex((entry) => entry.id === hit.id);
      if (part === undefined) expect(place).toBe(-1);
      else expect(part).toMatchObject({ rank: place + 1, score: hits[place]?.score, hit: hits[place] });
      sum += part?.share ?? 0;
    }
    expect(sum).toBe(hit.score);
  }
}

describe("fuseByRank()", () => {
  it("sums weight / (k0 + rank), in total order, and says where from", () => {
    fc.assert(
      fc.property(sourcesOf(quarters), fc.option(fc.constantFrom(0, 1, 60), { nil: undefined }), (sources, k0) => {
        const fused = fuseByRank(sources, { k: EVERYTHING, ...(k0 === undefined ? {} : { k0 }) });
        assertForm(fused, sources);
        for (const hit of fused) {
          const wanted = sources.reduce((sum, { hits, weight }) => {
            const place = hits.findIndex((entry) => entry.id === hit.id);
            return place < 0 ? sum : sum + (weight ?? 1) / ((k0 ?? 60) + place + 1);
          }, 0);
          expect(hit.score).toBeCloseTo(wanted, 12);
        }
      }),
      RUNS,
    );
  });

  it("depends on ranks alone: any order-keeping change of the scores changes nothing", () => {
    fc.assert(
      fc.property(sourcesOf(quarters), (sources) => {
        const cubed = sources.map((one) => ({
          ...one,
          hits: one.hits.map((hit) => ({ ...hit, score: hit.score ** 3 - 5 })),
        }));
        const ids = (given: readonly FusionSource[]): unknown =>
          fuseByRank(given, { k: EVERYTHING }).map(({ id, score }) => ({ id, score }));
        expect(ids(cubed)).toEqual(ids(sources));
      }),
      RUNS,
    );
  });

  it("ranks the document that both sources like before those that one likes", () => {
    const text = ranking("descending", [hit("both", 3), hit("text", 9)]);
    const vector = ranking("ascending", [hit("both", 0.2), hit("vector", 0.1)]);
    const fused = fuseByRank([text, vector], { k: 2 });
    expect(fused.map(({ id }) => id)).toEqual(["both", "text"]);
    expect(fused[0]?.score).toBeCloseTo(2 / 62, 15);
    expect(fused[1]?.sources).toEqual([{ rank: 1, score: 9, share: 1 / 61, hit: hit("text", 9) }, undefined]);
  });
});

function hit(id: string | number, score: number, version = 1): Ranked {
  return { id, score, version };
}

describe("fuseByScore()", () => {
  const wild = fc.oneof(quarters, fc.double({ noNaN: true }));

  it("stays in [0, 1] and in total order for any scores, infinite and huge ones too", () => {
    fc.assert(
      fc.property(sourcesOf(wild), (sources) => {
        const fused = fuseByScore(sources, { k: EVERYTHING });
        assertForm(fused, sources);
        for (const { score } of fused) expect(score >= 0 && score <= 1 + 1e-12).toBe(true);
      }),
      RUNS,
    );
  });

  it("keeps a lone source's order, its ties too", () => {
    fc.assert(
      fc.property(source(quarters), fc.constantFrom("min-max" as const, "max" as const), (one, normalize) => {
        const fused = fuseByScore([{ ...one, weight: 0.5 }], { k: EVERYTHING, normalize });
        expect(fused.map(({ id }) => id)).toEqual(one.hits.map(({ id }) => id));
      }),
      RUNS,
    );
  });

  it("min-max gives the same under any positive scaling and shift of a source", () => {
    fc.assert(
      fc.property(
        sourcesOf(quarters),
        fc.constantFrom(0.5, 2, 64),
        fc.integer({ min: -8, max: 8 }),
        (sources, by, shift) => {
          const moved = sources.map((one) => ({
            ...one,
            hits: one.hits.map((entry) => ({ ...entry, score: entry.score * by + shift })),
          }));
          const plain = (given: readonly FusionSource[]): unknown =>
            fuseByScore(given, { k: EVERYTHING }).map(({ id, score }) => ({ id, score }));
          expect(plain(moved)).toEqual(plain(sources)); // powers of two and quarters: exact
        },
      ),
      RUNS,
    );
  });

  it("weighs: all weight on one source is that source, and only the ratio of weights counts", () => {
    const text = ranking("descending", [hit("a", 4), hit("b", 3), hit("c", 0)]);
    const vector = ranking("ascending", [hit("c", 0), hit("b", 1), hit("a", 4), hit("d", 4)]);
    const scores = (first: number, second: number): unknown =>
      fuseByScore(
        [
          { ...text, weight: first },
          { ...vector, weight: second },
        ],
        { k: 9 },
      ).map(({ id, score }) => [id, score]);
    expect(scores(1, 0)).toEqual([
      ["a", 1],
      ["b", 0.75],
      ["c", 0],
    ]);
    expect(scores(0, 2)).toEqual([
      ["c", 1],
      ["b", 0.75],
      ["a", 0],
      ["d", 0],
    ]);
    expect(scores(1, 1)).toEqual([
      ["b", 0.75],
      ["a", 0.5],
      ["c", 0.5],
      ["d", 0],
    ]);
    expect(scores(2 ** 1023, 2 ** 1023)).toEqual(scores(1, 1));
    expect(scores(2 ** -1070, 2 ** -1070)).toEqual(scores(1, 1));
  });

  it("normalises by the largest score when told to", () => {
    const text = ranking("descending", [hit("a", 4), hit("b", 3)]);
    const vector = ranking("ascending", [hit("b", 1), hit("a", 4), hit("c", Number.POSITIVE_INFINITY)]);
    const fused = fuseByScore([text, vector], { k: 9, normalize: "max" });
    expect(fused.map(({ id, score }) => [id, score])).toEqual([
      ["b", 0.75],
      ["a", 0.5],
      ["c", 0],
    ]);
    expect(fuseByScore([ranking("ascending", [hit("a", 0)])], { k: 1, normalize: "max" })[0]?.score).toBe(1);
    expect(fuseByScore([ranking("descending", [hit("a", 0)])], { k: 1, normalize: "max" })[0]?.score).toBe(0);
    expect(() => fuseByScore([ranking("descending", [hit("a", -1)])], { k: 1, normalize: "max" })).toThrow(
      /score must be a number ≥ 0/,
    );
  });

  it("puts infinities at the ends, beside finite scores that keep their range", () => {
    const wide = ranking("descending", [
      hit("up", Number.POSITIVE_INFINITY),
      hit("a", 2),
      hit("b", 1),
      hit("c", 0),
      hit("down", Number.NEGATIVE_INFINITY),
    ]);
    expect(fuseByScore([wide], { k: 9 }).map(({ id, score }) => [id, score])).toEqual([
      ["a", 1],
      ["up", 1],
      ["b", 0.5],
      ["c", 0],
      ["down", 0],
    ]);
    const huge = ranking("ascending", [hit("a", -Number.MAX_VALUE), hit("b", 0), hit("c", Number.MAX_VALUE)]);
    expect(fuseByScore([huge], { k: 9 }).map(({ score }) => score)).toEqual([1, 0.5, 0]);
    const tiny = ranking("ascending", [hit("a", 0), hit("b", Number.MIN_VALUE)]);
    expect(fuseByScore([tiny], { k: 9 }).map(({ score }) => score)).toEqual([1, 0]);
  });
});

describe("fusing", () => {
  const good = ranking("descending", [hit("a", 1)]);
  const blends = [
    (sources: readonly FusionSource[], k = 5) => fuseByRank(sources, { k }),
    (sources: readonly FusionSource[], k = 5) => fuseByScore(sources, { k }),
  ];

  it("takes the highest version of an id that is twice in one source", () => {
    const twice = ranking("descending", [hit("a", 9, 1), hit("b", 5, 1), hit("a", 1, 2)]);
    for (const fused of blends.map((blend) => blend([twice]))) {
      expect(fused.map(({ id }) => id)).toEqual(["b", "a"]);
      expect(fused[1]?.sources[0]).toMatchObject({ rank: 2, score: 1, hit: { version: 2 } });
    }
  });

  it("cuts at k, and fuses empty rankings into nothing", () => {
    const empty = ranking("ascending", []);
    for (const blend of blends) {
      expect(blend([good, empty], 0)).toEqual([]);
      expect(blend([good, empty])).toHaveLength(1);
      expect(blend([empty, empty])).toEqual([]);
      const many = ranking(
        "ascending",
        Array.from({ length: 20 }, (_, at) => hit(at, at)),
      );
      expect(blend([many], 7)).toEqual(blend([many], 20).slice(0, 7));
    }
  });

  it("refuses bad weights, options and lists, typed", () => {
    for (const blend of blends) {
      for (const weight of [-1, Number.NaN, Number.POSITIVE_INFINITY, "1" as never])
        expect(() => blend([{ ...good, weight }])).toThrow(/weight must be a finite number ≥ 0/);
      expect(() =>
        blend([
          { ...good, weight: 0 },
          { ...good, weight: 0 },
        ]),
      ).toThrow(/largest weight must be greater than 0/);
      expect(() => blend([])).toThrow(/sources must be at least one ranking/);
      expect(() => blend([good], -1)).toThrow(/k must be an integer ≥ 0/);
      expect(() => blend([{ ...good, direction: "up" as RankDirection }])).toThrow(/direction must be/);
      expect(codeOf(() => blend([{ ...good, hits: [hit("a", Number.NaN)] }]))).toBe("ERR_CORRUPT");
      expect(codeOf(() => blend([{ ...good, hits: [hit("a", 1), hit("b", 2)] }]))).toBe("ERR_CORRUPT");
    }
    for (const k0 of [-1, Number.NaN, Number.POSITIVE_INFINITY])
      expect(codeOf(() => fuseByRank([good], { k: 1, k0 }))).toBe("ERR_INVALID_ARGUMENT");
    expect(() => fuseByScore([good], { k: 1, normalize: "sum" as never })).toThrow(/normalize must be/);
  });
});
