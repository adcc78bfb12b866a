/**
 * The file that piscina loads on a worker's thread: it imports the entry point, asynchronously.
 *
 * Invariant: CommonJS, as piscina requires its file first. Where `require` loads modules too, it links them synchronously, and a thread that
 * is terminated in the middle of that ends the whole process ("IsGraphAsync must be used on an instantiated module", Node 20.20).
 */
import type { ShardTask } from "../src/plane/shard-task.ts" with { "resolution-mode": "import" };

const run = async (task: ShardTask): Promise<string> => {
  const { default: host } = await import("./shard.worker.ts");
  return host(task);
};

module.exports = run;
