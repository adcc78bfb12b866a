/** Readers of graph texts: what they read, every way in which a text can be bad, and that blocks do not matter. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type EdgeTextOptions, readEdgeText } from "../../../../actors/graph/formats/edge-text.ts";
import { KeySet } from "../../../../actors/graph/formats/key-set.ts";
import { MAX_LINE_BYTES } from "../../../../actors/graph/formats/line-splitter.ts";
import { MAX_FIELDS } from "../../../../actors/graph/formats/text-fields.ts";
import { readVertexText, type VertexTextOptions } from "../../../../actors/graph/formats/vertex-text.ts";
import type { VertexKey } from "../../../../actors/graph/vertex-key.ts";
import { ShardloomError } from "../../../../src/errors.ts";

type Text = string | Uint8Array;
type Edge = readonly [source: VertexKey, target: VertexKey, weight?: number | undefined];
interface Outcome<Row> {
  readonly rows: Row[];
  readonly error: ShardloomError | undefined;
}

/** Cuts a text into blocks of the given lengths, over and over; each block is overwritten when the next one is asked for. */
function* blocks(text: Text, lengths: readonly number[]): Generator<Uint8Array> {
  const bytes = Buffer.from(text);
  const block = new Uint8Array(Math.max(1, ...lengths));
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const length = lengths.length === 0 ? bytes.length : (lengths[turn % lengths.length] as number);
    const part = bytes.subarray(at, at + length);
    at += length;
    if (lengths.length === 0) yield part;
    else {
      block.fill(0x39); // a digit: what is read too late is seen
      block.set(part);
      yield block.subarray(0, part.length);
    }
  }
}

async function settle<Row>(rows: Row[], work: () => Promise<void>): Promise<Outcome<Row>> {
  try {
    await work();
  } catch (error) {
    if (!ShardloomError.is(error)) throw error;
    return { rows, error };
  }
  return { rows, error: undefined };
}

function edges(text: Text, options: Partial<EdgeTextOptions> = {}, lengths: number[] = []): Promise<Outcome<Edge>> {
  const rows: Edge[] = [];
  return settle(rows, async () => {
    for await (const batch of readEdgeText(blocks(text, lengths), { file: "a.e", ...options })) {
      expect(batch.sources.length).toBeGreaterThan(0);
      expect(batch.targets.length).toBe(batch.sources.length);
      expect(batch.weights?.length ?? batch.sources.length).toBe(batch.sources.length);
      expect(batch.lastLine - batch.firstLine).toBeGreaterThanOrEqual(batch.sources.length - 1);
      for (const [index, source] of batch.sources.entries()) {
        const ends = [source, batch.targets[index] as VertexKey] as const;
        rows.push(batch.weights === undefined ? ends : [...ends, batch.weights[index]]);
      }
    }
  });
}

function vertices(
  text: Text,
  options: Partial<VertexTextOptions> = {},
  lengths: number[] = [],
): Promise<Outcome<VertexKey>> {
  const rows: VertexKey[] = [];
  return settle(rows, async () => {
    for await (const { keys } of readVertexText(blocks(text, lengths), { file: "a.v", ...options })) rows.push(...keys);
  });
}

