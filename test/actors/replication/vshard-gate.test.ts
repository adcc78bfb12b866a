/** Which vshards a shard answers for, against a model that looks at each by itself. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { VshardGate } from "../../../actors/replication/vshard-gate.ts";
import { createManualClock } from "../../../src/runtime/clock.ts";
import { baseLsn } from "../../../src/topology/member.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot, holdsCopy } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import {
  CONSISTENCY,
  REFUSAL,
  RoutedReader,
  type RoutedRequest,
  routedRequestBytes,
  SCOPE,
  writeRoutedRequest,
} from "../../../src/wire/routed-codec.ts";
import { wireMemory } from "../vector/support.ts";

const SHARDS = 3;
const VSHARDS = 8;

function bed(replicationFactor: number, term = 1) {
  const terms = new Uint32Array(VSHARDS).fill(term);
  const snapshot = createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor, terms });
  const topology = new LocalTopology(snapshot);
  const clock = createManualClock(1_000);
  const table = new ReplicaTable(createReplicaBlock(snapshot), topology, () => clock.nowMs());
  const gate = new VshardGate(1, topology, table);
  const admit = (request: RoutedRequest): VshardGate => {
    const memory = wireMemory(routedRequestBytes(request));
    writeRoutedRequest(memory, 0, request);
    gate.admit(new RoutedReader().open(memory, 0, routedRequestBytes(request)));
    return gate;
  };
  return { snapshot, topology, clock, table, gate, admit };
}

test("answers and refuses each vshard as its role and its copy's state say", () => {
  const copyState = fc.constantFrom("level", "behind", "old", "syncing", "unknown");
  const request = fc.record({
    consistency: fc.constantFrom<RoutedRequest["consistency"]>(
      CONSISTENCY.STRONG,
      CONSISTENCY.SESSION,
      CONSISTENCY.BOUNDED_STALENESS,
      CONSISTENCY.EVENTUAL,
    ),
    scope: fc.constantFrom(SCOPE.LISTED, SCOPE.PRIMARY, SCOPE.HELD),
    list: fc.uniqueArray(fc.nat(VSHARDS + 2), { minLength: 1 }),
    lsn: fc.integer({ min: 1, max: 12 }),
  });
  const states = fc.array(copyState, { minLength: VSHARDS, maxLength: VSHARDS });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3 }),
      states,
      request,
      (factor, copies, { consistency, scope, list, lsn }) => {
        const { snapshot, table, admit } = bed(factor);
        for (const [vshard, state] of copies.entries()) {
          table.publishHead(vshard, 10, 900);
          if (state === "level") table.publishApplied(vshard, 1, 10, 900);
          if (state === "behind") table.publishApplied(vshard, 1, 9, 800); // lacks an entry since 100 ms
          if (state === "old") table.publishApplied(vshard, 1, 2, 300); // lacks one since at most 700 ms
          if (state === "syncing") table.publishSyncing(vshard, 1);
        }
        const all = Array.from({ length: VSHARDS }, (_, vshard) => vshard);
        const held = all.filter((vshard) => holdsCopy(snapshot, 1, vshard));
        const asked =
          scope === SCOPE.LISTED ? list : scope === SCOPE.PRIMARY ? all.filter((v) => snapshot.owners[v] === 1) : held;
        const gate = admit({
          consistency,
          scope,
          ...(scope === SCOPE.LISTED ? { vshards: Uint16Array.from(list) } : {}),
          ...(consistency === CONSISTENCY.BOUNDED_STALENESS ? { maxStalenessMs: 200 } : {}),
          ...(consistency === CONSISTENCY.SESSION
            ? { minima: { vshards: Uint16Array.from(all), lsns: new Float64Array(VSHARDS).fill(lsn) } }
            : {}),
        });
        const expected = asked.map((vshard) => {
          if (snapshot.owners[vshard] === 1) return 0;
          if (consistency === CONSISTENCY.STRONG || !held.includes(vshard)) return REFUSAL.NOT_OWNER;
          const state = copies[vshard];
          if (state === "syncing" || state === "unknown") return REFUSAL.SYNCING;
          const applied = state === "level" ? 10 : state === "behind" ? 9 : 2;
          if (consistency === CONSISTENCY.SESSION && applied < lsn) return REFUSAL.BEHIND;
          return consistency === CONSISTENCY.BOUNDED_STALENESS && state === "old" ? REFUSAL.STALE : 0;
        });
        const refused = new Map(gate.refused.map(({ vshard, reason }) => [vshard, reason]));
        expect(refused).toEqual(new Map(asked.flatMap((v, at) => (expected[at] === 0 ? [] : [[v, expected[at]]]))));
        const accepted = gate.accepted();
        const answered = accepted === undefined ? held : all.filter((vshard) => accepted[vshard] === 1);
        expect(answered).toEqual(asked.filter((_, at) => expected[at] === 0).sort((a, b) => a - b));
        const copiesOf = answered.filter((vshard) => snapshot.owners[vshard] !== 1);
        expect(gate.stalenessMs).toBe(Math.max(0, ...copiesOf.map((vshard) => table.stalenessMs(vshard, 1))));
      },
    ),
    { numRuns: 500 },
  );
});

test("with one copy of everything, whole requests name no vshards", () => {
  const { admit } = bed(1);
  for (const scope of [SCOPE.PRIMARY, SCOPE.HELD])
    expect(admit({ consistency: CONSISTENCY.STRONG, scope }).accepted()).toBeUndefined();
  const own = Uint16Array.of(1, 4, 7);
  expect(admit({ consistency: CONSISTENCY.STRONG, scope: SCOPE.LISTED, vshards: own }).accepted()).toBeUndefined();
});

test("the same set is the same object, and is not changed by the requests in between", () => {
  const { admit } = bed(2);
  const some = (...list: number[]): RoutedRequest => ({
    consistency: CONSISTENCY.STRONG,
    scope: SCOPE.LISTED,
    vshards: Uint16Array.from(list),
  });
  const first = admit(some(1, 4)).accepted();
  const kept = [...(first as Uint8Array)];
  for (let round = 0; round < 20; round++) {
    admit(some(7)).accepted();
    admit({ consistency: CONSISTENCY.STRONG, scope: SCOPE.PRIMARY }).accepted();
    expect(admit(some(4, 1)).accepted()).toBe(first);
  }
  expect([...(first as Uint8Array)]).toEqual(kept);
});

test("refusals of one request stay as they are while the next is looked at", () => {
  const { admit, gate } = bed(2);
  const foreign = { consistency: CONSISTENCY.STRONG, scope: SCOPE.LISTED, vshards: Uint16Array.of(0, 2) } as const;
  const refused = admit(foreign).refused;
  expect(refused).toHaveLength(2);
  admit({ consistency: CONSISTENCY.STRONG, scope: SCOPE.PRIMARY });
  expect(gate.refused).toEqual([]);
  expect(refused).toHaveLength(2);
});

test("counts the age of a sample as staleness", () => {
  const snapshot = createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor: 2 });
  const topology = new LocalTopology(snapshot);
  const clock = createManualClock(1_000);
  const block = createReplicaBlock(snapshot, (shard) => shard === 0);
  const table = new ReplicaTable(block, topology, () => clock.nowMs());
  const gate = new VshardGate(1, topology, table);
  const vshard = snapshot.owners.indexOf(0); // its copy is on shard 1
  const refusedAt = (maxStalenessMs: number): number => {
    const vshards = Uint16Array.of(vshard);
    const request = {
      consistency: CONSISTENCY.BOUNDED_STALENESS,
      scope: SCOPE.LISTED,
      vshards,
      maxStalenessMs,
    } as const;
    const memory = wireMemory(routedRequestBytes(request));
    writeRoutedRequest(memory, 0, request);
    gate.admit(new RoutedReader().open(memory, 0, routedRequestBytes(request)));
    return gate.refused.length;
  };
  table.publishApplied(vshard, 1, 4, 1_000);
  expect(refusedAt(1e9)).toBe(1);
  table.publishSampledHead(vshard, 4, 900);
  expect([refusedAt(99), refusedAt(100)]).toEqual([1, 0]);
  clock.setMs(1_400);
  expect([refusedAt(499), refusedAt(500)]).toEqual([1, 0]);
});

test("shows a session nothing of a former term that the present primary has not confirmed", () => {
  const { snapshot, table, admit } = bed(2, 5);
  const vshard = snapshot.owners.findIndex((owner, at) => owner !== 1 && holdsCopy(snapshot, 1, at));
  const refusalOf = (consistency: RoutedRequest["consistency"]): number | undefined => {
    return admit({ consistency, scope: SCOPE.LISTED, vshards: Uint16Array.of(vshard) }).refused[0]?.reason;
  };
  table.publishApplied(vshard, 1, baseLsn(5) - 3, 0);
  expect(refusalOf(CONSISTENCY.SESSION)).toBe(REFUSAL.BEHIND);
  expect(refusalOf(CONSISTENCY.EVENTUAL)).toBeUndefined();
  table.publishApplied(vshard, 1, baseLsn(5), 0);
  expect(refusalOf(CONSISTENCY.SESSION)).toBeUndefined();
});
