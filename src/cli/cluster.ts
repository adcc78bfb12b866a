/** `shardloom cluster`: asks the running node of a directory how its cluster is, drains shards, and removes shards and nodes. */
import type { RemovalReport } from "../cluster-members.ts";
import type { NodeRemovalReport } from "../cluster-node-removal.ts";
import { readNodeRecord } from "../node-directory.ts";
import { NO_SHARD } from "../topology/snapshot.ts";
import { type Command, type CommandContext, EXIT, UsageError } from "./command.ts";
import { askNode, type MovesPreview, type NodeStatus } from "./node-control.ts";
import { formatTable } from "./table.ts";

const ACTIONS = ["status", "nodes", "shards", "drain", "resume", "remove", "rebalance"] as const;
const RIGHT = "right" as const;
type Action = (typeof ACTIONS)[number];

export const cluster: Command = {
  name: "cluster",
  summary:
    "Show the nodes and shards of a cluster as one of its running nodes sees them, drain and resume shards, remove nodes, list what would move",
  usage:
    "status | nodes | shards | drain SHARD | resume SHARD | remove NODE [--force] | rebalance --dry-run [--without NODE] --data DIRECTORY",
  operands: { min: 1, max: 2 },
  options: {
    data: { type: "string", placeholder: "DIRECTORY", summary: "directory of a node that runs on this machine" },
    "dry-run": { type: "boolean", summary: "rebalance: list the moves; nothing else is there yet" },
    force: {
      type: "boolean",
      summary: "remove: of a node that is dead, also when what was acknowledged may be lost with it",
    },
    timeout: {
      type: "integer",
      min: 1,
      max: 86_400,
      default: 30,
      summary: "remove: seconds that others may take to serve what the node has",
    },
    without: { type: "string", placeholder: "NODE", summary: "rebalance: as if this node were gone" },
  },
  async run(context) {
    const [name = "", operand, ...more] = context.operands;
    const action = ACTIONS.find((each) => each === name);
    if (action === undefined)
      throw new UsageError(`cluster takes ${ACTIONS.join(", ")}: ${JSON.stringify(name)} is none`);
    const directory = context.text("data");
    if (directory === undefined) throw new UsageError("cluster needs --data DIRECTORY");
    const takesShard = action === "drain" || action === "resume";
    const takes = takesShard ? " SHARD" : action === "remove" ? " NODE" : "";
    const shard = Number(operand);
    if ((operand !== undefined) !== (takes !== "") || more.length > 0 || (takesShard && !Number.isInteger(shard)))
      throw new UsageError(`usage is cluster ${action}${takes} --data DIRECTORY`);
    if (context.flag("force") && action !== "remove") throw new UsageError("--force is for cluster remove");
    const isDry = context.flag("dry-run");
    const without = context.text("without");
    if (isDry !== (action === "rebalance") || (without !== undefined && !isDry))
      throw new UsageError("cluster rebalance, and nothing else, takes --dry-run, which it needs, and --without NODE");
    const { members } = await readNodeRecord(directory); // says what is wrong with it, if it is no node's
    if (action === "remove") {
      const isShard = Number.isInteger(shard) && !members.some(({ name: node }) => node === operand);
      return isShard ? remove(context, directory, shard) : removeNode(context, directory, operand as string);
    }
    if (takesShard) return change(context, directory, action, shard);
    if (action === "rebalance") return preview(context, directory, without);
    return show(context, action, await askNode<NodeStatus>(directory, { action: "status" }));
  },
};

async function change(
  { output }: CommandContext,
  directory: string,
  action: "drain" | "resume",
  shard: number,
): Promise<number> {
  const { changed } = await askNode<{ changed: boolean }>(directory, { action, shard });
  output.object({ action, shard, changed });
  const done = action === "drain" ? "drains: it answers what it must and gets no new work" : "takes work again";
  output.line(changed ? `Shard ${shard} ${done}.` : `Shard ${shard} was not changed: it is as it was.`);
  return EXIT.OK;
}

