/** Applies frames to documents until its limit of file size is reached, and says where that was and what came of it. */

import { ShardloomError } from "../../src/errors.ts";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { frameAt, NodeDirectory } from "./documents-support.ts";

const [path, seed] = process.argv.slice(2) as [string, string];
const node = new NodeDirectory(path, await createSystemDisk(path));
const documents = await node.open();
const told: string[] = [];
for (let position = 1; told.length < 2 && position < 5_000; position++)
  try {
    documents.apply(frameAt(Number(seed), position), { appliedPosition: position });
  } catch (error) {
    told.push(ShardloomError.is(error) ? error.code : String(error));
  }
process.stdout.write(
  JSON.stringify({ told, applied: documents.meta.appliedPosition, failed: documents.failure?.code }),
);
documents.close();
