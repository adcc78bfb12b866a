/** A disk that takes no more: writes fail typed, nothing of the batch is there, and what was applied before is. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { openDocumentsForRecovery } from "../../src/store/document-recovery.ts";
import { contentOf, createNodeDirectory, frameAt, Model } from "./documents-support.ts";

const CHILD = fileURLToPath(new URL("./documents-full.child.js", import.meta.url));

test("writes behind the limit of the file fail, once and for all, and the documents are as before", {
  timeout: 60_000,
}, async () => {
  await using node = await createNodeDirectory();
  const script = `trap '' XFSZ; ulimit -f 1500; exec "$0" "$1" "$2" 7`;
  const { stdout, status } = spawnSync("sh", ["-c", script, process.execPath, CHILD, node.path], { encoding: "utf8" });
  expect(status).toBe(0);
  const { told, applied, failed } = JSON.parse(stdout) as { told: string[]; applied: number; failed: string };
  expect([told, failed]).toEqual([["ERR_IO", "ERR_IO"], "ERR_IO"]);
  expect(applied).toBeGreaterThan(5);
  const model = new Model();
  for (let position = 1; position <= applied; position++) model.apply(frameAt(7, position));
  const documents = await openDocumentsForRecovery(node.source(), { first: 1, head: 10_000 });
  expect(documents?.meta.appliedPosition).toBe(applied);
  expect(documents && contentOf(documents)).toEqual(model.content());
  documents?.close();
});
