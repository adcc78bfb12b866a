/**
 * What a shard that was given up had of a graph, as its last worker has left it in memory: what the graph loses with it.
 *
 * Invariant: it is read by the thread that moves the graph, which has nobody else do anything in that shard's name; so nothing of it changes, and
 * what waits in a table that moved is set right, as a successor would have done.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import { openCsr } from "./csr.ts";
import { plainRef } from "./graph-messages.ts";
import { isRootOf, ROOT_WORD } from "./graph-root.ts";
import type { BuildReply } from "./run-messages.ts";

/** A part of a graph without a worker. */
export interface LostPart {
  /** As in {@link KeptGraph.members}. */
  readonly place: number;
  /** Vertices that it owned, and edges that came from them. */
  readonly vertices: number;
  readonly edges: number;
  /** What it would answer to a build, as far as its peers look at that. */
  readonly built: BuildReply;
}

/** @throws {ShardloomError} `ERR_UNAVAILABLE` when it is not there. */
export function lostPartOf(arena: Arena, collection: number, place: number, root: RegionRef): LostPart {
  const { u32 } = arena;
  const base = root.address >>> 2;
  const word = (at: number): number => Atomics.load(u32, base + at);
  if (!isRootOf(arena, collection, root.address))
    throw new ShardloomError("ERR_UNAVAILABLE", "Cannot see what a shard has left of a graph as its root is gone", {
      details: { collection, place },
    });
  const sequence = word(ROOT_WORD.sequence);
  if ((sequence & 1) !== 0) Atomics.compareExchange(u32, base + ROOT_WORD.sequence, sequence, sequence + 1);
  const out = word(ROOT_WORD.out);
  const csr = out === 0 ? undefined : openCsr(arena, out);
  // Its worker may have died after it had built what waits, and before it could forget that.
  const waiting = csr?.generation === word(ROOT_WORD.generation) ? 0 : word(ROOT_WORD.staged);
  const vertices = word(ROOT_WORD.vertices) - word(ROOT_WORD.removed);
  const edges = (csr?.edges ?? 0) + waiting;
  const structure = word(ROOT_WORD.structure);
  const of = { rows: word(ROOT_WORD.vertices), vertices, edges, numeric: word(ROOT_WORD.strings) === 0, structure };
  const built = { ...of, root: plainRef(root), out: plainRef(root), fresh: 0, saved: [] };
  return { place, vertices, edges, built };
}

/** Edges of the other shards that lead to it. @param built Answers of all shards, by place */
export function edgesInto(arena: Arena, place: number, built: readonly BuildReply[]): number {
  let edges = 0;
  for (const [at, { out }] of built.entries())
    if (at !== place) edges += openCsr(arena, out[0]).peers[place]?.edges ?? 0;
  return edges;
}
