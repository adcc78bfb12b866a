/**
 * Scrubs documents in a child process, which may crash.
 *
 * Invariant: however the child ends there is one result, and the child is gone when it is given; a child whose parent is gone ends by itself.
 */
import { fork } from "node:child_process";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { Scrubber, ScrubResult } from "../store/scrub-documents.ts";

/** @param entry The compiled entry point of the child. */
export function createScrubber(entry: URL, scheduler: Scheduler): Scrubber {
  return (job) =>
    new Promise((resolve) => {
      let result: ScrubResult | undefined;
      const child = fork(entry, [JSON.stringify(job)], { execArgv: [], stdio: ["ignore", "ignore", "ignore", "ipc"] });
      const timer = scheduler.timer(job.timeoutMs, () => {
        result = failed(`took longer than ${job.timeoutMs} ms`);
        child.kill("SIGKILL");
      });
      child.on("message", (message) => {
        result = message as ScrubResult;
      });
      child.on("error", (error) => {
        timer.cancel();
        resolve(failed(error.message));
      });
      child.on("close", (code, signal) => {
        timer.cancel();
        const isWhole = code === 0 || result?.ok === false;
        resolve(isWhole ? (result ?? failed("ended without a result")) : failed(`ended with ${code ?? signal}`));
      });
    });
}

function failed(reason: string): ScrubResult {
  return { ok: false, code: "ERR_CORRUPT", reason: `Cannot scrub documents as its process ${reason}` };
}
