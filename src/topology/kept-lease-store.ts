/**
 * The store of leases and the map of a cluster of one node that has a directory: the map is kept in it, leases end with the process.
 *
 * Invariant: a map that anybody was told of is on disk, so that no later life gives out its terms again. Changes are made one after the other.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk } from "../runtime/disk.ts";
import { readCheckedJson, writeCheckedJson } from "../store/checked-json.ts";
import { MAP_KEY } from "./cluster-map.ts";
import { createLocalLeaseStore, type LeaseStore } from "./lease-store.ts";

/** Below the node's directory. */
export const MAP_FILE = "map.json";
const FORMAT = 1;
const TIMEOUT_MS = 1_000;

/**
 * Opens the store of a directory, with the map that the last life has left.
 *
 * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_UNSUPPORTED_FORMAT`, and as disks do.
 */
export async function openKeptLeaseStore(disk: Disk): Promise<LeaseStore> {
  const store = createLocalLeaseStore();
  const left = await readKeptMap(disk);
  if (left !== undefined) await store.put(MAP_KEY, left, 0, TIMEOUT_MS);
  let turn: Promise<unknown> = Promise.resolve();
  const put: LeaseStore["put"] = async (key, value, expectedRevision, timeoutMs) => {
    if (key === MAP_KEY && ((await store.get(key, timeoutMs))?.revision ?? 0) === expectedRevision)
      await write(disk, value);
    return store.put(key, value, expectedRevision, timeoutMs);
  };
  return {
    ...store,
    put: (key, value, ...change) => {
      const kept = value.slice(); // it may wait for its turn
      const done = turn.then(() => put(key, kept, ...change));
      turn = done.catch(() => undefined); // whoever asked has the error
      return done;
    },
  };
}

/** The map of a directory; undefined where it has none. @throws {ShardloomError} As {@link openKeptLeaseStore}. */
export async function readKeptMap(disk: Disk): Promise<Uint8Array | undefined> {
  const left = await readCheckedJson(disk, MAP_FILE, FORMAT);
  return left === undefined ? undefined : bytesOf(left);
}

async function write(disk: Disk, map: Uint8Array): Promise<void> {
  try {
    await writeCheckedJson(disk, MAP_FILE, FORMAT, { map: Buffer.from(map).toString("base64") });
  } catch (cause) {
    // It may be there all the same; nobody is told of it before it is asked for again.
    throw new ShardloomError("ERR_TIMEOUT", "Cannot say of map whether it is kept as its file could not be written", {
      cause,
    });
  }
}

function bytesOf(content: unknown): Uint8Array {
  const { map } = content as { map?: unknown };
  if (typeof map !== "string")
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot open ${MAP_FILE} as it must hold a map: current value is ${String(map)}`,
    );
  return new Uint8Array(Buffer.from(map, "base64"));
}
