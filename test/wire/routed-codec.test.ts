/** The prefixes of planned requests and replies: what one side writes the other reads, and nothing malformed gets past the readers. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import {
  CONSISTENCY,
  MAX_KEY_BYTES,
  REFUSAL,
  type RefusedVshard,
  ROUTED_HEADER_BYTES,
  RoutedReader,
  type RoutedRequest,
  readRoutedReply,
  routedReplyBytes,
  routedRequestBytes,
  SCOPE,
  writeRoutedReply,
  writeRoutedRequest,
} from "../../src/wire/routed-codec.ts";

interface Memory {
  readonly bytes: Uint8Array;
  readonly i32: Int32Array;
  readonly f64: Float64Array;
}

/** Filled with ones: what a writer leaves unwritten is seen. */
function memory(byteLength: number): Memory {
  const buffer = new SharedArrayBuffer(byteLength);
  const bytes = new Uint8Array(buffer).fill(0xff);
  return { bytes, i32: new Int32Array(buffer), f64: new Float64Array(buffer) };
}

const OFFSET = 16;

function written(request: RoutedRequest): { m: Memory; byteLength: number } {
  const byteLength = routedRequestBytes(request);
  const m = memory(OFFSET + byteLength + 64);
  writeRoutedRequest(m, OFFSET, request);
  return { m, byteLength };
}

const vshards = fc.uniqueArray(fc.nat(32_767), { maxLength: 40 }).map((list) => Uint16Array.from(list));
const lsn = fc.oneof(fc.nat(), fc.maxSafeNat(), fc.constant(Number.MAX_SAFE_INTEGER));
const lsnList = fc
  .uniqueArray(fc.tuple(fc.nat(32_767), lsn), { maxLength: 40, selector: ([vshard]) => vshard })
  .map((pairs) => ({
    vshards: Uint16Array.from(pairs, ([vshard]) => vshard),
    lsns: Float64Array.from(pairs, ([, value]) => value),
  }));
const place = fc.oneof(
  fc.record({ scope: fc.constant(SCOPE.LISTED), vshards }),
  fc.record({ scope: fc.constantFrom(SCOPE.PRIMARY, SCOPE.HELD), vshards: fc.constant(undefined) }),
);
const key = fc.record({
  bytes: fc
    .string({ unit: "grapheme", minLength: 1, maxLength: 200 })
    .map((text) => new TextEncoder().encode(text))
    .filter(({ length }) => length <= MAX_KEY_BYTES),
  part: fc.nat(),
});
const demand = fc.oneof(
  fc.record({ consistency: fc.constantFrom(CONSISTENCY.STRONG, CONSISTENCY.EVENTUAL) }),
  fc.record({ consistency: fc.constant(CONSISTENCY.SESSION), minima: lsnList }),
  fc.record({
    consistency: fc.constant(CONSISTENCY.BOUNDED_STALENESS),
    maxStalenessMs: fc.oneof(fc.double({ min: 0, noNaN: true }), fc.constant(Number.POSITIVE_INFINITY)),
  }),
  fc.record({ consistency: fc.constant(CONSISTENCY.WRITE), acks: fc.integer({ min: 1, max: 16 }) }),
  fc.record({ consistency: fc.constant(CONSISTENCY.WRITE), acks: fc.integer({ min: 1, max: 16 }), key }),
);
const routed: fc.Arbitrary<RoutedRequest> = fc.tuple(place, demand).map(([where, what]) => ({ ...where, ...what }));