describe("edges", () => {
  test.each<[string, Text, Partial<EdgeTextOptions>, Edge[]]>([
    [
      "LDBC",
      "1 2\n1 3\n",
      {},
      [
        [1, 2],
        [1, 3],
      ],
    ],
    [
      "LDBC with weights",
      "1 3 0.5\n1 5 0.3\n",
      {},
      [
        [1, 3, 0.5],
        [1, 5, 0.3],
      ],
    ],
    [
      "no last line feed",
      "1 2\n3 4",
      {},
      [
        [1, 2],
        [3, 4],
      ],
    ],
    [
      "carriage returns, tabs, blank lines, a byte order mark",
      "\uFEFF1\t2\r\n\r\n  3  4  \r\n",
      {},
      [
        [1, 2],
        [3, 4],
      ],
    ],
    [
      "comments",
      "# SNAP\n%%MatrixMarket\n1 2\n  # more\n3 4\n",
      {},
      [
        [1, 2],
        [3, 4],
      ],
    ],
    ["nothing", "", {}, []],
    ["only comments", "# nothing\n\n", {}, []],
    [
      "words",
      "ann bob\nbob 007\n",
      {},
      [
        ["ann", "bob"],
        ["bob", "007"],
      ],
    ],
    ["integers as strings", "1 2\n", { keys: "string" }, [["1", "2"]]],
    ["UTF-8", "å 東京\n", {}, [["å", "東京"]]],
    [
      "weights in every form",
      "1 2 -1.5e-3\n1 2 +2\n1 2 .5\n1 2 7.\n1 2 1e22\n1 2 -0.1\n",
      {},
      [
        [1, 2, -0.0015],
        [1, 2, 2],
        [1, 2, 0.5],
        [1, 2, 7],
        [1, 2, 1e22],
        [1, 2, -0.1],
      ],
    ],
    [
      "ignored weights",
      "1 2 x\n3 4\n",
      { weights: "ignored" },
      [
        [1, 2],
        [3, 4],
      ],
    ],
    ["CSV with a header in any order", "w,Target,weight,SOURCE\na,2,0.5,1\n", { format: "csv" }, [[1, 2, 0.5]]],
    [
      "CSV without a header",
      "1,2\n3,4\n",
      { format: "csv" },
      [
        [1, 2],
        [3, 4],
      ],
    ],
    ["CSV without a header, with weights and more", "1,2,3,x\n", { format: "csv" }, [[1, 2, 3]]],
    ["CSV with a header without weights", "src,dst,note\n1,2,x\n", { format: "csv" }, [[1, 2]]],
    [
      "CSV quotes",
      '"a, b","say ""hi"""\r\n"3", 4 \n# ,"x" \n',
      { format: "csv" },
      [
        ["a, b", 'say "hi"'],
        [3, 4],
        ["#", "x"],
      ],
    ],
  ])("of: %s", async (_name, text, options, expected) => {
    expect(await edges(text, options)).toEqual({ rows: expected, error: undefined });
    expect(await edges(text, { ...options, batchSize: 1 }, [1])).toEqual({ rows: expected, error: undefined });
  });

  test.each<[string, Text, Partial<EdgeTextOptions>, number, string, RegExp]>([
    [
      "one field",
      "1 2\n\n3\n",
      {},
      3,
      "ERR_CORRUPT",
      /at line 3 as number of fields must be 2 or 3: current value is 1/,
    ],
    ["four fields", "1 2 3 4\n", {}, 1, "ERR_CORRUPT", /2 or 3/],
    ["a weight too few", "1 2 3\n1 2\n", {}, 2, "ERR_CORRUPT", /must be 3, as in its first line/],
    ["a weight too many", "1 2\n1 2 3\n", {}, 2, "ERR_CORRUPT", /must be 2, as in its first line/],
    ["no weight where required", "# c\n1 2\n", { weights: "required" }, 2, "ERR_CORRUPT", /source, target and weight/],
    [
      "a word for an integer",
      "1 2\n1 x\n",
      { keys: "integer" },
      2,
      "ERR_CORRUPT",
      /target must be a safe integer.*"x"/,
    ],
    ["a negative integer", "-1 2\n", { keys: "integer" }, 1, "ERR_CORRUPT", /source must be a safe integer/],
    ["an unsafe integer", "1 9007199254740992\n", { keys: "integer" }, 1, "ERR_CORRUPT", /target/],
    ["a fraction", "1 2.0\n", { keys: "integer" }, 1, "ERR_CORRUPT", /target/],
    [
      "no number as weight",
      "1 2 0x10\n",
      {},
      1,
      "ERR_CORRUPT",
      /weight must be a finite number: current value is "0x10"/,
    ],
    ["two points", "1 2 1.2.3\n", {}, 1, "ERR_CORRUPT", /weight/],
    ["only a sign", "1 2 -\n", {}, 1, "ERR_CORRUPT", /weight/],
    ["NaN", "1 2 1\n1 2 NaN\n", {}, 2, "ERR_NOT_FINITE", /weight must be a finite number: current value is "NaN"/],
    ["an infinity", "1 2 -Infinity\n", {}, 1, "ERR_NOT_FINITE", /weight/],
    ["too large for f64", "1 2 1e999\n", {}, 1, "ERR_NOT_FINITE", /weight/],
    ["a key that is too long", `1 ${"x".repeat(513)}\n`, {}, 1, "ERR_CORRUPT", /1 to 512 bytes/],
    ["no UTF-8", Buffer.from("1 \xff\xfe\n", "latin1"), {}, 1, "ERR_CORRUPT", /a field must be UTF-8/],
    ["an empty CSV key", "1,\n", { format: "csv" }, 1, "ERR_CORRUPT", /target must be 1 to 512 bytes/],
    ["an open quote", 'a,"b\n', { format: "csv" }, 1, "ERR_CORRUPT", /closed in its line/],
    ["text after a quote", '"a"b,c\n', { format: "csv" }, 1, "ERR_CORRUPT", /followed by a comma/],
    [
      "a CSV line of another length",
      "source,target\n1,2\n1,2,3\n",
      { format: "csv" },
      3,
      "ERR_CORRUPT",
      /as in its first/,
    ],
    ["one CSV column", "1\n", { format: "csv" }, 1, "ERR_CORRUPT", /at least 2/],
    [
      "a header without the weight that is required",
      "source,target\n",
      { format: "csv", weights: "required" },
      1,
      "ERR_CORRUPT",
      /a header that names a weight/,
    ],
    ["too many CSV columns", `${"1,".repeat(MAX_FIELDS)}1\n`, { format: "csv" }, 1, "ERR_CORRUPT", /at most 1024/],
    ["a line that is too long", `1 2\n1 ${"x".repeat(MAX_LINE_BYTES)}\n`, {}, 2, "ERR_RECORD_TOO_LARGE", /a line must/],
  ])("refused: %s", async (_name, text, options, line, code, message) => {
    for (const lengths of [[], [1000]]) {
      const { error } = await edges(text, options, lengths);
      expect(error).toMatchObject({ code, details: { file: "a.e", line } });
      expect(error?.message).toMatch(message);
      expect(error?.message).toContain(`Cannot read a.e at line ${line} as `);
    }
  });

  test("that name what is no vertex are refused, with the vertex", async () => {
    const known = new KeySet();
    for (const key of [1, 2, "2a"]) known.add(key);
    const { rows, error } = await edges("1 2\n2 2a\n2 3\n1 1\n", { vertices: known });
    expect(rows).toEqual([
      [1, 2],
      [2, "2a"],
    ]);
    expect(error).toMatchObject({ code: "ERR_UNKNOWN_VERTEX", details: { line: 3, vertex: 3 } });
    expect((await edges("1 2\n3 2\n", { vertices: known })).error?.message).toMatch(/line 2 as source must be one of/);
  });

  test("before a bad line are handed out, however the bytes came", async () => {
    const text = "1 2 1\n3 4 2\n5 6 nan\n7 8 1\n";
    for (const lengths of [[], [1], [7], [64]]) {
      const { rows, error } = await edges(text, { batchSize: 4 }, lengths);
      expect(rows).toEqual([
        [1, 2, 1],
        [3, 4, 2],
      ]);
      expect(error?.details["line"]).toBe(3);
    }
  });

  test("are handed out before the failure of their source", async () => {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield Buffer.from("1 2\n3 ");
      await Promise.reject(new ShardloomError("ERR_TRUNCATED", "cut"));
    }
    const rows: VertexKey[] = [];
    const work = async (): Promise<void> => {
      for await (const { sources } of readEdgeText(failing(), { file: "a.e" })) rows.push(...sources);
    };
    await expect(work()).rejects.toMatchObject({ code: "ERR_TRUNCATED" });
    expect(rows).toEqual([1]);
  });

  test("are not read ahead of their consumer", async () => {
    let given = 0;
    function* source(): Generator<Uint8Array> {
      for (; given < 100; ) {
        given++;
        yield Buffer.from("1 2\n1 2\n");
      }
    }
    const reader = readEdgeText(source(), { file: "a.e", batchSize: 4 });
    await reader.next();
    expect(given).toBe(2);
    await reader.return();
  });

  test.each([0, 1.5, Number.NaN, 2 ** 21])("batchSize %s is refused", (batchSize) => {
    expect(() => readEdgeText([], { file: "a.e", batchSize })).toThrow(/batchSize must be an integer between/);
  });
});

