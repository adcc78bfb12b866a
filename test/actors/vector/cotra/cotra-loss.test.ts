/** Searches that lose a peer, their time or their origin: they end, in bounded time, with what is missing named, and leave nothing behind. */
import { describe, expect, test } from "vitest";
import { decodeMessage, encodeMessage, MESSAGE } from "../../../../actors/vector/cotra/cotra-messages.ts";
import type { CotraOutcome } from "../../../../actors/vector/cotra/cotra-origin.ts";
import { MAX_EARLY_MESSAGES, MAX_SEARCHES } from "../../../../actors/vector/cotra/cotra-shard.ts";
import { planSearch } from "../../../../actors/vector/cotra/search-plan.ts";
import { chance, Driver } from "./driver.ts";
import { audit, BASE, type Case, type CaseOptions, randomCase, SCALE } from "./support.ts";

const TIMEOUT = 3000;
const GRACE = 50;
/** Rounds after a crash until everybody has been told. */
const DETECTION = 30;

type Role = "leader" | "primary" | "other";

interface Trial {
  readonly one: Case;
  readonly outcome: CotraOutcome;
  readonly victim: number;
  /** Rounds from the crash to the end of the search. */
  readonly rounds: number;
}

/** Whether the messages of a case from one peer to another keep their order. */
function inOrder(seed: number): boolean {
  return seed % 2 === 0;
}

function planOf({ query, views, shards }: Case): { leader: number; primaries: readonly number[] } {
  const partitionOf = (vertex: number): number => views[0]!.partitionOf(vertex);
  const share = query.settings?.primaryShare ?? 1;
  return planSearch(query.entries, partitionOf, shards, share, new Set()) ?? expect.fail("no plan");
}

/** Runs a search and kills a shard of the given role at a random round of it. Undefined when no shard has the role. */
function trial(seed: number, role: Role, options: CaseOptions = {}): Trial | undefined {
  const one = randomCase(seed, { shards: 5, count: 90, entries: 8, timeoutMs: TIMEOUT, ...options });
  const { leader, primaries } = planOf(one);
  const others = one.views.map(({ self }) => self).filter((shard) => !primaries.includes(shard));
  const candidates = { leader: [leader], primary: primaries.slice(1), other: others }[role];
  if (candidates.length === 0) return undefined;
  const victim = candidates[seed % candidates.length] as number;
  const driver = new Driver({ views: one.views, seed, maxDelay: 6, fifo: inOrder(seed), graceMs: GRACE });
  let outcome: CotraOutcome | undefined;
  driver.origin.search(one.query, (ended) => {
    expect(outcome).toBe(undefined);
    outcome = ended;
  });
  const crashAt = Math.floor(chance(seed, 5, 0, 0) * 80);
  while (driver.round < crashAt) driver.advance();
  driver.crash(victim);
  let ended = outcome === undefined ? undefined : driver.round;
  const told = [...one.views.keys(), one.shards].filter((peer) => peer !== victim);
  const dueOf = (peer: number): number => crashAt + 1 + Math.floor(chance(seed, 6, peer, 0) * DETECTION);
  for (let round = 0; round < TIMEOUT + 500; round++) {
    driver.advance();
    for (const peer of told) if (dueOf(peer) === driver.round) driver.report(peer, victim);
    if (outcome !== undefined) ended ??= driver.round;
  }
  if (outcome === undefined || ended === undefined) expect.fail(`SEED=${BASE}, case ${seed} never ended`);
  driver.shards.forEach((shard, self) => {
    if (self !== victim) expect(shard.searches, `SEED=${BASE}, case ${seed}: a search is left on ${self}`).toBe(0);
  });
  return { one, outcome, victim, rounds: ended - crashAt };
}

