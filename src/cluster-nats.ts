/**
 * A node's own part of a place in NATS: who has it open, what its node is, its collections and its map; what shards keep is theirs (nats-shard.ts).
 *
 * ```
 *  bucket  STORE-owners       who has each node's part open, see owner-lease.ts
 *  disk    STORE-node-NAME    as a node's directory: shardloom.json, collections.json, map.json
 * ```
 *
 * Invariant: nothing of a part is opened while another process renews its lease of it.
 */
import type { Disk } from "./runtime/disk.ts";
import type { Runtime } from "./runtime/runtime.ts";
import { openNatsDisk } from "./store/nats-object-store.ts";
import { connectTo, type NatsPlace } from "./store/nats-shard.ts";
import type { LeaseWords } from "./topology/lease-words.ts";
import { createNatsLeaseStore } from "./topology/nats-lease-store.ts";
import { OwnerLease } from "./topology/owner-lease.ts";

/** A node's part of a place. */
export interface OpenNatsNode {
  readonly disk: Disk;
  /** From now on workers serve strong reads and writes only while this process has the part. */
  guard(words: LeaseWords): void;
  /** Gives it free; harmless a second time. */
  close(): Promise<void>;
}

/**
 * Opens a node's part.
 *
 * @throws {ShardloomError} `ERR_DIRECTORY_IN_USE`; `ERR_UNAVAILABLE` when no server answers, or has no JetStream; `ERR_TIMEOUT`; and as disks do.
 */
export async function openNatsNode(
  nats: NatsPlace,
  node: string,
  leaseMs: number,
  runtime: Runtime,
): Promise<OpenNatsNode> {
  const { store, replicas, timeoutMs } = nats;
  const { scheduler, random, clock } = runtime;
  const connection = await connectTo(nats, `${store}-node-${node}`, runtime);
  let owner: OwnerLease | undefined;
  try {
    const bucket = `${store}-owners`;
    const leases = await createNatsLeaseStore(connection, { bucket, replicas, scheduler, timeoutMs });
    owner = await OwnerLease.take({ store: leases, clock, scheduler, random, node, place: `store ${store}`, leaseMs });
    const name = node.replaceAll(/[^\w-]/g, (other) => `_${other.charCodeAt(0).toString(16)}_`);
    const disk = await openNatsDisk(connection, {
      store: `${store}-node-${name}`,
      scheduler,
      random,
      replicas,
      timeoutMs,
    });
    const held = owner;
    return {
      disk,
      guard: (words) => held.guard(words),
      close: async () => {
        await held.close();
        await connection.close();
      },
    };
  } catch (error) {
    await owner?.close().catch(() => undefined); // the first error says more
    await connection.close();
    throw error;
  }
}
