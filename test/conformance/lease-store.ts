/** What every lease store does, without faults: the suite of the {@link LeaseStore} interface. */
import { expect, test } from "vitest";
import { createManualClock } from "../../src/runtime/clock.ts";
import { MAP_KEY } from "../../src/topology/cluster-map.ts";
import { decodeLease, HeldLease, leaseKey, takeLease } from "../../src/topology/lease.ts";
import type { LeaseStore } from "../../src/topology/lease-store.ts";
import { fails } from "./disk.ts";

export interface LeaseStoreUnderTest {
  readonly store: LeaseStore;
  /** Resolves as the work does. */
  run<T>(work: Promise<T>): Promise<T>;
  /** The same content for a process that comes later; all of it, or only the map. */
  again(): Promise<LeaseStore>;
  readonly keeps: "all" | "map";
  close(): Promise<void>;
}

const TIMEOUT_MS = 5_000;
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

/** Declares the tests. */
export function leaseStoreConformance(create: () => Promise<LeaseStoreUnderTest>): void {
  /** One test on an empty store. */
  const check = (name: string, body: (store: LeaseStore, given: LeaseStoreUnderTest) => Promise<void>): void =>
    test(name, async () => {
      const given = await create();
      try {
        await given.run(body(given.store, given));
      } finally {
        await given.close();
      }
    });
  const put = (store: LeaseStore, key: string, value: Uint8Array, expected: number): Promise<number> =>
    store.put(key, value, expected, TIMEOUT_MS);
  const get = (store: LeaseStore, key: string): ReturnType<LeaseStore["get"]> => store.get(key, TIMEOUT_MS);

  check("has nothing at first, then what was put last, under a higher revision", async (store) => {
    expect(await get(store, "a")).toBeUndefined();
    const first = await put(store, "a", bytes(1), 0);
    expect(first).toBeGreaterThan(0);
    expect(await get(store, "a")).toEqual({ value: bytes(1), revision: first });
    const second = await put(store, "a", bytes(2, 3), first);
    expect(second).toBeGreaterThan(first);
    expect(await get(store, "a")).toEqual({ value: bytes(2, 3), revision: second });
    expect(await get(store, "b")).toBeUndefined();
    const empty = await put(store, "b", bytes(), 0);
    expect(await get(store, "b")).toEqual({ value: bytes(), revision: empty });
  });

  check("refuses a change from another revision than the last, and then has changed nothing", async (store) => {
    const first = await put(store, "a", bytes(1), 0);
    const second = await put(store, "a", bytes(2), first);
    for (const expected of [0, first, second + 1]) await fails(put(store, "a", bytes(9), expected), "ERR_STALE_EPOCH");
    await fails(put(store, "b", bytes(9), second), "ERR_STALE_EPOCH");
    expect(await get(store, "a")).toEqual({ value: bytes(2), revision: second });
    expect(await get(store, "b")).toBeUndefined();
  });

  check("lets one of many change a key", async (store) => {
    for (let round = 0, revision = 0; round < 10; round++) {
      const outcomes = await Promise.allSettled(
        Array.from({ length: 8 }, (_, at) => put(store, "a", bytes(round, at), revision)),
      );
      const won = outcomes.flatMap((outcome, at) => (outcome.status === "fulfilled" ? [{ at, ...outcome }] : []));
      expect(won).toHaveLength(1);
      for (const outcome of outcomes)
        if (outcome.status === "rejected") expect(outcome.reason).toMatchObject({ code: "ERR_STALE_EPOCH" });
      revision = won[0]?.value ?? 0;
      expect(await get(store, "a")).toEqual({ value: bytes(round, won[0]?.at ?? -1), revision });
    }
  });

  check("keeps what it was given, whoever writes to those bytes later", async (store) => {
    const given = bytes(1, 2, 3);
    const putting = put(store, "a", given, 0);
    given.fill(9);
    await putting;
    expect((await get(store, "a"))?.value).toEqual(bytes(1, 2, 3));
  });

  check("takes any text for a key", async (store) => {
    const keys = ["node/a", "node/a.b", ".", "a..b", "*", ">", "a b", "ø/ß=2e", "=2e", "node/", "\n", "x".repeat(100)];
    const revisions = await Promise.all(keys.map((key, at) => put(store, key, bytes(at), 0)));
    for (const [at, key] of keys.entries())
      expect(await get(store, key)).toEqual({ value: bytes(at), revision: revisions[at] });
  });

  check("tells of each key what it is, and of its changes, until that is ended", async (store) => {
    await put(store, "a.1", bytes(1), 0);
    const told = new Map<string, { value: Uint8Array; revision: number }>();
    const end = store.watch?.((key, entry) => void told.set(key, entry));
    await settled(store, () => told.has("a.1"));
    const revision = await put(store, "ø", bytes(2), 0);
    await settled(store, () => told.get("ø")?.revision === revision);
    expect(told.get("ø")).toEqual({ value: bytes(2), revision });
    end?.();
    await put(store, "c", bytes(3), 0);
    for (let call = 0; call < 20; call++) await get(store, "c");
    expect(told.has("c")).toBe(false);
  });

  check("is there for who comes later", async (store, { again, keeps }) => {
    let revision = 0;
    for (const value of [1, 2, 3]) revision = await put(store, MAP_KEY, bytes(value), revision);
    await put(store, "a", bytes(7), 0);
    const later = await again();
    const map = await get(later, MAP_KEY);
    expect(map?.value).toEqual(bytes(3));
    expect((await get(later, "a"))?.value).toEqual(keeps === "all" ? bytes(7) : undefined);
    expect(await put(later, MAP_KEY, bytes(4), map?.revision ?? 0)).toBeGreaterThan(map?.revision ?? 0);
  });

  check("holds leases: renewed by who has one, lost when it was taken", async (store) => {
    const clock = createManualClock(1_000);
    const lease = new HeldLease({ store, clock, node: "n.1", incarnation: 1, leaseMs: 10_000 });
    expect([await lease.acquire(), await lease.renew(), lease.untilMs]).toEqual([true, "held", 11_000]);
    const entry = await get(store, leaseKey("n.1"));
    const taken = await Promise.all(["b", "c"].map((by) => takeLease(store, "n.1", entry, by, TIMEOUT_MS)));
    expect(taken.filter((outcome) => outcome !== undefined)).toEqual([{ leaseEpoch: 2 }]);
    expect(await lease.renew()).toBe("lost");
    const value = decodeLease((await get(store, leaseKey("n.1")))?.value ?? bytes());
    expect(value?.takenBy).toBe(taken[0] === undefined ? "c" : "b");
    expect([await lease.acquire(), lease.leaseEpoch]).toEqual([true, 3]);
  });
}

/** Waits by calling the store: a simulated one has its time from that. */
async function settled(store: LeaseStore, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error("a watch told nothing within 10 s");
    await store.get("nothing", TIMEOUT_MS);
  }
}
