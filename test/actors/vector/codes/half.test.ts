/** float16 both ways: every number there and back, every rounding against the two neighbours. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { fromHalf, MAX_HALF, toHalf } from "../../../../actors/vector/codes/half.ts";

test("every finite float16 is its number and comes back from it", () => {
  let checked = 0;
  for (let half = 0; half < 0x10000; half++) {
    if ((half & 0x7c00) === 0x7c00) continue;
    if (toHalf(fromHalf(half)) !== half) expect.fail(`${half} became ${toHalf(fromHalf(half))}`);
    checked++;
  }
  expect(checked).toBe(63_488);
});

test.each([
  [0, 0],
  [-0, 0x8000],
  [1, 0x3c00],
  [-2, 0xc000],
  [65_504, 0x7bff],
  [2 ** -24, 1],
  [2 ** -14, 0x0400],
  [1 / 3, 0x3555],
  [2 ** -25, 0], // halfway to the smallest: to even
  [3 * 2 ** -25, 2],
  [2 ** -149, 0],
  [1 + 2 ** -11, 0x3c00], // halfway: to even
  [1 + 3 * 2 ** -11, 0x3c02],
])("%d is %d", (value, half) => {
  expect(toHalf(value)).toBe(half);
});

test("the nearest of all, ties to even: a property", () => {
  const any = fc.float({ min: -MAX_HALF, max: MAX_HALF, noNaN: true });
  const small = fc.float({ min: Math.fround(-(2 ** -13)), max: Math.fround(2 ** -13), noNaN: true });
  fc.assert(
    fc.property(fc.oneof(any, small), (value) => {
      const half = toHalf(value);
      const error = Math.abs(fromHalf(half) - value);
      for (const other of [half - 1, half + 1]) {
        if ((other & 0x7c00) === 0x7c00 || other < 0 || ((other ^ half) & 0x8000) !== 0) continue;
        const otherError = Math.abs(fromHalf(other) - value);
        expect(error).toBeLessThanOrEqual(otherError);
        if (error === otherError) expect(half & 1).toBe(0);
      }
      expect(half >> 15).toBe(value < 0 || Object.is(value, -0) ? 1 : 0);
    }),
    { numRuns: 5_000 },
  );
});
