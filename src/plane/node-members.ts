/**
 * The nodes of one cluster and their shards, as every node of it is told when it starts.
 *
 * Invariant: the list and its order are the same on every node, so that all of them compute the same first placement; only `self` and
 * `incarnation` differ. Each shard belongs to exactly one node, and the shards are numbered from 0 without a gap.
 */
import { invalidArgument } from "../errors.ts";
import { checkNodeIncarnation, firstShardIncarnation } from "../topology/member.ts";
import type { Membership } from "../topology/membership.ts";

/** A node of the cluster. */
export interface ClusterNode {
  /** Unique, not empty, and not of the form `shard-0`. */
  readonly name: string;
  /** Numbers of the shards that it hosts. */
  readonly shards: readonly number[];
  /** Nodes of one zone fail together: copies are spread over zones. @default a zone of its own */
  readonly zone?: string;
}

/** A cluster of several nodes, from the side of one. */
export interface ClusterNodes {
  /** Name of the cluster: a directory that is another one's is refused. @default none, then names are not compared */
  readonly cluster?: string;
  /** Name of this node. */
  readonly self: string;
  /** Counts the starts of this node, from 1; higher than in every life before. */
  readonly incarnation: number;
  readonly members: readonly ClusterNode[];
}

/** Incarnation of a node or shard that was never heard of. */
const UNHEARD = 0;

/**
 * Checks the nodes of a cluster.
 *
 * @param shards Number of all shards.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the part and the rule.
 */
export function checkNodes(nodes: ClusterNodes, shards: number): void {
  const action = "create cluster of nodes";
  const { self, incarnation, members } = nodes;
  checkNodeIncarnation(action, incarnation);
  const names = new Set(members.map(({ name }) => name));
  if (names.size !== members.length) throw invalidArgument(action, "members", "of different names", [...names]);
  if (!names.has(self)) throw invalidArgument(action, "self", `one of ${[...names].join(", ")}`, self);
  const all = members.flatMap((member) => [...member.shards]).sort((a, b) => a - b);
  if (all.length !== shards || all.some((shard, at) => shard !== at))
    throw invalidArgument(action, "shards of all members", `each of 0 to ${shards - 1} once`, all);
}

/** Registers nodes and shards in the order of the list; all are joining. */
export function registerNodes(membership: Membership, nodes: ClusterNodes): void {
  const zones = [...new Set(nodes.members.map(zoneOf))];
  for (const member of nodes.members) {
    const { name, shards } = member;
    const own = name === nodes.self;
    const zone = zones.indexOf(zoneOf(member));
    const incarnation = own ? nodes.incarnation : UNHEARD;
    membership.registerNode({ name, roles: ["coordinator", "data"], zone, incarnation });
    const worker = own ? firstShardIncarnation(incarnation) : UNHEARD;
    for (const shard of shards) membership.registerShard({ shard, node: name, incarnation: worker });
  }
}

function zoneOf({ name, zone }: ClusterNode): string {
  return zone ?? `node ${name}`;
}