describe.for([
  ["leader", 60 * SCALE],
  ["primary", 100 * SCALE],
  ["other", 100 * SCALE],
] as const)("the loss of a shard: %s", ([role, runs]) => {
  test("ends typed, long before the deadline, with the shard named unless nothing of it was needed", () => {
    let partial = 0;
    let complete = 0;
    for (let run = 0; run < runs; run++) {
      const result = trial(BASE + run, role);
      if (result === undefined) continue;
      const { one, outcome, victim, rounds } = result;
      const where = `SEED=${BASE}, case ${one.seed}`;
      expect(rounds, where).toBeLessThan(1500);
      if (outcome.complete) {
        complete++;
        expect(outcome.missing, where).toEqual([]);
        // What the victim computed before it died is read and computed again.
        audit(one, outcome, 2);
      } else {
        partial++;
        expect(outcome.reason, where).toBe("ERR_WORKER_LOST");
        if (inOrder(one.seed)) expect(outcome.missing, where).toEqual([victim]);
        else expect(outcome.missing, where).toContain(victim); // and whoever was asked for its part before it had begun
      }
    }
    expect(partial).toBeGreaterThan(role === "other" ? 0 : 10);
    expect(complete).toBeGreaterThan(0);
  });
});

test("a shard that is not primary is not missed while its region can be read", () => {
  let asked = 0;
  for (let run = 0; run < 50; run++) {
    const settings = { pullDegree: run % 3, pullDegreeKnown: 0, primaryShare: 3 };
    const result = trial(BASE + 1000 + run, "other", { exposed: () => true, settings });
    if (result === undefined) continue;
    const { one, outcome } = result;
    expect(outcome, `SEED=${BASE}, case ${one.seed}`).toMatchObject({ complete: true, missing: [] });
    asked++;
  }
  expect(asked).toBeGreaterThan(30);
});

test("a lost leader leaves what the other primaries have found", () => {
  let found = 0;
  for (let run = 0; run < 50; run++) {
    const result = trial(BASE + 2000 + run, "leader", { entries: 12, settings: { primaryShare: 0.001 } });
    if (result !== undefined && !result.outcome.complete && result.outcome.hits.vertices.length > 0) found++;
  }
  expect(found).toBeGreaterThan(15);
});

test("a shard known to be lost beforehand takes no part and is named", () => {
  const one = randomCase(BASE + 7, { shards: 4, count: 90, entries: 30 });
  const driver = new Driver({ views: one.views, seed: 1, maxDelay: 1, fifo: true });
  const { leader } = planOf(one);
  driver.crash(leader);
  for (let peer = 0; peer <= one.shards; peer++) driver.report(peer, leader);
  const outcome = driver.run(one.query);
  expect(outcome).toMatchObject({ complete: false, reason: "ERR_WORKER_LOST", missing: [leader] });
  expect(outcome.hits.vertices.length).toBeGreaterThan(0);
});

/** A search over several primaries that never ends by itself, as its tokens are withheld. */
function endless(options: CaseOptions = {}): { driver: Driver; one: Case } {
  const settings = { primaryShare: 0.001 };
  const one = randomCase(BASE + 11, { shards: 4, count: 90, entries: 30, settings, timeoutMs: 500, ...options });
  const driver = new Driver({ views: one.views, seed: 1, maxDelay: 3, fifo: false, withholdTokens: true });
  return { driver, one };
}

test("at the deadline the leader answers with what it has, and nothing is left", () => {
  const { driver, one } = endless();
  const outcome = driver.run(one.query, 600);
  expect(outcome).toMatchObject({ complete: false, reason: "ERR_TIMEOUT" });
  expect(outcome.missing.length).toBeGreaterThan(0);
  expect(outcome.hits.vertices.length).toBe(one.query.k);
  for (let round = 0; round < 600; round++) driver.advance();
  expect(driver.shards.map((shard) => shard.searches)).toEqual([0, 0, 0, 0]);
});

test("when even the leader is silent, the origin ends the search itself and names all", () => {
  const { driver, one } = endless();
  const { leader, primaries } = planOf(one);
  driver.crash(leader);
  const outcome = driver.run(one.query, 600);
  expect(outcome).toMatchObject({ complete: false, reason: "ERR_TIMEOUT" });
  expect(outcome.missing).toEqual([...primaries].sort((a, b) => a - b));
});

