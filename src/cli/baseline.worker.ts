/** worker_threads entry point for the demo's baselines: answers raw messages on one port and Comlink calls on another. */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import * as Comlink from "comlink";

const { raw, rpc } = workerData as { raw: MessagePort; rpc: MessagePort };
raw.on("message", (value: unknown) => raw.postMessage(value));
Comlink.expose({ echo: (value: number): number => value }, rpc);
parentPort?.once("message", () => {
  raw.close();
  rpc.close();
});
