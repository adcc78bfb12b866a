/**
 * A module of actors whose loading goes wrong when the process says so: for workers that start late, or not at all.
 *
 * `SHARDLOOM_TEST_START` is read when a worker loads it: `fail`, or milliseconds that it takes.
 */
import { defineActor } from "../../src/index.ts";

const trouble: string = process.env["SHARDLOOM_TEST_START"] ?? "";
if (trouble === "fail") throw new Error("this worker is not to start");
if (trouble !== "") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(trouble));

/** Only there so that the module is one of actors. */
export const idle = defineActor({ name: "idle", init: () => 0, handlers: { nothing: () => 0 } });