test("cancelled, a search ends at once as aborted, and frees every shard", () => {
  const { driver, one } = endless();
  let outcome: CotraOutcome | undefined;
  const serial = driver.origin.search(one.query, (ended) => {
    outcome = ended;
  });
  for (let round = 0; round < 5; round++) driver.advance();
  expect(driver.shards.some((shard) => shard.searches > 0)).toBe(true);
  driver.origin.cancel(serial);
  expect(outcome).toMatchObject({ complete: false, reason: "ERR_ABORTED" });
  driver.origin.cancel(serial);
  driver.settle();
  expect(driver.shards.map((shard) => shard.searches)).toEqual([0, 0, 0, 0]);
});

test("a lost origin frees every shard", () => {
  const { driver, one } = endless();
  driver.origin.search(one.query, () => undefined);
  for (let round = 0; round < 5; round++) driver.advance();
  for (const shard of driver.shards) shard.peerLost(one.shards);
  expect(driver.shards.map((shard) => shard.searches)).toEqual([0, 0, 0, 0]);
});

test("an origin that comes back after a loss may number its searches as before", () => {
  const { driver, one } = endless();
  const sent: Uint8Array[] = [];
  driver.onSend = (_from, to, bytes) => {
    if (to === 0) sent.push(bytes);
  };
  driver.origin.search(one.query, () => undefined);
  const shard = driver.shards[0]!;
  shard.receive(sent[0]!);
  shard.peerLost(one.shards);
  shard.peerBack(one.shards);
  shard.receive(sent[0]!);
  expect(shard).toMatchObject({ searches: 1, counters: { started: 2, duplicates: 0 } });
  shard.receive(sent[0]!);
  expect(shard).toMatchObject({ searches: 1, counters: { started: 2, duplicates: 1 } });
});

test("a shard with too many searches refuses, and the origin says so", () => {
  // Both shards must be primaries: a search of one alone ends without a token.
  const both = (seed: number): Case => {
    const made = randomCase(seed, { shards: 2, count: 20, entries: 20, settings: { primaryShare: 0.001 } });
    const { entries } = made.query;
    const shards = new Set(Array.from(entries.vertices, (vertex) => made.views[0]?.partitionOf(vertex)));
    return shards.size === 2 ? made : both(seed + 1);
  };
  const one = both(BASE + 17);
  const driver = new Driver({ views: one.views, seed: 1, maxDelay: 1, fifo: true, withholdTokens: true });
  const outcomes: CotraOutcome[] = [];
  for (let search = 0; search < MAX_SEARCHES + 3; search++) driver.origin.search(one.query, (o) => outcomes.push(o));
  for (let round = 0; round < 5; round++) driver.advance();
  expect(outcomes.length).toBe(3);
  for (const outcome of outcomes) expect(outcome).toMatchObject({ complete: false, reason: "ERR_OVERLOADED" });
  expect(outcomes[0]?.missing.length).toBeGreaterThan(0);
});

test("a stop that overtakes its start keeps the search from starting", () => {
  const { driver, one } = endless();
  const sent: Uint8Array[] = [];
  driver.onSend = (_from, to, bytes) => {
    if (to === 0) sent.push(bytes);
  };
  driver.origin.cancel(driver.origin.search(one.query, () => undefined));
  const [start, stop] = sent as [Uint8Array, Uint8Array];
  driver.shards[0]?.receive(stop);
  driver.shards[0]?.receive(start);
  expect(driver.shards[0]).toMatchObject({ searches: 0, counters: { duplicates: 1, started: 0 } });
});

