/**
 * `shardloom node`: one process of a cluster of several, from a directory that says who it is. The first start founds the cluster or joins it.
 *
 * Invariant: what the directory says is never changed by an option; options that only a first start has a use for are wrong usage later. Standard
 * output has what people or scripts act on, standard error the log, a JSON line for each event.
 */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Logger, pino } from "pino";
import { Cluster } from "../cluster.ts";
import type { NodeAddress } from "../cluster-wire.ts";
import { ShardloomError } from "../errors.ts";
import {
  foundCluster,
  inviteNodes,
  joinCluster,
  type NodeRecord,
  nodeOptions,
  type OpenInvitations,
  readNodeRecord,
} from "../node-directory.ts";
import type { ServerWaiting } from "../runtime/patience.ts";
import { systemScheduler, withinMs } from "../runtime/scheduler.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { listenForControl } from "./node-control.ts";
import { formatCount } from "./units.ts";

/** Options of the start that founds a cluster. */
const FOUNDING = ["name", "members", "shards", "copies", "vshards", "nats", "keep"] as const;
const CLOSE_MS = 10_000;
const KEEPS = ["nats"] as const;
/** Time that a module has to end what it has begun, and then others to take over what this node is primary of. */
const FINISH_MS = 5_000;
const HAND_OVER_MS = 5_000;
const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;

export const node: Command = {
  name: "node",
  summary: "Run one node of a cluster of several: found a cluster, join one, or go on with the directory of a node",
  usage: "--data DIRECTORY [--found CLUSTER --name NODE --members NAME=ADDRESS,... | --join INVITATION] [options]",
  options: {
    data: {
      type: "string",
      placeholder: "DIRECTORY",
      summary: "who the node is, its certificate, and all that it keeps",
    },
    found: {
      type: "string",
      placeholder: "CLUSTER",
      summary: "make a cluster of this name, of which this is the first node",
    },
    name: { type: "string", placeholder: "NODE", summary: "found: which of the members this node is" },
    members: {
      type: "string",
      placeholder: "NAME=ADDRESS,...",
      summary: "found: all nodes, reached at tls://HOST:PORT or https://HOST:PORT (WebTransport)",
    },
    shards: { type: "integer", min: 1, max: 256, summary: "found: shards of each node; without it, 1" },
    copies: { type: "integer", min: 1, max: 16, summary: "found: copies of everything; without it, 1" },
    vshards: { type: "integer", min: 1, max: 32_768, summary: "found: vshards, a power of two" },
    nats: {
      type: "string",
      placeholder: "ADDRESS,...",
      summary: "found: NATS servers, nats://HOST:PORT, that keep leases: a lost node's vshards get other primaries",
    },
    keep: {
      type: "string",
      choices: KEEPS,
      summary: "found: nats keeps the nodes' shards in NATS too; without it, their directories do",
    },
    join: { type: "string", placeholder: "INVITATION", summary: "become the node that the invitation is for" },
    invite: { type: "boolean", summary: "invite the other members again, from where the cluster was founded" },
    listen: {
      type: "string",
      placeholder: "ADDRESS",
      summary: "where to listen, when that is not where the node is reached",
    },
    actors: { type: "string", placeholder: "FILE,...", summary: "modules with the actors that every node hosts" },
    run: { type: "string", placeholder: "FILE", summary: "module whose default export is called with the cluster" },
    "log-level": {
      type: "string",
      choices: LOG_LEVELS,
      default: "info",
      summary: "what the log on standard error tells",
    },
  },
  async run(context) {
    const directory = context.text("data");
    if (directory === undefined) throw new UsageError("node needs --data DIRECTORY");
    const { record, isFounder } = await recordFor(context, directory);
    const log = pino({ base: { node: record.name }, level: context.text("log-level") ?? "info" }, pino.destination(2));
    const invitations = isFounder ? await invite(context, directory, log) : undefined;
    try {
      await serve(context, directory, record, log);
    } finally {
      await invitations?.close();
    }
    return EXIT.OK;
  },
};

/** Whose directory it is; of a new one, as the options say. */
async function recordFor(
  context: CommandContext,
  directory: string,
): Promise<{ readonly record: NodeRecord; readonly isFounder: boolean }> {
  const cluster = context.text("found");
  const invitation = context.text("join");
  if (cluster !== undefined && invitation !== undefined) throw new UsageError("node takes --found or --join, not both");
  const name = context.text("name");
  const members = context.text("members");
  if (cluster === undefined) {
    for (const option of FOUNDING)
      if ((context.text(option) ?? context.number(option)) !== undefined)
        throw new UsageError(`--${option} is for a node that founds a cluster, with --found`);
    if (invitation !== undefined) return { record: await joinCluster(directory, invitation), isFounder: false };
    return { record: await readNodeRecord(directory), isFounder: context.flag("invite") };
  }
  if (name === undefined || members === undefined) throw new UsageError("--found needs --name and --members");
  const copies = context.number("copies");
  const vshards = context.number("vshards");
  const nats = context.text("nats")?.split(",");
  const isInNats = context.text("keep") === "nats";
  if (isInNats && nats === undefined) throw new UsageError("--keep nats needs --nats ADDRESS,...");
  const record = await foundCluster(directory, name, {
    cluster,
    members: membersOf(members, context.number("shards") ?? 1),
    ...(copies === undefined ? {} : { replicationFactor: copies }),
    ...(vshards === undefined ? {} : { vshards }),
    ...(nats === undefined ? {} : { nats }),
    ...(isInNats ? { keep: "nats" } : {}),
  });
  return { record, isFounder: true };
}

