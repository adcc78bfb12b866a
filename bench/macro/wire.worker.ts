/** worker_threads entry point of the baseline of the bench `wire`: gives back what it is sent. */
import { parentPort } from "node:worker_threads";

parentPort?.on("message", (chunk: Uint8Array) => parentPort?.postMessage(chunk));