/** For good: nothing takes it back. */
async function remove(context: CommandContext, directory: string, shard: number): Promise<number> {
  const { output } = context;
  const report = await askNode<RemovalReport>(directory, { action: "remove", shard, force: context.flag("force") });
  output.object({ action: "remove", ...report });
  const { primaries, copies, filling, graphs } = report;
  output.line(`Shard ${shard} is removed: others have its ${primaries} primaries, and its ${copies} copies.`);
  for (const { name, vertices, edges, lost } of graphs)
    output.line(
      lost === undefined
        ? `Of graph ${name} others have its ${vertices} vertices now, with the ${edges} edges that came from it.`
        : `Graph ${name} has lost ${lost.vertices} vertices, and ${lost.edges} edges from and to them.`,
    );
  if (filling.length > 0) output.line(`New copies of ${filling.length} vshards are being filled still.`);
  return EXIT.OK;
}

/** For good, too: its directory is of no use any more. */
async function removeNode(context: CommandContext, directory: string, node: string): Promise<number> {
  const { output } = context;
  const timeoutMs = 1_000 * (context.number("timeout") ?? 0);
  const request = { action: "remove", node, force: context.flag("force"), timeoutMs } as const;
  const report = await askNode<NodeRemovalReport>(directory, request);
  output.object({ action: "remove", ...report });
  const { primaries, copies, filling, givenUp } = report;
  output.line(`Node ${node} is removed: others have its ${primaries} primaries, and its ${copies} copies.`);
  if (filling.length > 0) output.line(`New copies of ${filling.length} vshards are being filled still.`);
  if (givenUp.length > 0) output.line(`What it alone had of ${givenUp.length} vshards is given up.`);
  return EXIT.OK;
}

async function preview({ output }: CommandContext, directory: string, without: string | undefined): Promise<number> {
  const request = { action: "preview", ...(without === undefined ? {} : { without }) } as const;
  const { node, moves } = await askNode<MovesPreview>(directory, request);
  output.object({ node, ...(without === undefined ? {} : { without }), moves });
  if (moves.length > 0) {
    const columns = ["vshard", "from", "to", "as", "why"].map((title, at) => ({
      title,
      ...(at < 3 ? { align: RIGHT } : {}),
    }));
    const name = (shard: number): string => (shard === NO_SHARD ? "-" : String(shard));
    const rows = moves.map(({ vshard, from, to, role, reason }) => [
      String(vshard),
      name(from),
      name(to),
      role,
      reason,
    ]);
    output.line(formatTable(columns, rows, { columns: output.columns }));
  }
  output.line(`${moves.length} moves; nothing was moved.`);
  return EXIT.OK;
}

function show({ output }: CommandContext, action: Action, status: NodeStatus): number {
  const { nodes, shards, node, mapVersion } = status;
  if (action !== "shards") {
    const rows = nodes.map((row) => [
      row.node === node ? `${row.node} (asked)` : row.node,
      row.state,
      row.connected ? "yes" : "no",
      String(row.incarnation),
      String(row.shards),
    ]);
    const columns = ["node", "state", "connected", "starts", "shards"].map((title, at) => ({
      title,
      ...(at > 2 ? { align: "right" as const } : {}),
    }));
    output.line(formatTable(columns, rows, { columns: output.columns }));
  }
  if (action === "status") output.line();
  if (action !== "nodes") {
    const rows = shards.map((row) => [
      String(row.shard),
      row.node,
      row.state,
      String(row.primaries),
      String(row.copies),
    ]);
    const columns = ["shard", "node", "state", "primaries", "copies"].map((title, at) => ({
      title,
      ...(at === 0 || at > 2 ? { align: "right" as const } : {}),
    }));
    output.line(formatTable(columns, rows, { columns: output.columns }));
  }
  output.object(
    action === "nodes" ? { node, nodes } : action === "shards" ? { node, shards } : { node, mapVersion, nodes, shards },
  );
  const well =
    nodes.every(({ state }) => state === "up" || state === "removed") && shards.every(({ state }) => state === "up");
  if (action === "status") output.line(well ? "\nEverything is up." : "\nNot everything is up.");
  return EXIT.OK;
}
