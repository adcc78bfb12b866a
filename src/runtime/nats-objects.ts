/**
 * Objects in NATS' object store: named bytes that are put, read and removed whole.
 *
 * Invariant: as for every call of nats.ts. What {@link NatsObjects.get} gives is what was put, by its digest. An object that was put under a new
 * name is never changed here; of a put that failed pieces may be left, until {@link NatsObjectsSurvey.sweep} removes them.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { foreign, type NatsConnection } from "./nats.ts";

export interface NatsObjectsOptions {
  /** Letters, digits, `-` and `_`. */
  readonly store: string;
  /** Servers that keep it: 1, 3 or 5. Only counts when it is made. @default 1 */
  readonly replicas?: number;
}

/** What a store had when it was looked at: objects, and pieces of some that are not whole. */
export interface NatsObjectsSurvey {
  /** Removes what was there then and is not to be kept. What came later stays. @returns how many objects went */
  sweep(isKept: (name: string) => boolean, timeoutMs: number): Promise<number>;
}

export interface NatsObjects {
  put(name: string, bytes: Uint8Array, timeoutMs: number): Promise<void>;
  /** Undefined: there is none of that name. */
  get(name: string, timeoutMs: number): Promise<Uint8Array | undefined>;
  /** Nothing when there is none of that name. */
  remove(name: string, timeoutMs: number): Promise<void>;
  /** What there is now, so that what nobody needs of it can be removed later. */
  survey(timeoutMs: number): Promise<NatsObjectsSurvey>;
}

/** Bytes of a message that is a piece of an object. */
const PIECE_BYTES: number = 256 * 1024;

/** Opens a store, and makes it when it is missing. @throws {ShardloomError} As calls do. */
export async function openNatsObjects(
  connection: NatsConnection,
  { store, replicas = 1 }: NatsObjectsOptions,
  timeoutMs: number,
): Promise<NatsObjects> {
  const call = <T>(what: string, changes: boolean, limitMs: number, run: () => Promise<T>): Promise<T> =>
    connection.call({ what: `${what} object store ${store}`, changes, timeoutMs: limitMs }, run);
  const manager = await jetstreamManager(connection.library, { checkAPI: false, timeout: timeoutMs });
  const objects = await call("open", false, timeoutMs, () => new Objm(connection.library).create(store, { replicas }));
  if ((await call("look at", false, timeoutMs, () => objects.status())).ttl > 0) throw foreign("object store", store);
  const stream = `OBJ_${store}`;
  const pieces = `$O.${store}.C.`;
  const remove = async (name: string, limitMs: number): Promise<void> => {
    await call("remove from", true, limitMs, () => objects.delete(name));
  };
  return {
    put: async (name, bytes, limitMs) => {
      const meta = { name, options: { max_chunk_size: PIECE_BYTES } };
      await call("write to", true, limitMs, () => objects.putBlob(meta, bytes, { timeout: limitMs }));
    },
    get: async (name, limitMs) => {
      const found = await call("read", false, limitMs, () => objects.getBlob(name));
      return found === null ? undefined : found;
    },
    remove,
    survey: async (limitMs) => {
      const { state } = await call("look at", false, limitMs, () =>
        manager.streams.info(stream, { subjects_filter: `${pieces}>` }),
      );
      const subjects = Object.keys(state.subjects ?? {});
      const before = await call("list", false, limitMs, () => objects.list());
      return {
        sweep: async (isKept, sweepMs) => {
          const gone = before.filter(({ name }) => !isKept(name));
          for (const { name } of gone) await remove(name, sweepMs);
          // Of those that are kept some may have become whole meanwhile.
          const now = await call("list", false, sweepMs, () => objects.list());
          // A list that lacks what was there before is not whole: what it does not name may be kept all the same.
          const listed = new Set(now.map(({ name }) => name));
          if (before.some(({ name }) => isKept(name) && !listed.has(name))) return gone.length;
          const kept = new Set(now.filter(({ name }) => isKept(name)).map(({ nuid }) => pieces + nuid));
          for (const filter of subjects)
            if (!kept.has(filter)) await call("clear", true, sweepMs, () => manager.streams.purge(stream, { filter }));
          return gone.length;
        },
      };
    },
  };
}
