/**
 * Moves a graph to other shards: copies what it has into a graph that lies on these, while nobody changes the one that it is copied from.
 *
 * Local numbers of vertices stand for as long as a graph lies on the same shards, and its owners follow from how many there are; so it moves whole,
 * by the calls that load and read any graph, and ghosts and other directions are derived anew.
 * Where the shard that it moves from was given up, what that had is left out, and with it all edges from and to its vertices.
 *
 * Invariant: the shards that it is copied from refuse every change from before the first vertex is read until after the last look; one whose worker
 * was replaced meanwhile has forgotten that, and the copy does not count. The copy has as many vertices and edges, but for those, or it is an error.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { ShardloomError } from "../../src/errors.ts";
import { GRAPH_LEAVE, GRAPH_SCAN, GRAPH_STATUS } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import { askAgain, askAll, askShard, type GraphHandle } from "./client-calls.ts";
import { decayEdges } from "./client-decay.ts";
import { addVertices, type GraphEdge, sendEdges } from "./client-load.ts";
import { buildAll, NeighbourClient, type VertexNeighbours } from "./client-neighbours.ts";
import { getVertexProperties, setVertexProperties } from "./client-properties.ts";
import { busy } from "./graph-refusals.ts";
import type { ScanReply, ScanRequest } from "./graph-scan.ts";
import { edgesInto } from "./lost-part.ts";
import type { LeaveReply, LeaveRequest } from "./run-messages.ts";
import type { VertexKey } from "./vertex-key.ts";

const PAGE = 2048;
/** Pause between two looks whether runs have ended. */
const LOOK_MS = 20;

/** What a shard had of a graph before this moved. */
export interface MovedGraph {
  readonly name: string;
  /** Vertices that the shard owned, and edges that came from them. */
  readonly vertices: number;
  readonly edges: number;
  /** What the graph does not have any more, as the shard was given up: its vertices, and edges from and to them. Absent: it has everything. */
  readonly lost?: ShardCounts;
}

/** What a graph has on one shard. */
export interface ShardCounts {
  readonly vertices: number;
  readonly edges: number;
}

interface Copied {
  readonly had: readonly ShardCounts[];
  /** Edges to vertices of a shard that was given up. */
  readonly edgesLost: number;
}

/** Options of each call, with what is left of the time. */
type Limits = () => CallOptions;

/**
 * @param finish Puts the copy in the place of the other; called in the turn of the last look.
 * @returns what each shard with a worker had, and how many of their edges are lost
 * @throws {ShardloomError} `ERR_OVERLOADED` when runs compute for too long; `ERR_WORKER_LOST`; `ERR_TIMEOUT`. The graph is then as it was.
 */
export async function moveGraph(
  from: GraphHandle,
  to: GraphHandle,
  limits: Limits,
  arena: Arena,
  finish: () => Promise<void>,
): Promise<Copied> {
  const leave = (leaves: boolean): Promise<LeaveReply[]> => {
    const request: LeaveRequest = { collection: from.collection, leaves };
    return askAll<LeaveReply>(from, GRAPH_LEAVE, () => request, leaves ? limits() : {});
  };
  try {
    const number = await whenStill(from, limits, leave);
    const copied = await copy(from, to, limits, arena);
    if (number > 0) await decayEdges(to, { rate: 0, number, ...limits() }); // so that one that is asked for again is not done again
    const stayed = await leave(true);
    if (!stayed.every(({ left }) => left))
      throw new ShardloomError(
        "ERR_WORKER_LOST",
        `Cannot move graph ${JSON.stringify(from.name)} as a worker was lost`,
      );
    await finish();
    return copied;
  } catch (error) {
    await leave(false).catch(() => undefined); // who does not hear it has lost it
    throw error;
  }
}

