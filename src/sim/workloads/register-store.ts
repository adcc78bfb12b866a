/**
 * Where registers are kept: documents of a collection of vectors, or of texts. Every value stands in the document's payload and in what is indexed.
 *
 * Invariant: both kinds answer the same questions the same way, so that the rules do not know which one it is.
 */
import type { TextCollection } from "../../../actors/text/client-collection.ts";
import type { VectorCollection } from "../../../actors/vector/client-collection.ts";
import type { Cluster } from "../../cluster.ts";
import type { Acks } from "../../routing/call-defaults.ts";
import type { Consistency } from "../../routing/plan.ts";
import type { Session } from "../../topology/session.ts";

/** Engines that keep registers. */
export const REGISTER_ENGINES = ["vector", "text"] as const;
export type RegisterEngine = (typeof REGISTER_ENGINES)[number];

export interface WriteCall {
  readonly acks: Acks;
  readonly timeoutMs: number;
  readonly session?: Session;
}

export interface ReadCall {
  readonly consistency: Consistency;
  readonly maxStalenessMs?: number;
  readonly timeoutMs?: number;
  readonly session?: Session;
}

/** Registers of one cluster. */
export interface RegisterStore {
  write(key: string, value: number, call: WriteCall): Promise<void>;
  /** Null for a key that was never written. */
  read(keys: readonly string[], call: ReadCall): Promise<(number | null)[]>;
  /** Keys that the index gives, asked for everything. @param limit More than there are */
  find(limit: number, call: ReadCall): Promise<string[]>;
}

const COLLECTION = "registers";
/** A word of all documents. */
const WORD = "register";

export async function openRegisters(cluster: Cluster, engine: RegisterEngine): Promise<RegisterStore> {
  return engine === "vector"
    ? vectorStore(await cluster.vectors(COLLECTION, { dimensions: 2, metric: "l2" }))
    : textStore(await cluster.text(COLLECTION, { fields: ["text"] }));
}

function vectorStore(collection: VectorCollection): RegisterStore {
  return {
    write: async (key, value, call) => {
      await collection.upsert({ id: key, vector: [value, 0], payload: { value } }, call);
    },
    read: async (keys, call) => {
      const found = await collection.getMany(keys, { ...call, includeVector: false });
      return found.map(storedValue);
    },
    find: async (limit, call) => {
      const { hits } = await collection.search([0, 0], { ...call, k: limit });
      return hits.map(({ id }) => String(id));
    },
  };
}

function textStore(collection: TextCollection): RegisterStore {
  return {
    write: async (key, value, call) => {
      await collection.upsert({ id: key, text: `${WORD} v${value}`, payload: { value } }, call);
    },
    read: async (keys, call) => {
      const found = await collection.getMany(keys, { ...call, includeFields: false });
      return found.map(storedValue);
    },
    find: async (limit, call) => {
      const { hits } = await collection.search(WORD, { ...call, k: limit });
      return hits.map(({ id }) => String(id));
    },
  };
}

function storedValue(document: { readonly payload?: unknown } | undefined): number | null {
  return (document?.payload as { value: number } | undefined)?.value ?? null;
}
