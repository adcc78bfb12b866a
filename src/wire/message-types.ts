/**
 * The one table of message types: number, name, reply, idempotence, plane.
 *
 * Invariant: numbers are part of the wire format and are never reused. A process refuses to start when something it
 * can send has no handler (see `assertHandled`). The high byte is the family: 0x00 runtime, 0x01 vector, 0x02 actor,
 * 0x03 barrier, 0x04 text, 0x05 replica, 0x06 graph.
 */
import { ShardloomError } from "../errors.ts";

/** Which plane handles a message: shards (`data`) or the event loop (`control`). */
export type MessagePlane = "data" | "control";

/** One row of the table. */
export interface MessageTypeInfo {
  /** Wire number, `0..0xFFFF`. */
  readonly id: number;
  /** Whether exactly one reply (a result or a typed error) ends every request of this type. */
  readonly reply: boolean;
  /** Whether the same request may be applied twice with the effect of one. */
  readonly idempotent: boolean;
  readonly plane: MessagePlane;
  /**
   * How the message finds its shard: by a plan, with a list of vshards and a consistency before its body (`read`, `write`;
   * see routed-codec.ts), or addressed to one shard (`none`).
   */
  readonly routing: "read" | "write" | "none";
}

/** Every message type of the runtime, by name. */
export const MESSAGE_TYPES = {
  "runtime.ping": { id: 0x0001, reply: true, idempotent: true, plane: "data", routing: "none" },
  "runtime.cancel": { id: 0x0002, reply: false, idempotent: true, plane: "data", routing: "none" },
  "vector.open": { id: 0x0101, reply: true, idempotent: true, plane: "data", routing: "none" },
  "vector.drop": { id: 0x0102, reply: true, idempotent: true, plane: "data", routing: "none" },
  "vector.upsert": { id: 0x0103, reply: true, idempotent: true, plane: "data", routing: "write" },
  "vector.get": { id: 0x0104, reply: true, idempotent: true, plane: "data", routing: "read" },
  "vector.delete": { id: 0x0105, reply: true, idempotent: true, plane: "data", routing: "write" },
  "vector.count": { id: 0x0106, reply: true, idempotent: true, plane: "data", routing: "read" },
  "vector.search": { id: 0x0107, reply: true, idempotent: true, plane: "data", routing: "read" },
  "vector.status": { id: 0x0108, reply: true, idempotent: true, plane: "data", routing: "none" },
  "vector.collaborate": { id: 0x0109, reply: true, idempotent: true, plane: "data", routing: "none" },
  "vector.cotra": { id: 0x010a, reply: false, idempotent: true, plane: "data", routing: "none" },
  "vector.near": { id: 0x0111, reply: true, idempotent: true, plane: "data", routing: "none" },
  "vector.exchange": { id: 0x0112, reply: true, idempotent: true, plane: "data", routing: "none" },
  "vector.spire": { id: 0x0113, reply: true, idempotent: true, plane: "data", routing: "none" },
  "actor.ask": { id: 0x0201, reply: true, idempotent: false, plane: "data", routing: "none" },
  "actor.tell": { id: 0x0202, reply: false, idempotent: false, plane: "data", routing: "none" },
  "text.open": { id: 0x0401, reply: true, idempotent: true, plane: "data", routing: "none" },
  "text.drop": { id: 0x0402, reply: true, idempotent: true, plane: "data", routing: "none" },
  "text.upsert": { id: 0x0403, reply: true, idempotent: true, plane: "data", routing: "write" },
  "text.get": { id: 0x0404, reply: true, idempotent: true, plane: "data", routing: "read" },
  "text.delete": { id: 0x0405, reply: true, idempotent: true, plane: "data", routing: "write" },
  "text.count": { id: 0x0406, reply: true, idempotent: true, plane: "data", routing: "read" },
  "text.search": { id: 0x0407, reply: true, idempotent: true, plane: "data", routing: "read" },
  "text.stats": { id: 0x0408, reply: true, idempotent: true, plane: "data", routing: "read" },
  "text.status": { id: 0x0409, reply: true, idempotent: true, plane: "data", routing: "none" },
  "barrier.open": { id: 0x0301, reply: true, idempotent: false, plane: "data", routing: "none" },
  "barrier.close": { id: 0x0302, reply: true, idempotent: true, plane: "data", routing: "none" },
  "barrier.join": { id: 0x0303, reply: true, idempotent: true, plane: "data", routing: "none" },
  "barrier.leave": { id: 0x0304, reply: true, idempotent: true, plane: "data", routing: "none" },
  "barrier.arrive": { id: 0x0305, reply: true, idempotent: true, plane: "data", routing: "none" },
  "barrier.advance": { id: 0x0306, reply: true, idempotent: true, plane: "data", routing: "none" },
  "barrier.poison": { id: 0x0307, reply: true, idempotent: true, plane: "data", routing: "none" },
  "barrier.state": { id: 0x0308, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.open": { id: 0x0601, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.drop": { id: 0x0602, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.meet": { id: 0x0603, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.vertices": { id: 0x0604, reply: true, idempotent: false, plane: "data", routing: "none" },
  "graph.edges": { id: 0x0605, reply: true, idempotent: false, plane: "data", routing: "none" },
  "graph.build": { id: 0x0606, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.begin": { id: 0x0607, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.superstep": { id: 0x0608, reply: true, idempotent: false, plane: "data", routing: "none" },
  "graph.contributions": { id: 0x0609, reply: false, idempotent: false, plane: "data", routing: "none" },
  "graph.complete": { id: 0x060a, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.results": { id: 0x060b, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.status": { id: 0x060c, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.neighbours": { id: 0x060d, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.scan": { id: 0x060e, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.decay": { id: 0x060f, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.set": { id: 0x0610, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.get": { id: 0x0611, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.ghost-create": { id: 0x0612, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.ghost-delete": { id: 0x0613, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.ghost-verify": { id: 0x0614, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.ghosts": { id: 0x0615, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.stepped": { id: 0x0618, reply: false, idempotent: true, plane: "data", routing: "none" },
  "graph.halt": { id: 0x0619, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.leave": { id: 0x0617, reply: true, idempotent: true, plane: "data", routing: "none" },
  "graph.reserve": { id: 0x0616, reply: true, idempotent: false, plane: "data", routing: "none" },
  "replica.append": { id: 0x0501, reply: true, idempotent: true, plane: "data", routing: "none" },
  "replica.status": { id: 0x0502, reply: true, idempotent: true, plane: "data", routing: "none" },
  "replica.snapshot": { id: 0x0503, reply: true, idempotent: true, plane: "data", routing: "none" },
  "replica.fetch": { id: 0x0504, reply: true, idempotent: true, plane: "data", routing: "none" },
} as const;

/** The name of a message type. */
export type MessageTypeName = keyof typeof MESSAGE_TYPES;

export const RUNTIME_PING: number = MESSAGE_TYPES["runtime.ping"].id;
export const RUNTIME_CANCEL: number = MESSAGE_TYPES["runtime.cancel"].id;
export const VECTOR_OPEN: number = MESSAGE_TYPES["vector.open"].id;
export const VECTOR_DROP: number = MESSAGE_TYPES["vector.drop"].id;
export const VECTOR_UPSERT: number = MESSAGE_TYPES["vector.upsert"].id;
export const VECTOR_GET: number = MESSAGE_TYPES["vector.get"].id;
export const VECTOR_DELETE: number = MESSAGE_TYPES["vector.delete"].id;
export const VECTOR_COUNT: number = MESSAGE_TYPES["vector.count"].id;
export const VECTOR_SEARCH: number = MESSAGE_TYPES["vector.search"].id;
export const VECTOR_STATUS: number = MESSAGE_TYPES["vector.status"].id;
export const VECTOR_COLLABORATE: number = MESSAGE_TYPES["vector.collaborate"].id;
export const VECTOR_COTRA: number = MESSAGE_TYPES["vector.cotra"].id;
export const VECTOR_NEAR: number = MESSAGE_TYPES["vector.near"].id;
export const VECTOR_EXCHANGE: number = MESSAGE_TYPES["vector.exchange"].id;
export const VECTOR_SPIRE: number = MESSAGE_TYPES["vector.spire"].id;
export const ACTOR_ASK: number = MESSAGE_TYPES["actor.ask"].id;
export const ACTOR_TELL: number = MESSAGE_TYPES["actor.tell"].id;
export const TEXT_OPEN: number = MESSAGE_TYPES["text.open"].id;
export const TEXT_DROP: number = MESSAGE_TYPES["text.drop"].id;
export const TEXT_UPSERT: number = MESSAGE_TYPES["text.upsert"].id;
export const TEXT_GET: number = MESSAGE_TYPES["text.get"].id;
export const TEXT_DELETE: number = MESSAGE_TYPES["text.delete"].id;
export const TEXT_COUNT: number = MESSAGE_TYPES["text.count"].id;
export const TEXT_SEARCH: number = MESSAGE_TYPES["text.search"].id;
export const TEXT_STATS: number = MESSAGE_TYPES["text.stats"].id;
export const TEXT_STATUS: number = MESSAGE_TYPES["text.status"].id;
export const BARRIER_OPEN: number = MESSAGE_TYPES["barrier.open"].id;
export const BARRIER_CLOSE: number = MESSAGE_TYPES["barrier.close"].id;
export const BARRIER_JOIN: number = MESSAGE_TYPES["barrier.join"].id;
export const BARRIER_LEAVE: number = MESSAGE_TYPES["barrier.leave"].id;
export const BARRIER_ARRIVE: number = MESSAGE_TYPES["barrier.arrive"].id;
export const BARRIER_ADVANCE: number = MESSAGE_TYPES["barrier.advance"].id;
export const BARRIER_POISON: number = MESSAGE_TYPES["barrier.poison"].id;
export const BARRIER_STATE: number = MESSAGE_TYPES["barrier.state"].id;
export const GRAPH_OPEN: number = MESSAGE_TYPES["graph.open"].id;
export const GRAPH_DROP: number = MESSAGE_TYPES["graph.drop"].id;
export const GRAPH_MEET: number = MESSAGE_TYPES["graph.meet"].id;
export const GRAPH_VERTICES: number = MESSAGE_TYPES["graph.vertices"].id;
export const GRAPH_EDGES: number = MESSAGE_TYPES["graph.edges"].id;
export const GRAPH_BUILD: number = MESSAGE_TYPES["graph.build"].id;
export const GRAPH_BEGIN: number = MESSAGE_TYPES["graph.begin"].id;
/** Its reply is the acknowledgements of the supersteps. */
export const GRAPH_SUPERSTEP: number = MESSAGE_TYPES["graph.superstep"].id;
export const GRAPH_CONTRIBUTIONS: number = MESSAGE_TYPES["graph.contributions"].id;
export const GRAPH_STEPPED: number = MESSAGE_TYPES["graph.stepped"].id;
export const GRAPH_HALT: number = MESSAGE_TYPES["graph.halt"].id;
export const GRAPH_COMPLETE: number = MESSAGE_TYPES["graph.complete"].id;
export const GRAPH_RESULTS: number = MESSAGE_TYPES["graph.results"].id;
export const GRAPH_STATUS: number = MESSAGE_TYPES["graph.status"].id;
export const GRAPH_NEIGHBOURS: number = MESSAGE_TYPES["graph.neighbours"].id;
export const GRAPH_DECAY: number = MESSAGE_TYPES["graph.decay"].id;
export const GRAPH_SET: number = MESSAGE_TYPES["graph.set"].id;
export const GRAPH_GET: number = MESSAGE_TYPES["graph.get"].id;
export const GRAPH_GHOST_CREATE: number = MESSAGE_TYPES["graph.ghost-create"].id;
export const GRAPH_GHOST_DELETE: number = MESSAGE_TYPES["graph.ghost-delete"].id;
export const GRAPH_GHOST_VERIFY: number = MESSAGE_TYPES["graph.ghost-verify"].id;
export const GRAPH_GHOSTS: number = MESSAGE_TYPES["graph.ghosts"].id;
export const GRAPH_LEAVE: number = MESSAGE_TYPES["graph.leave"].id;
export const GRAPH_RESERVE: number = MESSAGE_TYPES["graph.reserve"].id;
export const GRAPH_SCAN: number = MESSAGE_TYPES["graph.scan"].id;
export const REPLICA_APPEND: number = MESSAGE_TYPES["replica.append"].id;
export const REPLICA_STATUS: number = MESSAGE_TYPES["replica.status"].id;
export const REPLICA_SNAPSHOT: number = MESSAGE_TYPES["replica.snapshot"].id;
export const REPLICA_FETCH: number = MESSAGE_TYPES["replica.fetch"].id;

/** Types of effects that no message has, in the family of replicas; see store/idempotent-effect.ts. Never reused either. */
export const IDEMPOTENT_WRITE = 0x0510;
export const IDEMPOTENCY_KEYS = 0x0511;

const NAMES: ReadonlyMap<number, MessageTypeName> = new Map(
  Object.entries(MESSAGE_TYPES).map(([name, info]) => [info.id, name as MessageTypeName]),
);

const ROUTED: ReadonlySet<number> = new Set(
  Object.values(MESSAGE_TYPES).flatMap((info: MessageTypeInfo) => (info.routing === "none" ? [] : [info.id])),
);

const WRITES: ReadonlySet<number> = new Set(
  Object.values(MESSAGE_TYPES).flatMap((info: MessageTypeInfo) => (info.routing === "write" ? [info.id] : [])),
);

/** Whether messages of a type are planned writes. */
export function isRoutedWrite(id: number): boolean {
  return WRITES.has(id);
}

/** Whether messages of a type are planned: they carry vshards and are refused under another topology epoch. */
export function isRouted(id: number): boolean {
  return ROUTED.has(id);
}

/** The name of a wire number, or its hexadecimal form when it is unknown. */
export function messageTypeName(id: number): string {
  return NAMES.get(id) ?? `0x${id.toString(16).padStart(4, "0")}`;
}

/**
 * Refuses to start a process that can send what it cannot handle.
 *
 * @throws {ShardloomError} `ERR_UNKNOWN_MESSAGE` naming every data-plane type without a handler.
 */
export function assertHandled(handled: ReadonlySet<number>): void {
  // The annotation checks every row; isolatedDeclarations admits no `satisfies` on the exported table itself.
  const table: Readonly<Record<MessageTypeName, MessageTypeInfo>> = MESSAGE_TYPES;
  const missing = Object.entries(table)
    .filter(([, info]) => info.plane === "data" && !handled.has(info.id))
    .map(([name]) => name);
  if (missing.length === 0) return;
  throw new ShardloomError(
    "ERR_UNKNOWN_MESSAGE",
    `Cannot start shard as every message type must have a handler: current gaps are ${missing.join(", ")}`,
    { details: { missing } },
  );
}
