/**
 * The first frame of each side of a connection between nodes: who it is, in which life, and what it speaks.
 *
 * The links of the layer above greet each other once more, with the shape of their cluster (link-hello.ts); this greeting is about bytes,
 * and it comes first, so that nobody of another cluster, protocol or name reaches a link.
 *
 * Invariant: two nodes exchange frames only when they have a protocol version in common, are of one cluster, understand the same structure
 * tables and give no number of a message type two names. A type that only one of them knows is no reason to part: who is sent an unknown one answers so.
 */
import { ShardloomError } from "../errors.ts";
import { ENVELOPE_VERSION } from "../wire/envelope-layout.ts";
import { MESSAGE_TYPES } from "../wire/message-types.ts";
import { createValueCodec } from "../wire/value-codec.ts";

/** Versions of frames, lanes and greetings that this side speaks. */
export const WIRE_PROTOCOL: { readonly from: number; readonly to: number } = { from: 1, to: 1 };

/** A stream's purpose, which its first frame says. */
export const LANE = { REQUESTS: "requests", BULK: "bulk", CONTROL: "control" } as const;

export interface WireHello {
  readonly lane: typeof LANE.REQUESTS;
  readonly cluster: string;
  readonly node: string;
  /** Counts the dials of the node's process; 0 from the accepting side. */
  readonly number: number;
  readonly protocolFrom: number;
  readonly protocolTo: number;
  readonly envelope: number;
  /** Hash of the structure table of encoded values. */
  readonly structures: number;
  /** Message types by number. */
  readonly types: Readonly<Record<string, string>>;
}

const codec = createValueCodec();

/** What this side says. */
export function ownHello(cluster: string, node: string): WireHello {
  return {
    lane: LANE.REQUESTS,
    cluster,
    node,
    number: 0,
    protocolFrom: WIRE_PROTOCOL.from,
    protocolTo: WIRE_PROTOCOL.to,
    envelope: ENVELOPE_VERSION,
    structures: codec.structuresHash,
    types: Object.fromEntries(Object.entries(MESSAGE_TYPES).map(([name, { id }]) => [String(id), name])),
  };
}

/** The first frame of the lane that carries no greeting. */
export function encodeBulkOpening(): Uint8Array {
  return codec.encode({ lane: LANE.BULK });
}

/** The only frame of a session that is for the datagrams of a connection. */
export interface ControlOpening {
  readonly lane: typeof LANE.CONTROL;
  readonly node: string;
  /** Of the connection, see {@link WireHello.number}. */
  readonly number: number;
}

export function encodeControlOpening(node: string, number: number): Uint8Array {
  return codec.encode({ lane: LANE.CONTROL, node, number } satisfies ControlOpening);
}

export function encodeWireHello(hello: WireHello): Uint8Array {
  return codec.encode(hello);
}

/** @returns a greeting, or which other lane it is. @throws {ShardloomError} `ERR_CORRUPT` */
export function decodeOpening(bytes: Uint8Array): WireHello | ControlOpening | { readonly lane: typeof LANE.BULK } {
  let value: unknown;
  try {
    value = codec.decode(bytes, 0, bytes.length);
  } catch (error) {
    throw ShardloomError.from(error, "ERR_CORRUPT");
  }
  const fields = (typeof value === "object" && value !== null ? value : {}) as Record<string, unknown>;
  if (fields["lane"] === LANE.BULK) return { lane: LANE.BULK };
  if (fields["lane"] === LANE.CONTROL && typeof fields["node"] === "string" && Number.isInteger(fields["number"]))
    return value as ControlOpening;
  const wrong =
    STRINGS.find((name) => typeof fields[name] !== "string") ??
    NUMBERS.find((name) => !Number.isInteger(fields[name])) ??
    (fields["lane"] === LANE.REQUESTS ? undefined : "lane") ??
    (typeof fields["types"] === "object" && fields["types"] !== null ? undefined : "types");
  if (wrong !== undefined) throw new ShardloomError("ERR_CORRUPT", `Cannot read greeting as its ${wrong} is missing`);
  return value as WireHello;
}

const STRINGS = ["cluster", "node"] as const satisfies readonly (keyof WireHello)[];
const NUMBERS = [
  "number",
  "protocolFrom",
  "protocolTo",
  "envelope",
  "structures",
] as const satisfies readonly (keyof WireHello)[];

/** Why two nodes must not talk, or undefined when they may. */
export function wireMisfit(own: WireHello, peer: WireHello): ShardloomError | undefined {
  const refuse = (name: string, rule: unknown, value: unknown): ShardloomError =>
    new ShardloomError(
      "ERR_VERSION_MISMATCH",
      `Cannot connect to node ${peer.node} as its ${name} must be ${String(rule)}: current value is ${String(value)}`,
      { details: { node: peer.node, name, rule, value } },
    );
  if (peer.protocolFrom > own.protocolTo || peer.protocolTo < own.protocolFrom)
    return refuse("protocol", rangeOf(own), rangeOf(peer));
  if (peer.cluster !== own.cluster) return refuse("cluster", own.cluster, peer.cluster);
  if (peer.envelope !== own.envelope) return refuse("envelope version", own.envelope, peer.envelope);
  if (peer.structures !== own.structures) return refuse("structure table", own.structures, peer.structures);
  for (const [id, name] of Object.entries(own.types)) {
    const theirs = peer.types[id];
    if (theirs !== undefined && theirs !== name) return refuse(`message type ${id}`, name, theirs);
  }
  return undefined;
}

function rangeOf({ protocolFrom, protocolTo }: WireHello): string {
  return protocolFrom === protocolTo ? `${protocolFrom}` : `${protocolFrom} to ${protocolTo}`;
}
