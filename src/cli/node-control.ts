/**
 * What a running node can be asked on its own machine: lines of JSON over a socket in its directory, which only its owner can open.
 *
 * Invariant: one request a connection, answered by one line: `{ "result": … }` or `{ "error": { code, message } }`. Nothing that a request says can
 * end the node.
 */
import { chmod, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { Cluster } from "../cluster.ts";
import type { RemovalReport } from "../cluster-members.ts";
import { type ErrorCode, invalidArgument, ShardloomError } from "../errors.ts";
import type { PlacementMove } from "../topology/placement.ts";

/** What can be asked. */
export const NODE_ACTIONS = ["status", "drain", "resume", "remove", "preview"] as const;
export type NodeAction = (typeof NODE_ACTIONS)[number];

/** A request. */
export interface NodeRequest {
  readonly action: NodeAction;
  /** For `drain`, `resume` and `remove`. */
  readonly shard?: number;
  /** For `preview`: a node that would be gone. @default all stay */
  readonly without?: string;
}

/** What a placement made anew would move. Nothing is moved. */
export interface MovesPreview {
  readonly node: string;
  readonly moves: readonly PlacementMove[];
}

/** One shard, as a node sees it. */
export interface ShardRow {
  readonly shard: number;
  readonly node: string;
  readonly state: string;
  /** Vshards that it is the primary of, and of which it holds copies, primaries included. */
  readonly primaries: number;
  readonly copies: number;
}

/** One node, as another sees it. */
export interface NodeRow {
  readonly node: string;
  readonly state: string;
  /** Whether there is a connection to it; the node itself is. */
  readonly connected: boolean;
  readonly incarnation: number;
  readonly shards: number;
}

/** What a node says of its cluster. */
export interface NodeStatus {
  readonly node: string;
  readonly mapVersion: number;
  readonly nodes: readonly NodeRow[];
  readonly shards: readonly ShardRow[];
}

const SOCKET = "control.sock";
const MAX_REQUEST_BYTES = 64 * 1024;
const TIMEOUT_MS = 5_000;
/** How long a shard may take to be removed; then its new copies are waited for, and the answer. */
const REMOVE_MS = 15_000;
const REMOVED_MS = 30_000;
const NEW_LINE = 10;

/** Answers requests about a cluster until it is closed. @throws {ShardloomError} `ERR_IO` when there can be no socket in the directory */
export async function listenForControl(
  directory: string,
  cluster: Cluster,
  self: string,
): Promise<{ close(): Promise<void> }> {
  const path = join(directory, SOCKET);
  await rm(path, { force: true }); // of a life that ended badly: the directory is this node's by now
  // Half open: an answer that takes a while comes after the end of its request.
  const server = createServer({ allowHalfOpen: true }, (socket) =>
    serve(socket, (request) => answer(request, cluster, self)),
  );
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      reject(new ShardloomError("ERR_IO", `Cannot listen on ${path}: ${cause.message}`, { cause }));
    });
    server.listen(path, resolve);
  });
  await chmod(path, 0o600);
  return { close: () => closeServer(server) };
}

/** Asks the running node of a directory. @throws {ShardloomError} `ERR_UNAVAILABLE` when none runs there, and what the node answers */
export async function askNode<T>(directory: string, request: NodeRequest): Promise<T> {
  const path = join(directory, SOCKET);
  const socket = connect(path);
  const timeoutMs = request.action === "remove" ? REMOVED_MS : TIMEOUT_MS;
  socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`it does not answer within ${timeoutMs} ms`)));
  try {
    socket.end(`${JSON.stringify(request)}\n`);
    const { result, error } = JSON.parse(await readLine(socket)) as {
      result?: T;
      error?: { code: ErrorCode; message: string };
    };
    if (error !== undefined) throw new ShardloomError(error.code, error.message);
    return result as T;
  } catch (cause) {
    if (ShardloomError.is(cause)) throw cause;
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot ask node of ${directory} as it must be running: ${(cause as Error).message}`,
      { cause },
    );
  } finally {
    socket.destroy();
  }
}

function serve(socket: Socket, answered: (request: NodeRequest) => unknown): void {
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy());
  socket.on("error", () => socket.destroy());
  readLine(socket).then(
    async (line) => {
      socket.setTimeout(0); // who asks knows how long to wait
      let reply: object;
      try {
        reply = { result: await answered(JSON.parse(line) as NodeRequest) };
      } catch (error) {
        const { code, message } = ShardloomError.from(error);
        reply = { error: { code, message } };
      }
      socket.end(`${JSON.stringify(reply)}\n`);
    },
    () => socket.destroy(),
  );
}

/** What comes before the first end of a line. */
async function readLine(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of socket.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    const end = chunk.indexOf(NEW_LINE);
    chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
    bytes += chunk.length;
    if (end >= 0) return Buffer.concat(chunks).toString();
    if (bytes > MAX_REQUEST_BYTES) break;
  }
  throw new Error("it ends without a whole line");
}

type Answer = NodeStatus | MovesPreview | RemovalReport | { readonly changed: boolean };

function answer({ action, shard, without }: NodeRequest, cluster: Cluster, self: string): Answer | Promise<Answer> {
  if (action === "status") return statusOf(cluster, self);
  if (action === "drain") return { changed: cluster.drain(shard as number) };
  if (action === "resume") return { changed: cluster.resume(shard as number) };
  if (action === "remove") return cluster.remove(shard as number, { timeoutMs: REMOVE_MS });
  if (action === "preview") return previewOf(cluster, self, without);
  throw new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot answer as action must be one of ${NODE_ACTIONS.join(", ")}: current value is ${String(action)}`,
  );
}

function previewOf(cluster: Cluster, self: string, without: string | undefined): MovesPreview {
  const members = cluster.members();
  const remove = members.flatMap((member) =>
    member.kind === "shard" && member.node === without ? [member.shard] : [],
  );
  if (without !== undefined && remove.length === 0) {
    const names = members.flatMap(({ kind, id }) => (kind === "node" ? [id] : []));
    throw invalidArgument("preview placement", "without", `one of ${names.join(", ")}`, without);
  }
  return { node: self, moves: cluster.previewPlacement({ remove }).moves };
}

function statusOf(cluster: Cluster, self: string): NodeStatus {
  const { copies, owners, mapVersion } = cluster.topology;
  const links = new Map(cluster.linkStats().map(({ peer, state }) => [peer, state === "up"]));
  const members = cluster.members();
  const shards = members.flatMap((member): ShardRow[] =>
    member.kind === "shard"
      ? [
          {
            shard: member.shard,
            node: member.node,
            state: member.state,
            primaries: owners.filter((owner) => owner === member.shard).length,
            copies: copies.filter((holder) => holder === member.shard).length,
          },
        ]
      : [],
  );
  const nodes = members.flatMap((member): NodeRow[] =>
    member.kind === "node"
      ? [
          {
            node: member.id,
            state: member.state,
            connected: member.id === self || links.get(member.id) === true,
            incarnation: member.incarnation,
            shards: shards.filter(({ node }) => node === member.id).length,
          },
        ]
      : [],
  );
  return { node: self, mapVersion, nodes, shards };
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
