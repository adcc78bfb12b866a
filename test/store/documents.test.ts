/** Documents in LMDB against a naive model: batches, sweeps, keys, what a reader sees, and whose they are. */
import { existsSync } from "node:fs";
import { truncate, writeFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { KEPT_KEYS } from "../../src/store/document-batch.ts";
import { hasDocuments, isClean, markClean, unmark } from "../../src/store/document-files.ts";
import { documentKey, MAX_KEY_BYTES } from "../../src/store/document-layout.ts";
import { openDocumentsForRecovery } from "../../src/store/document-recovery.ts";
import { openDocuments } from "../../src/store/documents.ts";
import { CLUSTER, contentOf, createNodeDirectory, documentAt, frameAt, idOf, Model } from "./documents-support.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);

async function codeOf(run: () => unknown): Promise<string> {
  try {
    await run();
  } catch (error) {
    return ShardloomError.is(error) ? error.code : String(error);
  }
  return "";
}

describe("documents", () => {
  test("hold what batches have left, after every reopening, and count what they hold", async () => {
    console.info(`documents: SEED=${SEED}`);
    let swept = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.integer(),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 6 }),
        async (seed, lives) => {
          await using node = await createNodeDirectory();
          const model = new Model();
          let position = 0;
          for (const frames of lives) {
            const documents = await node.open();
            expect(documents.meta.appliedPosition).toBe(position);
            for (let left = frames; left > 0; ) {
              const batch = [];
              for (let size = 1 + (position % 4); size > 0 && left > 0; size--, left--)
                batch.push(...frameAt(seed, ++position));
              const before = model.documents.size;
              model.apply(batch);
              if (batch.some(({ step }) => step === "sweep") && model.documents.size < before) swept++;
              documents.apply(batch, { appliedPosition: position });
            }
            expect(contentOf(documents)).toEqual(model.content());
            documents.close();
          }
          const documents = await node.open();
          const { records, sum } = documents.meta;
          const found = [...documents.records()];
          expect(found.length).toBe(records);
          expect(found.reduce((total, { value }) => (total + value.readUInt32LE(0)) % 2 ** 52, 0)).toBe(sum);
          documents.close();
        },
      ),
      { numRuns: 25, seed: SEED },
    );
    expect(swept).toBeGreaterThan(0);
  });

  test("are told as effects by collection and vshard, within the limit, those of dropped collections left out", async () => {
    await using node = await createNodeDirectory();
    const documents = await node.open();
    const steps = Array.from({ length: 60 }, (_, at) => documentAt(1, at, `d${at}`, new Uint8Array(100).fill(at)));
    documents.apply(steps, { appliedPosition: 1 });
    const join = (_type: number, bodies: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(bodies));
    const effects = [...documents.entries(join, 450)];
    expect(effects.reduce((sum, { body }) => sum + body.length, 0)).toBe(6_000);
    for (const { body } of effects) expect(body.length).toBeLessThanOrEqual(450);
    const groups = effects.map(({ collection, vshard }) => collection * 100 + vshard);
    expect(groups).toEqual([...groups].sort((a, b) => a - b));
    expect(new Set(groups).size).toBe(10);
    expect(effects.length).toBeGreaterThan(10);
    const ofOne = [...documents.entries(join, 450, new Set([2]))];
    expect(ofOne.length).toBe(effects.filter(({ collection }) => collection === 2).length);
    documents.retain(new Set([2]));
    expect([...documents.entries(join, 450)]).toEqual(ofOne);
    expect([...documents.records()].length).toBe(documents.meta.records);
    documents.close();
  });

  test("keep the newest keys only", async () => {
    await using node = await createNodeDirectory();
    const documents = await node.open();
    const result = new Uint8Array(0);
    for (let position = 1; position <= 3; position++) {
      const steps = Array.from({ length: KEPT_KEYS / 2 }, (_, index) => ({
        step: "key" as const,
        record: { position, index, vshard: 0, lsn: 1, key: `${index}`, result },
      }));
      documents.apply(steps, { appliedPosition: position });
    }
    const kept = [...documents.keys()];
    expect(kept.length).toBe(KEPT_KEYS);
    expect([kept[0]?.position, kept.at(-1)?.position]).toEqual([2, 3]);
    documents.close();
  });

  test("admit ids as long as the rule says, and refuse longer ones", async () => {
    await using node = await createNodeDirectory();
    const documents = await node.open();
    const steps = [
      documentAt(1, 0, "x".repeat(512), new Uint8Array(8)),
      documentAt(1, 1, "x".repeat(511), new Uint8Array(0)),
    ];
    documents.apply(steps, { appliedPosition: 1 });
    expect([...documents.documents()].length).toBe(2);
    documents.close();
    const { idWord, id } = idOf("x".repeat(MAX_KEY_BYTES));
    expect(await codeOf(() => documentKey(1, 1, idWord, id))).toBe("ERR_RECORD_TOO_LARGE");
  });

  test("that are closed, or open to read, refuse to be written to", async () => {
    await using node = await createNodeDirectory();
    const documents = await node.open();
    documents.apply(frameAt(1, 1), { appliedPosition: 1 });
    documents.close();
    documents.close();
    expect(await codeOf(() => documents.apply([], { appliedPosition: 2 }))).toBe("ERR_CLOSED");
    const reader = await openDocuments({ path: node.file(), clusterId: CLUSTER, shard: 0, readOnly: true });
    expect(await codeOf(() => reader.apply([], { appliedPosition: 2 }))).toBe("ERR_CLOSED");
    expect(reader.meta.appliedPosition).toBe(1);
    reader.close();
  });
});

