/**
 * The server of part `approximate` of bench `embed`: the same on both sides but for what searches. `POST /nearest` with `{ vector }` answers the
 * nearest documents. It also has what its process and the bench say to each other.
 */
import fastify, { type FastifyInstance, type FastifyReply } from "fastify";
import type { ClusterPort } from "../../src/index.ts";

export const SIDES = ["cluster", "main-thread"] as const;
export type Side = (typeof SIDES)[number];

/** Scalar kinds that both sides have and that keep squared distances. */
export const KINDS = ["f32", "f16"] as const;
export type Kind = (typeof KINDS)[number];

export interface NearestHit {
  readonly id: number;
  readonly score: number;
}

/** What a server is made of. Its answer to this is "opened". */
export interface OpenMessage {
  readonly type: "open";
  readonly side: Side;
  readonly kind: Kind;
  /** Row-major; rows are ids. */
  readonly values: Float32Array;
  readonly dimensions: number;
}

/** Looks for the least `ef` that finds the share of the true nearest, and listens. The answer is a {@link Tuned}. */
export interface TuneMessage {
  readonly type: "tune";
  readonly queries: Float32Array;
  readonly truth: Int32Array;
  readonly recall: number;
}

export interface Tuned {
  readonly ef: number;
  /** On what it was tuned by. */
  readonly recall: number;
  readonly urls: readonly string[];
}

/** What a process did since "begin". */
export interface NearestSample {
  /** Cores that it used. */
  readonly cores: number;
  readonly cpuMs: number;
  /** Searches of each thread that answers requests. */
  readonly searches: readonly number[];
  /** Of all searches. */
  readonly hits: number;
  /** Searches that were not done by the thread that has the request. */
  readonly handedOn: number;
}

/** What a connected thread of the cluster's server is started with. */
export interface NearestTask {
  readonly port: Omit<ClusterPort, "transferList">;
  readonly collection: string;
  readonly ef: number;
  readonly counters: Int32Array;
}

export const NAME = "embed";

/** Words of the counters of a thread, which wrap. */
export const SEARCHES = 0;
export const HITS = 1;
export const HANDED_ON = 2;
export const COUNTERS = 3;

/** @param search Answers at once or later; the row of counters is the caller's. */
export function createNearestServer(
  search: (vector: readonly number[]) => readonly NearestHit[] | Promise<readonly NearestHit[]>,
  counters: Int32Array,
): FastifyInstance {
  const app = fastify({ bodyLimit: 1 << 22 });
  const send = (reply: FastifyReply, hits: readonly NearestHit[]): FastifyReply => {
    counters[SEARCHES] = ((counters[SEARCHES] as number) + 1) | 0;
    counters[HITS] = ((counters[HITS] as number) + hits.length) | 0;
    return reply.send(hits);
  };
  app.post<{ Body: { vector: number[] } }>("/nearest", (request, reply) => {
    const found = search(request.body.vector);
    return found instanceof Promise ? found.then((hits) => send(reply, hits)) : send(reply, found);
  });
  return app;
}

/** @returns where it listens */
export function listen(app: FastifyInstance): Promise<string> {
  return app.listen({ port: 0, host: "127.0.0.1" });
}
