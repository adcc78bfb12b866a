/** Applies frames to documents for as long as it lives, and says which position it has reached. */
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { makeDocumentsDirectory, unmark } from "../../src/store/document-files.ts";
import { openDocuments } from "../../src/store/documents.ts";
import { CLUSTER, frameAt, NodeDirectory } from "./documents-support.ts";

const [path, seed] = process.argv.slice(2) as [string, string];
const node = new NodeDirectory(path, await createSystemDisk(path));
await makeDocumentsDirectory(node.source());
await unmark(node.source());
const documents = await openDocuments({ path: node.file(), clusterId: CLUSTER, shard: 0 });
process.on("disconnect", () => process.exit(1));
for (let position = documents.meta.appliedPosition; ; ) {
  const steps = [];
  for (let size = 1 + (position % 7); size > 0; size--) steps.push(...frameAt(Number(seed), ++position));
  documents.apply(steps, { appliedPosition: position });
  await new Promise((resolve) => process.send?.(position, resolve));
}
