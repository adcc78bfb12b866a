import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { Gather } from "../../src/routing/gather.ts";
import type { ReplyFrame } from "../../src/routing/requester.ts";

const frame = { bytes: new Uint8Array(8), offset: 0, length: 0 } as unknown as ReplyFrame;
const answer = (items: number[]) => () => items;
const lengthOf = (items: number[]): number => items.length;

describe("Gather", () => {
  it("counts empty answers as answered, not as failed", async () => {
    const gather = new Gather<number[]>(2, "fail");
    gather.sink(1, answer([]), lengthOf).onReply(frame);
    gather.sink(0, answer([7]), lengthOf).onReply(frame);
    const { answers, completeness } = await gather.promise;
    expect(answers).toEqual([[], [7]]);
    expect(completeness).toMatchObject({ planned: 2, answered: 2, empty: 1, failed: 0, complete: true });
    expect(completeness.outcomes.map((entry) => entry.shard)).toEqual([0, 1]);
  });

  it("rejects with the first shard's error under the policy fail", async () => {
    const gather = new Gather<number[]>(2, "fail");
    gather.fail(0, new ShardloomError("ERR_TIMEOUT", "late"));
    await expect(gather.promise).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
  });

  it("answers with what there is under the policy allow, and names what is missing", async () => {
    const gather = new Gather<number[]>(3, "allow");
    gather.sink(0, answer([1]), lengthOf).onReply(frame);
    gather.fail(1, new ShardloomError("ERR_TIMEOUT", "late"));
    gather.fail(2, new ShardloomError("ERR_WORKER_LOST", "died"));
    const { completeness } = await gather.promise;
    expect(completeness).toMatchObject({ planned: 3, answered: 1, timedOut: 1, failed: 1, complete: false });
    expect(completeness.outcomes[2]?.error?.code).toBe("ERR_WORKER_LOST");
  });

  it("rejects when no shard answered at all, also under the policy allow", async () => {
    const gather = new Gather<number[]>(1, "allow");
    gather.fail(0, new ShardloomError("ERR_UNAVAILABLE", "none"));
    await expect(gather.promise).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
  });

  it("turns a reply that cannot be decoded into a failed outcome", async () => {
    const gather = new Gather<number[]>(1, "fail");
    const broken = (): number[] => {
      throw new RangeError("bad");
    };
    gather.sink(0, broken, lengthOf).onReply(frame);
    await expect(gather.promise).rejects.toMatchObject({ code: "ERR_CORRUPT" });
  });
});
