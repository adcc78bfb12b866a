/** A thread that is a member of barriers of the main thread's cluster. Answers one command at a time. */
import { parentPort, workerData } from "node:worker_threads";
import { type ClusterPort, connect, ShardloomError } from "../../../src/index.ts";
import { type Walk, walk } from "./actors.ts";

const { port } = workerData as { port: ClusterPort };
const cluster = await connect(port);

const commands: Record<string, (order: Walk) => unknown> = {
  join: async ({ barrier, members }) => {
    const handle = await cluster.barrier(barrier);
    for (const member of members) await handle.join(member);
    return handle.tick;
  },
  walk: async (order) => {
    const { releases, results } = await walk(await cluster.barrier(order.barrier), order);
    return { releases, last: results.at(-1) };
  },
};

parentPort?.on("message", ({ command, order }: { command: string; order: Walk }) => {
  void (async () => {
    try {
      parentPort?.postMessage({ value: await commands[command]?.(order) });
    } catch (error) {
      parentPort?.postMessage({ code: ShardloomError.is(error) ? error.code : String(error) });
    }
  })();
});
parentPort?.postMessage({ value: "ready" });
