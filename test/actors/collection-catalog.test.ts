/** Catalogs of several nodes over shards that all can ask: ids agree, options too, and a node that is down hinders nobody. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CollectionCatalog } from "../../actors/collection-catalog.ts";
import { collectionIdOf } from "../../actors/collection-id.ts";
import type { Coordinator } from "../../actors/coordinator.ts";
import { DroppedCollections } from "../../actors/dropped-collections.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { CollectionNews } from "../../src/plane/collection-exchange.ts";
import type { Payload } from "../../src/routing/requester.ts";
import type { CollectionStore, KeptCollections } from "../../src/store/collection-store.ts";
import { createSnapshot, MEMBER_STATE } from "../../src/topology/snapshot.ts";
import { wireMemory } from "./vector/support.ts";

const OPEN = 1;
const DROP = 2;

/** A shard: collections by id, with their one option. */
class ToyShard {
  readonly collections: Map<number, number> = new Map();
  dropped = new DroppedCollections();
  /** What the next requests fail with. */
  readonly failures: string[] = [];
  reachable = true;

  handle(type: number, [id = 0, option = 0, flag = 0]: readonly number[]): number {
    const failure = this.failures.shift();
    if (failure !== undefined)
      throw new ShardloomError(failure as "ERR_TIMEOUT", "Cannot answer as it is told to fail");
    if (type === DROP) {
      this.collections.delete(id);
      if (flag === 0) this.dropped.add(id);
      return 0;
    }
    this.dropped.assertMayOpen(id);
    const known = this.collections.get(id);
    if (known === undefined && flag === 1) throw this.dropped.unknown(id);
    if (known !== undefined && known !== option)
      throw new ShardloomError("ERR_COLLECTION_MISMATCH", "Cannot open collection as it has another option");
    this.collections.set(id, option);
    return id;
  }

  /** Its node starts anew with nothing. */
  wipe(): void {
    this.collections.clear();
    this.dropped = new DroppedCollections();
  }
}

/** Three nodes with two shards each; `states` are what everybody sees. */
function cluster() {
  const shards = Array.from({ length: 6 }, () => new ToyShard());
  const states = new Uint8Array(6).fill(MEMBER_STATE.UP);
  const asked: { from: number; shard: number; type: number }[] = [];
  /** What nodes have told, and who. */
  const told: { readonly from: number; readonly news: CollectionNews }[] = [];
  const node = (from: number, store?: CollectionStore): CollectionCatalog<number> => {
    const coordinator = {
      shards: [0, 1, 2, 3, 4, 5],
      get snapshot() {
        return createSnapshot({ shards: 6, vshards: 8, states });
      },
      ask: async (
        shard: number,
        type: number,
        _vshard: number,
        payload: Payload,
        decode: (frame: unknown) => unknown,
      ) => {
        await Promise.resolve();
        asked.push({ from, shard, type });
        const target = shards[shard] as ToyShard;
        if (!target.reachable && !own(from).includes(shard))
          throw new ShardloomError("ERR_TIMEOUT", "Cannot reach shard in time");
        const memory = wireMemory(payload.byteLength);
        payload.write(memory, 0);
        return decode(target.handle(type, [...memory.i32]));
      },
    } as unknown as Coordinator;
    const tell = (news: CollectionNews): void => void told.push({ from, news });
    const settled = (): Promise<void> => Promise.resolve();
    return new CollectionCatalog<number>(
      {
        coordinator,
        ownShards: own(from),
        assertOpen: () => undefined,
        store,
        others: { tell, settled, spread: settled },
      },
      {
        name: "toy",
        assertSame: (existing, wanted) => {
          if (existing !== wanted)
            throw new ShardloomError("ERR_COLLECTION_MISMATCH", "Cannot open collection as it differs");
        },
        openType: OPEN,
        openPayload: (id, option, checkOnly) => words(id, option, checkOnly ? 1 : 0),
        readRoot: (frame) => ({ address: frame as unknown as number, rkey: 1, length: 8 }),
        dropType: DROP,
        dropPayload: (id, undo) => words(id, 0, undo ? 1 : 0),
        toKept: (option) => option,
        fromKept: (option) => option as number,
      },
    );
  };
  return { shards, states, asked, told, node, nodes: [node(0), node(1), node(2)] as const };
}

function own(node: number): number[] {
  return [2 * node, 2 * node + 1];
}

function words(...values: number[]): Payload {
  return { byteLength: 16, write: ({ i32 }, offset) => i32.set(values, offset >>> 2) };
}

