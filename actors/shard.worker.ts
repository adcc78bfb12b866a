/** worker_threads entry point: piscina calls the default export with the worker's one perpetual task. */
import type { ShardTask } from "../src/plane/shard-task.ts";
import { hostShard } from "./shard-host.ts";

export default (task: ShardTask): Promise<string> => hostShard(task);
