/**
 * The clients of bench `embed`: autocannon in a process of its own. One IPC message is one burst of load.
 *
 * Connections are spread over the addresses in turn, and each has its share of the requests, so that no two ask the same at once.
 */
import { createRequire } from "node:module";

export interface LoadRequest {
  readonly method: "GET" | "POST";
  readonly path: string;
  /** JSON. */
  readonly body?: string;
}

/** One burst. */
export interface LoadTask {
  readonly urls: readonly string[];
  /** At least as many as connections. */
  readonly requests: readonly LoadRequest[];
  readonly connections: number;
  readonly seconds: number;
  /** Requests after which it ends instead, for a run whose figures mean nothing. */
  readonly amount?: number | undefined;
}

/** How often autocannon looks whether it is done, in ms. */
const LOOK_MS = { timed: 1_000, counted: 100 } as const;

export interface LoadSample {
  /** Answers that came. */
  readonly answered: number;
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

interface AutocannonClient {
  setRequests(requests: readonly object[]): void;
}

const HEADERS = { "content-type": "application/json" };

// autocannon has no types of its own.
const autocannon = createRequire(import.meta.url)("autocannon") as (options: object) => Promise<AutocannonResult>;

process.on("message", (task: LoadTask) => {
  void burst(task).then((sample) => process.send?.(sample));
});

async function burst({ urls, requests, connections, seconds, amount }: LoadTask): Promise<LoadSample> {
  const all = requests.map((request) =>
    request.body === undefined ? { ...request } : { ...request, headers: HEADERS },
  );
  let clients = 0;
  const setupClient = (client: AutocannonClient): void => {
    const first = clients++;
    client.setRequests(all.filter((_, at) => at % connections === first % connections));
  };
  const cpu = process.cpuUsage();
  const startedMs = performance.now();
  const until =
    amount === undefined ? { duration: seconds, sampleInt: LOOK_MS.timed } : { amount, sampleInt: LOOK_MS.counted };
  const result = await autocannon({ url: urls, connections, ...until, requests: all.slice(0, 1), setupClient });
  const elapsedMs = performance.now() - startedMs;
  const { user, system } = process.cpuUsage(cpu);
  return {
    answered: result.requests.total,
    requestsPerSecond: (result.requests.total / elapsedMs) * 1000,
    latencyP50: result.latency.p50,
    latencyP99: result.latency.p99,
    failures: result.errors + result.timeouts + result.non2xx,
    cores: (user + system) / 1000 / elapsedMs,
  };
}
