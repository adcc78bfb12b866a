/**
 * The engines of one shard, made together, as they share what a dead worker left.
 *
 * Invariant: of the regions of a dead worker each engine takes out what its collections had; the last one frees the rest. So
 * nothing is freed that another engine would have taken, and nothing is left over.
 */
import type { TaskBoard } from "../native-bridge/task-board.ts";
import type { RecoverTask, ShardReady, StoredCollection } from "../src/plane/shard-task.ts";
import { type Adopted, CollectionRoot } from "../src/store/collection-root.ts";
import type { Engine, EngineContext, IndexStorage, LoadedIndex, PeerWorker, ReplicatedEngine } from "./engine.ts";
import { createGraphEngine, type GraphParts, type GraphRecovery } from "./graph/graph-engine.ts";
import { createMemoryEngine } from "./memory-engine.ts";
import { createIdempotencyEngine } from "./replication/idempotency-engine.ts";
import type { IdempotencyTable } from "./replication/idempotency-table.ts";
import { createTextEngine, loadLanguages, type TextRecovery } from "./text/text-engine.ts";
import { createCotraEngine } from "./vector/cotra/cotra-engine.ts";
import { createVectorEngine, type VectorRecovery } from "./vector/vector-engine.ts";

/** What engines need of their worker besides their context. */
export interface EngineParts extends GraphParts {
  /** Where the worker offers work to others. @default nobody takes its work over */
  readonly board?: TaskBoard;
}

export interface ShardEngines {
  readonly all: readonly Engine[];
  /** Keys of the writes that were done. */
  readonly keys: IdempotencyTable;
  /** Roots of all collections, as a worker tells them when it is ready. */
  readonly recovered: ShardReady["recovered"];
  /** One slice of background work of all engines; true when more is left. */
  background(budgetMs: number): boolean;
  /** A turn of all engines that work by messages between shards, see `Engine`; and when the next is due. */
  turn(nowMs: number): boolean;
  dueAtMs(): number;
  peerLost(shard: number): void;
  peerBack(shard: number, there: PeerWorker | undefined): void;
  /** Saves, or loads, what the engines have derived: see `Engine`. */
  saveIndexes(storage: IndexStorage): Promise<void>;
  loadIndexes(storage: IndexStorage): Promise<readonly LoadedIndex[]>;
  close(): void;
}

/** Frees what a worker left that died before anybody could have been told of it. */
export function dropShardMemory({ arena, regions, workerIndex }: EngineContext): void {
  const left = regions.adopt(workerIndex, workerIndex);
  CollectionRoot.dropUnclaimed(arena, regions, new Map(left.map((region) => [region.address, region])));
}

/**
 * @param recover What the shard's previous worker had; undefined for the first worker.
 * @param restore Collections of the node's directory: those that nothing was recovered of are opened, empty.
 * @param parts What engines need of the thread besides. @default no peers and no programs
 */
export async function createShardEngines(
  context: EngineContext,
  recover: readonly RecoverTask[] | undefined,
  restore: readonly StoredCollection[] = [],
  parts: EngineParts = { requester: () => undefined, programs: new Map() },
): Promise<ShardEngines> {
  const { regions, workerIndex } = context;
  const states = (engine: string): unknown =>
    recover?.filter((task) => task.engine === engine).map(({ state }) => state);
  const adopted: Adopted | undefined =
    recover && new Map(regions.adopt(workerIndex, workerIndex).map((region) => [region.address, region]));
  const rows: ReplicatedEngine[] = [];
  const keys = createIdempotencyEngine(context, () => rows, adopted);
  const recoverTexts = adopted && { collections: states("text") as TextRecovery["collections"], adopted };
  await loadLanguages(recoverTexts?.collections ?? []);
  await loadLanguages(restore.filter(({ engine }) => engine === "text"));
  const texts = createTextEngine(context, recoverTexts);
  const recoverGraphs = adopted && { collections: states("graph") as GraphRecovery["collections"], adopted };
  const graphs = createGraphEngine(context, parts, recoverGraphs);
  const vectors = createVectorEngine(
    context,
    adopted && { collections: states("vector") as VectorRecovery["collections"], adopted: [...adopted.values()] },
  );
  rows.push(vectors.replicated, texts.replicated);
  keys.redo();
  const { arena, kernels, nowMs, randomU32 } = context;
  const cotra = createCotraEngine({
    ...{ self: workerIndex, arena, kernels, nowMs, randomU32, sender: parts.requester, board: parts.board },
    graphOf: (collection) => vectors.graphOf(collection),
  });
  const all: readonly Engine[] = [vectors, texts, graphs, keys, cotra, createMemoryEngine(context)];
  for (const { engine, collection, options } of restore)
    (engine === "text" ? texts : vectors).open?.(collection, options);
  const working = all.filter(({ background }) => background !== undefined);
  const rootsOf = (engine: string, roots: ReadonlyMap<number, unknown>): ShardReady["recovered"] =>
    [...roots].map(([collection, state]) => ({ engine, collection, state }));
  return {
    all,
    keys: keys.table,
    recovered: [
      ...rootsOf("vector", vectors.roots()),
      ...rootsOf("text", texts.roots()),
      ...rootsOf("graph", graphs.roots()),
    ],
    background(budgetMs) {
      let more = false;
      for (const engine of working) more = (engine.background?.(budgetMs / working.length) ?? false) || more;
      return more;
    },
    turn(now) {
      const worked = cotra.turn?.(now) ?? false;
      return (graphs.turn?.(now) ?? false) || worked;
    },
    dueAtMs() {
      const due = graphs.dueAtMs?.() ?? Number.POSITIVE_INFINITY;
      return Math.min(due, cotra.dueAtMs?.() ?? Number.POSITIVE_INFINITY);
    },
    peerLost(shard) {
      for (const engine of all) engine.peerLost?.(shard);
    },
    peerBack(shard, there) {
      for (const engine of all) engine.peerBack?.(shard, there);
    },
    async saveIndexes(storage) {
      for (const engine of all) await engine.saveIndexes?.(storage);
    },
    async loadIndexes(storage) {
      const loaded: LoadedIndex[] = [];
      for (const engine of all) loaded.push(...((await engine.loadIndexes?.(storage)) ?? []));
      return loaded;
    },
    close() {
      for (const engine of all) engine.close();
    },
  };
}