function code(name: string): unknown {
  return expect.objectContaining({ code: name });
}

describe("ids", () => {
  test("are positive, and the same for the same engine, name and generation only", () => {
    const ids = new Set<number>();
    for (const engine of ["vector", "text"])
      for (let name = 0; name < 1_000; name++)
        for (const generation of [0, 1, 10]) ids.add(collectionIdOf(engine, `docs-${name}`, generation));
    expect(ids.size).toBe(6_000);
    for (const id of ids) expect(id > 0 && id <= 0x7fffffff && Number.isInteger(id)).toBe(true);
    expect(collectionIdOf("vector", "docs", 0)).toBe(collectionIdOf("vector", "docs", 0));
  });

  test("that two names share are refused", async () => {
    const [a, b] = collidingNames();
    const [first] = cluster().nodes;
    await first.entry(a, 7);
    await expect(first.entry(b, 7)).rejects.toThrow(code("ERR_COLLECTION_MISMATCH"));
    expect(first.names()).toEqual([a]);
  });
});

describe("several nodes", () => {
  test("open the same collection, each on its own shards, one after the other or at once", async () => {
    for (const atOnce of [true, false]) {
      const { nodes, shards } = cluster();
      if (atOnce) await Promise.all(nodes.map((catalog) => catalog.entry("docs", 7)));
      for (const catalog of nodes) await catalog.entry("docs", 7);
      const entries = await Promise.all(nodes.map((catalog) => catalog.entry("docs", undefined)));
      expect(new Set(entries.map(({ collectionId }) => collectionId)).size).toBe(1);
      for (const shard of shards) expect([...shard.collections.values()]).toEqual([7]);
      // Nobody has an address in another node's memory.
      for (const [node, { roots }] of entries.entries())
        expect(Array.from({ length: 6 }, (_, shard) => roots[shard] !== undefined)).toEqual(
          Array.from({ length: 6 }, (_, shard) => own(node).includes(shard)),
        );
      for (const [node, catalog] of nodes.entries())
        expect([0, 1, 2, 3, 4, 5].filter((shard) => catalog.recoverTasks(shard).length > 0)).toEqual(own(node));
    }
  });

  test("do not open it with different options, and what was refused is taken back", async () => {
    const { nodes, shards } = cluster();
    await nodes[0].entry("docs", 7);
    await expect(nodes[1].entry("docs", 8)).rejects.toThrow(code("ERR_COLLECTION_MISMATCH"));
    expect([...shards].map(({ collections }) => collections.size)).toEqual([1, 1, 0, 0, 0, 0]);
    await nodes[1].entry("docs", 7);
    const atOnce = cluster();
    const results = await Promise.allSettled([atOnce.nodes[0].entry("docs", 7), atOnce.nodes[1].entry("docs", 8)]);
    expect(results.filter(({ status }) => status === "fulfilled").length).toBeLessThan(2);
  });

  test("are not hindered by one that is down, unreachable or busy", async () => {
    const { nodes, states, shards, asked } = cluster();
    states.fill(MEMBER_STATE.DOWN, 4);
    (shards[2] as ToyShard).reachable = false;
    (shards[3] as ToyShard).failures.push("ERR_OVERLOADED");
    await nodes[0].entry("docs", 7);
    expect(asked.some(({ shard }) => shard >= 4)).toBe(false);
    expect(asked.filter(({ shard }) => shard === 2 || shard === 3)).toHaveLength(2);
  });

  test("one that starts anew opens again, also while another is down", async () => {
    const { nodes, node, shards, states } = cluster();
    for (const catalog of nodes) await catalog.entry("docs", 7);
    for (const shard of own(1)) (shards[shard] as ToyShard).wipe();
    states.fill(MEMBER_STATE.DOWN, 4);
    const again = node(1);
    await again.entry("docs", 7);
    expect([...(shards[2] as ToyShard).collections.values()]).toEqual([7]);
    await expect(node(1).entry("docs", 9)).rejects.toThrow(code("ERR_COLLECTION_MISMATCH"));
  });

  test("a name that was dropped gets another id everywhere, whoever remembers", async () => {
    const { nodes, node, shards } = cluster();
    const ids: number[] = [];
    for (let round = 0; round < 3; round++) {
      for (const catalog of nodes) ids.push((await catalog.entry("docs", 7)).collectionId);
      for (const catalog of nodes) expect(await catalog.drop("docs")).toBe(true);
    }
    expect(new Set(ids).size).toBe(3);
    for (const shard of shards) expect(shard.collections.size).toBe(0);
    // A node that starts anew knows nothing of the drops; its own shards, and then the others, do.
    for (const shard of own(2)) (shards[shard] as ToyShard).wipe();
    const entry = await node(2).entry("docs", 8);
    expect(ids).not.toContain(entry.collectionId);
    expect((await nodes[0].entry("docs", 8)).collectionId).toBe(entry.collectionId);
  });

  test("a creation that failed is taken back before the next, and its id is used again", async () => {
    const { nodes, shards } = cluster();
    (shards[1] as ToyShard).failures.push("ERR_OUT_OF_MEMORY", "ERR_TIMEOUT");
    await expect(nodes[0].entry("docs", 7)).rejects.toThrow(code("ERR_OUT_OF_MEMORY"));
    const { collectionId } = await nodes[0].entry("docs", 8);
    expect(collectionId).toBe(collectionIdOf("toy", "docs", 0));
    expect(shards.slice(0, 2).map(({ collections }) => collections.get(collectionId))).toEqual([8, 8]);
  });

  test("a worker that is replaced while its node opens is asked again", async () => {
    const { nodes, shards } = cluster();
    (shards[0] as ToyShard).failures.push("ERR_WORKER_LOST");
    const opening = nodes[0].entry("docs", 7);
    nodes[0].recoverTasks(0);
    await opening;
    expect((shards[0] as ToyShard).collections.size).toBe(1);
  });
});

