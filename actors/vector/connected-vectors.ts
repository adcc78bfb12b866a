/**
 * The collections of a cluster as a connected thread sees them: handles of its own over what the main thread describes.
 *
 * Invariant: roots are those that the main thread told last; a one-sided read under an older one ends in `REGION_REVOKED`.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { Verbs } from "../../native-bridge/verbs.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { ShardReady } from "../../src/plane/shard-task.ts";
import { ownerOf, vshardOfHash } from "../../src/topology/snapshot.ts";
import type { Coordinator } from "../coordinator.ts";
import { VectorCollection } from "./client-collection.ts";
import type { CollectionDescription } from "./vector-catalog.ts";
import type { VectorCollectionOptions } from "./vector-options.ts";
import { VectorReader } from "./vector-reader.ts";

/** What a connected thread's collections need. */
export interface ConnectedVectorsOptions {
  readonly coordinator: Coordinator;
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly describe: (name: string, options: VectorCollectionOptions | undefined) => Promise<CollectionDescription>;
  readonly assertOpen: () => void;
}

interface Known {
  readonly roots: (RegionRef | undefined)[];
  readonly reader: VectorReader;
  dropped: boolean;
}

/** Collections of one connected thread. */
export class ConnectedVectors {
  readonly #options: ConnectedVectorsOptions;
  readonly #known: Map<number, Known> = new Map();
  readonly #reservations: { tail: Promise<unknown> } = { tail: Promise.resolve() };

  constructor(options: ConnectedVectorsOptions) {
    this.#options = options;
  }

  async open(name: string, options: VectorCollectionOptions | undefined): Promise<VectorCollection> {
    const { assertOpen, describe, coordinator, arena } = this.#options;
    assertOpen();
    const description = await describe(name, options);
    const { collectionId } = description;
    const known = this.#known.get(collectionId) ?? this.#learn(description);
    this.#known.set(collectionId, known);
    return new VectorCollection({
      name,
      collectionId,
      options: description.options,
      coordinator,
      arena,
      reservations: this.#reservations,
      reader: () => known.reader,
      assertOpen: () => {
        assertOpen();
        if (!known.dropped) return;
        throw new ShardloomError(
          "ERR_UNKNOWN_COLLECTION",
          `Cannot use collection ${JSON.stringify(name)} as it was dropped`,
          { details: { name } },
        );
      },
    });
  }

  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    for (const { engine, collection, state } of recovered) {
      const known = engine === "vector" ? this.#known.get(collection) : undefined;
      if (known !== undefined) known.roots[shard] = state as RegionRef;
    }
  }

  dropped(collectionId: number): void {
    const known = this.#known.get(collectionId);
    if (known === undefined) return;
    known.dropped = true;
    known.reader.close();
    this.#known.delete(collectionId);
  }

  /** Gives back the memory that searches work in. */
  close(): void {
    for (const { reader } of this.#known.values()) reader.close();
  }

  #learn({ roots: told, graph, options, elsewhere }: CollectionDescription): Known {
    const { coordinator, arena, kernels } = this.#options;
    const roots = [...told];
    const reader = new VectorReader(arena, new Verbs(arena), kernels, {
      roots: () => roots,
      nowMs: () => coordinator.nowMs(),
      graph: { options, root: () => graph },
      elsewhere: () => elsewhere,
      shardOf: (hash) => {
        const { snapshot } = coordinator;
        return ownerOf(snapshot, vshardOfHash(snapshot, hash));
      },
    });
    return { roots, reader, dropped: false };
  }
}
