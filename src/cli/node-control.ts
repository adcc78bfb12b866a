/**
 * What a running node can be asked on its own machine: lines of JSON over a socket in its directory, which only its owner can open.
 *
 * Invariant: one request a connection, answered by one line: `{ "result": … }` or `{ "error": { code, message, details } }`, before which there may be
 * some `{ "progress": … }`. Nothing that a request says can end the node; what takes time is given up when whoever asked says no more.
 */
import { chmod, rm } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { abortError } from "../../actors/call-options.ts";
import type { Cluster } from "../cluster.ts";
import type { BackupOptions, BackupProgress, BackupReport } from "../cluster-backup.ts";
import type { RemovalReport } from "../cluster-members.ts";
import type { NodeRemovalReport } from "../cluster-node-removal.ts";
import { type ErrorCode, invalidArgument, ShardloomError } from "../errors.ts";
import type { PlacementMove } from "../topology/placement.ts";

/** What can be asked. */
export const NODE_ACTIONS = ["status", "drain", "resume", "remove", "preview", "backup"] as const;
export type NodeAction = (typeof NODE_ACTIONS)[number];

/** A request. */
export interface NodeRequest {
  readonly action: NodeAction;
  /** For `drain`, `resume` and `remove`. */
  readonly shard?: number;
  /** For `remove`, instead of a shard: a node. Of both: what may be given up, and how long others may take. */
  readonly node?: string;
  readonly force?: boolean;
  readonly timeoutMs?: number;
  /** For `preview`: a node that would be gone. @default all stay */
  readonly without?: string;
  /** For `backup`: an empty directory of this machine, from its root. */
  readonly target?: string;
}

/** What a node that serves has backed up: its own part of the cluster. */
export interface NodeBackup {
  readonly node: string;
  /** The other nodes, whose parts are not in it. */
  readonly others: readonly string[];
  readonly report: BackupReport;
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
/** A node tells several times a second how far it is; one that says nothing for so long stands still. */
const SILENCE_MS = 60_000;
/** How long a shard or a node may take to be removed; then its new copies are waited for, and the answer. */
const REMOVE_MS = 15_000;
const REMOVED_MS = 15_000;
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
  const open = new Set<AbortController>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    serve(socket, open, (request, following) => answer(request, cluster, self, following));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      reject(new ShardloomError("ERR_IO", `Cannot listen on ${path}: ${cause.message}`, { cause }));
    });
    server.listen(path, resolve);
  });
  await chmod(path, 0o600);
  return {
    close: () => {
      for (const asked of open) asked.abort(); // whoever asked is told
      return closeServer(server);
    },
  };
}

/** Asks the running node of a directory. @throws {ShardloomError} `ERR_UNAVAILABLE` when none runs there, and what the node answers */
export async function askNode<T>(directory: string, request: NodeRequest): Promise<T> {
  const path = join(directory, SOCKET);
  const socket = connect(path);
  const timeoutMs = request.action === "remove" ? (request.timeoutMs ?? REMOVE_MS) + REMOVED_MS : TIMEOUT_MS;
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
    throw unanswered(directory, cause);
  } finally {
    socket.destroy();
  }
}

/**
 * Has the running node of a directory back up what it keeps, while it serves.
 *
 * @throws {ShardloomError} `ERR_UNAVAILABLE` when none runs there, or it ends meanwhile: then the target is no backup; `ERR_ABORTED`; and as
 *   `Cluster.snapshot`.
 */
export async function backupNode(directory: string, target: string, options: BackupOptions = {}): Promise<NodeBackup> {
  const { signal, onProgress } = options;
  const socket = connect(join(directory, SOCKET));
  socket.setTimeout(SILENCE_MS, () => socket.destroy(new Error(`it said nothing for ${SILENCE_MS} ms`)));
  const failed = new Promise<never>((_, reject) => socket.once("error", reject));
  failed.catch(() => undefined); // also when it is over
  const giveUp = (): void => void socket.end(); // the node removes what it has copied, and says so
  signal?.addEventListener("abort", giveUp);
  try {
    socket.write(`${JSON.stringify({ action: "backup", target } satisfies NodeRequest)}\n`);
    if (signal?.aborted === true) giveUp();
    return await Promise.race([failed, lastLine(socket, onProgress)]);
  } catch (cause) {
    if (signal?.aborted === true) throw abortError(signal);
    throw unanswered(directory, cause);
  } finally {
    signal?.removeEventListener("abort", giveUp);
    socket.destroy();
  }
}

