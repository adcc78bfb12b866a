/**
 * Part `approximate` of bench `embed` (E2): approximate search over HTTP in the throughput mode of one host, where the thread that has a request does the
 * whole search in the memory of all shards, against usearch on the main thread of the same server.
 *
 * Three processes: either server and the clients (autocannon), whose bursts alternate. Both sides have the same scalar kind, and the least `ef`
 * that finds .99 of the nearest of vectors of the base that are left out of it; what they find for the queries is counted over HTTP before the bursts and
 * reported. The vectors are those of bench `vector-search`. f16 is usearch's fastest kind that keeps squared distances: its i8 and u8 rescale every
 * vector by itself. (By cosine its i8 found at most .96 of the nearest in 20,000 rows of MNIST, so that no kind of bytes is left to compare in.)
 * Waiting: `spinLimitUs: 0`; nobody waits for another thread but for clients.
 * Invariant: a sample counts if every request had all its hits, every thread took part, and no search was handed on.
 */
import { type ChildProcess, fork } from "node:child_process";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchReport, type BenchRow, median, sized, toRow } from "../harness/harness.ts";
import type { LoadRequest } from "./embed-load.worker.ts";
import {
  KINDS,
  type Kind,
  type NearestHit,
  type NearestSample,
  SIDES,
  type Side,
  type Tuned,
} from "./embed-nearest.ts";
import { answer, burst, disturbed, ratiosOf, type Server } from "./embed-processes.ts";
import { countFound, RECALL } from "./vector-search-curve.ts";
import { exactNearest, K, loadVectorSet, type VectorSet, Vectors } from "./vector-search-data.ts";

const CONNECTIONS = 8;
/** Of a burst whose figures mean nothing. */
const SMOKE_REQUESTS = 240;
/** Requests that the bursts repeat. */
const MOST_REQUESTS = 1_000;
/** A query finds this less often than what was tuned by, at most; more, and the sides are not compared at equal recall. */
const MOST_OFF = 0.02;

const GOALS: Readonly<Record<Kind, string>> = { f32: "E2", f16: "E2b" };

interface NearestServer extends Server<NearestSample> {
  readonly tuned: Tuned;
  readonly recall: number;
}

/** The set without the vectors that are for tuning. */
interface TunedSet extends VectorSet {
  readonly training: Vectors;
  /** Of the training vectors. */
  readonly trainingTruth: Int32Array;
}

function leaveOut(set: VectorSet, count: number): TunedSet {
  const indexed = set.base.count - count;
  if (indexed < count) throw new Error(`embed bench: ${set.base.count} vectors are too few`);
  const base = set.base.slice(0, indexed);
  const training = new Vectors(set.base.slice(indexed, set.base.count).values.slice(), base.dimensions);
  const truth = exactNearest(base, set.queries, set.bytes);
  return { ...set, base, truth, training, trainingTruth: exactNearest(base, training, set.bytes) };
}

function requestOf(vector: Float32Array): LoadRequest & { readonly body: string } {
  return { method: "POST", path: "/nearest", body: JSON.stringify({ vector: [...vector] }) };
}

/** Asks every query once. @returns how many of the nearest were found */
async function measureRecall(urls: readonly string[], { queries, truth }: VectorSet): Promise<number> {
  let found = 0;
  const ask = async (query: number): Promise<void> => {
    const { method, path, body } = requestOf(queries.at(query));
    const headers = { "content-type": "application/json" };
    const response = await fetch((urls[query % urls.length] as string) + path, { method, headers, body });
    const hits = (await response.json()) as NearestHit[];
    if (hits.length !== K || hits.some(({ score }, at) => score < (hits[at - 1]?.score ?? 0)))
      throw new Error(`embed bench: a query was answered ${JSON.stringify(hits)}`);
    found += countFound(truth, query, new Set(hits.map(({ id }) => id)));
  };
  for (let first = 0; first < queries.count; first += CONNECTIONS)
    await Promise.all(Array.from({ length: Math.min(CONNECTIONS, queries.count - first) }, (_, at) => ask(first + at)));
  return found / (queries.count * K);
}

async function startServer(child: ChildProcess, side: Side, kind: Kind, set: TunedSet): Promise<NearestServer> {
  const { base, training, trainingTruth } = set;
  const values = base.values.slice(); // without the rest of its buffer
  await answer(child, { type: "open", side, kind, values, dimensions: base.dimensions });
  const tuned = await answer<Tuned>(child, {
    ...{ type: "tune", recall: RECALL },
    ...{ queries: training.values, truth: trainingTruth },
  });
  const recall = await measureRecall(tuned.urls, set);
  if (recall < RECALL - MOST_OFF) throw new Error(`embed bench: ${side} finds ${recall} of the nearest`);
  return { side, process: child, urls: tuned.urls, tuned, recall, load: [], own: [] };
}

/** How evenly threads take part is the machine's affair. */
function checkSample({ searches, hits, handedOn }: NearestSample): void {
  const all = searches.reduce((sum, count) => sum + count, 0);
  if (hits !== all * K || handedOn > 0 || searches.some((count) => count === 0))
    throw new Error(`embed bench: ${searches.join(" and ")} searches, ${handedOn} handed on, gave ${hits} hits`);
}