describe("nodes that tell each other", () => {
  const NAMES = ["docs", "notes"];

  test("open and drop what another has, once each, and refuse other options", async () => {
    const { nodes, told, shards } = cluster();
    await nodes[0].entry("docs", 7);
    const [opened] = told.splice(0);
    expect(opened).toEqual({ from: 0, news: { engine: "toy", name: "docs", generation: 0, options: 7 } });
    const news = opened?.news as CollectionNews;
    for (const catalog of nodes) await Promise.all([catalog.learn(news), catalog.learn(news)]);
    for (const shard of shards) expect([...shard.collections.values()]).toEqual([7]);
    expect(told.splice(0).map(({ from }) => from)).toEqual([1, 2]);
    await expect(nodes[1].learn({ ...news, options: 8 })).rejects.toThrow(code("ERR_COLLECTION_MISMATCH"));
    await expect(nodes[1].entry("docs", undefined)).rejects.toThrow(code("ERR_COLLECTION_MISMATCH"));
    await nodes[2].drop("docs");
    const [dropped] = told.splice(0);
    for (const catalog of nodes) await catalog.learn((dropped as { news: CollectionNews }).news);
    for (const catalog of nodes) await catalog.learn(news); // late, and old
    for (const shard of shards) expect(shard.collections.size).toBe(0);
    expect((await nodes[1].entry("docs", 8)).collectionId).toBe(collectionIdOf("toy", "docs", 1));
  });

  test("agree in the end, in whatever order and however often they are told", async () => {
    const step = fc.record({
      node: fc.nat(2),
      name: fc.constantFrom(...NAMES),
      act: fc.constantFrom("open", "drop", "hear", "lose"),
      at: fc.nat(50),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { nodes, told, shards } = cluster();
        for (const { node, name, act, at } of steps) {
          const catalog = nodes[node] as CollectionCatalog<number>;
          if (act === "open") await catalog.entry(name, 7);
          if (act === "drop") await catalog.drop(name);
          if (told.length === 0) continue;
          // Told of anything that was ever said and not lost, so also late and twice.
          if (act === "hear") await catalog.learn((told[at % told.length] as (typeof told)[number]).news);
          if (act === "lose") told.splice(at % told.length, 1);
        }
        // Everybody is connected anew with everybody, and what follows from that is told.
        for (const from of nodes) for (const to of nodes) for (const news of from.news()) await to.learn(news);
        for (const from of nodes) for (const to of nodes) for (const news of from.news()) await to.learn(news);
        const sorted = (catalog: CollectionCatalog<number>): unknown =>
          catalog
            .news()
            .sort((a, b) => (a.name < b.name ? -1 : 1))
            .filter(({ generation, options }) => generation > 0 || options !== undefined);
        const [first] = nodes;
        for (const catalog of nodes) expect(sorted(catalog)).toEqual(sorted(first));
        for (const shard of shards) expect(shard.collections.size).toBe(first.names().length);
      }),
      { numRuns: 100 },
    );
  });
});

