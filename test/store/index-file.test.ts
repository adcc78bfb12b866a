/** Files of derived state: whole or not there, replaced atomically, found out when damaged. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { Disk } from "../../src/runtime/disk.ts";
import { SimDisk } from "../../src/sim/disk.ts";
import type { FaultRates } from "../../src/sim/fault-types.ts";
import { createFaultInjector } from "../../src/sim/injector.ts";
import { matchHashes } from "../../src/store/hash-join.ts";
import { checksumOf, readIndexFile, removeStrayFiles, writeIndexFile } from "../../src/store/index-file.ts";
import { SteppedLoop } from "../sim/stepped-loop.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);

function bench(rates: FaultRates = {}, seed = 1): { loop: SteppedLoop; sim: SimDisk; disk: Disk } {
  const loop = new SteppedLoop(seed);
  const sim = new SimDisk({ node: "n0", loop, faults: createFaultInjector(rates, (name) => loop.stream(name), []) });
  return { loop, sim, disk: sim.mount() };
}

async function put(disk: Disk, name: string, bytes: Uint8Array): Promise<void> {
  const file = await disk.open(`d/${name}`, "write");
  await file.truncate(0);
  await file.write(0, bytes);
  await file.close();
}

async function meaningOf(disk: Disk): Promise<unknown> {
  return (await readIndexFile(disk, "d", "a")).meaning;
}

describe("an index file", () => {
  test(`reads back as it was written, sections at multiples of 8, seed ${SEED}`, async () => {
    const lists = fc.array(fc.uint8Array({ maxLength: 30 }), { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), lists, async (meaning, sections) => {
        const { loop, disk } = bench();
        const given = [...sections, new Uint8Array(new Uint32Array().buffer)];
        await loop.finish(disk.makeDirectory("d"));
        await loop.finish(writeIndexFile(disk, "d", "a", { meaning, sections: given }));
        const read = await loop.finish(readIndexFile(disk, "d", "a"));
        expect(read.meaning).toEqual(JSON.parse(JSON.stringify(meaning)));
        expect(read.sections.map((section) => [...section])).toEqual(given.map((section) => [...section]));
        for (const { byteOffset } of read.sections) expect(byteOffset % 8).toBe(0);
      }),
      { seed: SEED, numRuns: 60 },
    );
  });

  test("of which any byte is another one, or that is shorter or longer, is damage", async () => {
    const { loop, sim, disk } = bench();
    await loop.finish(disk.makeDirectory("d"));
    await loop.finish(writeIndexFile(disk, "d", "a", { meaning: { n: 1 }, sections: [Uint8Array.of(1, 2, 3)] }));
    const whole = sim.snapshot().get("d/a") as Uint8Array;
    const variants = [
      ...Array.from(whole, (byte, at) => whole.with(at, byte ^ (1 << (at & 7)))),
      ...Array.from(whole, (_, length) => whole.slice(0, length)),
      Uint8Array.of(...whole, 0),
    ];
    for (const bytes of variants) {
      await loop.finish(put(disk, "a", bytes));
      await expect(loop.finish(meaningOf(disk))).rejects.toMatchObject({ code: "ERR_CORRUPT" });
    }
    await expect(loop.finish(readIndexFile(disk, "d", "b"))).rejects.toMatchObject({ code: "ERR_NO_FILE" });
  });

  test(`is the old one or the new one after a crash at any step, seed ${SEED}`, async () => {
    const seen = new Set<unknown>();
    for (let step = 0, done = false; !done; step++) {
      for (let life = 0; life < 5; life++) {
        const { loop, sim, disk } = bench({ "disk-lost-write": 0.5, "disk-torn": 0.5 }, SEED + life);
        await loop.finish(disk.makeDirectory("d").then(() => disk.syncDirectory("")));
        const sections = [new Uint8Array(2_000).fill(7)];
        await loop.finish(writeIndexFile(disk, "d", "a", { meaning: 1, sections }));
        done = false;
        const work = writeIndexFile(disk, "d", "a", { meaning: 2, sections }).then(() => {
          done = true;
        });
        await loop.settle();
        for (let at = 0; at < step && !done; at++) await loop.step();
        sim.crash();
        if (done) await work;
        const after = sim.mount();
        const meaning = await loop.finish(meaningOf(after));
        expect(done ? [2] : [1, 2]).toContain(meaning);
        seen.add(meaning);
        await loop.finish(removeStrayFiles(after, "d", "a", () => true));
        await loop.finish(writeIndexFile(after, "d", "a", { meaning: 3, sections: [] }));
        expect(await loop.finish(meaningOf(after))).toBe(3);
      }
    }
    expect(seen).toEqual(new Set([1, 2]));
  });

  test("stays what it was when the disk takes no more", async () => {
    const { loop, sim, disk } = bench();
    await loop.finish(disk.makeDirectory("d"));
    await loop.finish(writeIndexFile(disk, "d", "a", { meaning: 1, sections: [] }));
    sim.readOnly = true;
    const failing = writeIndexFile(disk, "d", "a", { meaning: 2, sections: [] });
    await expect(loop.finish(failing)).rejects.toSatisfy(
      (error) => ShardloomError.is(error) && error.code === "ERR_READ_ONLY",
    );
    expect(await loop.finish(meaningOf(disk))).toBe(1);
  });
});

test("files of collections that are gone, and of writers that died, are removed; those of others stay", async () => {
  const { loop, disk } = bench();
  await loop.finish(disk.makeDirectory("d"));
  const names = ["text-1.postings", "text-2.postings", "text-2.postings.temporary", "text-x", "vector-2.rows"];
  for (const name of names) await loop.finish(put(disk, name, Uint8Array.of(1, 2, 3)));
  expect(await loop.finish(checksumOf(disk, "d/text-1.postings"))).toEqual({ bytes: 3, crc: 0x55bc801d });
  await loop.finish(removeStrayFiles(disk, "d", "text", (id) => id === 1));
  expect(await loop.finish(disk.list("d"))).toEqual(["text-1.postings", "vector-2.rows"]);
});

test("hashes are matched as a map would", () => {
  const hash = fc.tuple(fc.integer({ min: 0, max: 3 }), fc.oneof(fc.nat(3), fc.constant(0xffff_ffff)));
  const distinct = fc.uniqueArray(hash, { selector: (words) => words.join() });
  fc.assert(
    fc.property(distinct, fc.array(hash), (have, wanted) => {
      const expected = wanted.map((words) => have.findIndex((other) => other.join() === words.join()));
      const found = matchHashes(Uint32Array.from(have.flat()), Uint32Array.from(wanted.flat()));
      expect([...found]).toEqual(expected);
    }),
    { seed: SEED },
  );
});
