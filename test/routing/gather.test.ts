import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { Gather, type GatherPolicy, plainOutcome, type ShardOutcome } from "../../src/routing/gather.ts";

const error = (code: ShardloomError["code"]): ShardloomError => new ShardloomError(code, `a ${code}`);
const good = (shard: number, count = 1): ShardOutcome => plainOutcome(shard, count);
const bad = (shard: number, code: ShardloomError["code"]): ShardOutcome => plainOutcome(shard, 0, error(code));

describe("Gather", () => {
  it("counts empty answers as answered, not as failed, in the order of the plan", async () => {
    const gather = new Gather<number[]>(2, "all");
    gather.end(1, good(1, 0), [[]]);
    gather.end(0, good(0), [[7]]);
    const { answers, completeness } = await gather.promise;
    expect(answers).toEqual([[7], []]);
    expect(completeness).toMatchObject({ planned: 2, answered: 2, empty: 1, failed: 0, complete: true });
    expect(completeness.outcomes.map((entry) => entry.shard)).toEqual([0, 1]);
  });

  it("all: rejects with the first part's error, before the others have ended", async () => {
    const gather = new Gather<number[]>(2, "all");
    gather.end(0, bad(0, "ERR_TIMEOUT"), []);
    expect(gather.settled).toBe(true);
    await expect(gather.promise).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
  });

  it("all: goes on over a part that may be missing, and says that it is", async () => {
    const gather = new Gather<number[]>(2, "all");
    gather.end(0, bad(0, "ERR_UNAVAILABLE"), [], true);
    gather.end(1, good(1), [[1]]);
    const { completeness } = await gather.promise;
    expect(completeness).toMatchObject({ planned: 2, answered: 1, unavailable: 1, complete: false });
  });

  it("best-effort: answers with what there is, and names every kind of what is missing", async () => {
    const gather = new Gather<number[]>(6, "best-effort");
    gather.end(0, good(0), [[1]]);
    gather.end(1, bad(1, "ERR_TIMEOUT"), []);
    gather.end(2, bad(2, "ERR_WORKER_LOST"), []);
    gather.end(3, bad(3, "ERR_UNAVAILABLE"), []);
    gather.end(4, bad(4, "ERR_STALE_REPLICA"), []);
    gather.end(5, good(5, 0), [[]]);
    const { completeness } = await gather.promise;
    expect(completeness).toMatchObject({
      planned: 6,
      answered: 2,
      empty: 1,
      failed: 1,
      timedOut: 1,
      unavailable: 1,
      stale: 1,
      complete: false,
      vshards: { planned: 6, answered: 2 },
    });
    expect(completeness.outcomes[2]?.error?.code).toBe("ERR_WORKER_LOST");
  });

  it.each<GatherPolicy>(["all", "best-effort", { quorum: 1 }])("%j: rejects when nobody answered", async (policy) => {
    const gather = new Gather<number[]>(1, policy);
    gather.end(0, bad(0, "ERR_UNAVAILABLE"), []);
    await expect(gather.promise).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
  });

  it("quorum: has enough with a majority, and not before", async () => {
    const gather = new Gather<number>(4, "quorum");
    const enough = [0, 1, 2].map((part) => {
      gather.end(part, good(part), [part]);
      return gather.enough;
    });
    expect(enough).toEqual([false, false, true]);
    expect(gather.settled).toBe(false);
    gather.end(3, bad(3, "ERR_ABORTED"), []);
    expect((await gather.promise).completeness).toMatchObject({ answered: 3, failed: 1, complete: false });
  });

  it("quorum: rejects as soon as it cannot be reached, with what made it so as cause", async () => {
    const gather = new Gather<number>(4, "quorum");
    gather.end(0, good(0), [0]);
    gather.end(1, bad(1, "ERR_TIMEOUT"), []);
    expect(gather.settled).toBe(false);
    gather.end(2, bad(2, "ERR_WORKER_LOST"), []);
    await expect(gather.promise).rejects.toMatchObject({
      code: "ERR_WORKER_LOST",
      message: expect.stringContaining("a quorum of 3 of 4 parts as 2 failed") as string,
      details: { planned: 4, needed: 3, answered: 1, failed: 2 },
    });
  });

  it.each([0, 4, 1.5, -1, Number.NaN])("refuses a quorum of %s of 3, naming value and rule", (quorum) => {
    expect(() => new Gather<number>(3, { quorum })).toThrow(
      `quorum must be an integer between 1 and 3 (parts): current value is ${quorum}`,
    );
  });

  it("takes only the first word on a part", async () => {
    const gather = new Gather<number>(2, "best-effort");
    gather.end(0, good(0), [1]);
    gather.end(0, bad(0, "ERR_TIMEOUT"), [2]);
    gather.end(1, good(1), [3]);
    gather.abort(error("ERR_ABORTED"));
    expect((await gather.promise).answers).toEqual([1, 3]);
  });
});
