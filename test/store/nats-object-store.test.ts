/** The disk over a real nats-server: the suite of all disks, snapshots on it, and servers that are frozen, killed or shared with another writer. */
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { Disk } from "../../src/runtime/disk.ts";
import type { NatsConnection } from "../../src/runtime/nats.ts";
import { openNatsObjects } from "../../src/runtime/nats-objects.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { openNatsDisk } from "../../src/store/nats-object-store.ts";
import { openNewestSnapshot, removeOldSnapshots, SnapshotWriter } from "../../src/store/snapshot-file.ts";
import { diskConformance, fails } from "../conformance/disk.ts";
import { eventually } from "../support/cluster.ts";
import { NatsServer } from "../support/nats-server.ts";

// A server of its own beside everything else that a busy machine does.
vi.setConfig({ testTimeout: 120_000 });
const soon = (what: string, condition: () => boolean | Promise<boolean>): Promise<void> =>
  eventually(what, condition, 60_000);

const CALL_MS = 10_000;
const MIB = 1024 * 1024;

let server: NatsServer;
let connection: NatsConnection;
let stores = 0;

beforeAll(async () => {
  server = await NatsServer.start();
  connection = await server.connect();
});
afterEach(() => server.thaw());
afterAll(() => server[Symbol.asyncDispose]());

const newStore = (): string => `disk-${stores++}`;

function open(store: string, timeoutMs = CALL_MS): Promise<Disk> {
  return openNatsDisk(connection, { store, scheduler: systemScheduler, random: systemRandom, timeoutMs });
}

/** Names of what is in the object store. */
async function objectsIn(store: string): Promise<string[]> {
  const { library } = connection;
  const { Objm } = await import("@nats-io/obj");
  return (await (await new Objm(library).open(store)).list()).map(({ name }) => name);
}

/** All subjects of a store that have messages: names of objects, and pieces. */
async function subjectsIn(store: string): Promise<{ names: string[]; pieces: string[] }> {
  const manager = await jetstreamManager(connection.library);
  const { state } = await manager.streams.info(`OBJ_${store}`, { subjects_filter: ">" });
  const all = Object.keys(state.subjects ?? {});
  const isName = (subject: string): boolean => subject.startsWith(`$O.${store}.M.`);
  return { names: all.filter(isName), pieces: all.filter((subject) => !isName(subject)) };
}

/** Removes messages behind the disk's back, as a server does that loses some of them in a crash. */
async function lose(store: string, filter: string): Promise<void> {
  const manager = await jetstreamManager(connection.library);
  expect((await manager.streams.purge(`OBJ_${store}`, { filter })).purged).toBeGreaterThan(0);
}

/** Bytes that tell where they are. */
function patterned(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * 31 + seed + (at >> 8)) & 255);
}

async function put(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const file = await disk.open(path, "write");
  await file.write(0, bytes);
  await file.sync();
  await file.close();
}

async function get(disk: Disk, path: string): Promise<Uint8Array> {
  const file = await disk.open(path, "read");
  try {
    return await file.read(0, await file.size());
  } finally {
    await file.close();
  }
}

describe("the disk over NATS, as every disk", () => {
  diskConformance(async () => {
    const store = newStore();
    return {
      disk: await open(store),
      run: (work) => work,
      restart: () => open(store),
      close: () => Promise.resolve(),
    };
  });
});

