/** `expect(got).toEqual(expected)` for the steps of a property, of which there are many: 50 times as fast while they are equal. */
import { isDeepStrictEqual } from "node:util";
import { expect } from "vitest";

export function same(got: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(got, expected)) expect(got).toEqual(expected);
}
