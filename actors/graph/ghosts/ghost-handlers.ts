/**
 * What a shard does with messages about ghosts: those of its own vertices, from the shards that hold them, and questions of clients.
 *
 * Invariant: a change is taken whatever order changes come in (see ghost-holders.ts), and a question is answered by what the shard has now.
 */
import { ShardloomError } from "../../../src/errors.ts";
import {
  GRAPH_GHOST_CREATE,
  GRAPH_GHOST_DELETE,
  GRAPH_GHOST_VERIFY,
  GRAPH_GHOSTS,
} from "../../../src/wire/message-types.ts";
import type { EngineHandler, EngineRequest } from "../../engine.ts";
import { decodeBody, replyBody } from "../graph-messages.ts";
import type { ShardGraph } from "../shard-graph.ts";
import { hashOfKey, ownerOfHash, type VertexKey } from "../vertex-key.ts";
import {
  GHOST_STATUS,
  type GhostStatus as GhostAnswer,
  type GhostChangeKind,
  ghostReplyBytes,
  readGhostChanges,
  readGhostQuestion,
  writeGhostReply,
} from "./ghost-codec.ts";
import type { GhostStatus, ShardGhosts } from "./shard-ghosts.ts";

/** A client asks what ghosts a shard has, and who has ghosts of its vertices. */
export interface GhostsRequest {
  readonly collection: number;
  readonly keys: readonly VertexKey[];
}

export interface GhostsReply {
  readonly status: GhostStatus;
  /** Of each vertex: shards and how many of their edges lead to it; null for one that is not in the graph. */
  readonly holders: readonly (readonly (readonly [shard: number, references: number])[] | null)[];
}

/** @param find The graph of a message. */
export function ghostHandlers(
  find: (collection: number) => ShardGraph,
): (readonly [type: number, handler: EngineHandler])[] {
  const take = (request: EngineRequest, kind: GhostChangeKind): number => {
    const { collectionId, holder, holderEpoch, changes } = readGhostChanges(request, kind);
    const { holders } = ghostsOf(find(collectionId));
    return changes.filter((change) => holders.apply(holder, holderEpoch, change)).length;
  };
  return [
    [GRAPH_GHOST_CREATE, (request, reply) => replyBody(reply, take(request, "create"))],
    [GRAPH_GHOST_DELETE, (request, reply) => replyBody(reply, take(request, "delete"))],
    [
      GRAPH_GHOST_VERIFY,
      (request, reply) => {
        const { collectionId, keys } = readGhostQuestion(request);
        const graph = find(collectionId);
        const { epoch } = ghostsOf(graph);
        const answer = { ownerEpoch: epoch, statuses: keys.map((key) => statusOf(graph, key)) };
        reply.claim(ghostReplyBytes(answer));
        writeGhostReply(reply, reply.offset, answer);
      },
    ],
    [
      GRAPH_GHOSTS,
      (request, reply) => {
        const { collection, keys } = decodeBody<GhostsRequest>(request);
        const graph = find(collection);
        const ghosts = ghostsOf(graph);
        const holders = keys.map((key) => {
          if (graph.table.find(key, hashOfKey(key)) < 0) return null;
          return ghosts.holders
            .holdersOf(key)
            .map((holder) => [holder, ghosts.holders.references(key, holder)] as const);
        });
        replyBody(reply, { status: ghosts.status(), holders } satisfies GhostsReply);
      },
    ],
  ];
}

function statusOf({ table, place, shard }: ShardGraph, key: VertexKey): GhostAnswer {
  const hash = hashOfKey(key);
  if (ownerOfHash(hash, place.shards) !== shard) return GHOST_STATUS.elsewhere;
  return table.find(key, hash) >= 0 ? GHOST_STATUS.exists : GHOST_STATUS.gone;
}

function ghostsOf({ ghosts }: ShardGraph): ShardGhosts {
  if (ghosts !== undefined) return ghosts;
  throw new ShardloomError("ERR_INVALID_ARGUMENT", "Cannot use ghosts as the graph must be created with them");
}
