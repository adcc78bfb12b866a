/**
 * The engines of one shard, made together, as they share what a dead worker left.
 *
 * Invariant: of the regions of a dead worker each engine takes out what its collections had; the last one frees the rest. So
 * nothing is freed that another engine would have taken, and nothing is left over.
 */
import type { RecoverTask, ShardReady } from "../src/plane/shard-task.ts";
import type { Adopted } from "../src/store/collection-root.ts";
import type { Engine, EngineContext } from "./engine.ts";
import { createTextEngine, loadLanguages, type TextRecovery } from "./text/text-engine.ts";
import { createVectorEngine, type VectorRecovery } from "./vector/vector-engine.ts";

export interface ShardEngines {
  readonly all: readonly Engine[];
  /** Roots of all collections, as a worker tells them when it is ready. */
  readonly recovered: ShardReady["recovered"];
  /** One slice of background work of all engines; true when more is left. */
  background(budgetMs: number): boolean;
  close(): void;
}

/** @param recover What the shard's previous worker had; undefined for the first worker. */
export async function createShardEngines(
  context: EngineContext,
  recover: readonly RecoverTask[] | undefined,
): Promise<ShardEngines> {
  const { regions, workerIndex } = context;
  const states = (engine: string): unknown =>
    recover?.filter((task) => task.engine === engine).map(({ state }) => state);
  const adopted: Adopted | undefined =
    recover && new Map(regions.adopt(workerIndex, workerIndex).map((region) => [region.address, region]));
  const recoverTexts = adopted && { collections: states("text") as TextRecovery["collections"], adopted };
  if (recoverTexts !== undefined) await loadLanguages(recoverTexts);
  const texts = createTextEngine(context, recoverTexts);
  const vectors = createVectorEngine(
    context,
    adopted && { collections: states("vector") as VectorRecovery["collections"], adopted: [...adopted.values()] },
  );
  const all = [vectors, texts];
  const rootsOf = (engine: string, roots: ReadonlyMap<number, unknown>): ShardReady["recovered"] =>
    [...roots].map(([collection, state]) => ({ engine, collection, state }));
  return {
    all,
    recovered: [...rootsOf("vector", vectors.roots()), ...rootsOf("text", texts.roots())],
    background(budgetMs) {
      let more = false;
      for (const engine of all) more = (engine.background?.(budgetMs / all.length) ?? false) || more;
      return more;
    },
    close() {
      for (const engine of all) engine.close();
    },
  };
}
