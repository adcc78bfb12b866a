/** Damage to the documents' file: the scrub finds it, or the content is right all the same; this process never reads what is damaged. */
import { copyFile, open, stat, truncate } from "node:fs/promises";
import { expect, test } from "vitest";
import { createScrubber } from "../../src/plane/scrub-process.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { hasDocuments, isClean, markClean } from "../../src/store/document-files.ts";
import { openDocumentsForRecovery, vetDocuments } from "../../src/store/document-recovery.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { contentOf, createNodeDirectory, frameAt, Model, type NodeDirectory } from "./documents-support.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
const RUNS = LONG ? 500 : 40;
const LOG = { first: 1, head: 1_000_000 };

async function filled(node: NodeDirectory, frames: number): Promise<Model> {
  const documents = await node.open();
  const model = new Model();
  for (let position = 1; position <= frames; position++) {
    const steps = frameAt(SEED, position);
    model.apply(steps);
    documents.apply(steps, { appliedPosition: position });
  }
  documents.close();
  return model;
}

/** Changes a file somewhere. @returns what was done */
async function damage(path: string, random: () => number): Promise<string> {
  const { size } = await stat(path);
  const kind = Math.floor(random() * 6);
  const page = Math.floor(random() * (size / 4096)) * 4096;
  if (kind === 0) {
    const left = Math.floor(random() * size);
    await truncate(path, left);
    return `truncated to ${left}`;
  }
  const file = await open(path, "r+");
  try {
    if (kind === 1) {
      const from = Math.floor(random() * (size / 4096)) * 4096;
      const { buffer } = await file.read(Buffer.alloc(4096), 0, 4096, from);
      await file.write(buffer, 0, 4096, page);
      return `page at ${page} replaced by the one at ${from}`;
    }
    if (kind === 2) {
      await file.write(Buffer.alloc(4096, Math.floor(random() * 256)), 0, 4096, page);
      return `page at ${page} filled`;
    }
    // Mostly where it hurts: headers and tables of pages, of the meta pages too.
    const at =
      kind === 3
        ? Math.floor(random() * size)
        : (kind === 4 ? page : 4096 * Math.floor(random() * 2)) + Math.floor(random() * 160);
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
    buffer[0] = (buffer[0] as number) ^ (1 << Math.floor(random() * 8));
    await file.write(buffer, 0, 1, at);
    return `bit at ${at} flipped`;
  } finally {
    await file.close();
  }
}

test(`${RUNS} times at random`, { timeout: LONG ? 1_800_000 : 120_000 }, async () => {
  console.info(`documents scrub: SEED=${SEED}`);
  const random = randomFrom(SEED);
  await using node = await createNodeDirectory();
  const model = await filled(node, 250);
  await copyFile(node.file(), `${node.path}/whole`);
  let found = 0;
  let right = 0;
  for (let run = 0; run < RUNS; run++) {
    await copyFile(`${node.path}/whole`, node.file());
    const what = await damage(node.file(), random);
    const documents = await openDocumentsForRecovery(node.source(), LOG);
    if (documents === undefined) {
      found++;
      expect(await hasDocuments(node.source()), what).toBe(false);
      continue;
    }
    right++;
    // The meta page of the last transaction may have been lost: then it is as before that one.
    const { appliedPosition } = documents.meta;
    expect(appliedPosition, what).toBeGreaterThanOrEqual(249);
    if (appliedPosition === 250) expect(contentOf(documents), what).toEqual(model.content());
    else expect(contentOf(documents), what).toEqual((await modelAt(249)).content());
    documents.close();
    // What the scrub has made takes any number of writes.
    const writer = await node.open();
    for (let position = 251; position < 300; position++)
      writer.apply(frameAt(SEED, position), { appliedPosition: position });
    const read = contentOf(writer);
    writer.close();
    expect(read, what).toEqual((await modelAt(299, appliedPosition === 249 ? 250 : undefined)).content());
  }
  console.info(`documents scrub: ${found} of ${RUNS} found, ${right} harmless`);
  expect(found).toBeGreaterThan(0);
  expect(right).toBeGreaterThan(0);
});

/** @param without A frame that is left out. */
async function modelAt(position: number, without?: number): Promise<Model> {
  const model = new Model();
  for (let at = 1; at <= position; at++) if (at !== without) model.apply(frameAt(SEED, at));
  return model;
}

test("a whole environment passes, is written anew, and is clean from then on", async () => {
  await using node = await createNodeDirectory();
  const model = await filled(node, 100);
  expect(await isClean(node.source())).toBe(false);
  expect(await vetDocuments(node.source())).toBe(true);
  expect(await isClean(node.source())).toBe(true);
  const documents = await openDocumentsForRecovery(
    { ...node.source(), scrub: () => Promise.reject(new Error("scrubbed a second time")) },
    LOG,
  );
  expect(documents && contentOf(documents)).toEqual(model.content());
  documents?.close();
});

test("damage to a clean environment is found as its checksum is another one", async () => {
  await using node = await createNodeDirectory();
  await filled(node, 100);
  await markClean(node.source());
  await truncate(node.file(), 4096 * 5);
  expect(await openDocumentsForRecovery(node.source(), LOG)).toBe(undefined);
});

test("a scrub whose process crashes, says nothing, or takes too long has failed", async () => {
  await using node = await createNodeDirectory();
  const job = { path: node.file(), copyTo: `${node.path}/copy`, clusterId: "", shard: 0, timeoutMs: 300 };
  for (const [name, reason] of [
    ["crash", /SIGSEGV/],
    ["silent", /without a result/],
    ["hang", /longer than 300/],
    ["liar", /ended with 3/],
  ] as const) {
    const url = new URL(`./scrub-${name}.child.js`, import.meta.url);
    const result = await createScrubber(url, systemScheduler)({ ...job, timeoutMs: name === "hang" ? 300 : 10_000 });
    expect(result).toMatchObject({ ok: false, reason: expect.stringMatching(reason) });
  }
});
