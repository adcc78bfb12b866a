/** Workloads and modules that try to leave their world, each in one way. */
import { spawn } from "node:child_process";
import { createECDH, randomBytes } from "node:crypto";
import * as dns from "node:dns";
import { readFileSync, readFile as readFileWithCallback } from "node:fs";
import { readFile } from "node:fs/promises";
import http from "node:http";
import { Session } from "node:inspector";
import { createRequire, isBuiltin } from "node:module";
import { connect } from "node:net";
import { scheduler, setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import type { Workload } from "../../src/sim/workload-types.ts";

const here = new URL(import.meta.url);
/** What all clocks of this kind inherit from. */
const PERFORMANCE: { now(): number } = Object.getPrototypeOf(performance) as { now(): number };

/** What only some versions of the platform have. */
const { Temporal } = globalThis as { Temporal?: { readonly Now: { instant(): unknown } } };
const sqlite = isBuiltin("node:sqlite")
  ? (createRequire(import.meta.url)("node:sqlite") as { readonly DatabaseSync: new (path: string) => unknown })
  : undefined;
const PLATFORM_WAYS: Readonly<Record<string, () => unknown>> = {
  ...(Temporal === undefined ? {} : { "Temporal.Now.instant": () => Temporal.Now.instant() }),
  ...(sqlite === undefined ? {} : { "sqlite.DatabaseSync": () => new sqlite.DatabaseSync(":memory:") }),
};

/** Every way out that is tried, by name of the call. */
export const WAYS_OUT: Readonly<Record<string, () => unknown>> = {
  "Date.now": () => Date.now(),
  "new Date()": () => new Date(),
  "Date()": () => Date(),
  "a date's constructor": () => new (new Date(0).constructor as DateConstructor)(),
  "a class that extends Date": () => new (class extends Date {})(),
  "performance.now": () => performance.now(),
  "process.hrtime": () => process.hrtime(),
  "process.hrtime.bigint": () => process.hrtime.bigint(),
  "process.memoryUsage": () => process.memoryUsage(),
  "process.memoryUsage.rss": () => process.memoryUsage.rss(),
  "performance.timeOrigin": () => performance.timeOrigin,
  "an event's time": () => new Event("x").timeStamp,
  "the format of now": () => new Intl.DateTimeFormat("en").format(),
  "the parts of now": () => new Intl.DateTimeFormat("en").formatToParts(),
  "an inspector": () => new Session(),
  "crypto.createECDH": () => createECDH("secp256k1"),
  ...PLATFORM_WAYS,
  "now of all performances": () => PERFORMANCE.now.call(performance),
  "the clock of another realm": (): unknown => runInNewContext("Date.now()") as unknown,
  "Math.random": () => Math.random(),
  "crypto.getRandomValues": () => crypto.getRandomValues(new Uint8Array(4)),
  "crypto.randomUUID": () => crypto.randomUUID(),
  "crypto.subtle.digest": () => crypto.subtle.digest("SHA-256", new Uint8Array(4)),
  "crypto.randomBytes": () => randomBytes(4),
  setTimeout: () => setTimeout(() => undefined, 1),
  setInterval: () => setInterval(() => undefined, 1),
  setImmediate: () => setImmediate(() => undefined),
  "setTimeout promisified": () => promisify(setTimeout)(1),
  "timers/promises.setTimeout": () => sleep(1),
  "timers/promises.scheduler.wait": () => scheduler.wait(1),
  "AbortSignal.timeout": () => AbortSignal.timeout(1),
  "Atomics.wait": () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1),
  fetch: () => fetch("http://127.0.0.1:9"),
  MessageChannel: () => new MessageChannel(),
  BroadcastChannel: () => new BroadcastChannel("out"),
  "WebAssembly.compile": () =>
    (WebAssembly as unknown as { compile(bytes: Uint8Array): unknown }).compile(new Uint8Array(0)),
  "process.exit": () => process.exit(1),
  "fs.readFileSync": () => readFileSync(here),
  "fs/promises.readFile": () => readFile(here),
  "fs.readFile promisified": () => promisify(readFileWithCallback)(here),
  "process.binding": () => (process as unknown as { binding(name: string): unknown }).binding("fs"),
  "net.connect": () => connect(9, "127.0.0.1"),
  "http.get": () => http.get("http://127.0.0.1:9"),
  "dns.lookup": () => dns.lookup("localhost", () => undefined),
  "child_process.spawn": () => spawn("true"),
  "worker_threads.Worker": () => new Worker(here),
};

/** A module that nothing has loaded before. */
const importLate = (): Promise<unknown> => import(new URL("./late-module.js", import.meta.url).href);

/** What stays allowed, as it is deterministic. @returns whether it worked */
function staysAllowed(): boolean {
  process.nextTick(() => undefined);
  queueMicrotask(() => undefined);
  const date = new Date(86_400_000);
  const copy = structuredClone({ at: date });
  const year = new Intl.DateTimeFormat("en", { year: "numeric", timeZone: "UTC" });
  if (year.format(date) !== "1970" || year.formatToParts(date)[0]?.value !== "1970") return false;
  return (
    date instanceof Date && copy.at.getTime() === Date.UTC(1970, 0, 2) && Date.parse("1970-01-02T00:00:00Z") === 864e5
  );
}

/** One operation that tries one way out, and swallows the error if told so. */
export function leaving({ way, swallow }: { readonly way: string; readonly swallow: boolean }): Workload {
  return {
    name: "leaving",
    generate: () => [{ process: 0, f: "leave", value: way, afterMs: 1 }],
    async invoke() {
      if (way === "none") return staysAllowed();
      if (way === "import") return await (swallow ? importLate().catch(() => "swallowed") : importLate());
      const leave = WAYS_OUT[way] as () => unknown;
      if (!swallow) return leave();
      try {
        await leave();
      } catch {
        return "swallowed";
      }
      return "left";
    },
    check: () => [],
  };
}

/** Throws where nobody catches it: `reject` a promise, or in a `task` of the event loop. */
export function uncaught({ how }: { readonly how: "reject" | "task" }): Workload {
  return {
    name: "uncaught",
    generate: () => [{ process: 0, f: "throw", value: how, afterMs: 1 }],
    async invoke() {
      if (how === "reject") void Promise.reject(new RangeError("planted rejection"));
      else
        queueMicrotask(() => {
          throw new RangeError("planted task");
        });
      return "thrown";
    },
    check: () => [],
  };
}
