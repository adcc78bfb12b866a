/**
 * The processes of bench `embed` as it drives them: servers, and the clients in one of their own. A message is asked, the next one is its answer.
 *
 * Invariant: a process that ends fails whoever waits for its answer; a burst in which a request failed, or none was answered, fails the bench.
 */
import type { ChildProcess } from "node:child_process";
import { median } from "../harness/harness.ts";
import type { LoadSample, LoadTask } from "./embed-load.worker.ts";

/** A server and what was measured of it, burst by burst. */
export interface Server<Own> {
  readonly side: string;
  readonly process: ChildProcess;
  /** Where it listens; clients are spread over all of them. */
  readonly urls: readonly string[];
  readonly load: LoadSample[];
  readonly own: Own[];
}

/** The next message of a process. */
export function heard<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: unknown): void => {
      child.off("exit", onExit);
      resolve(message as T);
    };
    const onExit = (code: number | null): void => {
      child.off("message", onMessage);
      reject(new Error(`embed bench: a process ended with ${code} before it answered`));
    };
    child.once("message", onMessage);
    child.once("exit", onExit);
  });
}

export function answer<T>(child: ChildProcess, message: unknown): Promise<T> {
  const reply = heard<T>(child);
  child.send(message as never);
  return reply;
}

/** One burst of load on one server. @param check Throws unless the server did what the sample stands for. */
export async function burst<Own>(
  server: Server<Own>,
  load: ChildProcess,
  task: Omit<LoadTask, "urls">,
  counted: boolean,
  check?: (own: Own) => void,
): Promise<void> {
  await answer(server.process, "begin");
  const sample = await answer<LoadSample>(load, { ...task, urls: server.urls });
  const own = await answer<Own>(server.process, "end");
  if (sample.failures > 0 || sample.requestsPerSecond === 0)
    throw new Error(`embed bench: ${sample.failures} requests to ${server.side} failed`);
  check?.(own);
  if (!counted) return;
  server.load.push(sample);
  server.own.push(own);
}

/** Says so when other programs took a good part of the two cores that the cluster's side is meant to fill. */
export function disturbed({ load, own }: Server<{ readonly cores: number }>): string[] {
  const used = median(own.map(({ cores }, at) => cores + (load[at]?.cores ?? 0)));
  return used >= 1.7 ? [] : [`DISTURBED: the machine gave the cluster's side ${used.toFixed(2)} cores; measure again`];
}

/** Requests a second of one server over those of another, round by round. */
export function ratiosOf(ours: Server<unknown>, theirs: Server<unknown>): number[] {
  return ours.load.map(
    ({ requestsPerSecond }, at) => requestsPerSecond / (theirs.load[at]?.requestsPerSecond ?? Number.NaN),
  );
}
