/**
 * The first frame of each side of a connection: who speaks, in which life, and of what shape its cluster is.
 *
 * Invariant: two nodes exchange messages only when each has read the other's greeting and found that it fits, so that a number (a shard,
 * a vshard, an actor's index, an epoch of the map) means the same on both.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import { createValueCodec } from "./value-codec.ts";

/** Version of frames, greetings, and the layouts of what nodes ask each other: 3 since answers of searches tell how far they reach. */
export const LINK_PROTOCOL = 3;

/** What must be the same on both nodes. */
export interface ClusterShape {
  readonly shards: number;
  readonly vshards: number;
  readonly replicationFactor: number;
  /** Checksum of the table of actors and handlers, whose indexes messages carry. */
  readonly actors: number;
  /** Version of the map; where both nodes have the same, their maps must be the same. */
  readonly mapEpoch: number;
  /** Checksum of the map. */
  readonly map: number;
}

/** A greeting. */
export interface LinkHello extends ClusterShape {
  readonly protocol: number;
  readonly name: string;
  /** Counts the lives of the node, from 1. */
  readonly incarnation: number;
  /** Counts what the dialling side has dialled in this life; 0 from the accepting one. */
  readonly attempt: number;
}

const NUMBERS = [
  "protocol",
  "incarnation",
  "attempt",
  "shards",
  "vshards",
  "replicationFactor",
  "actors",
  "mapEpoch",
  "map",
] as const satisfies readonly (keyof LinkHello)[];
const FIXED = ["shards", "vshards", "replicationFactor", "actors"] as const satisfies readonly (keyof ClusterShape)[];

const codec = createValueCodec();

/** The greeting's bytes. */
export function encodeHello(hello: LinkHello): Uint8Array {
  return codec.encode(hello);
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the bytes hold no greeting. */
export function decodeHello(bytes: Uint8Array): LinkHello {
  let value: unknown;
  try {
    value = codec.decode(bytes, 0, bytes.length);
  } catch (error) {
    throw ShardloomError.from(error, "ERR_CORRUPT");
  }
  const fields = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  const wrong = NUMBERS.find((name) => !Number.isInteger(fields[name]));
  if (wrong !== undefined || typeof fields["name"] !== "string")
    throw new ShardloomError("ERR_CORRUPT", `Cannot read greeting as its ${wrong ?? "name"} is missing`);
  return value as LinkHello;
}

/** Why two nodes must not talk, or undefined when they may. */
export function misfit(own: ClusterShape, peer: LinkHello): ShardloomError | undefined {
  if (peer.protocol !== LINK_PROTOCOL) return mismatch(peer.name, "protocol", LINK_PROTOCOL, peer.protocol);
  for (const name of FIXED) if (peer[name] !== own[name]) return mismatch(peer.name, name, own[name], peer[name]);
  if (peer.mapEpoch === own.mapEpoch && peer.map !== own.map) return mismatch(peer.name, "map", own.map, peer.map);
  return undefined;
}

/** Checksum of the actors that a node's workers have registered. */
export function actorsChecksum(
  table: readonly { readonly name: string; readonly handlers: readonly string[] }[],
): number {
  return crc32(JSON.stringify(table.map(({ name, handlers }) => [name, ...handlers])));
}

function mismatch(node: string, name: string, rule: number, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_VERSION_MISMATCH",
    `Cannot connect to node ${node} as its ${name} must be ${rule}: current value is ${value}`,
    { details: { node, name, rule, value } },
  );
}
