/** Logs of random writes and restores: what the documents give to an empty engine is what the log itself would have. */
import { expect, test } from "vitest";
import { joinDocuments } from "../../../actors/document-codecs.ts";
import { stepsOf } from "../../../actors/document-steps.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { LOG_ENTRY } from "../../../src/store/log.ts";
import { createNodeDirectory } from "../../store/documents-support.ts";
import { randomFrom } from "../vector/support.ts";
import { applyTold, entry, hashesOf, RandomLog, replay, textSubject, vectorSubject } from "./support.ts";

const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
const RUNS = process.env["SHARDLOOM_LONG"] === "1" ? 100 : 6;

test.for([
  ["vectors", vectorSubject],
  ["texts", textSubject],
] as const)("%s: effects → documents → engine", { timeout: 300_000 }, async ([name, make]) => {
  console.info(`document changes of ${name}: SEED=${SEED}`);
  const random = randomFrom(SEED);
  let restores = 0;
  for (let run = 0; run < RUNS; run++) {
    await using node = await createNodeDirectory();
    const log = new RandomLog(random, make);
    const copy = make().replicated;
    let documents = await node.open();
    const keys: string[] = [];
    for (let round = 0; round < 40; round++) {
      const from = log.frames.length;
      for (let size = 1 + Math.floor(random() * 4); size > 0; size--) log.grow();
      if (round === 39) log.end();
      const frames = log.frames.slice(from);
      for (const { entries } of frames)
        for (const each of entries) {
          replay(copy, each);
          if (each.idempotencyKey !== "")
            keys.push(`${each.idempotencyKey} ${each.vshard} ${each.lsn} ${each.result.join()}`);
        }
      documents.apply(stepsOf(frames, documents.vshards), { appliedPosition: log.frames.length });
      if (random() < 0.2) {
        documents.close();
        documents = await node.open();
      }
    }
    restores += log.restores;
    const fresh = make().replicated;
    for (const effect of documents.entries(joinDocuments, random() < 0.5 ? 1 : 65_536)) {
      expect([effect.body.byteOffset, effect.body.buffer.byteLength]).toEqual([0, effect.body.length]);
      applyTold(fresh, effect);
    }
    expect(hashesOf(fresh)).toEqual(hashesOf(copy));
    expect(new Set(hashesOf(fresh)).size).toBeGreaterThan(10);
    const found = [...documents.keys()].map(
      ({ key, vshard, lsn, result }) => `${key} ${vshard} ${lsn} ${result.join()}`,
    );
    expect(found).toEqual(keys);
    expect(keys.length).toBeGreaterThan(0);
    documents.close();
  }
  expect(restores).toBeGreaterThan(RUNS);
});

test("the state of a vshard follows its restores, and one whose beginning nobody saw is never whole", () => {
  const vshards = new Map();
  const after = (
    position: number,
    kind: (typeof LOG_ENTRY)[keyof typeof LOG_ENTRY],
    lsn: number,
    leaseEpoch = 0,
  ): unknown => {
    const steps = stepsOf([{ position, entries: [{ ...entry(kind, 3, lsn), leaseEpoch }] }], vshards);
    for (const step of steps) if (step.step === "vshard") vshards.set(step.vshard, step.record);
    return [vshards.get(3).state, vshards.get(3).lsn, vshards.get(3).leaseEpoch, steps.length];
  };
  expect(after(1, LOG_ENTRY.RESTORE_END, 4)).toEqual(["unknown", 4, 0, 1]);
  expect(after(2, LOG_ENTRY.RESTORE_BEGIN, -1, 7)).toEqual(["restoring", 4, 7, 1]);
  expect(after(3, LOG_ENTRY.RESTORE_END, 9)).toEqual(["whole", 9, 7, 2]);
  expect(after(4, LOG_ENTRY.RESTORE_END, 10)).toEqual(["unknown", 10, 7, 1]);
});

test.for([
  ["vectors", vectorSubject],
  ["texts", textSubject],
] as const)("damaged effects on %s end in a typed error, or are effects", ([, make]) => {
  const random = randomFrom(SEED);
  const subject = make();
  let refused = 0;
  for (let run = 0; run < 2_000; run++) {
    const told = subject.write(random)[0];
    if (told === undefined) continue;
    const body = told.body.slice(
      0,
      random() < 0.5 ? told.body.length : Math.floor((random() * told.body.length) / 8) * 8,
    );
    for (let flips = Math.floor(random() * 3); flips > 0 && body.length > 0; flips--)
      body[Math.floor(random() * Math.min(body.length, 60))] = Math.floor(random() * 256);
    try {
      stepsOf([{ position: 1, entries: [entry(LOG_ENTRY.EFFECT, 1, 1, { ...told, body })] }], new Map());
    } catch (error) {
      refused++;
      expect(ShardloomError.is(error) && error.code).toBe("ERR_CORRUPT");
    }
  }
  expect(refused).toBeGreaterThan(100);
});

test("effects of a type that no engine has are refused", () => {
  const told = { vshard: 1, type: 0x7f01, collection: 1, body: new Uint8Array(8) };
  const steps = (): unknown => stepsOf([{ position: 1, entries: [entry(LOG_ENTRY.EFFECT, 1, 1, told)] }], new Map());
  expect(steps).toThrow(/type must be one of/);
});
