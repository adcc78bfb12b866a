/** worker_threads entry point of the baseline of A5a: imports what a data-plane worker imports from others, and is ready. */
import { parentPort } from "node:worker_threads";
import "comlink";
import "msgpackr";
import "piscina";
import "usearch";

parentPort?.postMessage("ready");
