/**
 * worker_threads entry point of the worlds that look for planted defects: as src/sim/world.worker.ts, but each run names the program it is of.
 *
 * Invariant: nothing of ours but the traps is imported before they stand. A run of one program has ended before another one is loaded.
 */
import { parentPort } from "node:worker_threads";
import { installTraps } from "../../../src/sim/traps.ts";
import type { WorldHost } from "../../../src/sim/world-host.ts";
import type { WorldJob } from "./world-thread.ts";

const port = parentPort;
if (port === null) throw new Error("Cannot run a world in the main thread");
const { realLoop } = await import("../../../src/sim/real-loop.ts"); // before the traps: it keeps the real functions
void realLoop;
const traps = installTraps();
let current: { readonly program: string; readonly host: WorldHost } | undefined;

async function take({ program, command }: WorldJob): Promise<void> {
  if (current?.program !== program) {
    const loaded = (await import(program)) as typeof import("../../../src/sim/world-host.ts");
    current = { program, host: await loaded.WorldHost.create(traps, (report) => port?.postMessage(report)) };
  }
  current.host.take(command);
}

function uncaught(error: unknown): void {
  if (current === undefined) throw error;
  current.host.uncaught(error);
}

process.on("uncaughtException", uncaught);
process.on("unhandledRejection", uncaught);
port.on("message", (job: WorldJob) => void take(job));
