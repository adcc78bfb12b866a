/**
 * What a coordinator and the shards of a run tell each other: the bodies of `graph.build`, `graph.begin`, `graph.superstep`, `graph.halt`,
 * `graph.complete` and of their answers.
 *
 * Invariant: plain values only. A run's number, its attempt and the superstep stand in every message, so that nobody takes what belongs to
 * another for its own.
 */

import type { Decay } from "./edge-changes.ts";
import type { PlainRef } from "./graph-messages.ts";
import type { RunLimits } from "./run-times.ts";
import type { Combiner } from "./vertex-program.ts";

/** How what was sent in a superstep reaches its receivers in the next one. */
export type Exchange = "push" | "pull" | "none";

export interface BuildRequest {
  readonly collection: number;
  /** Roots of all shards. */
  readonly roots: readonly PlainRef[];
  /** For a run that goes on after a worker was lost: what of it was saved is told. 0: none. */
  readonly run: number;
}

export interface BuildReply {
  /** Local numbers, also those of removed vertices. */
  readonly rows: number;
  readonly vertices: number;
  readonly edges: number;
  readonly numeric: boolean;
  /** Of vertices and edges: changes with every one of them. */
  readonly structure: number;
  readonly root: PlainRef;
  readonly out: PlainRef;
  /** A number for a run, which nobody else has. */
  readonly fresh: number;
  /** Supersteps of the run that are saved. */
  readonly saved: readonly number[];
}

export interface BeginRequest {
  readonly collection: number;
  readonly run: number;
  readonly attempt: number;
  /** A built-in algorithm, or the name of a vertex program. */
  readonly algorithm: string;
  readonly program: boolean;
  readonly params: Readonly<Record<string, unknown>>;
  /** Whether values may be pulled, which takes the adjacency of the other direction. */
  readonly pulls: boolean;
  /** The saved superstep to go on after; -1: from the beginning. */
  readonly after: number;
  readonly limits: RunLimits;
  readonly shards: readonly BuildReply[];
}

export interface BeginReply {
  readonly state: PlainRef;
  /** Adjacency against the edges, where it was built. */
  readonly in: PlainRef | undefined;
  readonly aggregates: readonly Combiner[];
  /** Whether a program says when it is done. */
  readonly halts: boolean;
  /** Of the fields of the result. */
  readonly names: readonly string[];
  readonly maxSupersteps: number;
  readonly kind: "combined" | "labels" | "neighbourhoods";
}

export interface SuperstepRequest {
  readonly collection: number;
  readonly run: number;
  readonly attempt: number;
  readonly superstep: number;
  /** How what was sent in the last superstep comes. */
  readonly receive: Exchange;
  /** Reductions of the last superstep. */
  readonly before: readonly number[];
  /** Whether the state after it is saved. */
  readonly save: boolean;
  readonly peers: readonly BeginReply[];
}

/** An order of several supersteps: the first, and what differs from it in the others. Values come in the same way in all of them. */
export interface SuperstepOrder extends SuperstepRequest {
  /** How many, at least 1. `save` is for the last of them. */
  readonly count: number;
  /** Ends them before, after the first by which a reduction is below a bound. */
  readonly until?: Until | undefined;
}

/** That a reduction is below a bound. */
export interface Until {
  /** Its place among the reductions. */
  readonly sum: number;
  readonly below: number;
}

/** What a shard tells its peers when it has done a superstep of an order that goes on. */
export interface Stepped {
  readonly collection: number;
  readonly run: number;
  readonly attempt: number;
  readonly superstep: number;
  readonly source: number;
  /** Its part of the reductions. */
  readonly sums: readonly number[];
}

/** A superstep's acknowledgement; the answer to an order is one for each. */
export interface SuperstepAck {
  readonly superstep: number;
  /** Vertices that were computed, those that had nothing to do among them. */
  readonly computed: number;
  readonly active: number;
  readonly activeEdges: number;
  readonly sums: readonly number[];
  /** Values pushed, by destination. */
  readonly sent: readonly number[];
  /** Of the messages with values to other shards. */
  readonly pushedBytes: number;
  readonly received: number;
  /** How long the shard computed, pushed and took in, without waiting for others; and from its beginning to its end. In us. */
  readonly serviceUs: number;
  readonly elapsedUs: number;
}

/** What is known of a superstep before it was timed. */
export type UntimedAck = Omit<SuperstepAck, "serviceUs" | "elapsedUs">;

/** Asks a shard whether a program says that its run is done. */
export interface HaltRequest {
  readonly collection: number;
  readonly run: number;
  readonly program: string;
  /** The one that all shards have done, and what it came to. */
  readonly superstep: number;
  readonly sums: readonly number[];
}

/** Tells a shard where its peers' tables are, before edges are looked up in them. */
export interface MeetRequest {
  readonly collection: number;
  readonly roots: readonly PlainRef[];
}

/** Keeps a graph as it is while it is copied to other shards, or lets it change again. */
export interface LeaveRequest {
  readonly collection: number;
  readonly leaves: boolean;
}

export interface LeaveReply {
  /** Whether it was kept as it is before. */
  readonly left: boolean;
  /** Number of the last decay. */
  readonly decays: number;
}

/** Makes the weights of all edges smaller. */
export interface DecayRequest extends Decay {
  readonly collection: number;
  readonly roots: readonly PlainRef[];
}

export interface DecayReply {
  readonly edges: number;
  readonly pruned: number;
}

export interface CompleteRequest {
  readonly collection: number;
  readonly run: number;
  /** Whether the result is kept, to be read until the run is completed again without. */
  readonly keep: boolean;
}

/** Asks what a shard has; of a run, also whether it is still whole there. */
export interface StatusRequest {
  readonly collection: number;
  readonly run?: number | undefined;
  readonly attempt?: number | undefined;
}

export interface ResultsRequest {
  readonly collection: number;
  readonly run: number;
  readonly from: number;
  readonly count: number;
  /** One vertex instead. */
  readonly key?: string | number | undefined;
}