async function lastLine(socket: Socket, onProgress?: (progress: BackupProgress) => void): Promise<NodeBackup> {
  for await (const line of createInterface({ input: socket })) {
    const { progress, error, result } = JSON.parse(line) as {
      progress?: BackupProgress;
      error?: ShardloomError;
      result?: NodeBackup;
    };
    if (progress !== undefined) onProgress?.(progress);
    if (error !== undefined) throw new ShardloomError(error.code, error.message, { details: error.details });
    if (result !== undefined) return result;
  }
  throw new Error("it has ended meanwhile");
}

function unanswered(directory: string, cause: unknown): ShardloomError {
  if (ShardloomError.is(cause)) return cause;
  return new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot ask node of ${directory} as it must be running: ${(cause as Error).message}`,
    { cause },
  );
}

/** Of an answer that takes its time: how it is followed, and given up. */
type Following = Required<Pick<BackupOptions, "signal" | "onProgress">>;

/** @param open What is being answered, and can be given up. */
function serve(
  socket: Socket,
  open: Set<AbortController>,
  answered: (request: NodeRequest, following: Following) => unknown,
): void {
  socket.setTimeout(TIMEOUT_MS, () => socket.destroy());
  socket.on("error", () => socket.destroy());
  const say = (line: object): unknown => socket.writable && socket.write(`${JSON.stringify(line)}\n`);
  const reply = async (line: string): Promise<void> => {
    const asked = new AbortController();
    open.add(asked);
    try {
      const request = JSON.parse(line) as NodeRequest;
      const following: Following = { signal: asked.signal, onProgress: (progress) => say({ progress }) };
      socket.setTimeout(0); // who asks knows how long to wait
      if (request.action === "backup") {
        for (const event of ["end", "close"]) socket.once(event, () => asked.abort());
        socket.resume();
      }
      say({ result: await answered(request, following) });
    } catch (error) {
      const { code, message, details } = ShardloomError.from(error);
      say({ error: { code, message, details } });
    }
    open.delete(asked);
    socket.end();
  };
  readLine(socket).then(reply, () => socket.destroy());
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

type Answer =
  | NodeStatus
  | MovesPreview
  | RemovalReport
  | NodeRemovalReport
  | NodeBackup
  | { readonly changed: boolean };

function answer(request: NodeRequest, cluster: Cluster, self: string, following: Following): Answer | Promise<Answer> {
  const { action, shard, node, force = false, timeoutMs = REMOVE_MS, without, target } = request;
  if (action === "backup") return backUp(cluster, self, target as string, following);
  if (action === "status") return statusOf(cluster, self);
  if (action === "drain") return { changed: cluster.drain(shard as number) };
  if (action === "resume") return { changed: cluster.resume(shard as number) };
  if (action === "remove" && node !== undefined) return cluster.removeNode(node, { timeoutMs, force });
  if (action === "remove") return cluster.remove(shard as number, { timeoutMs, force });
  if (action === "preview") return previewOf(cluster, self, without);
  throw new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot answer as action must be one of ${NODE_ACTIONS.join(", ")}: current value is ${String(action)}`,
  );
}

async function backUp(cluster: Cluster, self: string, target: string, following: Following): Promise<NodeBackup> {
  const report = await cluster.snapshot(target, following);
  const others = cluster.members().flatMap(({ kind, id }) => (kind === "node" && id !== self ? [id] : []));
  return { node: self, others, report };
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
  const known = new Set(nodes.map(({ node }) => node));
  const removed = cluster.linkStats().flatMap(({ peer, incarnation }): NodeRow[] => {
    const row = { node: peer, state: "removed", connected: links.get(peer) === true, incarnation, shards: 0 };
    return known.has(peer) ? [] : [row];
  });
  return { node: self, mapVersion, nodes: [...nodes, ...removed], shards };
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}
