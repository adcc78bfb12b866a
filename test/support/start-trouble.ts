/**
 * A module of actors whose loading goes wrong when the process says so: for workers that start late, or not at all.
 *
 * `SHARDLOOM_TEST_START` is read when a worker loads it: `fail`, or the path of a gate (`holdStarts`) that it waits at.
 */
import { defineActor } from "../../src/index.ts";
import { waitAt } from "./gate.ts";

/** Less than a worker may take to start. */
const MOST_MS = 20_000;

const trouble: string = process.env["SHARDLOOM_TEST_START"] ?? "";
if (trouble === "fail") throw new Error("this worker is not to start");
if (trouble !== "") waitAt(trouble, MOST_MS);

/** Only there so that the module is one of actors. */
export const idle = defineActor({ name: "idle", init: () => 0, handlers: { nothing: () => 0 } });
