/**
 * The file that piscina loads on the documents' thread: it imports the entry point, asynchronously, for the reason that shard.worker.cts tells.
 *
 * Invariant: CommonJS, as piscina requires its file first.
 */
import type { DocumentsTask } from "../src/plane/documents-task.ts" with { "resolution-mode": "import" };

const run = async (task: DocumentsTask): Promise<string> => {
  const { default: host } = await import("./documents.worker.ts");
  return host(task);
};

module.exports = run;
