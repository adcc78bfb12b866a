/**
 * A planned message's body behind its prefix: which vshards, how fresh, how many acknowledgements.
 *
 * Invariant: the prefix says exactly what the target of the plan says: no list where the target is everything that the shard
 * holds, or everything that it is the primary of.
 */

import { ShardloomError } from "../src/errors.ts";
import type { PlanTarget, ReadRules } from "../src/routing/plan.ts";
import type { MemoryViews, Payload, ReplyFrame } from "../src/routing/requester.ts";
import type { Session } from "../src/topology/session.ts";
import type { TopologySnapshot } from "../src/topology/snapshot.ts";
import {
  CONSISTENCY,
  type ConsistencyCode,
  ROUTED_HEADER_BYTES,
  type RoutedKey,
  type RoutedRequest,
  readRoutedReply,
  routedRequestBytes,
  SCOPE,
  writeRoutedRequest,
} from "../src/wire/routed-codec.ts";

const CODES: Readonly<Record<ReadRules["consistency"], ConsistencyCode>> = {
  strong: CONSISTENCY.STRONG,
  session: CONSISTENCY.SESSION,
  "bounded-staleness": CONSISTENCY.BOUNDED_STALENESS,
  eventual: CONSISTENCY.EVENTUAL,
};

/** A read of every vshard whose primary the shard is. */
export const STRONG_READ: RoutedRequest = { consistency: CONSISTENCY.STRONG, scope: SCOPE.PRIMARY };

/**
 * Decodes the body of a reply that must be complete.
 *
 * @throws {ShardloomError} `ERR_STALE_REPLICA` when the shard left vshards out.
 */
export function readComplete<T>(frame: ReplyFrame, decode: (offset: number, length: number) => T): T {
  const { refused, byteLength } = readRoutedReply(frame, frame.offset, frame.length);
  if (refused.length === 0) return decode(frame.offset + byteLength, frame.length - byteLength);
  throw new ShardloomError(
    "ERR_STALE_REPLICA",
    `Cannot use reply as it must be complete: ${refused.length} vshards were left out`,
    { details: { vshards: refused.map(({ vshard }) => vshard) } },
  );
}

/** A body with its prefix. */
export class RoutedPayload implements Payload {
  readonly byteLength: number;
  readonly #prefix: RoutedRequest;
  readonly #prefixBytes: number;
  readonly #body: Payload;

  constructor(prefix: RoutedRequest, body: Payload) {
    this.#prefix = prefix;
    this.#prefixBytes = routedRequestBytes(prefix);
    this.#body = body;
    this.byteLength = this.#prefixBytes + body.byteLength;
  }

  write(target: MemoryViews, offset: number): void {
    writeRoutedRequest(target, offset, this.#prefix);
    this.#body.write(target, offset + this.#prefixBytes);
  }

  hold(): Payload {
    const body = this.#body.hold?.();
    return body === undefined ? this : new RoutedPayload(this.#prefix, body);
  }
}

/** The prefix of a read of these vshards. */
export function readPrefix(
  snapshot: TopologySnapshot,
  rules: ReadRules,
  session: Session | undefined,
  target: Pick<PlanTarget, "shard" | "vshards" | "whole">,
): RoutedRequest {
  const { vshards, whole, shard } = target;
  const consistency = CODES[rules.consistency];
  const primary = !whole && vshards.length === primariesOf(snapshot, shard);
  const scope = whole ? SCOPE.HELD : primary && isPrimaryOfAll(snapshot, shard, vshards) ? SCOPE.PRIMARY : SCOPE.LISTED;
  return {
    consistency,
    scope,
    ...(scope === SCOPE.LISTED ? { vshards } : {}),
    ...(consistency === CONSISTENCY.BOUNDED_STALENESS ? { maxStalenessMs: rules.maxStalenessMs } : {}),
    ...(consistency === CONSISTENCY.SESSION ? { minima: session?.lsns(vshards) } : {}),
  };
}

/** The prefix of a write. Its shard is the primary of all that it names, or has another topology and refuses it whole. */
export function writePrefix(acks: number, key?: RoutedKey): RoutedRequest {
  return { consistency: CONSISTENCY.WRITE, scope: SCOPE.PRIMARY, acks, ...(key === undefined ? {} : { key }) };
}

/** The longest prefix that a read may have under a topology. */
export function maxPrefixBytes({ vshards }: TopologySnapshot): number {
  return 2 * ROUTED_HEADER_BYTES + 8 + 12 * vshards;
}

const primaries: WeakMap<TopologySnapshot, Uint16Array> = new WeakMap();

function primariesOf(snapshot: TopologySnapshot, shard: number): number {
  let counts = primaries.get(snapshot);
  if (counts === undefined) {
    counts = new Uint16Array(snapshot.shards);
    for (const owner of snapshot.owners) counts[owner] = (counts[owner] as number) + 1;
    primaries.set(snapshot, counts);
  }
  return counts[shard] as number;
}

function isPrimaryOfAll(snapshot: TopologySnapshot, shard: number, vshards: Uint16Array): boolean {
  return vshards.every((vshard) => snapshot.owners[vshard] === shard);
}