/** New runs are refused meanwhile by the shards that have none. @returns the number of the last decay, which all have done */
async function whenStill(
  handle: GraphHandle,
  limits: Limits,
  leave: (leaves: boolean) => Promise<LeaveReply[]>,
): Promise<number> {
  let runs: ShardloomError | undefined;
  for (;;) {
    try {
      const decays = (await leave(true)).map((reply) => reply.decays);
      if (new Set(decays).size === 1) return decays[0] as number;
      await leave(false);
      throw busy("move graph", "a decay must be done by all of its shards");
    } catch (error) {
      const failure = ShardloomError.from(error);
      if (failure.code === "ERR_TIMEOUT") throw runs ?? failure; // the last look had too little time: what it waited for says more
      if (failure.code !== "ERR_OVERLOADED" || (limits().timeoutMs ?? 0) <= LOOK_MS) throw failure;
      runs = failure;
      await handle.coordinator.pause(LOOK_MS);
    }
  }
}

async function copy(from: GraphHandle, to: GraphHandle, limits: Limits, arena: Arena): Promise<Copied> {
  const names = Object.keys(from.options.vertexProperties);
  for await (const keys of pages(from, limits)) {
    await addVertices(to, keys, limits());
    if (names.length === 0) continue;
    const values = await getVertexProperties(from, keys, names, limits());
    const columns = names.map((name) => [name, values.map((one) => one?.[name] ?? null)] as const);
    await setVertexProperties(to, keys, Object.fromEntries(columns) as never, limits());
  }
  const { place = -1 } = from.lost ?? {};
  const reader = new NeighbourClient(from, place);
  for await (const keys of pages(from, limits)) {
    const lists = await reader.read(keys, "out", limits());
    await sendEdges(to, [...edgesOf(keys, lists)], limits(), "add");
  }
  const had = await statusOf(from, limits());
  const has = await statusOf(to, limits());
  const edgesLost = edgesInto(arena, place, place < 0 ? [] : await buildAll(from, limits()));
  for (const what of ["vertices", "edges"] as const) {
    const [before = 0, after] = [had, has].map((shards) => shards.reduce((sum, counts) => sum + counts[what], 0));
    const wanted = what === "edges" ? before - edgesLost : before;
    if (wanted === after) continue;
    const rule = `the ${wanted} ${what} that it has must be copied: current value is ${after}`;
    throw new ShardloomError("ERR_INTERNAL", `Cannot move graph ${JSON.stringify(from.name)} as ${rule}`);
  }
  return { had, edgesLost };
}

function statusOf(handle: GraphHandle, options: CallOptions): Promise<ShardCounts[]> {
  return askAll<ShardCounts>(handle, GRAPH_STATUS, () => ({ collection: handle.collection }), options);
}

async function* pages(handle: GraphHandle, limits: Limits): AsyncGenerator<readonly VertexKey[]> {
  for (const shard of handle.options.members.keys()) {
    if (shard === handle.lost?.place) continue;
    for (let from = 0; from >= 0; ) {
      const request: ScanRequest = { collection: handle.collection, from, count: PAGE };
      const ask = (): Promise<ScanReply> => askShard(handle, shard, GRAPH_SCAN, request, limits());
      const { keys, next } = await askAgain(handle, ask);
      if (keys.length > 0) yield keys;
      from = next;
    }
  }
}

function* edgesOf(
  sources: readonly VertexKey[],
  lists: readonly (VertexNeighbours | undefined)[],
): Generator<GraphEdge> {
  for (const [at, list] of lists.entries()) {
    const source = sources[at] as VertexKey;
    for (const [place, target] of (list?.keys ?? []).entries()) {
      const weight = list?.weights?.[place];
      const properties = Object.entries(list?.properties ?? {})
        .map(([name, column]) => [name, column[place] as number] as const)
        .filter(([, value]) => !Number.isNaN(value));
      yield {
        source,
        target,
        ...(weight === undefined ? {} : { weight }),
        ...(properties.length === 0 ? {} : { properties: Object.fromEntries(properties) }),
      };
    }
  }
}
