/** Errors keep class, code, details and causes across the wire, whatever they carry. */

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ERROR_CODES, type ErrorCode, ShardloomError } from "../../src/errors.ts";
import { errorFromValue, errorToValue, MAX_CAUSES } from "../../src/wire/error-codec.ts";
import { createValueCodec } from "../../src/wire/value-codec.ts";

const codec = createValueCodec();
const travel = (error: unknown, stack = false): ShardloomError =>
  errorFromValue(codec.decode(codec.encode(errorToValue(error, { stack }))));

describe("error codec", () => {
  it("keeps class, code, message, retryable and plain details (property)", () => {
    const details = fc.dictionary(
      fc.stringMatching(/^[a-z]{1,8}$/),
      fc.oneof(fc.string({ unit: "grapheme" }), fc.integer(), fc.boolean(), fc.constant(null)),
      { noNullPrototype: true },
    );
    const code = fc.constantFrom(...(Object.keys(ERROR_CODES) as ErrorCode[]));
    fc.assert(
      fc.property(
        code,
        fc.string({ unit: "grapheme" }),
        fc.boolean(),
        details.filter((given) => !("constructor" in given && Object.hasOwn(given, "constructor"))),
        (given, message, retryable, carried) => {
          const back = travel(new ShardloomError(given, message, { retryable, details: carried }));
          expect(back).toBeInstanceOf(ShardloomError);
          expect(ShardloomError.is(back)).toBe(true);
          expect({ code: back.code, message: back.message, retryable: back.retryable, details: back.details }).toEqual({
            code: given,
            message,
            retryable,
            details: carried,
          });
        },
      ),
    );
  });

  it("keeps the chain of causes with their classes", () => {
    const root = new RangeError("root", { cause: "thrown text" });
    const back = travel(
      new ShardloomError("ERR_ACTOR_FAILED", "outer", {
        cause: new ShardloomError("ERR_TIMEOUT", "middle", { cause: root }),
      }),
    );
    const middle = back.cause as ShardloomError;
    expect([middle.code, middle.retryable]).toEqual(["ERR_TIMEOUT", true]);
    expect(middle.cause).toBeInstanceOf(RangeError);
    expect((middle.cause as Error).message).toBe("root");
    expect((middle.cause as Error).cause).toBe("thrown text");
  });

  it("keeps the name of a class it does not know", () => {
    class SoldOut extends Error {
      override readonly name = "SoldOut";
    }
    const cause = travel(new ShardloomError("ERR_ACTOR_FAILED", "x", { cause: new SoldOut("none left") }))
      .cause as Error;
    expect(cause).toBeInstanceOf(Error);
    expect([cause.name, cause.message]).toEqual(["SoldOut", "none left"]);
  });

  it("bounds the chain, also one that closes on itself", () => {
    const error = new Error("self");
    error.cause = error;
    let depth = 0;
    for (let cause: unknown = travel(error); cause instanceof Error; cause = cause.cause) depth++;
    expect(depth).toBeGreaterThan(1);
    expect(depth).toBeLessThanOrEqual(MAX_CAUSES + 1);
  });

  it("bounds size and replaces what cannot travel", () => {
    const error = new ShardloomError("ERR_INTERNAL", "m".repeat(100_000), {
      details: {
        callback: () => 1,
        huge: new Uint8Array(1 << 20),
        text: "t".repeat(10_000),
        list: Array.from({ length: 10_000 }, () => 1),
        at: new Date(5),
        constructor: 1,
      },
    });
    expect(codec.encode(errorToValue(error)).length).toBeLessThan(8192);
    const { details } = travel(error);
    expect(details).toMatchObject({ huge: "an object of Uint8Array", list: "an array of 10000", at: new Date(5) });
    expect(typeof details["callback"]).toBe("string");
  });

  it("sends stacks only when told to", () => {
    const error = new ShardloomError("ERR_INTERNAL", "here");
    expect(travel(error, true).stack).toBe(error.stack);
    expect(travel(error).stack).toBe("ShardloomError: here");
  });

  it("reads an unknown code as internal and says which it was", () => {
    const back = errorFromValue({
      name: "ShardloomError",
      message: "new",
      code: "ERR_FROM_THE_FUTURE",
      details: { a: 1 },
    });
    expect(back).toMatchObject({ code: "ERR_INTERNAL", details: { a: 1, remoteCode: "ERR_FROM_THE_FUTURE" } });
    expect(errorFromValue({ name: "x", message: "y", code: "toString" }).code).toBe("ERR_INTERNAL");
  });

  it("never throws, whatever it is given (property)", () => {
    fc.assert(
      fc.property(fc.anything({ withBigInt: true, withMap: true, withNullPrototype: true }), (thing) => {
        expect(errorFromValue(thing)).toBeInstanceOf(ShardloomError);
        expect(travel(thing)).toBeInstanceOf(ShardloomError);
        expect(travel(new ShardloomError("ERR_CORRUPT", "m", { cause: thing, details: { thing } })).code).toBe(
          "ERR_CORRUPT",
        );
      }),
    );
  });
});
