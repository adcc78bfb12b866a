/**
 * What a superstep came to over all shards: sums of their acknowledgements, reduced in the order of the shards.
 *
 * Invariant: what was sent to a shard and what it received are equal in number, and every shard has computed as many vertices as it has, or there
 * are no totals.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { BeginReply, BuildReply, Exchange, SuperstepAck } from "./run-messages.ts";
import { type Combiner, combined, identityOf } from "./vertex-program.ts";

/** What a superstep came to, over all shards. */
export interface Totals {
  readonly superstep: number;
  /** How values came in it. */
  readonly exchange: Exchange;
  readonly active: number;
  readonly activeEdges: number;
  readonly sums: readonly number[];
  readonly messages: number;
}

/** @param acks Of all shards, for one superstep. @throws {ShardloomError} `ERR_INTERNAL`. */
export function totalsOf(
  superstep: number,
  exchange: Exchange,
  acks: readonly SuperstepAck[],
  { aggregates, kind }: Pick<BeginReply, "aggregates" | "kind">,
  shards: readonly Pick<BuildReply, "vertices">[],
): Totals {
  let messages = 0;
  const waits = kind === "neighbourhoods" && exchange === "none";
  for (const [shard, { vertices }] of shards.entries()) {
    const { computed } = acks[shard] as SuperstepAck;
    if (computed === (waits ? 0 : vertices)) continue;
    throw new ShardloomError(
      "ERR_INTERNAL",
      `Cannot accept superstep ${superstep} as shard ${shard} must compute its ${waits ? 0 : vertices} vertices: current value is ${computed}`,
      { details: { superstep, shard, computed } },
    );
  }
  for (const [shard, { received }] of acks.entries()) {
    const sent = acks.reduce((sum, ack) => sum + (ack.sent[shard] ?? 0), 0);
    messages += sent;
    if (sent !== received) {
      throw new ShardloomError(
        "ERR_INTERNAL",
        `Cannot accept superstep ${superstep} as shard ${shard} must receive the ${sent} values that were sent to it: current value is ${received}`,
        { details: { superstep, shard, sent, received } },
      );
    }
  }
  return {
    superstep,
    exchange,
    messages,
    active: acks.reduce((sum, { active }) => sum + active, 0),
    activeEdges: acks.reduce((sum, { activeEdges }) => sum + activeEdges, 0),
    sums: reducedSums(aggregates, acks),
  };
}

/** @param parts Of all shards, in their order: the same to the bit wherever it is computed. */
export function reducedSums(
  aggregates: readonly Combiner[],
  parts: readonly { readonly sums: readonly number[] }[],
): number[] {
  return aggregates.map((rule, at) =>
    parts.reduce((total, { sums }) => combined(rule, total, sums[at] as number), identityOf(rule)),
  );
}
