/**
 * Bench `embed`: a Fastify server that embeds a 2-worker cluster, beside the same server searching on its main thread. Part `approximate` (E2) is
 * in embed-approximate.ts; this is part `exact` (E1).
 *
 * Three processes: either server and the clients (autocannon); bursts against the two servers alternate, and a server without
 * load is parked. Exact search over ROWS x 384 f32, which is a few ms of scan per request: what one would move off the event
 * loop. The cluster's server is the example in test/examples/search-server.ts, as it stands.
 * Waiting: neither event loop nor workers spin (`spinLimitUs: 0`), as the cores are taken by then; the workers step back behind
 * it (`workerNice: 5`), which about halved the time that it waits for a core; what that costs their throughput was not settled on a
 * machine that others used.
 */
import { fork } from "node:child_process";
import { judge } from "../harness/goals.ts";
import { type Bench, type BenchContext, type BenchReport, median, sized, toRow } from "../harness/harness.ts";
import { measureApproximate } from "./embed-approximate.ts";
import { DIMENSIONS, idOf, NEIGHBOURS } from "./embed-data.ts";
import type { LoadSample } from "./embed-load.worker.ts";
import { burst, disturbed, heard, ratiosOf, type Server } from "./embed-processes.ts";
import type { ServerSample } from "./embed-server.worker.ts";

const SIDES = ["cluster", "main-thread"] as const;
type Side = (typeof SIDES)[number];
type ExactServer = Server<ServerSample>;

/** The parts, in the order of the goals; `SHARDLOOM_PARTS` names those to run, with commas between, when not all are wanted. */
const PARTS: Readonly<Record<string, (context: BenchContext) => Promise<BenchReport>>> = {
  exact: measureExact,
  approximate: measureApproximate,
};

async function startServer(side: Side, rows: number, seed: number): Promise<ExactServer> {
  const child = fork(new URL("./embed-server.worker.js", import.meta.url), [side, String(rows), String(seed)]);
  const { port } = await heard<{ port: number }>(child);
  return { side, process: child, urls: [`http://127.0.0.1:${port}`], load: [], own: [] };
}

/** Both sides must give the same answers. */
async function compareAnswers(servers: readonly ExactServer[], paths: readonly string[]): Promise<void> {
  for (const path of paths.slice(0, 20)) {
    const [ours, theirs] = await Promise.all(
      servers.map(
        async (server) => (await fetch(server.urls[0] + path)).json() as Promise<{ id: string; score: number }[]>,
      ),
    );
    const same =
      ours?.length === NEIGHBOURS &&
      ours.every((hit, at) => hit.id === theirs?.[at]?.id && Math.abs(hit.score - theirs[at].score) < 1e-5);
    if (!same) throw new Error(`embed bench: the sides answer ${path} differently`);
  }
}

function report(
  context: BenchContext,
  servers: readonly ExactServer[],
  connections: number,
  rows: number,
): BenchReport {
  const [ours, theirs] = servers as [ExactServer, ExactServer];
  const of = (server: ExactServer, pick: (sample: LoadSample & ServerSample) => number): number[] =>
    server.load.map((sample, at) =>
      pick({ ...sample, ...(server.own[at] as ServerSample), cores: server.own[at]?.cores ?? 0 }),
    );
  const perRound = ratiosOf(ours, theirs);
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
      ...disturbed(ours),
      `ratios of the rounds: ${perRound.map((ratio) => ratio.toFixed(2)).join(" ")}`,
    ],
  };
}

async function measureExact(context: BenchContext): Promise<BenchReport> {
  const rows = sized(context.mode, 2_000, 25_000, 25_000);
  const seconds = sized(context.mode, 1, 3, 5);
  const rounds = sized(context.mode, 1, 3, 5);
  const connections = 8;
  const paths = Array.from({ length: 97 }, (_, at) => `/similar/${idOf((at * 7919 + context.seed) % rows)}`);
  const requests = paths.map((path) => ({ method: "GET", path }) as const);
  const load = fork(new URL("./embed-load.worker.js", import.meta.url));
  const servers: ExactServer[] = [];
  try {
    for (const side of SIDES) servers.push(await startServer(side, rows, context.seed));
    await compareAnswers(servers, paths);
    for (let round = -1; round < rounds; round++) {
      for (const server of servers)
        await burst(server, load, { requests, connections, seconds: round < 0 ? 1 : seconds }, round >= 0);
    }
  } finally {
    load.disconnect();
    for (const server of servers) server.process.send("close");
  }
  return report(context, servers, connections, rows);
}

export const bench: Bench = {
  name: "embed",
  async run(context) {
    const reports: BenchReport[] = [];
    for (const name of process.env["SHARDLOOM_PARTS"]?.split(",") ?? Object.keys(PARTS)) {
      const part = PARTS[name];
      if (part === undefined) throw new Error(`embed bench: no part ${name} among ${Object.keys(PARTS).join(", ")}`);
      context.log(`embed: ${name}`);
      reports.push(await part(context));
    }
    return {
      rows: reports.flatMap(({ rows }) => rows),
      goals: reports.flatMap(({ goals }) => goals),
      notes: reports.flatMap(({ notes }) => notes),
    };
  },
};
