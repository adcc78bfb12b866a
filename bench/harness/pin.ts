/**
 * Pins a thread to a core, so that the two sides of a pair run on distinct ones; the C++ program pins its own two alike.
 *
 * Needs `taskset` and `/proc`; elsewhere it does nothing and says so. New threads and child processes inherit the mask.
 */
import { execFileSync } from "node:child_process";
import { readlinkSync } from "node:fs";
import { cpus } from "node:os";

/** Cores of the caller's side and of the partner's. */
export const CALLER_CORE = 0;
export const PARTNER_CORE = 1;

/** Pins the calling thread to `core`; `"any"` frees it. @returns whether it did. */
export function pinThread(core: number | "any"): boolean {
  if (cpus().length < 2) return false; // not availableParallelism(): that counts the cores of the mask
  try {
    const thread = readlinkSync("/proc/thread-self").split("/").pop() ?? "";
    execFileSync("taskset", ["-pc", core === "any" ? "0-1023" : String(core), thread], { stdio: "ignore" });
    return true;
  } catch {
    return false; // no taskset or no /proc here: the report says that the threads were not pinned
  }
}