describe("vertices", () => {
  test.each<[string, Text, Partial<VertexTextOptions>, VertexKey[]]>([
    ["LDBC", "1\n2\n\n10", { keys: "integer" }, [1, 2, 10]],
    ["words", "ann\n0\n-1\n", {}, ["ann", 0, "-1"]],
    ["CSV with a header", "age,id\n30,ann\n", { format: "csv" }, ["ann"]],
    ["CSV without", "ann,30\nbob,40\n", { format: "csv" }, ["ann", "bob"]],
  ])("of: %s", async (_name, text, options, expected) => {
    expect(await vertices(text, options)).toEqual({ rows: expected, error: undefined });
    expect(await vertices(text, { ...options, batchSize: 1 }, [1])).toEqual({ rows: expected, error: undefined });
  });

  test("that come twice are refused, also across batches and files", async () => {
    const seen = new KeySet();
    const { rows, error } = await vertices("1\n2\n\n1\n", { seen, batchSize: 1 });
    expect(rows).toEqual([1, 2]);
    expect(error).toMatchObject({ code: "ERR_DUPLICATE_ID", details: { file: "a.v", line: 4, vertex: 1 } });
    expect((await vertices("3\n2\n", { seen })).error).toMatchObject({ details: { line: 2, vertex: 2 } });
    expect(seen.size).toBe(3);
    // A number and its text with a leading zero are two vertices.
    expect((await vertices("7\n07\n", { seen })).error).toBeUndefined();
  });

  test("with more than a key are refused: an edge file was given", async () => {
    expect((await vertices("1 2\n")).error).toMatchObject({ code: "ERR_CORRUPT", details: { line: 1 } });
    expect((await vertices("1,2\n3\n", { format: "csv" })).error).toMatchObject({ details: { line: 2 } });
  });
});

