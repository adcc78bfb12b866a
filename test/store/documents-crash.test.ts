/** Documents whose writer is killed with SIGKILL at random points, again and again: what is left is what the log had said at one position. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { hasDocuments } from "../../src/store/document-files.ts";
import { openDocumentsForRecovery } from "../../src/store/document-recovery.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { contentOf, createNodeDirectory, frameAt, Model } from "./documents-support.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const SEED = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
const KILLS = LONG ? 200 : 20;
const WRITER = new URL("./documents-writer.child.js", import.meta.url);

test(`${KILLS} times`, { timeout: LONG ? 1_800_000 : 120_000 }, async () => {
  console.info(`documents crash: SEED=${SEED}`);
  const random = randomFrom(SEED);
  await using node = await createNodeDirectory();
  const model = new Model();
  let modelAt = 0;
  let rescued = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    const child = fork(WRITER, [node.path, String(SEED)], {
      execArgv: [],
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    let told = 0;
    child.on("message", (position) => {
      told = position as number;
    });
    await once(child, "message");
    await sleep(random() * 150); // a random point of its life is what is tested
    child.kill("SIGKILL");
    await once(child, "close");
    const documents = await openDocumentsForRecovery(node.source(), { first: 1, head: Number.MAX_SAFE_INTEGER });
    expect(documents).toBeDefined();
    if (documents === undefined) return;
    const { appliedPosition } = documents.meta;
    expect(appliedPosition).toBeGreaterThanOrEqual(told);
    if (appliedPosition > told) rescued++;
    while (modelAt < appliedPosition) model.apply(frameAt(SEED, ++modelAt));
    expect(contentOf(documents)).toEqual(model.content());
    documents.close();
    expect(await hasDocuments(node.source())).toBe(true);
  }
  console.info(`documents crash: ${modelAt} frames, ${rescued} kills behind what was told`);
  expect(modelAt).toBeGreaterThan(KILLS * 5);
});
