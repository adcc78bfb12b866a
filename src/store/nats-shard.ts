/**
 * What a shard keeps in NATS: its log in a stream, and in the object store a disk of its own with its snapshots and marks.
 *
 * ```
 *  stream  STORE-shard-3-log-1       frames, see nats-log.ts
 *  disk    STORE-shard-3             see nats-object-store.ts
 *            shards/3/log/1.stream   empty: which stream is the log; the highest number counts
 *            shards/3/…              as in a directory, see durable-state.ts
 * ```
 *
 * Invariant: a stream is used after its mark is kept, so a mark that is put aside takes its stream out of use, and no other log gets its name.
 * Opening ends whoever had the shard open before: first his disk, then his log.
 */
import { ShardloomError } from "../errors.ts";
import { type Disk, listIfThere } from "../runtime/disk.ts";
import { connectNats, type NatsConnection, type NatsOptions } from "../runtime/nats.ts";
import { type Patience, patiently } from "../runtime/patience.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { type KeptLog, LostLog } from "./kept-log.ts";
import { NatsLog } from "./nats-log.ts";
import { openNatsDisk } from "./nats-object-store.ts";

/** Where a cluster's nodes keep their shards, and who they are to the servers. Plain data: it goes to other threads. */
export interface NatsPlace extends Pick<NatsOptions, "servers" | "user" | "password" | "token" | "tls"> {
  /** What all names begin with: letters, digits, `-` and `_`. */
  readonly store: string;
  /** Servers that keep each message and object: 1, 3 or 5. */
  readonly replicas: number;
  /** For one call to the servers, in ms. */
  readonly timeoutMs: number;
}

/** A shard's part of a place, open. */
export interface NatsShard {
  readonly disk: Disk;
  /** @param begun Whether the log has had frames: then an empty stream is damage. */
  openLog(begun: boolean): Promise<KeptLog>;
  /** Ends the connection. Log and disk must not be used any more. */
  close(): Promise<void>;
}

/** How long a worker that starts while no server answers tries again. */
const PATIENCE_MS = 20_000;
const PATIENCE: Patience = { limitMs: PATIENCE_MS };
const STREAM_MARK = /^(\d+)\.stream$/;

/**
 * Opens what a shard keeps, with a connection of its own.
 *
 * @throws {ShardloomError} `ERR_UNAVAILABLE`, `ERR_TIMEOUT`, `ERR_IO` after {@link PATIENCE_MS}; `ERR_CORRUPT`, `ERR_UNSUPPORTED_FORMAT`.
 */
export async function openNatsShard(place: NatsPlace, shard: number, runtime: Runtime): Promise<NatsShard> {
  const store = `${place.store}-shard-${shard}`;
  const connection = await patiently(runtime, PATIENCE, () => connectTo(place, store, runtime));
  try {
    const { replicas, timeoutMs } = place;
    const { scheduler, random } = runtime;
    const disk = await patiently(runtime, PATIENCE, () =>
      openNatsDisk(connection, { store, scheduler, random, replicas, timeoutMs }),
    );
    return {
      disk,
      openLog: async (begun) => {
        const number = await streamOf(disk, shard);
        return patiently(runtime, PATIENCE, () => openLog(connection, `${store}-log-${number}`, begun, place, runtime));
      },
      close: () => connection.close(),
    };
  } catch (error) {
    await connection.close();
    throw error;
  }
}

/** Connects to where a place is. @throws {ShardloomError} As `connectNats`. */
export function connectTo(place: NatsPlace, name: string, { scheduler }: Runtime): Promise<NatsConnection> {
  const { servers, user, password, token, tls } = place;
  return connectNats({
    servers,
    scheduler,
    name,
    ...(user === undefined ? {} : { user }),
    ...(password === undefined ? {} : { password }),
    ...(token === undefined ? {} : { token }),
    ...(tls === undefined ? {} : { tls }),
  });
}

async function openLog(
  connection: NatsConnection,
  name: string,
  begun: boolean,
  { replicas, timeoutMs }: NatsPlace,
  { scheduler, random }: Runtime,
): Promise<KeptLog> {
  const stream = await connection.openStream({ name, replicas }, timeoutMs);
  try {
    return await NatsLog.open(stream, { scheduler, random, timeoutMs, begun });
  } catch (error) {
    if (!ShardloomError.is(error) || error.code !== "ERR_CORRUPT") throw error;
    return new LostLog(error);
  }
}

/** Number of the stream that is a shard's log; a new one where none is. */
async function streamOf(disk: Disk, shard: number): Promise<number> {
  const directory = `shards/${shard}/log`;
  const numbers = async (where: string): Promise<number[]> =>
    (await listIfThere(disk, where)).flatMap((name) => Number(STREAM_MARK.exec(name)?.[1] ?? []));
  const current = Math.max(0, ...(await numbers(directory)));
  if (current > 0) return current;
  const next = 1 + Math.max(0, ...(await numbers(`shards/${shard}/damaged`)));
  const mark = await disk.open(`${directory}/${next}.stream`, "write");
  await mark.close();
  await disk.syncDirectory(directory);
  return next;
}