const key = fc.oneof(
  fc.nat(),
  fc.maxSafeNat(),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 9 }).filter((text) => /^[^\s#%\uFEFF,"][^\s,"]*$/.test(text)),
);
const weight = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (n === 0 ? 0 : n)),
  fc.integer().map((n) => n / 1000),
);
const canonical = (text: VertexKey): VertexKey =>
  typeof text === "string" && /^(0|[1-9]\d*)$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : text;
const lengthsOf = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 5 });

describe("for any text", () => {
  test("what is written is read, in any format and any blocks", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(key, key, weight), { maxLength: 30 }),
        fc.boolean(),
        fc.constantFrom<["list" | "csv", string]>(["list", " "], ["list", "\t\t"], ["csv", ","]),
        fc.constantFrom("\n", "\r\n", "\n\n"),
        fc.integer({ min: 1, max: 7 }),
        lengthsOf,
        async (rows, weighted, [format, separator], lineEnd, batchSize, lengths) => {
          const written = rows.map((row) => (weighted ? row : row.slice(0, 2)));
          const quote = (field: VertexKey): string => (format === "csv" ? `"${field}"` : String(field));
          const text = written.map((row) => row.map(quote).join(separator)).join(lineEnd);
          const expected = written.map(([a, b, w]) => {
            const ends = [canonical(a as VertexKey), canonical(b as VertexKey)];
            return w === undefined ? ends : [...ends, w];
          });
          const header = format === "csv" ? `source,target${weighted ? ",weight" : ""}\n` : "";
          const { rows: got, error } = await edges(header + text, { format, batchSize }, lengths);
          expect(error).toBeUndefined();
          expect(got).toEqual(expected);
        },
      ),
    );
  });

  test("any bytes end in rows or a typed error with its line, the same for all blocks", async () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc
        .array(fc.constantFrom(...' \t\n\r,"#%0123456789.-+eaNnif\u00e9'.split("")), { maxLength: 200 })
        .map((c) => Buffer.from(c.join(""))),
    );
    const shape = (outcome: Outcome<unknown>): unknown => [outcome.rows, outcome.error?.code, outcome.error?.details];
    await fc.assert(
      fc.asyncProperty(bytes, fc.constantFrom("list", "csv"), lengthsOf, async (text, format, lengths) => {
        const options = { format: format };
        const whole = await edges(text, options);
        expect(shape(await edges(text, { ...options, batchSize: 3 }, lengths))).toEqual(shape(whole));
        if (whole.error !== undefined) {
          expect(whole.error.details["line"]).toBeGreaterThan(0);
          expect(["ERR_CORRUPT", "ERR_NOT_FINITE"]).toContain(whole.error.code);
        }
        const keys = await vertices(text, { ...options, seen: new KeySet() });
        expect(shape(await vertices(text, { ...options, seen: new KeySet(), batchSize: 2 }, lengths))).toEqual(
          shape(keys),
        );
        expect(new Set(keys.rows).size).toBe(keys.rows.length);
      }),
      { numRuns: 500 },
    );
  });

  test("a decimal is the nearest double", async () => {
    const digits = fc.string({ unit: fc.constantFrom(..."0123456789".split("")), maxLength: 9 });
    await fc.assert(
      fc.asyncProperty(digits, digits, fc.constantFrom("", "-", "+"), async (whole, part, sign) => {
        fc.pre(whole.length + part.length > 0);
        const text = `${sign}${whole}.${part}`;
        expect((await edges(`1 2 ${text}\n`)).rows).toEqual([[1, 2, Number(text)]]);
      }),
    );
  });

  test("a key set agrees with a Set", () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(key, fc.nat(5), fc.constantFrom("1", "2", "ab", "ba"))), (keys) => {
        const set = new KeySet();
        const model = new Set<VertexKey>();
        for (const one of keys) {
          expect(set.has(one)).toBe(model.has(one));
          expect(set.add(one)).toBe(!model.has(one));
          model.add(one);
        }
        expect(set.size).toBe(model.size);
        set.clear();
        expect(set.size + (keys.some((one) => set.has(one)) ? 1 : 0)).toBe(0);
      }),
    );
  });
});
