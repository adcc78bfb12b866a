/** The error class: its table, its brand across copies of the package, and the grammar of its messages. */
import { describe, expect, test } from "vitest";
import { describeValue, ERROR_CODES, invalidArgument, ShardloomError } from "../src/errors.ts";

describe("ShardloomError", () => {
  test("takes retryable from the table unless it is given", () => {
    expect(new ShardloomError("ERR_TIMEOUT", "late").retryable).toBe(ERROR_CODES.ERR_TIMEOUT.retryable);
    expect(new ShardloomError("ERR_TIMEOUT", "late", { retryable: false }).retryable).toBe(false);
  });

  test("recognises itself by its brand and nothing else", () => {
    const fromAnotherCopy = Object.assign(new Error("x"), { [Symbol.for("shardloom.error")]: true });
    expect(ShardloomError.is(fromAnotherCopy)).toBe(true);
    for (const other of [new Error("x"), null, undefined, "ERR_TIMEOUT", { code: "ERR_TIMEOUT" }]) {
      expect(ShardloomError.is(other)).toBe(false);
    }
  });

  test("wraps anything caught, once", () => {
    const cause = new TypeError("no");
    const wrapped = ShardloomError.from(cause);
    expect(wrapped).toMatchObject({ code: "ERR_INTERNAL", message: "no", cause });
    expect(ShardloomError.from(wrapped)).toBe(wrapped);
    expect(ShardloomError.from("text", "ERR_CORRUPT")).toMatchObject({ code: "ERR_CORRUPT", message: "text" });
  });

  test("writes bad arguments in the house grammar, with the value in details", () => {
    const error = invalidArgument("create ring", "capacityBytes", "a power of two", 1000);
    expect(error.message).toBe("Cannot create ring as capacityBytes must be a power of two: current value is 1000");
    expect(error.details).toEqual({ name: "capacityBytes", value: 1000 });
  });

  test("describes values briefly", () => {
    expect([NaN, "a", 5n, [1, 2], new Map(), null].map(describeValue)).toEqual([
      "NaN",
      '"a"',
      "5n",
      "an array of 2",
      "an object of Map",
      "null",
    ]);
    expect(describeValue("x".repeat(200)).length).toBeLessThan(100);
  });
});