/** Both servers of one kind, burst by burst in turn. @returns the cluster's, then the other */
async function measureKind(context: BenchContext, set: TunedSet, kind: Kind): Promise<NearestServer[]> {
  const { mode, log } = context;
  const seconds = sized(mode, 1, 3, 5);
  const queries = Math.min(MOST_REQUESTS, set.queries.count);
  const requests = Array.from({ length: queries }, (_, at) => requestOf(set.queries.at(at)));
  const load = fork(new URL("./embed-load.worker.js", import.meta.url));
  const children: ChildProcess[] = [];
  const servers: NearestServer[] = [];
  try {
    for (const side of SIDES) {
      const child = fork(new URL("./embed-nearest-server.worker.js", import.meta.url), { serialization: "advanced" });
      children.push(child);
      servers.push(await startServer(child, side, kind, set));
      log(`embed: ${kind}, ${side} has ${set.base.count} vectors`);
    }
    const amount = mode === "smoke" ? SMOKE_REQUESTS : undefined;
    const task = { requests, connections: CONNECTIONS, seconds, amount };
    for (let round = mode === "smoke" ? 0 : -1; round < sized(mode, 1, 5, 7); round++)
      for (const server of servers) await burst(server, load, task, round >= 0, checkSample);
  } finally {
    load.disconnect();
    for (const child of children) if (child.connected) child.send("close");
  }
  return servers;
}

function rowsOf(kind: Kind, { side, load, own, tuned, recall }: NearestServer): BenchRow[] {
  const name = `approximate search, ${kind}`;
  const row = (what: string, unit: string, samples: readonly number[]): BenchRow =>
    toRow(`${name}${what}`, side, unit, samples);
  return [
    toRow(
      name,
      side,
      "requests/s",
      load.map(({ requestsPerSecond }) => requestsPerSecond),
      `ef ${tuned.ef}, recall ${recall.toFixed(4)}`,
    ),
    row(
      ", latency p50",
      "ms",
      load.map(({ latencyP50 }) => latencyP50),
    ),
    row(
      ", latency p99",
      "ms",
      load.map(({ latencyP99 }) => latencyP99),
    ),
    row(", CPU of the server a request", "us", own.map(cpuOfRequest)),
    row(
      ", cores used by the server",
      "cores",
      own.map(({ cores }) => cores),
    ),
    row(", recall of the queries", "fraction", [recall]),
  ];
}

function cpuOfRequest({ cpuMs, searches }: NearestSample): number {
  return (cpuMs * 1000) / searches.reduce((sum, count) => sum + count, 0);
}

/**
 * The ratio by CPU time: what it would be on two cores that nobody else uses, which threads and clients of the one side fill, and of which the other
 * side's main thread fills one. A model, for machines that others use.
 */
function ratioByCpu(ours: NearestServer, theirs: NearestServer): number {
  const ofServer = ({ own }: NearestServer): number => median(own.map(cpuOfRequest));
  const ofClients = median(ours.load.map(({ cores, requestsPerSecond }) => (cores * 1e6) / requestsPerSecond));
  return (2 * ofServer(theirs)) / (ofServer(ours) + ofClients);
}

/** Rows and the verdicts on E2. */
export async function measureApproximate(context: BenchContext): Promise<BenchReport> {
  const loaded = await loadVectorSet(context);
  const set = leaveOut(loaded, sized(context.mode, 60, 1_000, 2_000));
  const rows: BenchRow[] = [];
  const goals: BenchReport["goals"][number][] = [];
  const notes = [
    `approximate: ${set.name}, of which ${set.training.count} are for tuning and left out; ${set.queries.count} queries, k ${K}, squared distances, ` +
      `${CONNECTIONS} connections, spinLimitUs 0; recall .99 was tuned on the ${set.training.count}`,
  ];
  for (const kind of KINDS) {
    const servers = await measureKind(context, set, kind);
    const [ours, theirs] = servers as [NearestServer, NearestServer];
    const perRound = ratiosOf(ours, theirs);
    rows.push(...servers.flatMap((server) => rowsOf(kind, server)));
    const recalls = servers.map(({ side, recall, tuned }) => `${side} ef ${tuned.ef}, recall ${recall.toFixed(4)}`);
    const byCpu = `by CPU time, for two cores of their own, ${ratioByCpu(ours, theirs).toFixed(2)}`;
    goals.push(judge(context.goals, GOALS[kind], median(perRound), `${recalls.join("; ")}; ${byCpu}`));
    const clients = servers.map(({ side, load }) => `${side} ${median(load.map(({ cores }) => cores)).toFixed(2)}`);
    notes.push(
      `${kind}: ratios of the rounds ${perRound.map((ratio) => ratio.toFixed(2)).join(" ")}; cores used by the clients: ${clients.join(", ")}`,
      ...disturbed(ours),
    );
  }
  return { rows, goals, notes };
}