function membersOf(text: string, shards: number): NodeAddress[] {
  return text.split(",").map((member) => {
    const at = member.indexOf("=");
    if (at < 1) throw new UsageError(`--members takes NAME=ADDRESS,...: ${JSON.stringify(member)} is no such pair`);
    return { name: member.slice(0, at).trim(), address: member.slice(at + 1).trim(), shards };
  });
}

async function invite({ output }: CommandContext, directory: string, log: Logger): Promise<OpenInvitations> {
  const open = await inviteNodes(directory, undefined, ({ joined, refused }, from) => {
    if (joined !== undefined) log.info({ joined: joined.node, from }, "node joined");
    else log.warn({ err: refused, from }, "join refused");
  });
  output.line("Start the other nodes with these commands. Each invitation is a secret, good for one hour and one use:");
  for (const { node: name, text } of open.invitations) {
    output.line(`\n  shardloom node --data ${name} --join ${text}`);
    output.object({ event: "invitation", node: name, invitation: text });
  }
  output.line();
  return open;
}

/** Runs the node until the command is aborted. */
async function serve(context: CommandContext, directory: string, record: NodeRecord, log: Logger): Promise<void> {
  const { output, signal } = context;
  const options = await nodeOptions(directory);
  const listen = context.text("listen");
  const onWaiting = ({ elapsedMs, limitMs, tries, error }: ServerWaiting): void =>
    log.warn({ elapsedMs, limitMs, tries, err: error }, "waiting for servers of NATS");
  const { nats } = options.node;
  const cluster = await Cluster.start({
    ...options,
    ...(options.nats === undefined ? {} : { nats: { ...options.nats, onWaiting } }),
    actors: (context.text("actors")?.split(",") ?? []).map((file) => pathToFileURL(resolve(file))),
    node: {
      ...options.node,
      ...(nats === undefined ? {} : { nats: { ...nats, onWaiting } }),
      ...(listen === undefined ? {} : { listen }),
      onRefused: (error, from) => log.warn({ err: error, from }, "peer refused"),
    },
  });
  const removed = new AbortController();
  cluster.on("removed", () => removed.abort());
  logEvents(cluster, log);
  const control = await listenForControl(directory, cluster, record.name).catch(async (error: unknown) => {
    await cluster.close({ timeoutMs: CLOSE_MS });
    throw error;
  });
  try {
    const own = record.members.find(({ name }) => name === record.name);
    const { shards, vshards } = cluster.topology;
    output.line(
      `Node ${record.name} of ${record.cluster} serves at ${own?.address ?? ""}: ${formatCount(record.members.length)} nodes, ` +
        `${formatCount(shards)} shards, ${formatCount(vshards)} vshards. Ctrl-C ends it in order.`,
    );
    output.object({
      event: "serving",
      node: record.name,
      cluster: record.cluster,
      address: own?.address,
      shards,
      vshards,
    });
    const ends = AbortSignal.any([signal, removed.signal]);
    const running = runModule(context.text("run"), cluster, ends);
    await Promise.race([aborted(ends), running]);
    if (removed.signal.aborted) {
      output.line(
        `Node ${record.name} was removed from ${record.cluster}: it ends, and its directory is of no use any more.`,
      );
      output.object({ event: "removed", node: record.name, cluster: record.cluster });
    }
    await withinMs(systemScheduler, FINISH_MS, running);
  } finally {
    log.info("closing");
    await control.close();
    await cluster.close({ timeoutMs: CLOSE_MS, handOverMs: HAND_OVER_MS });
    log.info("closed");
  }
}

/** Calls a user's module; it may return at once, the node goes on until it is ended. */
async function runModule(file: string | undefined, cluster: Cluster, signal: AbortSignal): Promise<void> {
  if (file !== undefined) {
    const loaded = (await import(pathToFileURL(resolve(file)).href)) as { default?: unknown };
    if (typeof loaded.default !== "function")
      throw new ShardloomError(
        "ERR_MODULE_NOT_LOADED",
        `Cannot run ${file} as its default export must be a function: current value is ${typeof loaded.default}`,
      );
    await (loaded.default as (cluster: Cluster, signal: AbortSignal) => unknown)(cluster, signal);
  }
  await aborted(signal);
}

function logEvents(cluster: Cluster, log: Logger): void {
  cluster.on("member-changed", ({ member, from, to, reason }) => {
    log[to === "down" ? "warn" : "info"]({ member: member.id, from, to, reason }, "member changed");
  });
  cluster.on("worker-lost", ({ shard, error }) => log.error({ shard, err: error }, "worker lost"));
  cluster.on("worker-restarted", ({ shard }) => log.info({ shard }, "worker restarted"));
  cluster.on("worker-down", ({ shard, error }) => log.error({ shard, err: error }, "worker is not replaced any more"));
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal.aborted) done();
    else signal.addEventListener("abort", () => done(), { once: true });
  });
}