describe("a request's prefix", () => {
  test("comes back as it was written, a multiple of 8 long", () => {
    const reader = new RoutedReader();
    fc.assert(
      fc.property(routed, (request) => {
        const { m, byteLength } = written(request);
        expect(byteLength % 8).toBe(0);
        const read = reader.open(m, OFFSET, byteLength + 24);
        expect(read.byteLength).toBe(byteLength);
        expect(read.consistency).toBe(request.consistency);
        expect(read.scope).toBe(request.scope);
        expect(read.acks).toBe(request.acks ?? 0);
        expect(read.maxStalenessMs).toBe(request.maxStalenessMs ?? 0);
        expect(read.idempotencyKey).toBe(Buffer.from(request.key?.bytes ?? []).toString("utf8"));
        expect(read.part).toBe(request.key?.part ?? 0);
        expect(Array.from({ length: read.count }, (_, i) => read.vshard(i))).toEqual([...(request.vshards ?? [])]);
        const { minima } = request;
        expect(Array.from({ length: read.minCount }, (_, i) => [read.minVshard(i), read.minLsn(i)])).toEqual(
          Array.from(minima?.vshards ?? [], (vshard, i) => [vshard, minima?.lsns[i]]),
        );
        // No byte before or after it is touched.
        expect(
          [...m.bytes.subarray(0, OFFSET), ...m.bytes.subarray(OFFSET + byteLength)].every((b) => b === 0xff),
        ).toBe(true);
      }),
    );
  });

  test("of all vshards costs 8 bytes", () => {
    for (const scope of [SCOPE.PRIMARY, SCOPE.HELD]) {
      expect(routedRequestBytes({ consistency: CONSISTENCY.STRONG, scope })).toBe(8);
      expect(routedRequestBytes({ consistency: CONSISTENCY.WRITE, scope, acks: 2 })).toBe(8);
    }
  });

  test("that is cut short is refused", () => {
    fc.assert(
      fc.property(routed, fc.nat(), (request, cut) => {
        const { m, byteLength } = written(request);
        expect(codeOf(() => new RoutedReader().open(m, OFFSET, cut % byteLength))).toBe("ERR_CORRUPT");
      }),
    );
  });

  test.each<[string, Partial<RoutedRequest>]>([
    ["an unknown consistency", { consistency: 5 as never }],
    ["an unknown scope", { scope: 3 as never }],
    ["a key before a read", { key: { bytes: Uint8Array.of(65), part: 0 } }],
    ...[
      { bytes: new Uint8Array(0), part: 0 },
      { bytes: new Uint8Array(MAX_KEY_BYTES + 1).fill(65), part: 0 },
      { bytes: Uint8Array.of(65), part: -1 },
    ].map((bad): [string, Partial<RoutedRequest>] => [
      `a key of ${bad.bytes.length} bytes in part ${bad.part}`,
      { consistency: CONSISTENCY.WRITE, acks: 1, key: bad },
    ]),
    ["a read that wants acknowledgements", { acks: 1 }],
    ["a write that wants none", { consistency: CONSISTENCY.WRITE, acks: 0 }],
    ["a write that wants more than there can be", { consistency: CONSISTENCY.WRITE, acks: 17 }],
    ["a list where none belongs", { scope: SCOPE.HELD, vshards: Uint16Array.of(1) }],
    ["LSNs where none belong", { minima: { vshards: Uint16Array.of(1), lsns: Float64Array.of(1) } }],
    ["a vshard that cannot be", { scope: SCOPE.LISTED, vshards: Uint16Array.of(32_768) }],
    ["a negative staleness", { consistency: CONSISTENCY.BOUNDED_STALENESS, maxStalenessMs: -1 }],
    ["a staleness that is no number", { consistency: CONSISTENCY.BOUNDED_STALENESS, maxStalenessMs: Number.NaN }],
    ...[-1, 1.5, 2 ** 53, Number.NaN].map((value): [string, Partial<RoutedRequest>] => [
      `an LSN of ${value}`,
      { consistency: CONSISTENCY.SESSION, minima: { vshards: Uint16Array.of(1), lsns: Float64Array.of(value) } },
    ]),
  ])("with %s is refused", (_, part) => {
    const { m, byteLength } = written({ consistency: CONSISTENCY.STRONG, scope: SCOPE.PRIMARY, ...part });
    expect(codeOf(() => new RoutedReader().open(m, OFFSET, byteLength))).toBe("ERR_CORRUPT");
  });

  test("of random bytes is refused or lies inside its record", () => {
    const reader = new RoutedReader();
    let accepted = 0;
    fc.assert(
      fc.property(routed, fc.array(fc.tuple(fc.nat(63), fc.nat(255)), { maxLength: 3 }), (request, changes) => {
        const { m, byteLength } = written(request);
        for (const [at, value] of changes) m.bytes[OFFSET + (at % byteLength)] = value;
        if (codeOf(() => reader.open(m, OFFSET, byteLength)) !== "") return;
        accepted++;
        expect(reader.byteLength).toBeLessThanOrEqual(byteLength);
        for (let i = 0; i < reader.count; i++) expect(reader.vshard(i)).toBeLessThan(32_768);
        for (let i = 0; i < reader.minCount; i++) expect(Number.isSafeInteger(reader.minLsn(i))).toBe(true);
      }),
      { numRuns: 2000 },
    );
    expect(accepted).toBeGreaterThan(0);
  });
});

