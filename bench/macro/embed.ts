/**
 * Bench `embed` (E1): a Fastify server that embeds a 2-worker cluster, beside the same server searching on its main thread.
 *
 * Three processes: either server and the clients (autocannon); bursts against the two servers alternate, and a server without
 * load is parked. Exact search over ROWS x 384 f32, which is a few ms of scan per request: what one would move off the event
 * loop. The cluster's server is the example in test/examples/search-server.ts, as it stands.
 * Waiting: neither event loop nor workers spin (`spinLimitUs: 0`), as the cores are taken by then; the workers step back behind
 * it (`workerNice: 5`), which about halved the time that it waits for a core; what that costs their throughput was not settled on a
 * machine that others used.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { judge } from "../harness/goals.ts";
import { type Bench, type BenchContext, type BenchReport, median, sized, toRow } from "../harness/harness.ts";
import { DIMENSIONS, idOf, NEIGHBOURS } from "./embed-data.ts";
import type { LoadSample, LoadTask } from "./embed-load.worker.ts";
import type { ServerSample } from "./embed-server.worker.ts";

const SIDES = ["cluster", "main-thread"] as const;
type Side = (typeof SIDES)[number];

interface Server {
  readonly side: Side;
  readonly process: ChildProcess;
  readonly url: string;
  readonly load: LoadSample[];
  readonly own: ServerSample[];
}

async function answer<T>(child: ChildProcess, message: unknown): Promise<T> {
  const reply = once(child, "message") as Promise<[T]>;
  child.send(message as never);
  return (await reply)[0];
}

async function startServer(side: Side, rows: number, seed: number): Promise<Server> {
  const child = fork(new URL("./embed-server.worker.js", import.meta.url), [side, String(rows), String(seed)]);
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  return { side, process: child, url: `http://127.0.0.1:${port}`, load: [], own: [] };
}

/** Both sides must give the same answers. */
async function compareAnswers(servers: readonly Server[], paths: readonly string[]): Promise<void> {
  for (const path of paths.slice(0, 20)) {
    const [ours, theirs] = await Promise.all(
      servers.map(
        async (server) => (await fetch(server.url + path)).json() as Promise<{ id: string; score: number }[]>,
      ),
    );
    const same =
      ours?.length === NEIGHBOURS &&
      ours.every((hit, at) => hit.id === theirs?.[at]?.id && Math.abs(hit.score - theirs[at].score) < 1e-5);
    if (!same) throw new Error(`embed bench: the sides answer ${path} differently`);
  }
}

async function burst(server: Server, load: ChildProcess, task: Omit<LoadTask, "url">, counted: boolean): Promise<void> {
  await answer(server.process, "begin");
  const sample = await answer<LoadSample>(load, { ...task, url: server.url });
  const own = await answer<ServerSample>(server.process, "end");
  if (sample.failures > 0 || sample.requestsPerSecond === 0)
    throw new Error(`embed bench: ${sample.failures} requests to ${server.side} failed`);
  if (!counted) return;
  server.load.push(sample);
  server.own.push(own);
}

/** Says so when other programs took a good part of the two cores that the cluster's side is meant to fill. */
function busy(server: readonly number[], clients: readonly number[]): string[] {
  const used = median(server.map((cores, at) => cores + (clients[at] ?? 0)));
  return used >= 1.7 ? [] : [`DISTURBED: the machine gave the cluster's side ${used.toFixed(2)} cores; measure again`];
}

function report(context: BenchContext, servers: readonly Server[], connections: number, rows: number): BenchReport {
  const [ours, theirs] = servers as [Server, Server];
  const of = (server: Server, pick: (sample: LoadSample & ServerSample) => number): number[] =>
    server.load.map((sample, at) =>
      pick({ ...sample, ...(server.own[at] as ServerSample), cores: server.own[at]?.cores ?? 0 }),
    );
  const perRound = ours.load.map(
    (sample, at) => sample.requestsPerSecond / (theirs.load[at]?.requestsPerSecond ?? Number.NaN),
  );
  const ourP99 = median(of(ours, (sample) => sample.delayP99));
  const theirP99 = median(of(theirs, (sample) => sample.delayP99));
  const share = servers
    .map((server) => `${server.side} ${median(server.load.map((sample) => sample.cores)).toFixed(2)}`)
    .join(", ");
  return {
    rows: servers.flatMap((server) => [
      toRow(
        "exact search",
        server.side,
        "requests/s",
        of(server, (sample) => sample.requestsPerSecond),
      ),
      toRow(
        "event-loop delay p50",
        server.side,
        "ms",
        of(server, (sample) => sample.delayP50),
      ),
      toRow(
        "event-loop delay p99",
        server.side,
        "ms",
        of(server, (sample) => sample.delayP99),
      ),
      toRow(
        "latency p50",
        server.side,
        "ms",
        of(server, (sample) => sample.latencyP50),
      ),
      toRow(
        "latency p99",
        server.side,
        "ms",
        of(server, (sample) => sample.latencyP99),
      ),
      toRow(
        "cores used by the server",
        server.side,
        "cores",
        of(server, (sample) => sample.cores),
      ),
    ]),
    goals: [
      judge(context.goals, "E1a", median(perRound)),
      judge(context.goals, "E1b", ourP99 / theirP99),
      judge(context.goals, "E1c", ourP99),
    ],
    notes: [
      `${rows} vectors of ${DIMENSIONS} f32, k ${NEIGHBOURS}, ${connections} connections, spinLimitUs 0, workerNice 5, 2 workers`,
      `cores used by the clients (autocannon): ${share}`,
      ...busy(
        of(ours, (sample) => sample.cores),
        ours.load.map((sample) => sample.cores),
      ),
      `ratios of the rounds: ${perRound.map((ratio) => ratio.toFixed(2)).join(" ")}`,
    ],
  };
}

export const bench: Bench = {
  name: "embed",
  async run(context) {
    const rows = sized(context.mode, 2_000, 25_000, 25_000);
    const seconds = sized(context.mode, 1, 3, 5);
    const rounds = sized(context.mode, 1, 3, 5);
    const connections = 8;
    const paths = Array.from({ length: 97 }, (_, at) => `/similar/${idOf((at * 7919 + context.seed) % rows)}`);
    const load = fork(new URL("./embed-load.worker.js", import.meta.url));
    const servers: Server[] = [];
    try {
      for (const side of SIDES) servers.push(await startServer(side, rows, context.seed));
      await compareAnswers(servers, paths);
      for (let round = -1; round < rounds; round++) {
        for (const server of servers)
          await burst(server, load, { paths, connections, seconds: round < 0 ? 1 : seconds }, round >= 0);
      }
    } finally {
      load.disconnect();
      for (const server of servers) server.process.send("close");
    }
    return report(context, servers, connections, rows);
  },
};