describe("the disk over NATS", () => {
  test("keeps snapshots, gives them to the next process, and removes old ones with all that they took", async () => {
    const store = newStore();
    const disk = await open(store);
    await disk.makeDirectory("snapshots");
    const bodies = [patterned(3 * MIB, 1), patterned(10, 2), patterned(700_000, 3)];
    for (const position of [5, 9, 12]) {
      const writer = await SnapshotWriter.create(disk, "snapshots", position);
      for (const [vshard, body] of bodies.entries()) await writer.write(vshard, { type: 1, collection: 2, body });
      await writer.finish({ endPosition: position + 1, table: patterned(99, position) });
    }
    const unfinished = await SnapshotWriter.create(disk, "snapshots", 20);
    await unfinished.write(0, { type: 1, collection: 2, body: patterned(9 * MIB, 4) });
    expect(await removeOldSnapshots(disk, "snapshots", 1)).toBe(2);
    const later = await open(store);
    const reader = await openNewestSnapshot(later, "snapshots");
    expect([reader?.position, reader?.endPosition, reader?.table]).toEqual([12, 13, patterned(99, 12)]);
    const found: Uint8Array[] = [];
    for await (const { part } of reader?.parts() ?? []) found.push(part.body);
    expect(found.map(({ length }) => length)).toEqual(bodies.map(({ length }) => length));
    expect(found.every((body, at) => Buffer.compare(body, bodies[at] as Uint8Array) === 0)).toBe(true);
    // Whoever writes next removes what was not finished; then nothing is kept but the one snapshot.
    await (await SnapshotWriter.create(later, "snapshots", 21)).abort();
    const size = reader?.bytes ?? 0;
    expect(await objectsIn(store)).toHaveLength(Math.ceil(size / MIB));
  });

  test("has after any end of a process what was synced, and nothing left over of what was not", async () => {
    const store = newStore();
    const disk = await open(store);
    await put(disk, "a", patterned(2 * MIB + 5, 1));
    const file = await disk.open("a", "write");
    await file.write(MIB, patterned(100, 9));
    await file.sync();
    await file.write(0, new Uint8Array(12 * MIB).fill(7)); // more than is held in memory
    const later = await open(store);
    const expected = patterned(2 * MIB + 5, 1);
    expected.set(patterned(100, 9), MIB);
    expect(Buffer.compare(await get(later, "a"), expected)).toBe(0);
    expect(await objectsIn(store)).toHaveLength(3);
  });

  test("has what was synced whatever else was done to names between the write and the sync", async () => {
    const store = newStore();
    const disk = await open(store);
    const file = await disk.open("a", "write");
    await file.write(0, patterned(10, 1));
    await disk.makeDirectory("d");
    await file.write(MIB, patterned(10, 2));
    await Promise.all([disk.rename("a", "d/b"), file.sync(), disk.makeDirectory("e"), disk.open("c", "create")]);
    const bytes = await get(await open(store), "d/b");
    expect([bytes.length, bytes.subarray(0, 10), bytes.subarray(MIB)]).toEqual([
      MIB + 10,
      patterned(10, 1),
      patterned(10, 2),
    ]);
  });

  test("can be changed by who opened it last only", async () => {
    const store = newStore();
    const first = await open(store);
    await put(first, "a", patterned(100, 1));
    const file = await first.open("a", "write");
    const second = await open(store);
    await put(second, "b", patterned(100, 2));
    await file.write(0, patterned(100, 3));
    await fails(file.sync(), "ERR_READ_ONLY");
    await fails(first.remove("a"), "ERR_READ_ONLY");
    await fails(first.open("c", "create"), "ERR_READ_ONLY");
    expect(await first.list("")).toEqual(["a"]);
    expect([await second.list(""), await get(second, "a")]).toEqual([["a", "b"], patterned(100, 1)]);
    const third = await open(store);
    expect([await third.list(""), await get(third, "b")]).toEqual([["a", "b"], patterned(100, 2)]);
  });

  test("gives what its last writer wrote of a file that a former one changes still", async () => {
    const store = newStore();
    const first = await open(store);
    await put(first, "a", patterned(100, 1));
    const file = await first.open("a", "write");
    await file.write(0, patterned(100, 3));
    const second = await open(store);
    await put(second, "a", patterned(100, 2));
    await fails(file.sync(), "ERR_READ_ONLY"); // and has kept its block by then
    for (const disk of [second, await open(store)]) expect(await get(disk, "a")).toEqual(patterned(100, 2));
  });

  test("says of a block whose pieces are gone that it is damaged, as often as it is asked, and gives all others", async () => {
    const store = newStore();
    const disk = await open(store);
    await put(disk, "a", patterned(MIB, 1));
    const [ofA = ""] = (await subjectsIn(store)).pieces;
    await put(disk, "b", patterned(2 * MIB, 2));
    await lose(store, ofA);
    for (const one of [disk, await open(store), await open(store)]) {
      await fails(get(one, "a"), "ERR_CORRUPT");
      expect(Buffer.compare(await get(one, "b"), patterned(2 * MIB, 2))).toBe(0);
    }
    const later = await open(store);
    await later.remove("a");
    await put(later, "a", patterned(10, 4));
    expect(await get(later, "a")).toEqual(patterned(10, 4));
  });

  test("clears no pieces while it does not find all that its files have, and all that they do not have otherwise", async () => {
    const store = newStore();
    const disk = await open(store);
    await put(disk, "a", patterned(100, 1));
    await put(disk, "b", patterned(100, 2));
    const { names, pieces } = await subjectsIn(store);
    expect([names.length, pieces.length]).toEqual([2, 2]);
    const manager = await jetstreamManager(connection.library);
    const name = await manager.streams.getMessage(`OBJ_${store}`, { last_by_subj: names[0] as string });
    const orphan = `$O.${store}.C.orphan`;
    await jetstream(connection.library).publish(orphan, patterned(10, 5));
    await lose(store, names[0] as string);
    await open(store);
    expect((await subjectsIn(store)).pieces.sort()).toEqual([...pieces, orphan].sort());
    await jetstream(connection.library).publish(names[0] as string, name?.data ?? "");
    const later = await open(store);
    expect((await subjectsIn(store)).pieces.sort()).toEqual([...pieces].sort());
    expect([await get(later, "a"), await get(later, "b")]).toEqual([patterned(100, 1), patterned(100, 2)]);
    // No read has left the server anything to look after, and what is removed leaves nothing, not even a mark.
    expect((await manager.streams.info(`OBJ_${store}`)).state.consumer_count).toBe(0);
    await later.remove("a");
    const left = await subjectsIn(store);
    expect([left.names.length, left.pieces.length]).toEqual([1, 1]);
  });

  test("says in time that a frozen server does not answer; then it is what its owner thinks, whatever came late", async () => {
    const store = newStore();
    const disk = await open(store, 300);
    await put(disk, "a", patterned(100, 1));
    const file = await disk.open("a", "write");
    await file.write(0, patterned(100, 2));
    await server.freeze();
    await fails(disk.rename("a", "b"), "ERR_IO");
    await fails(disk.open("c", "create"), "ERR_IO");
    await fails(file.sync(), "ERR_IO");
    expect(await disk.list("")).toEqual(["a"]);
    server.thaw();
    await soon("it can be written to", () =>
      file.sync().then(
        () => true,
        () => false,
      ),
    );
    await disk.makeDirectory("d");
    for (const one of [disk, await open(store)]) {
      expect([await one.list(""), await get(one, "a")]).toEqual([["a", "d"], patterned(100, 2)]);
    }
  });

  test("is there when the server was killed", async () => {
    const store = newStore();
    const disk = await open(store);
    await put(disk, "a", patterned(3 * MIB, 1));
    await server.stop("SIGKILL");
    await server.startAgain();
    await soon("it is connected", () => connection.isConnected);
    await put(disk, "b", patterned(10, 2));
    const later = await open(store);
    expect(Buffer.compare(await get(later, "a"), patterned(3 * MIB, 1))).toBe(0);
    expect(await get(later, "b")).toEqual(patterned(10, 2));
  });

  test("refuses a table that is damaged, and says of a block that is gone that it cannot be read", async () => {
    const store = newStore();
    const disk = await open(store);
    await put(disk, "a", patterned(100, 1));
    const objects = await openNatsObjects(connection, { store }, CALL_MS);
    for (const name of await objectsIn(store)) await objects.remove(name, CALL_MS);
    const later = await open(store);
    await fails(get(later, "a"), "ERR_CORRUPT");
    const { Kvm } = await import("@nats-io/kv");
    const kv = await new Kvm(connection.library).open(`${store}-names`);
    const table = (await kv.get("names"))?.string() ?? "";
    expect(table).toContain('"a"');
    await kv.put("names", table.replace('"a"', '"b"'));
    await expect(open(store)).rejects.toMatchObject({ code: "ERR_CORRUPT" });
    await kv.put("names", "{}");
    await expect(open(store)).rejects.toMatchObject({ code: "ERR_CORRUPT" });
  });
});