const refusals: fc.Arbitrary<RefusedVshard[]> = fc.array(
  fc.record({ vshard: fc.nat(32_767), reason: fc.constantFrom(...Object.values(REFUSAL)) }),
  { maxLength: 40 },
);

/** In ms; told in whole ones, never as less than it is. */
const staleness = fc.oneof(
  fc.constantFrom(0, 0.001, 1, 2 ** 31, Number.POSITIVE_INFINITY),
  fc.double({ min: 0, max: 1e6, noNaN: true }),
);

describe("a reply's prefix", () => {
  test("comes back as it was written", () => {
    fc.assert(
      fc.property(refusals, lsnList, staleness, (refused, lsns, stalenessMs) => {
        const byteLength = routedReplyBytes(refused.length, lsns.vshards.length);
        const m = memory(OFFSET + byteLength + 64);
        writeRoutedReply(m, OFFSET, refused, lsns, stalenessMs);
        const read = readRoutedReply(m, OFFSET, byteLength + 8);
        const told = stalenessMs < 2 ** 31 - 2 ? Math.ceil(stalenessMs) : Number.POSITIVE_INFINITY;
        expect(read).toEqual({ refused, written: lsns, stalenessMs: told, byteLength });
        expect(m.bytes.subarray(OFFSET + byteLength).every((byte) => byte === 0xff)).toBe(true);
        expect(byteLength % 8).toBe(0);
      }),
    );
  });

  test("of a complete read costs 8 bytes and no allocation", () => {
    expect(routedReplyBytes(0, 0)).toBe(ROUTED_HEADER_BYTES);
    const m = memory(64);
    writeRoutedReply(m, OFFSET, [], undefined);
    expect(readRoutedReply(m, OFFSET, 8)).toBe(readRoutedReply(m, OFFSET, 40));
  });

  test("that is cut short or altered is refused, or lies inside its record", () => {
    let accepted = 0;
    fc.assert(
      fc.property(refusals, lsnList, fc.nat(), fc.nat(), fc.nat(255), (refused, lsns, cut, at, value) => {
        const byteLength = routedReplyBytes(refused.length, lsns.vshards.length);
        const m = memory(OFFSET + byteLength + 64);
        writeRoutedReply(m, OFFSET, refused, lsns);
        expect(codeOf(() => readRoutedReply(m, OFFSET, cut % byteLength))).toBe("ERR_CORRUPT");
        m.bytes[OFFSET + (at % byteLength)] = value;
        if (codeOf(() => readRoutedReply(m, OFFSET, byteLength)) !== "") return;
        accepted++;
        const read = readRoutedReply(m, OFFSET, byteLength);
        expect(read.byteLength).toBeLessThanOrEqual(byteLength);
        expect(read.written.vshards.every((vshard) => vshard < 32_768)).toBe(true);
        expect(read.written.lsns.every((entry) => Number.isSafeInteger(entry))).toBe(true);
      }),
      { numRuns: 1000 },
    );
    expect(accepted).toBeGreaterThan(0);
  });
});

/** The code that it throws, or "" when it does not. */
function codeOf(act: () => unknown): string {
  try {
    act();
    return "";
  } catch (error) {
    return ShardloomError.is(error) ? error.code : String(error);
  }
}
