/** Threads and processes that end while they read documents, or write them: the next one opens what is there. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { openDocumentsForRecovery } from "../../src/store/document-recovery.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { contentOf, createNodeDirectory, frameAt, Model } from "./documents-support.ts";

const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000);

test("readers that are terminated leave the documents to others", { timeout: 60_000 }, async () => {
  const random = randomFrom(SEED);
  await using node = await createNodeDirectory();
  const model = new Model();
  for (let life = 1; life <= 12; life++) {
    const documents = await node.open();
    const steps = frameAt(SEED, life);
    model.apply(steps);
    documents.apply(steps, { appliedPosition: life });
    expect(contentOf(documents)).toEqual(model.content());
    documents.close();
    const worker = new Worker(new URL("./documents-ended.worker.js", import.meta.url), { workerData: node.file() });
    await once(worker, "message");
    await sleep(random() * 20); // a random point of its reading is what is tested
    await worker.terminate();
  }
});

test("a process that exits while its documents' thread works ends at once, and the next one goes on", {
  timeout: 60_000,
}, async () => {
  const random = randomFrom(SEED + 1);
  await using node = await createNodeDirectory();
  let before = 0;
  for (let life = 0; life < 6; life++) {
    const child = fork(
      new URL("./documents-exit.child.js", import.meta.url),
      [node.path, String(random() * 300), life % 2 === 0 ? "start" : "progress"],
      {
        execArgv: [],
        stdio: ["ignore", "inherit", "pipe", "ipc"],
      },
    );
    let said = "";
    child.stderr?.on("data", (text) => {
      said += String(text);
    });
    const [head] = (await once(child, "message")) as [number];
    const [code, signal] = (await once(child, "close")) as [number | null, string | null];
    expect([code, signal], said).toEqual([0, null]);
    const documents = await openDocumentsForRecovery(node.source(), { first: 1, head });
    const applied = documents?.meta.appliedPosition ?? 0;
    documents?.close();
    expect(applied).toBeGreaterThanOrEqual(before);
    before = applied;
  }
  expect(before).toBeGreaterThan(0);
});
