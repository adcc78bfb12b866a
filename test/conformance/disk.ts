/**
 * What every disk does, without faults: the suite of the {@link Disk} interface.
 *
 * Each implementation gives an empty disk and a way to wait; the simulated one has to turn its loop meanwhile.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type ErrorCode, ShardloomError } from "../../src/errors.ts";
import type { Disk, DiskFile } from "../../src/runtime/disk.ts";

export interface DiskUnderTest {
  readonly disk: Disk;
  /** Resolves as the work does. */
  run<T>(work: Promise<T>): Promise<T>;
  /** Gives the disk up and opens it again, as a process that was stopped and started. */
  restart(): Promise<Disk>;
  close(): Promise<void>;
}

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

/** Declares the tests. */
export function diskConformance(create: () => Promise<DiskUnderTest>): void {
  /** One test on an empty disk. */
  const check = (name: string, body: (disk: Disk, given: DiskUnderTest) => Promise<void>): void =>
    test(name, async () => {
      const given = await create();
      try {
        await given.run(body(given.disk, given));
      } finally {
        await given.close();
      }
    });

  check("gives back what was written, at once and after a restart", async (disk, { restart }) => {
    const file = await disk.open("a", "write");
    await file.write(0, bytes(1, 2, 3));
    await file.write(2, bytes(9, 9));
    expect(await file.read(0, 10)).toEqual(bytes(1, 2, 9, 9));
    expect(await file.read(1, 2)).toEqual(bytes(2, 9));
    expect(await file.size()).toBe(4);
    await file.sync();
    await disk.syncDirectory("");
    await file.close();
    const again = await (await restart()).open("a", "read");
    expect(await again.read(0, 10)).toEqual(bytes(1, 2, 9, 9));
    await again.close();
  });

  check("writes durably in one call, where it can, also under another name", async (disk, { restart }) => {
    const file = await disk.open("a", "create", true);
    await disk.rename("a", "b");
    await (await disk.open("a", "create")).close();
    await disk.syncDirectory("");
    if (file.writeDurably === undefined) {
      await file.write(0, bytes(1, 2, 3));
      await file.sync();
    } else {
      await Promise.all([file.writeDurably(0, bytes(1)), file.writeDurably(1, bytes(2, 3))]);
      expect(await file.read(0, 10)).toEqual(bytes(1, 2, 3));
      await fails(file.writeDurably(-1, bytes(1)), "ERR_INVALID_ARGUMENT");
    }
    await file.close();
    if (file.writeDurably !== undefined) await fails(file.writeDurably(0, bytes(1)), "ERR_CLOSED");
    const reader = await disk.open("b", "read", true);
    expect(reader.writeDurably).toBe(undefined);
    await reader.close();
    const after = await restart();
    const [b, a] = [await after.open("b", "read"), await after.open("a", "read")];
    expect(await b.read(0, 10)).toEqual(bytes(1, 2, 3));
    expect(await a.size()).toBe(0);
    await Promise.all([a.close(), b.close()]);
  });

  check("reads less at the end and nothing behind it", async (disk) => {
    const file = await disk.open("a", "create");
    expect(await file.read(0, 5)).toEqual(bytes());
    await file.write(0, bytes(1, 2));
    expect(await file.read(1, 100)).toEqual(bytes(2));
    expect(await file.read(2, 1)).toEqual(bytes());
    expect(await file.read(10_000, 1)).toEqual(bytes());
    expect(await file.read(0, 0)).toEqual(bytes());
    await file.close();
  });

  check("fills gaps with zeros, also where there was something before a cut", async (disk) => {
    const file = await disk.open("a", "create");
    await file.write(0, new Uint8Array(2_000).fill(7));
    await file.truncate(3);
    await file.write(1_500, bytes(1));
    const expected = new Uint8Array(1_501);
    expected.set([7, 7, 7]);
    expected[1_500] = 1;
    expect(await file.read(0, 9_999)).toEqual(expected);
    await file.truncate(1_503);
    expect(await file.read(1_499, 9)).toEqual(bytes(0, 1, 0, 0));
    await file.write(5_000, bytes());
    expect(await file.size()).toBe(1_503);
    await file.close();
  });

  check("writes megabytes, and many at once", async (disk) => {
    const file = await disk.open("a", "create");
    const part = 300_001;
    await Promise.all(
      Array.from({ length: 10 }, (_, index) => file.write(index * part, new Uint8Array(part).fill(index + 1))),
    );
    const all = await file.read(0, 20 * part);
    expect(all.length).toBe(10 * part);
    for (let index = 0; index < 10; index++) {
      expect(all.subarray(index * part, (index + 1) * part).every((byte) => byte === index + 1)).toBe(true);
    }
    await file.close();
  });

  check("opens by mode", async (disk) => {
    await fails(disk.open("a", "read"), "ERR_NO_FILE");
    await (await disk.open("a", "create")).close();
    await fails(disk.open("a", "create"), "ERR_FILE_EXISTS");
    const reader = await disk.open("a", "read");
    await fails(reader.write(0, bytes(1)), "ERR_READ_ONLY");
    await fails(reader.truncate(0), "ERR_READ_ONLY");
    const writer = await disk.open("a", "write");
    await writer.write(0, bytes(5));
    expect(await reader.read(0, 1)).toEqual(bytes(5));
    await reader.close();
    await writer.close();
  });

  check("refuses a closed file, and closes twice", async (disk) => {
    const file = await disk.open("a", "create");
    const closing = file.close();
    await fails(file.read(0, 1), "ERR_CLOSED");
    await closing;
    await file.close();
    await fails(file.write(0, bytes(1)), "ERR_CLOSED");
    await fails(file.sync(), "ERR_CLOSED");
    await fails(file.truncate(0), "ERR_CLOSED");
    await fails(file.size(), "ERR_CLOSED");
  });

  check("renames in place of another file, whose readers keep it", async (disk) => {
    const put = async (path: string, value: number): Promise<DiskFile> => {
      const file = await disk.open(path, "create");
      await file.write(0, bytes(value));
      return file;
    };
    const [one, other] = [await put("one", 1), await put("other", 2)];
    await disk.rename("one", "other");
    expect(await disk.list("")).toEqual(["other"]);
    expect(await other.read(0, 1)).toEqual(bytes(2));
    await one.write(1, bytes(3));
    const named = await disk.open("other", "read");
    expect(await named.read(0, 9)).toEqual(bytes(1, 3));
    await disk.rename("other", "other");
    await fails(disk.rename("one", "two"), "ERR_NO_FILE");
    await disk.remove("other");
    await fails(disk.remove("other"), "ERR_NO_FILE");
    expect(await named.read(0, 9)).toEqual(bytes(1, 3));
    for (const file of [one, other, named]) await file.close();
  });

  check("has directories", async (disk) => {
    await disk.makeDirectory("a");
    await disk.makeDirectory("a");
    await disk.makeDirectory("a/b");
    await fails(disk.makeDirectory("x/y"), "ERR_NO_FILE");
    await (await disk.open("a/z", "create")).close();
    await (await disk.open("a/Y", "create")).close();
    expect(await disk.list("a")).toEqual(["Y", "b", "z"]);
    expect(await disk.list("")).toEqual(["a"]);
    await disk.rename("a/z", "a/b/z");
    expect(await disk.list("a/b")).toEqual(["z"]);
    await disk.syncDirectory("a/b");
    await disk.syncDirectory("");
    await fails(disk.list("nowhere"), "ERR_NO_FILE");
    await fails(disk.syncDirectory("nowhere"), "ERR_NO_FILE");
    await fails(disk.makeDirectory("a/Y"), "ERR_FILE_EXISTS");
    for (const mode of ["read", "write"] as const) await fails(disk.open("a", mode), "ERR_IO");
    await fails(disk.remove("a"), "ERR_IO");
    await fails(disk.rename("a", "c"), "ERR_IO");
    await fails(disk.rename("a/Y", "a/b"), "ERR_IO");
    await fails(disk.open("a/Y/q", "create"), "ERR_IO");
    await fails(disk.list("a/Y"), "ERR_IO");
    expect(await disk.list("a")).toEqual(["Y", "b"]);
  });

  check("keeps to its root, and to whole numbers", async (disk) => {
    for (const path of ["", "/etc/passwd", "..", "../a", "a/../../b", ".", "a//b", "a/", "a\0b", "a\\b"]) {
      await fails(disk.open(path, "write"), "ERR_INVALID_ARGUMENT");
      await fails(disk.remove(path), "ERR_INVALID_ARGUMENT");
      await fails(disk.rename(path, "a"), "ERR_INVALID_ARGUMENT");
      await fails(disk.rename("a", path), "ERR_INVALID_ARGUMENT");
      if (path === "") continue;
      await fails(disk.list(path), "ERR_INVALID_ARGUMENT");
      await fails(disk.makeDirectory(path), "ERR_INVALID_ARGUMENT");
      await fails(disk.syncDirectory(path), "ERR_INVALID_ARGUMENT");
    }
    expect(await disk.list("")).toEqual([]);
    const file = await disk.open("a", "write");
    for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60]) {
      await fails(file.read(value, 1), "ERR_INVALID_ARGUMENT");
      await fails(file.read(0, value), "ERR_INVALID_ARGUMENT");
      await fails(file.write(value, bytes(1)), "ERR_INVALID_ARGUMENT");
      await fails(file.truncate(value), "ERR_INVALID_ARGUMENT");
    }
    expect(await file.size()).toBe(0);
    await file.close();
  });

  test("is a map from names to bytes, whatever is done to it (property)", async () => {
    const name = fc.constantFrom("a", "b", "c");
    const step = fc.oneof(
      fc.record({ f: fc.constant("write"), name, at: fc.nat(2_000), length: fc.nat(1_500), value: fc.nat(255) }),
      fc.record({ f: fc.constant("truncate"), name, at: fc.nat(2_500), length: fc.nat(0), value: fc.nat(0) }),
      fc.record({
        f: fc.constantFrom("sync", "remove", "restart"),
        name,
        at: fc.nat(0),
        length: fc.nat(0),
        value: fc.nat(0),
      }),
      fc.record({ f: fc.constant("rename"), name, at: fc.nat(2), length: fc.nat(0), value: fc.nat(0) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const given = await create();
        const model = new Map<string, Uint8Array>();
        try {
          await given.run(
            (async () => {
              let disk = given.disk;
              for (const { f, name: path, at, length, value } of steps) {
                if (f === "restart") disk = await given.restart();
                else if (f === "remove" && model.delete(path)) await disk.remove(path);
                else if (f === "rename") await renameBoth(disk, model, path, ["a", "b", "c"][at] as string);
                else if (f === "write" || f === "truncate" || f === "sync") {
                  const file = await disk.open(path, "write");
                  const before = model.get(path) ?? bytes();
                  model.set(
                    path,
                    f === "write"
                      ? written(before, at, length, value)
                      : f === "truncate"
                        ? resized(before, at)
                        : before,
                  );
                  if (f === "write") await file.write(at, new Uint8Array(length).fill(value));
                  if (f === "truncate") await file.truncate(at);
                  if (f === "sync") await file.sync();
                  await file.close();
                }
              }
              expect(await disk.list("")).toEqual([...model.keys()].sort());
              for (const [path, content] of model) {
                const file = await disk.open(path, "read");
                expect(await file.read(0, 10_000)).toEqual(content);
                await file.close();
              }
            })(),
          );
        } finally {
          await given.close();
        }
      }),
      { numRuns: 40 },
    );
  });
}

async function renameBoth(disk: Disk, model: Map<string, Uint8Array>, from: string, to: string): Promise<void> {
  const content = model.get(from);
  if (content === undefined) return fails(disk.rename(from, to), "ERR_NO_FILE");
  await disk.rename(from, to);
  model.delete(from);
  model.set(to, content);
}

function resized(before: Uint8Array, size: number): Uint8Array {
  const after = new Uint8Array(size);
  after.set(before.subarray(0, size));
  return after;
}

function written(before: Uint8Array, at: number, length: number, value: number): Uint8Array {
  if (length === 0) return before;
  return resized(before, Math.max(before.length, at + length)).fill(value, at, at + length);
}

/** The work fails with a code, in the grammar of the house. */
export async function fails(work: Promise<unknown>, code: ErrorCode): Promise<void> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(ShardloomError.is(error) ? error.code : error).toBe(code);
  expect((error as Error).message).toMatch(/^Cannot .+ as .+: /);
}
