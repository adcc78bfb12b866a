/**
 * What the copies on one shard hold, as hashes: for `cluster.audit()`, and for backups, which must say what they hold.
 *
 * Invariant: LSN and hash of a vshard are of one moment, as both are taken in one turn in which nothing else runs. A copy that is being filled,
 * or has never been filled, has no content that an LSN could name, and is told with LSN -1.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import { nextTurn, type Scheduler } from "../../src/runtime/scheduler.ts";
import type { VshardContent } from "../../src/store/backup-manifest.ts";
import type { ReplicaTable } from "../../src/topology/replica-table.ts";
import { holdsCopy } from "../../src/topology/snapshot.ts";
import type { TopologySource } from "../../src/topology/topology-source.ts";
import type { ReplicatedEngine } from "../engine.ts";

/** What an audit looks at. */
export interface AuditOptions {
  readonly shard: number;
  readonly topology: TopologySource;
  readonly table: ReplicaTable;
  readonly engines: readonly ReplicatedEngine[];
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/** Rounds over what changed meanwhile, before the rest is taken at once. */
const ROUNDS = 3;
/** How long the thread may be held for what still changes, in ms. */
const AT_ONCE_MS = 200;

/** Copies of the shard, each as of some moment since the call. The thread serves in between. */
export async function auditShard(options: AuditOptions, vshards?: readonly number[]): Promise<VshardContent[]> {
  const contents: VshardContent[] = [];
  for (const vshard of vshards ?? heldBy(options)) {
    const content = contentOf(options, vshard);
    if (content !== undefined) contents.push(content);
    await nextTurn(options.scheduler);
  }
  return contents;
}

/**
 * Every copy of the shard, all as of one moment: that at which `mark` is called. What changes too fast to be hashed in a bounded time is missing.
 *
 * @param mark Called in the turn in which everything holds, to note where the log is.
 */
export async function auditAtOnce<T>(
  options: AuditOptions,
  mark: () => T,
): Promise<{ readonly mark: T; readonly contents: readonly VshardContent[] }> {
  const { clock, scheduler } = options;
  const known = new Map<number, { readonly content: VshardContent; readonly tookMs: number }>();
  const hash = (vshard: number): void => {
    const startMs = clock.nowMs();
    const content = contentOf(options, vshard);
    if (content === undefined) known.delete(vshard);
    else known.set(vshard, { content, tookMs: clock.nowMs() - startMs });
  };
  const stale = (): number[] =>
    heldBy(options).filter((vshard) => known.get(vshard)?.content.lsn !== lsnOf(options, vshard));
  for (let round = 0; round < ROUNDS; round++) {
    for (const vshard of stale()) {
      hash(vshard);
      await nextTurn(scheduler);
    }
  }
  let leftMs = AT_ONCE_MS;
  for (const vshard of stale()) {
    leftMs -= known.get(vshard)?.tookMs ?? 0;
    if (leftMs > 0) hash(vshard);
    else known.delete(vshard);
  }
  const contents = [...known.values()].map(({ content }) => content).filter(({ lsn }) => lsn >= 0);
  return { mark: mark(), contents: contents.sort((one, other) => one.vshard - other.vshard) };
}

function heldBy({ shard, topology }: AuditOptions): number[] {
  const snapshot = topology.current();
  return Array.from({ length: snapshot.vshards }, (_, vshard) => vshard).filter((vshard) =>
    holdsCopy(snapshot, shard, vshard),
  );
}

function contentOf(options: AuditOptions, vshard: number): VshardContent | undefined {
  const { shard, topology, engines } = options;
  const snapshot = topology.current();
  if (!holdsCopy(snapshot, shard, vshard)) return undefined; // the map has changed
  let hash = 0n;
  for (const engine of engines) {
    if (engine.contentHash === undefined)
      throw new ShardloomError("ERR_UNAVAILABLE", `Cannot audit shard ${shard} as one of its engines cannot hash`);
    // Two engines that hold the same must not cancel each other out.
    hash = BigInt.asUintN(64, hash * 0x9e3779b97f4a7c15n + engine.contentHash(vshard));
  }
  const role = snapshot.owners[vshard] === shard ? "primary" : "replica";
  return { vshard, lsn: lsnOf(options, vshard), hash: hash.toString(16).padStart(16, "0"), role };
}

/** Where a vshard has one copy only, nobody may count its writes: then there is no other LSN to tell it from. */
function lsnOf({ shard, topology, table }: AuditOptions, vshard: number): number {
  const { owners, replicationFactor } = topology.current();
  if (owners[vshard] !== shard) return table.appliedLsn(vshard, shard);
  return replicationFactor === 1 ? Math.max(0, table.ownHead(vshard)) : table.ownHead(vshard);
}
