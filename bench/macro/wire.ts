/** Bench `wire`: goals W1 to W7, nodes in processes of their own beside bare sockets, the bare WebTransport package, NATS' client, Moleculer and Erlang. */
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster } from "../../src/index.ts";
import type { Credentials } from "../../src/transport/session.ts";
import { type MoleculerCaller, moleculerEnvironment, openMoleculer } from "../compare/moleculer.ts";
import { type GoalResult, judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchContext,
  type BenchReport,
  type BenchRow,
  median,
  sized,
  toRow,
} from "../harness/harness.ts";
import { mirror } from "./wire-actors.ts";
import { measureWire, type WireSides } from "./wire-cases.ts";
import { runDistribution } from "./wire-erlang.ts";
import { measureNats, startNats } from "./wire-nats.ts";
import { connectTls, connectWeb, type RawClient } from "./wire-raw.ts";
import { measureRestart } from "./wire-restart.ts";
import { ACTORS_URL, createPair, freePort, networkOf, startMoleculerPeer, startPeer } from "./wire-setup.ts";
import { Asker } from "./wire-thread.ts";

/** Rows and verdicts of a part. */
interface Part {
  readonly rows: readonly BenchRow[];
  readonly goals: readonly GoalResult[];
}

async function run(context: BenchContext): Promise<BenchReport> {
  const root = await mkdtemp(join(tmpdir(), "shardloom-wire-"));
  const notes = [
    "nodes and bare sides use mutual TLS 1.3 on loopback; Moleculer and Erlang send in clear",
    "the actor on the receiving thread is driven by frames, envelopes and the actor system; the one on a worker by two whole nodes",
    "Moleculer 0.15 asks for Node 22 and is run on what runs this",
  ];
  const nats = await startNats(root);
  try {
    const parts: Part[] = [await pairs(context, root, notes)];
    if (nats === undefined) notes.push("W5 and W6 skipped: nats-server is not on the path");
    else {
      parts.push(await measureNats(context, nats.url));
      if (context.mode === "smoke") notes.push("W6 needs three more processes: not in a smoke run");
      else parts.push(await measureRestart(context, join(root, "restart"), nats.url));
    }
    return { rows: parts.flatMap(({ rows }) => rows), goals: parts.flatMap(({ goals }) => goals), notes };
  } finally {
    nats?.child.kill("SIGKILL");
    await rm(root, { recursive: true, force: true });
  }
}

/** W1 to W4 and W7, between this process and another one. */
async function pairs(context: BenchContext, root: string, notes: string[]): Promise<Part> {
  const pair = await createPair(root);
  const [a, b] = pair.nodes;
  const [own, theirs] = pair.credentials;
  const { child, ports } = await startPeer({ node: b, credentials: theirs });
  const cleanup: (() => unknown)[] = [() => child.kill("SIGKILL")];
  try {
    const cluster = await Cluster.start({
      ...{ workers: 1, memoryBytes: 64 * 1024 * 1024, requestTimeoutMs: 60_000, actors: [ACTORS_URL], node: a },
    });
    cleanup.push(() => cluster.close());
    const raw = async (client: Promise<RawClient>): Promise<RawClient> => {
      const opened = await client;
      cleanup.push(() => opened.close());
      return opened;
    };
    const moleculer = await startMoleculer(cleanup);
    if (moleculer === undefined) notes.push("W3b skipped: moleculer is not installed");
    const sides: WireSides = {
      tls: await askerOver("tls", ports.tls, own, cleanup),
      https: await askerOver("https", ports.https, own, cleanup),
      actor: cluster.actor(mirror, keyOn(cluster, 1)),
      echo: await raw(connectTls(ports.echo, own)),
      forward: await raw(connectTls(ports.forward, own)),
      bulkTls: await raw(connectTls(ports.bulk, own)),
      web: await raw(connectWeb(ports.web, "/echo", own)),
      bulkWeb: await raw(connectWeb(ports.web, "/bulk", own)),
      moleculer: moleculer === undefined ? undefined : (text) => moleculer.echo(text),
    };
    const measured = await measureWire(context, sides);
    const beside = await besideErlang(context, root, measured, notes);
    return { rows: [...measured.rows, ...beside.rows], goals: [...measured.goals, ...beside.goals] };
  } finally {
    for (const undo of cleanup.reverse()) await undo();
  }
}

async function askerOver(
  scheme: "tls" | "https",
  address: string,
  credentials: Credentials,
  cleanup: (() => unknown)[],
): Promise<Asker> {
  const network = await networkOf("a", scheme, credentials, [], () => new URL(address));
  cleanup.push(() => network.close());
  const asker = new Asker();
  asker.connection = network.dial("b", asker);
  await asker.opened;
  return asker;
}

async function startMoleculer(cleanup: (() => unknown)[]): Promise<MoleculerCaller | undefined> {
  const ports = [await freePort(), await freePort()] as const;
  const peer: ChildProcess = startMoleculerPeer(moleculerEnvironment(ports));
  cleanup.push(() => peer.kill("SIGKILL"));
  const caller = await openMoleculer(ports);
  if (caller !== undefined) cleanup.push(() => caller.close());
  return caller;
}

/** W7: what Erlang does with as many messages. */
async function besideErlang(
  { mode, goals }: BenchContext,
  root: string,
  { asks, tells }: { readonly asks: number; readonly tells: number },
  notes: string[],
): Promise<Part> {
  const rounds = sized(mode, 1, 3, 7);
  const figures = await runDistribution(root, sized(mode, 640, 64_000, 256_000), rounds, (line) => notes.push(line));
  if (figures === undefined) return { rows: [], goals: [] };
  const theirAsks = figures.map((figure) => figure.asks);
  const theirTells = figures.map(({ oneWay }) => oneWay);
  return {
    rows: [
      toRow("W7 ask 64 B, 64 callers", "erlang distribution", "asks/s", theirAsks),
      toRow("W7 one-way 64 B", "erlang distribution", "messages/s", theirTells),
    ],
    goals: [judge(goals, "W7", asks / median(theirAsks)), judge(goals, "W7b", tells / median(theirTells))],
  };
}

/** A key of an actor on the given shard. */
function keyOn(cluster: Cluster, shard: number): string {
  for (let at = 0; ; at++) if (cluster.shardOfActor(mirror, `m-${at}`) === shard) return `m-${at}`;
}

export const bench: Bench = { name: "wire", run };
