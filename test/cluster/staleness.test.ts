/** What reads say about how far their answers may be behind, over real threads. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, Explanation, TextCollection, VectorCollection } from "../../src/index.ts";
import { CONSISTENCY, SCOPE } from "../../src/wire/routed-codec.ts";
import { eventually } from "../support/cluster.ts";
import { startCopies } from "../support/copies.ts";
import { block } from "../support/holds.ts";
import { ANY_COPY, DIMENSIONS, doc, ReplicatedStage } from "../support/replicated.ts";

const OPTIONS = { dimensions: 4, metric: "l2" } as const;
const FOUR = (value: number): Float32Array => new Float32Array(4).fill(value);
const WHILE_MS = 120;
const READS = [{ consistency: "strong" }, { consistency: "eventual" }, { consistency: "bounded-staleness" }] as const;

describe("a cluster whose copies are level", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  let texts: TextCollection;
  beforeAll(async () => {
    cluster = await startCopies({ maxHandlerMs: 20_000 });
    docs = await cluster.vectors("docs", OPTIONS);
    texts = await cluster.text("texts", {});
    const ids = Array.from({ length: 100 }, (_, id) => id);
    await docs.upsert(
      ids.map((id) => ({ id, vector: FOUR(id) })),
      { acks: "all" },
    );
    await texts.upsert(
      ids.map((id) => ({ id, text: "word" })),
      { acks: "all" },
    );
  });
  afterAll(() => cluster.close());

  it.each(READS)("says so in searches of vectors and texts, and in the account of a get: %j", async (options) => {
    let account: Explanation | undefined;
    for (let round = 0; round < 20; round++) {
      expect((await docs.search(FOUR(1), { ...options, strategy: "random" })).stalenessMs).toBe(0);
      expect((await texts.search("word", { ...options, strategy: "random" })).stalenessMs).toBe(0);
      const explain = (given: Explanation): void => {
        account = given;
      };
      await docs.get(round, { ...options, strategy: "random", explain });
      expect(account?.stalenessMs).toBe(0);
      const { explain: told } = await docs.search(FOUR(1), { ...options, explain: true });
      expect(told?.stalenessMs).toBe(0);
    }
  });

  it("with a copy that is blocked and behind, says no more than was asked for", async () => {
    const { end } = await block(cluster, 2, 600);
    let blocked = true;
    void end.then(() => {
      blocked = false;
    });
    const bound = 40;
    const told: number[] = [];
    for (let round = 0; blocked || round < 50; round++) {
      await docs
        .upsert({ id: round % 100, vector: FOUR(round) }, { acks: "one", timeoutMs: 5_000 })
        .catch(() => undefined);
      const { stalenessMs, completeness } = await docs.search(FOUR(1), {
        consistency: "bounded-staleness",
        maxStalenessMs: bound,
        strategy: "random",
      });
      expect(completeness.complete).toBe(true);
      told.push(stalenessMs);
    }
    expect(Math.max(...told)).toBeLessThanOrEqual(bound);
    expect(Math.min(...told)).toBeGreaterThanOrEqual(0);
  });
});

describe("a copy that lacks something", () => {
  let stage: ReplicatedStage;
  let docs: VectorCollection;
  let vshard: number;
  let id: number;
  let primary: number;
  let copy: number;
  const query = new Float32Array(DIMENSIONS);
  beforeAll(async () => {
    stage = await ReplicatedStage.start({ workers: 2, replicationFactor: 2 });
    docs = await stage.open();
    [id = 0] = stage.idsOn(0, 1);
    await stage.upsert(0, [doc(id)], 2);
    await stage.level();
    vshard = stage.vshardOf(id);
    [primary = 0, copy = 0] = stage.copiesOf(vshard);
  });
  afterAll(() => stage.close());

  it("says for how long, in every kind of read that it may answer; its primary lacks nothing", async () => {
    const listed = { scope: SCOPE.LISTED, vshards: Uint16Array.of(vshard) };
    expect((await stage.search(copy, query, 3, ANY_COPY)).routed.stalenessMs).toBe(0);
    // As if the primary had written now what does not arrive.
    const writtenMs = stage.coordinator.nowMs();
    stage.table.publishHead(vshard, stage.table.head(vshard) + 1, writtenMs);
    await eventually("a while is over", () => stage.coordinator.nowMs() - writtenMs > WHILE_MS);
    const answers = [
      await stage.search(copy, query, 3, ANY_COPY),
      await stage.get(copy, [1], ANY_COPY),
      await stage.count(copy, { consistency: CONSISTENCY.EVENTUAL, ...listed }),
      await stage.count(copy, { consistency: CONSISTENCY.SESSION, ...listed }),
      await stage.count(copy, { consistency: CONSISTENCY.BOUNDED_STALENESS, maxStalenessMs: 60_000, ...listed }),
    ];
    const sinceMs = stage.coordinator.nowMs() - writtenMs;
    for (const { routed } of answers) {
      expect(routed.stalenessMs).toBeGreaterThanOrEqual(WHILE_MS);
      expect(routed.stalenessMs).toBeLessThanOrEqual(Math.ceil(sinceMs));
    }
    // What is refused is not spoken of.
    const tight = {
      consistency: CONSISTENCY.BOUNDED_STALENESS,
      maxStalenessMs: WHILE_MS / 2,
      scope: SCOPE.HELD,
    } as const;
    const { routed } = await stage.count(copy, tight);
    expect(routed.refused.map((each) => each.vshard)).toEqual([vshard]);
    expect(routed.stalenessMs).toBe(0);
    expect((await stage.search(primary, query, 3, { ...ANY_COPY, ...listed })).routed.stalenessMs).toBe(0);
    const others = Uint16Array.from([...stage.snapshot.owners.keys()].filter((other) => other !== vshard));
    const rest = { consistency: CONSISTENCY.EVENTUAL, scope: SCOPE.LISTED, vshards: others } as const;
    expect((await stage.search(copy, query, 3, rest)).routed.stalenessMs).toBe(0);
  });

  it("makes the whole answer of a search as stale, when it was asked", async () => {
    const told = new Set<boolean>();
    for (let round = 0; round < 200 && told.size < 2; round++) {
      const options = { consistency: "eventual", strategy: "random", hedge: false, explain: true } as const;
      const { stalenessMs, explain } = await docs.search(query, options);
      const asked = explain?.plan.targets.some(({ shard, vshards }) => shard === copy && vshards.includes(vshard));
      expect(stalenessMs >= WHILE_MS, `round ${round}: ${stalenessMs} from ${asked ? "the copy" : "the primary"}`).toBe(
        asked,
      );
      expect(explain?.stalenessMs).toBe(stalenessMs);
      told.add(asked === true);
    }
    expect(told.size, "both were asked").toBe(2);
    const found = new Set<boolean>();
    for (let round = 0; round < 200 && found.size < 2; round++) {
      const document = await docs.get(id, { consistency: "eventual", strategy: "random", hedge: false });
      if (document?.stalenessMs !== undefined) expect(document.stalenessMs).toBeGreaterThanOrEqual(WHILE_MS);
      found.add(document?.stalenessMs !== undefined);
    }
    expect(found.size, "a get says so too, when the copy answered").toBe(2);
    expect(await docs.get(id)).not.toHaveProperty("stalenessMs");
  });
});
