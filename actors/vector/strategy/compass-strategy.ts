/**
 * Compass: the shards whose leaves are near a query are asked, as many as the recall target needs, and each searches what it computes for.
 *
 * Invariant: made for one query, from a view of the leaves that was current just before; what it tells a shard are hints.
 */
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { VECTOR_NEAR } from "../../../src/wire/message-types.ts";
import type { Compass } from "../routing/compass.ts";
import type { LeafView } from "./leaf-view.ts";
import { type NearRequest, nearRequestBytes, writeNearRequest } from "./near-messages.ts";
import { type DirectMessage, SCATTER, type VectorStrategy } from "./vector-strategy.ts";

/** Leaves of a shard at whose medoids its search begins. */
const ENTRY_LEAVES = 6;
/** Part of the allowed loss that choosing shards may take; the rest is for the searches in them. */
const ROUTING_LOSS = 0.5;

/** What a strategy for one query is made of. */
export interface RoutedParts {
  readonly collectionId: number;
  readonly router: Compass;
  readonly leaves: LeafView;
  readonly graph: RegionRef;
}

export function compassStrategy({ collectionId, router, leaves, graph }: RoutedParts): VectorStrategy {
  return {
    ...SCATTER,
    name: "compass",
    selectShards({ code, k, selectivity, recallTarget }, shards) {
      const target = routingTarget(recallTarget);
      const plan = router.selectShards(code, { k, recallTarget: target, selectivity });
      const there = new Set(shards.map(({ shard }) => shard));
      return plan.shards.filter(({ shard }) => there.has(shard));
    },
    directMessage(selected, query) {
      const entries = leaves.medoids(selected.leaves, Math.min(ENTRY_LEAVES, selected.leaves.length));
      const { wanted, ef, bytes } = query;
      return nearMessage({ collectionId, wanted, ef, version: 0, entries, leaves: [], code: bytes, recallPpm: 0 });
    },
    exposedRegion: () => graph,
  };
}

/** What choosing shards, or leaves, is to reach, so that the search as a whole reaches a target. */
export function routingTarget(recallTarget: number): number {
  return 1 - (1 - recallTarget) * ROUTING_LOSS;
}

function nearMessage(request: NearRequest): DirectMessage {
  const payload = {
    byteLength: nearRequestBytes(request),
    write: (target: Parameters<typeof writeNearRequest>[0], offset: number) =>
      writeNearRequest(target, offset, request),
  };
  return { type: VECTOR_NEAR, payload };
}