describe("what an earlier life has left", () => {
  test("is opened when it fits the log, and removed when it is ahead of it, behind it, or another's", async () => {
    await using node = await createNodeDirectory();
    const write = async (appliedPosition: number, clusterId = CLUSTER, shard = 0): Promise<void> => {
      (await node.open()).close();
      const documents = await openDocuments({ path: node.file(), clusterId, shard });
      documents.apply(frameAt(1, 1), { appliedPosition, wholeAt: appliedPosition - 5 });
      documents.close();
      await markClean(node.source());
    };
    const open = async (first: number, head: number): Promise<number | undefined> => {
      const documents = await openDocumentsForRecovery(node.source(), { first, head });
      documents?.close();
      return documents?.meta.appliedPosition;
    };
    expect(await open(1, 100)).toBe(undefined);
    await write(50);
    expect(await open(1, 100)).toBe(50);
    expect(await open(51, 50)).toBe(50);
    expect(await open(1, 49)).toBe(undefined);
    expect(await hasDocuments(node.source())).toBe(false);
    await write(50);
    expect(await open(52, 100)).toBe(undefined);
    for (const [cluster, shard] of [
      ["another", 0],
      [CLUSTER, 1],
    ] as const) {
      await write(50, cluster, shard);
      expect(await open(1, 100)).toBe(undefined);
      expect(await hasDocuments(node.source())).toBe(false);
    }
  });

  test("of a newer format is refused and left as it is", async () => {
    await using node = await createNodeDirectory();
    const documents = await node.open();
    documents.apply(frameAt(1, 1), { appliedPosition: 1, format: 9 } as never);
    documents.close();
    expect(await codeOf(() => openDocumentsForRecovery(node.source(), { first: 1, head: 5 }))).toBe(
      "ERR_UNSUPPORTED_FORMAT",
    );
    await markClean(node.source());
    expect(await codeOf(() => openDocumentsForRecovery(node.source(), { first: 1, head: 5 }))).toBe(
      "ERR_UNSUPPORTED_FORMAT",
    );
    expect(existsSync(node.file())).toBe(true);
  });

  test("is clean only while its file is what it was", async () => {
    await using node = await createNodeDirectory();
    const documents = await node.open();
    documents.apply(frameAt(1, 1), { appliedPosition: 1 });
    documents.close();
    const source = node.source();
    expect(await isClean(source)).toBe(false);
    await markClean(source);
    expect(await isClean(source)).toBe(true);
    await truncate(node.file(), 20_000);
    expect(await isClean(source)).toBe(false);
    await markClean(source);
    expect(await isClean(source)).toBe(true);
    await unmark(source);
    expect(await isClean(source)).toBe(false);
    for (const mark of ["", "{", '{"format":2}', "null"]) {
      await writeFile(node.file().replace("data.mdb", "clean"), mark);
      expect(await isClean(source)).toBe(false);
    }
  });

  test("is left alone where it was not closed in order and nobody can scrub it", async () => {
    await using node = await createNodeDirectory();
    const documents = await node.open();
    documents.apply(frameAt(1, 1), { appliedPosition: 1 });
    documents.close();
    const source = { ...node.source(), scrub: undefined };
    expect(await openDocumentsForRecovery(source, { first: 1, head: 5 })).toBe(undefined);
    expect(await hasDocuments(source)).toBe(true);
  });
});
