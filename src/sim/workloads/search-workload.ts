/**
 * Searches: clients store and delete documents and search for all of them, taking partial answers.
 *
 * Rules: a search that calls itself complete has every document that was acknowledged before it began, and none whose deletion was; no search
 * has a document twice, one that nobody stored, or hits out of order; and what a search says of itself adds up.
 */
import type { VectorCollection } from "../../../actors/vector/client-collection.ts";
import type { StrategyName } from "../../../actors/vector/vector-options.ts";
import { invalidArgument } from "../../errors.ts";
import type { Operation, Workload, WorkloadRef } from "../workload-types.ts";
import { certainlyRefused } from "./failures.ts";
import { judgeSearches } from "./search-rules.ts";
import { below, type LoadOptions, spread } from "./spread.ts";

/** Options of {@link searchWorkload}. */
export interface SearchWorkloadOptions extends LoadOptions {
  /** Documents that come and go, `1..10^4`. @default 64 */
  readonly documents?: number;
  /** Deadline of each operation in simulated ms. @default 3000 */
  readonly timeoutMs?: number;
  /** A way through the graph over the documents of a node, of which there must be one then. @default every document is looked at */
  readonly by?: Exclude<StrategyName, "scatter">;
}

/** Searches over documents that come and go. */
export function searchWorkload(options: SearchWorkloadOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createSearchWorkload", options };
}

/** The workload itself, made inside a world by its reference. @public */
export function createSearchWorkload(options: SearchWorkloadOptions = {}): Workload {
  const { documents = 64, timeoutMs = 3000, by } = options;
  if (!Number.isInteger(documents) || documents < 1 || documents > 10_000)
    throw invalidArgument("create search workload", "documents", "an integer in [1, 10000]", documents);
  return {
    name: "search",
    generate: (random, shape) =>
      spread(random, shape, options, (stream, process) => {
        const share = stream.float();
        if (share < 0.4) return { f: "search", value: null };
        // Each document has one writer, whose order everybody can be judged by.
        const clients = options.clients ?? shape.nodes;
        const number = below(stream, Math.max(1, Math.floor(documents / clients))) * clients + process;
        return { f: share < 0.8 ? "store" : "delete", value: number };
      }),
    open: (cluster) =>
      cluster.vectors("documents", {
        dimensions: 2,
        metric: "l2",
        strategy: by === undefined ? "scatter" : "one-sided",
      }),
    async invoke({ f, value }: Operation, { state }) {
      const collection = state as VectorCollection;
      if (f === "store") await collection.upsert({ id: value as number, vector: [value as number, 1] }, { timeoutMs });
      else if (f === "delete") await collection.delete(value as number, { timeoutMs });
      else {
        const options = {
          k: documents,
          ...(by === undefined ? { exact: true } : { by }),
          unavailable: "partial",
          gather: "best-effort",
          timeoutMs,
        } as const;
        const { hits, completeness, by: way, fallback = null } = await collection.search([0, 1], options);
        const { outcomes: _, ...counts } = completeness;
        const found = { ids: hits.map(({ id }) => id), scores: hits.map(({ score }) => score), ...counts };
        return by === undefined ? found : { ...found, by: way, fallback };
      }
      return value;
    },
    failed: certainlyRefused,
    check: ({ history, mayForget }) => judgeSearches(history, mayForget),
  };
}