test("messages that never find their search are kept up to a bound, then the origin is told", () => {
  const { driver } = endless();
  const refused: number[] = [];
  driver.onSend = (_from, to, bytes) => {
    if (bytes[0] === MESSAGE.RESULT) refused.push(to);
  };
  const origin = driver.shards.length;
  const tops = { vertices: new Int32Array(0), distances: new Float32Array(0) };
  for (let sequence = 0; sequence <= MAX_EARLY_MESSAGES + 10; sequence++) {
    const header = { from: 1, origin, serial: 77, sequence };
    driver.shards[0]?.receive(encodeMessage({ type: MESSAGE.SYNC, ...header, bound: 1, tops, ids: new Int32Array(0) }));
  }
  expect(refused).toEqual([origin]);
});

test("an owner that has forgotten the query is told it again", () => {
  const one = randomCase(BASE + 13, { shards: 2, count: 90, exposed: () => false, settings: { primaryShare: 2 } });
  const driver = new Driver({ views: one.views, seed: 1, maxDelay: 1, fifo: true });
  const owner = driver.shards[1]!;
  const replies: Uint8Array[] = [];
  driver.onSend = (from, _to, bytes) => {
    if (from === 1) replies.push(bytes);
  };
  const header = { from: 0, origin: 2, serial: 5, sequence: 9 };
  const mine = one.graph.partitions.indexOf(1);
  const ask = { type: MESSAGE.ASK, flags: 0, ...header, bound: 1e9, ids: Int32Array.of(mine) } as const;
  owner.receive(encodeMessage({ ...ask, query: new Uint8Array(0) }));
  owner.receive(encodeMessage({ ...ask, query: one.query.query }));
  owner.receive(encodeMessage({ ...ask, query: new Uint8Array(0) }));
  expect(replies.map((bytes) => [bytes[1], bytes.length])).toEqual([
    [1, 20],
    [0, 28],
    [0, 28],
  ]);
});

test("distances that nobody asked for, or of vertices that do not exist, are damage and no hits", () => {
  let forged = 0;
  for (let run = 0; run < 20; run++) if (forgeReply(BASE + 6000 + run)) forged++;
  expect(forged).toBeGreaterThan(5);
});

/** Runs a search whose first reply is replaced by a forged one. @returns Whether there was a reply to forge. */
function forgeReply(seed: number): boolean {
  const options = { shards: 2, count: 60, ef: 60, garbage: 0, exposed: () => false, settings: { primaryShare: 2 } };
  const one = randomCase(seed, options);
  const driver = new Driver({ views: one.views, seed, maxDelay: 1, fifo: true });
  let reply: { to: number; bytes: Uint8Array } | undefined;
  driver.onSend = (_from, to, bytes) => {
    const message = decodeMessage(bytes);
    if (message.type !== MESSAGE.REPLY || reply !== undefined || message.pairs.vertices.length === 0) return;
    const { vertices, distances } = message.pairs;
    // Its first vertex twice, and two that were never asked.
    const pairs = {
      vertices: Int32Array.of(vertices[0] as number, 1_000_000, ...vertices, 2 ** 31 - 1),
      distances: Float32Array.of(distances[0] as number, 0, ...distances, 0),
    };
    reply = { to, bytes: encodeMessage({ ...message, pairs }) };
  };
  const outcomes: CotraOutcome[] = [];
  driver.origin.search(one.query, (ended) => outcomes.push(ended));
  while (reply === undefined && driver.advance());
  if (reply === undefined) return false;
  const shard = driver.shards[reply.to]!;
  shard.receive(reply.bytes);
  expect(shard.counters.damage).toBe(3);
  driver.settle();
  expect(outcomes).toMatchObject([{ complete: true }]);
  audit(one, outcomes[0]!);
  return true;
}

test("bytes that are no message are refused and change nothing", () => {
  const { driver } = endless();
  expect(() => driver.shards[0]?.receive(Uint8Array.of(1, 2, 3))).toThrow(
    expect.objectContaining({ code: "ERR_CORRUPT" }),
  );
  expect(() => driver.origin.receive(new Uint8Array(0))).toThrow(expect.objectContaining({ code: "ERR_CORRUPT" }));
  expect(driver.shards[0]?.searches).toBe(0);
});
