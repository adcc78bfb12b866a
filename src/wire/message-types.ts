/**
 * The one table of message types: number, name, reply, idempotence, plane.
 *
 * Invariant: numbers are part of the wire format and are never reused. A process refuses to start when something it
 * can send has no handler (see `assertHandled`). The high byte is the family: 0x00 runtime, 0x01 vector, 0x02 actor,
 * 0x03 barrier, 0x04 text, 0x05 replica.
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
  "replica.append": { id: 0x0501, reply: true, idempotent: true, plane: "data", routing: "none" },
  "replica.status": { id: 0x0502, reply: true, idempotent: true, plane: "data", routing: "none" },
  "replica.snapshot": { id: 0x0503, reply: true, idempotent: true, plane: "data", routing: "none" },
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
export const REPLICA_APPEND: number = MESSAGE_TYPES["replica.append"].id;
export const REPLICA_STATUS: number = MESSAGE_TYPES["replica.status"].id;
export const REPLICA_SNAPSHOT: number = MESSAGE_TYPES["replica.snapshot"].id;

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
