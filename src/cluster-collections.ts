/**
 * The collections of a cluster, of all engines: what its workers take over and give back, and what a directory has of them.
 *
 * Of several nodes each tells the others of its vectors and texts, and takes what they tell; a graph lies on one node.
 *
 * Invariant: all catalogs see the same workers and the same directory; what a worker recovers is told to all, and each takes its own.
 */
import { GraphCatalog } from "../actors/graph/graph-catalog.ts";
import { TextCatalog } from "../actors/text/text-catalog.ts";
import { VectorCatalog, type VectorCatalogOptions } from "../actors/vector/vector-catalog.ts";
import type { OtherNodes } from "./cluster-nodes.ts";
import type { CollectionHolder, CollectionNews } from "./plane/collection-exchange.ts";
import type { RecoverTask, ShardReady } from "./plane/shard-task.ts";

/** What the catalogs of a cluster are made from. */
export interface ClusterCollectionsOptions extends Omit<VectorCatalogOptions, "others"> {
  readonly others: OtherNodes | undefined;
}

/** The catalogs of one cluster. */
export class ClusterCollections implements CollectionHolder {
  readonly vectors: VectorCatalog;
  readonly texts: TextCatalog;
  readonly graphs: GraphCatalog;
  /** Shards that have no worker any more, and get none. */
  readonly #givenUp: Set<number> = new Set();

  constructor(parts: ClusterCollectionsOptions) {
    const { coordinator, ownShards, assertOpen, store, onDropped, memory } = parts;
    const others = parts.others?.exchange(this);
    const isGivenUp = (shard: number): boolean => this.isGivenUp(shard);
    this.vectors = new VectorCatalog({ ...parts, isGivenUp, others });
    const own = ownShards === undefined ? { isGivenUp } : { isGivenUp, ownShards };
    this.texts = new TextCatalog({ coordinator, assertOpen, store, others, ...own });
    this.graphs = new GraphCatalog({
      coordinator,
      assertOpen,
      arena: memory.arena,
      ...own,
      ...(onDropped === undefined ? {} : { onDropped }),
    });
  }

  /** Names of the open collections. */
  names(): string[] {
    return [...this.vectors.names(), ...this.texts.names(), ...this.graphs.names()];
  }

  news(): CollectionNews[] {
    return [...this.vectors.news(), ...this.texts.news()];
  }

  /** Of an engine that this version does not have nothing is taken. */
  async learn(news: CollectionNews): Promise<void> {
    const learner = [this.vectors, this.texts].find(({ engine }) => engine === news.engine);
    await learner?.learn(news);
  }

  /** What the next worker of a shard must take over. */
  recoverTasks(shard: number): RecoverTask[] {
    const catalogs = [this.vectors, this.texts, this.graphs];
    return catalogs.flatMap((catalog) => catalog.recoverTasks(shard));
  }

  /** Takes what a worker has recovered. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    this.vectors.recovered(shard, recovered);
    this.texts.recovered(shard, recovered);
    this.graphs.recovered(shard, recovered);
  }

  /** A shard has no worker any more, and gets none. */
  shardDown(shard: number): void {
    this.#givenUp.add(shard);
  }

  isGivenUp(shard: number): boolean {
    return this.#givenUp.has(shard);
  }

  /** Opens what the directory has, once the first workers serve. @param ready What those of the shards told, in their order */
  async reopen(shards: readonly number[], ready: readonly ShardReady[]): Promise<void> {
    for (const [at, shard] of shards.entries()) this.recovered(shard, ready[at]?.recovered ?? []);
    await this.vectors.reopen();
    await this.texts.reopen();
  }
}
