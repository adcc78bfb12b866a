/** The clients of bench `embed`: autocannon in a process of its own. One IPC message is one burst of load. */
import { createRequire } from "node:module";

/** One burst. */
export interface LoadTask {
  readonly url: string;
  readonly paths: readonly string[];
  readonly connections: number;
  readonly seconds: number;
}

export interface LoadSample {
  readonly requestsPerSecond: number;
  readonly latencyP50: number;
  readonly latencyP99: number;
  readonly failures: number;
  /** Cores that this process used. */
  readonly cores: number;
}

interface AutocannonResult {
  readonly requests: { readonly total: number };
  readonly latency: { readonly p50: number; readonly p99: number };
  readonly errors: number;
  readonly timeouts: number;
  readonly non2xx: number;
}

// autocannon has no types of its own.
const autocannon = createRequire(import.meta.url)("autocannon") as (options: object) => Promise<AutocannonResult>;

process.on("message", (task: LoadTask) => {
  void burst(task).then((sample) => process.send?.(sample));
});

async function burst({ url, paths, connections, seconds }: LoadTask): Promise<LoadSample> {
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  const requests = paths.map((path) => ({ method: "GET", path }));
  const result = await autocannon({ url, connections, duration: seconds, requests });
  const elapsedMs = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  return {
    requestsPerSecond: (result.requests.total / elapsedMs) * 1000,
    latencyP50: result.latency.p50,
    latencyP99: result.latency.p99,
    failures: result.errors + result.timeouts + result.non2xx,
    cores: (user + system) / 1000 / elapsedMs,
  };
}
