/**
 * Random shards under a random call.
 *
 * Acceptable outcomes: every call settles by its deadline, in one way; nothing is left behind; no vshard counts twice;
 * the record adds up; what is not idempotent is sent once.
 */
import fc from "fast-check";
import { expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { GatherPolicy } from "../../src/routing/gather.ts";
import type { Plan } from "../../src/routing/plan.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { type Fate, failing, planOf, Scripted, type Sent } from "./scripted.ts";

const CODES = [
  "ERR_WORKER_LOST",
  "ERR_OVERLOADED",
  "ERR_STALE_EPOCH",
  "ERR_STALE_REPLICA",
  "ERR_ACTOR_FAILED",
  "ERR_HANDLER_HUNG",
] as const;
const REASONS = ["stale", "behind", "not-owner"] as const;
const POLICIES: readonly GatherPolicy[] = ["all", "quorum", "best-effort", { quorum: 1 }];

const shape = fc.record({
  shards: fc.integer({ min: 1, max: 6 }),
  copies: fc.integer({ min: 1, max: 3 }),
  health: fc.double({ min: 0.3, max: 1, noNaN: true }),
  slowMs: fc.integer({ min: 1, max: 120 }),
  cap: fc.integer({ min: 1, max: 8 }),
  attempts: fc.integer({ min: 1, max: 5 }),
  idempotent: fc.boolean(),
  policy: fc.constantFrom(...POLICIES),
  unavailable: fc.constantFrom("partial", "wait"),
  hedgeAfter: fc.constantFrom<"off" | number>("off", 0, 3, 20),
  timeoutMs: fc.integer({ min: 1, max: 200 }),
  missing: fc.boolean(),
  calls: fc.integer({ min: 1, max: 4 }),
  abortAtMs: fc.option(fc.nat(100), { freq: 3 }),
  seed: fc.nat(),
});

function fateOf(sent: Sent, random: ReturnType<typeof createSeededRandom>, health: number, slowMs: number): Fate {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random.float() * list.length)] as T;
  const afterMs = Math.floor(random.float() * slowMs);
  if (random.float() < health) return { afterMs };
  switch (Math.floor(random.float() * 5)) {
    case 0:
      return "silence";
    case 1:
      return random.float() < 0.1 ? "garbage" : { throws: new ShardloomError("ERR_WORKER_LOST", "gone") };
    case 2:
      return { afterMs, refuse: [{ vshard: pick(sent.vshards), reason: pick(REASONS) }] };
    default:
      return failing(pick(CODES), afterMs);
  }
}

it("settles every call once and by its deadline, leaves nothing behind, and counts no vshard twice (property)", async () => {
  await fc.assert(
    fc.asyncProperty(shape, async (given) => {
      const { shards, copies, cap, attempts, idempotent, policy, unavailable, hedgeAfter, timeoutMs, seed } = given;
      const vshards = 16;
      const replicationFactor = Math.min(copies, shards);
      const cluster = new Scripted({ shards, vshards, replicationFactor }, {}, seed);
      const random = createSeededRandom(seed);
      cluster.script = (sent) => fateOf(sent, random, given.health, given.slowMs);
      let epoch = 1;
      const replan = (wanted: Uint16Array): Plan => {
        const newer = createSnapshot({ shards, vshards, replicationFactor, topologyEpoch: ++epoch });
        const down = wanted.filter(() => random.float() < 0.2);
        const gone = down.length === 0 ? [] : [{ vshards: down, reason: "down" as const }];
        return planOf(newer, { vshards: wanted, unavailable: gone });
      };
      const gone = given.missing ? [{ vshards: Uint16Array.of(3), reason: "down" as const }] : [];
      const plan = planOf(cluster.snapshot, { unavailable: gone });
      const controller = new AbortController();
      const limits = { maxConcurrentShards: cap, maxAttempts: attempts, hedgeAfter };
      for (let call = 0; call < given.calls; call++) {
        const { length } = cluster.sent;
        cluster.peak = 0;
        const deadlineAtMs = cluster.nowMs + timeoutMs;
        const { signal } = controller;
        const overrides = { plan, deadlineAtMs, idempotent, policy, unavailable, limits, replan, signal } as const;
        const fits = typeof policy === "string" || policy.quorum <= plan.targets.length + gone.length;
        const ended = cluster.executor.execute(cluster.call(overrides)).then(
          (gathered) => ({ gathered, error: undefined }),
          (error: unknown) => ({ gathered: undefined, error }),
        );
        if (given.abortAtMs !== null) cluster.time.scheduler.after(given.abortAtMs, () => controller.abort());
        await cluster.finish(ended);
        expect(cluster.nowMs).toBeLessThanOrEqual(deadlineAtMs + 1);
        await cluster.time.advance(101); // the abort's own timer
        cluster.assertClean(signal);
        expect(cluster.peak).toBeLessThanOrEqual(cap);
        const sent = cluster.sent.slice(length);
        if (!idempotent) {
          // Only what a shard has refused is sent again.
          expect(sent.filter(({ epoch: at }) => at === 1).flatMap((one) => one.vshards)).toHaveLength(
            new Set(sent.filter(({ epoch: at }) => at === 1).flatMap((one) => one.vshards)).size,
          );
        }
        const { gathered, error } = await ended;
        if (gathered === undefined) {
          expect(ShardloomError.is(error)).toBe(true);
          expect((error as ShardloomError).code).not.toBe("ERR_INTERNAL");
          if (!fits) expect((error as ShardloomError).code).toBe("ERR_INVALID_ARGUMENT");
          continue;
        }
        const { completeness, answers } = gathered;
        const counted = answers.flatMap((answer) => answer.vshards);
        expect(new Set(counted).size).toBe(counted.length);
        expect(completeness.vshards).toEqual({ planned: vshards, answered: counted.length });
        const { planned, answered, empty, failed, timedOut, unavailable: nobody, stale } = completeness;
        expect(planned).toBe(answered + failed + timedOut + nobody + stale);
        expect(completeness.complete).toBe(planned === answered);
        expect(empty).toBe(0);
        expect(completeness.complete).toBe(counted.length === vshards);
        if (policy === "all")
          for (const { status } of completeness.outcomes)
            expect(["answered", "unavailable", "stale"]).toContain(status); // the last two are excused by "partial"
        const attemptsMade = completeness.outcomes.reduce((sum, outcome) => sum + outcome.attempts, 0);
        expect(attemptsMade).toBe(sent.length);
      }
    }),
    { numRuns: 400 },
  );
});
