/**
 * worker_threads entry point of a world: sets the traps, loads everything, and runs what it is told to.
 *
 * Invariant: this file imports nothing of ours but the traps before they stand; modules of users are loaded with the traps half closed
 * (`loading`), and everything of a world runs with them closed.
 */
import { parentPort } from "node:worker_threads";
import { installTraps } from "./traps.ts";

const port = parentPort;
if (port === null) throw new Error("Cannot run a world in the main thread: use createWorld");
const { realLoop } = await import("./real-loop.ts"); // before the traps: it keeps the real functions
void realLoop;
const traps = installTraps();
const { WorldHost } = await import("./world-host.ts");
const host = await WorldHost.create(traps, (report) => port.postMessage(report));
process.on("uncaughtException", (error) => host.uncaught(error));
process.on("unhandledRejection", (error) => host.uncaught(error));
port.on("message", (command) => host.take(command));
