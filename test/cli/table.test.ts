/** Tables, widths and numbers for people. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { displayWidth, formatTable, truncate } from "../../src/cli/table.ts";
import { formatBytes, formatCount, formatNanoseconds, formatSeconds } from "../../src/cli/units.ts";

const COLUMNS = [{ title: "what" }, { title: "median", align: "right" as const }];

describe("formatTable", () => {
  test("aligns left and right, without trailing spaces", () => {
    expect(
      formatTable(COLUMNS, [
        ["read", "73 ns"],
        ["a longer one", 5],
        ["nothing", undefined],
      ]),
    ).toBe(
      ["what          median", "────────────  ──────", "read           73 ns", "a longer one       5", "nothing"].join(
        "\n",
      ),
    );
  });

  test("keeps to the width, and counts what a terminal shows", () => {
    const cell = fc.string({ unit: "grapheme", maxLength: 80 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(cell, fc.nat(999_999)), { maxLength: 8 }),
        fc.integer({ min: 30, max: 120 }),
        (rows, columns) => {
          for (const line of formatTable(COLUMNS, rows, { columns }).split("\n"))
            expect(displayWidth(line)).toBeLessThanOrEqual(columns);
        },
      ),
    );
    expect(displayWidth("日本\u001b[31m!\u001b[0me\u0301")).toBe(6);
  });

  test("truncates with an ellipsis", () => {
    expect([truncate("abcdef", 6), truncate("abcdef", 4), truncate("日本語", 4)]).toEqual(["abcdef", "abc…", "日…"]);
  });
});

test("numbers have three digits and a unit", () => {
  expect([0, 73.21, 999.4, 999.6, 1234, 99_960, 2.5e6, 3e9, 7e12].map(formatNanoseconds)).toEqual([
    "0 ns",
    "73.2 ns",
    "999 ns",
    "1.00 µs",
    "1.23 µs",
    "100 µs",
    "2.50 ms",
    "3 s",
    "7000 s",
  ]);
  expect([512, 1536, 5 * 2 ** 30].map(formatBytes)).toEqual(["512 B", "1.50 KB", "5 GB"]);
  expect([formatCount(1234567), formatCount(0.126), formatSeconds(0.0123)]).toEqual(["1,234,567", "0.13", "12.3 ms"]);
});
