/**
 * What every cluster does, on threads and simulated: named checks over the public operations.
 *
 * Invariant: a check imports nothing of a test runner, as it also runs inside a simulated world; it throws an AssertionError, and leaves
 * its collections behind under its own name. Checks do not depend on each other.
 */
import { type Cluster, ShardloomError } from "../../src/index.ts";
import { ledger } from "./cluster-actors.ts";

/** One check; its tag makes the names of what it opens its own: {@link tagOf} */
export interface ClusterCheck {
  /** What stands under its tag, and must be opened on every node before it runs on one. */
  readonly opens: "vectors" | "text" | "nothing";
  readonly run: (cluster: Cluster, tag: string) => Promise<void>;
}

const VECTORS = { dimensions: 2, metric: "l2" } as const;

/** Opens what a check works with. */
export async function openFor({ opens }: ClusterCheck, cluster: Cluster, tag: string): Promise<void> {
  if (opens === "vectors") await cluster.vectors(tag, VECTORS);
  else if (opens === "text") await cluster.text(tag, {});
}

/** A name that collections may have. */
export function tagOf(check: string, process: number): string {
  return `check-${Object.keys(CLUSTER_CHECKS).indexOf(check)}-of-${process}`;
}

/** By the sentence that it shows. */
export const CLUSTER_CHECKS: Readonly<Record<string, ClusterCheck>> = {
  "a vector that was written is read, found and deleted": {
    opens: "vectors",
    run: async (cluster, tag) => {
      const docs = await cluster.vectors(tag, VECTORS);
      const count = 40;
      await docs.upsert(
        Array.from({ length: count }, (_, id) => ({ id, vector: [id, 1], payload: { parity: id % 2 } })),
        { acks: "all" },
      );
      same(await docs.count(), count, "count");
      const found = await docs.get(7);
      same([found?.id, [...(found?.vector ?? [])], found?.payload], [7, [7, 1], { parity: 1 }], "get");
      same(await docs.get(count), undefined, "get of what was never written");
      const many = await docs.getMany([3, 999, 5]);
      same(
        many.map((document) => document?.id),
        [3, undefined, 5],
        "getMany keeps the order",
      );
      const near = await docs.search([10.2, 1], { k: 3, exact: true });
      same(
        near.hits.map(({ id }) => id),
        [10, 11, 9],
        "nearest",
      );
      same(near.completeness.complete, true, "completeness");
      const even = await docs.search([10.9, 1], { k: 2, exact: true, filter: { parity: 0 } });
      same(
        even.hits.map(({ id }) => id),
        [10, 12],
        "filtered",
      );
      same(await docs.delete([10, 11, 999]), 2, "deleted");
      same(await docs.get(10), undefined, "get of what was deleted");
      const after = await docs.search([10.2, 1], { k: 2, exact: true });
      same(
        after.hits.map(({ id }) => id),
        [9, 12],
        "nearest of what is left",
      );
    },
  },

  "an upsert of a known id replaces it": {
    opens: "vectors",
    run: async (cluster, tag) => {
      const docs = await cluster.vectors(tag, VECTORS);
      for (const n of [1, 2, 3]) await docs.upsert({ id: "k", vector: [n, 0], payload: { n } });
      const found = await docs.get("k");
      same([[...(found?.vector ?? [])], found?.payload], [[3, 0], { n: 3 }], "the last one");
      same(await docs.count(), 1, "count");
    },
  },

  "actors answer in order, keep a state for each key, and take tells": {
    opens: "nothing",
    run: async (cluster, tag) => {
      const one = cluster.actor(ledger, `${tag} one`);
      const other = cluster.actor(ledger, `${tag} other`);
      same(await one.add(5), 5, "first");
      await one.tell.add(2);
      same(await one.add(0), 7, "a tell before an ask");
      same(await other.add(1), 1, "another key");
      same(await Promise.all([one.add(1), one.add(1), one.add(1)]), [8, 9, 10], "in the order of the calls");
      const refused = await codeOf(one.fail("on purpose"));
      same(refused.code, "ERR_ACTOR_FAILED", "an error of a handler");
      contains(refused.message, "on purpose");
      same(await one.add(4), 4, "an actor that failed begins anew");
    },
  },

  "texts are found by their terms until they are deleted": {
    opens: "text",
    run: async (cluster, tag) => {
      const texts = await cluster.text(tag, {});
      await texts.upsert(
        [
          { id: "a", text: "the quick brown fox" },
          { id: "b", text: "a lazy brown dog" },
          { id: "c", text: "nothing of the kind" },
        ],
        { acks: "all" },
      );
      const brown = await texts.search("brown");
      same(
        ["a", "b"].filter((id) => brown.hits.some((hit) => hit.id === id)),
        ["a", "b"],
        "both",
      );
      same((await texts.search("quick fox")).hits[0]?.id, "a", "the best one first");
      same(await texts.delete("a"), 1, "deleted");
      same(
        (await texts.search("brown")).hits.map(({ id }) => id),
        ["b"],
        "what is left",
      );
    },
  },

  "a barrier releases its members together and goes on to the next tick": {
    opens: "nothing",
    run: async (cluster, tag) => {
      const barrier = await cluster.barrier(tag, { phases: ["work"], members: ["x", "y"] });
      await barrier.join("x");
      await barrier.join("y");
      let released = 0;
      const first = barrier.arrive("x", "work").then((result) => {
        released++;
        return result;
      });
      same(await barrier.currentTick(), (await barrier.state()).tick, "tick");
      same(released, 0, "x alone");
      const [x, y] = [await barrier.arrive("y", "work"), await first];
      same([x.arrived, y.members, x.round === y.round], [2, 2, true], "both arrived");
      const next = await barrier.advanceTick();
      same(next, x.round + 1, "next tick");
      await barrier.close();
    },
  },

  "a session reads its own writes from any copy, and its token carries them over": {
    opens: "vectors",
    run: async (cluster, tag) => {
      const docs = await cluster.vectors(tag, VECTORS);
      const session = cluster.session();
      for (let n = 0; n < 20; n++) {
        await docs.upsert({ id: "own", vector: [n, 0], payload: { n } }, { session });
        const read = await docs.get("own", { consistency: "session", session });
        same(read?.payload, { n }, `write ${n}`);
      }
      const carried = cluster.session(session.toString());
      const read = await docs.get("own", { consistency: "session", session: carried });
      same(read?.payload, { n: 19 }, "with the token");
    },
  },

  "bad input is refused with its code, and changes nothing": {
    opens: "vectors",
    run: async (cluster, tag) => {
      const docs = await cluster.vectors(tag, VECTORS);
      const cases: readonly (readonly [string, () => Promise<unknown>])[] = [
        ["ERR_DIMENSION_MISMATCH", () => docs.upsert({ id: 1, vector: [1, 2, 3] })],
        ["ERR_NOT_FINITE", () => docs.upsert({ id: 1, vector: [1, Number.NaN] })],
        ["ERR_INVALID_ARGUMENT", () => docs.search([1, 2], { k: 0 })],
        ["ERR_INVALID_ARGUMENT", () => docs.get(1, { timeoutMs: -1 })],
        ["ERR_COLLECTION_MISMATCH", () => cluster.vectors(tag, { dimensions: 3, metric: "l2" })],
        ["ERR_UNKNOWN_COLLECTION", () => cluster.vectors(`${tag}-unmade`)],
        ["ERR_ABORTED", () => docs.get(1, { signal: AbortSignal.abort() })],
      ];
      for (const [code, call] of cases) same((await codeOf((async () => call())())).code, code, String(call));
      same(await docs.count(), 0, "count");
    },
  },
};

/** A check that does not hold. */
class AssertionError extends Error {
  override readonly name = "AssertionError";
}

function same(actual: unknown, expected: unknown, what: string): void {
  const [a, e] = [JSON.stringify(actual) ?? "undefined", JSON.stringify(expected) ?? "undefined"];
  if (a !== e) throw new AssertionError(`${what}: expected ${e}, got ${a}`);
}

function contains(text: string, part: string): void {
  if (!text.includes(part)) throw new AssertionError(`expected ${JSON.stringify(text)} to contain ${part}`);
}

/** The typed error that a call must end with. */
async function codeOf(call: Promise<unknown>): Promise<ShardloomError> {
  try {
    await call;
  } catch (error) {
    if (ShardloomError.is(error)) return error;
    throw error;
  }
  throw new AssertionError("expected an error, and the call succeeded");
}