describe("a node with a directory", () => {
  /** The list of a directory, and what it was asked to do, in order. */
  function keeper(kept: KeptCollections = { collections: [], generations: [] }) {
    const calls: string[] = [];
    const failures: string[] = [];
    const change = (call: string): Promise<void> => {
      calls.push(call);
      const failure = failures.shift();
      return failure === undefined
        ? Promise.resolve()
        : Promise.reject(new ShardloomError(failure as "ERR_DISK_FULL", "Cannot write as it is told to fail"));
    };
    const store = {
      kept,
      add: ({ name, generation }: { name: string; generation: number }) => change(`add ${name} ${generation}`),
      remove: ({ name, generation }: { name: string; generation: number }) => change(`remove ${name} ${generation}`),
    } as unknown as CollectionStore;
    return { store, calls, failures };
  }

  test("lists a collection before its shards have it, and takes it off before they drop it", async () => {
    const { shards, node } = cluster();
    const { store, calls, failures } = keeper();
    const catalog = node(0, store);
    failures.push("ERR_DISK_FULL");
    await expect(catalog.entry("docs", 7)).rejects.toThrow(code("ERR_DISK_FULL"));
    expect(shards.map(({ collections }) => collections.size)).toEqual([0, 0, 0, 0, 0, 0]);
    await catalog.entry("docs", 7);
    failures.push("ERR_DISK_FULL");
    await expect(catalog.drop("docs")).rejects.toThrow(code("ERR_DISK_FULL"));
    catalog.assertEntry("docs", await catalog.entry("docs", undefined));
    expect(shards[0]?.collections.size).toBe(1);
    expect(await catalog.drop("docs")).toBe(true);
    expect(shards[0]?.collections.size).toBe(0);
    expect(calls).toEqual(["add docs 0", "add docs 0", "remove docs 1", "remove docs 1"]);
  });

  test("takes a creation that failed off the list again", async () => {
    const { shards, node } = cluster();
    const { store, calls } = keeper();
    (shards[1] as ToyShard).failures.push("ERR_OUT_OF_MEMORY");
    await expect(node(0, store).entry("docs", 7)).rejects.toThrow(code("ERR_OUT_OF_MEMORY"));
    expect(calls).toEqual(["add docs 0", "remove docs 0"]);
  });

  test("opens what is listed under its id where workers have not, and goes on with its generation", async () => {
    const { shards, node, asked } = cluster();
    const { store, calls } = keeper({
      collections: [
        { engine: "toy", name: "docs", collection: 55, generation: 3, options: 7 },
        { engine: "other", name: "docs", collection: 66, generation: 0, options: 9 },
      ],
      generations: [
        { engine: "toy", name: "docs", generation: 3 },
        { engine: "toy", name: "gone", generation: 2 },
      ],
    });
    const catalog = node(0, store);
    const root = { address: 8, rkey: 1, length: 8 };
    catalog.recovered(0, [
      { engine: "toy", collection: 55, state: root },
      { engine: "other", collection: 55, state: root },
    ]);
    await catalog.reopen();
    expect(asked).toEqual([{ from: 0, shard: 1, type: OPEN }]);
    expect([...(shards[1] as ToyShard).collections]).toEqual([[55, 7]]);
    expect(await catalog.entry("docs", 7)).toMatchObject({ collectionId: 55, options: 7 });
    expect(catalog.names()).toEqual(["docs"]);
    await expect(catalog.entry("docs", 8)).rejects.toThrow(code("ERR_COLLECTION_MISMATCH"));
    expect(catalog.recoverTasks(0)).toHaveLength(1);
    await catalog.drop("docs");
    expect((await catalog.entry("gone", 1)).collectionId).toBe(collectionIdOf("toy", "gone", 2));
    expect(calls).toEqual(["remove docs 4", "add gone 2"]);
  });

  test("tells two drops at once the same", async () => {
    const { node } = cluster();
    const { store, calls } = keeper();
    const catalog = node(0, store);
    await catalog.entry("docs", 7);
    expect(await Promise.all([catalog.drop("docs"), catalog.drop("docs")])).toEqual([true, true]);
    expect(calls).toEqual(["add docs 0", "remove docs 1"]);
  });
});

/** Two names with one id, found by birthday. */
function collidingNames(): [string, string] {
  const seen = new Map<number, string>();
  for (let number = 0; ; number++) {
    const name = `c${number}`;
    const id = collectionIdOf("toy", name, 0);
    const other = seen.get(id);
    if (other !== undefined) return [other, name];
    seen.set(id, name);
  }
}
