/**
 * The graphs that a thread other than the cluster's main one has open.
 *
 * Invariant: handles know the roots of the present workers, as the main thread tells them, and a graph that was dropped is refused.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { ShardReady } from "../../src/plane/shard-task.ts";
import type { Coordinator } from "../coordinator.ts";
import { Graph } from "./client-graph.ts";
import type { KeptGraph } from "./graph-engine.ts";
import type { GraphOptions } from "./graph-options.ts";

/** A graph as another thread needs to know it. */
export interface GraphDescription {
  readonly collection: number;
  readonly options: KeptGraph;
  /** By shard of the cluster. */
  readonly roots: readonly (RegionRef | undefined)[];
}

/** What the graphs of a thread are made of. */
export interface ConnectedGraphsParts {
  readonly coordinator: Coordinator;
  readonly describe: (name: string, options: GraphOptions | undefined) => Promise<GraphDescription>;
  /** Throws when the cluster was closed. */
  readonly assertOpen: () => void;
}

/** What handles on one graph share. */
interface Known {
  roots: (RegionRef | undefined)[];
  dropped: boolean;
}

export class ConnectedGraphs {
  readonly #parts: ConnectedGraphsParts;
  readonly #known: Map<number, Known> = new Map();

  constructor(parts: ConnectedGraphsParts) {
    this.#parts = parts;
  }

  /** As `GraphCatalog.open`. */
  async open(name: string, options: GraphOptions | undefined): Promise<Graph> {
    const { coordinator, describe, assertOpen } = this.#parts;
    assertOpen();
    const { collection, options: kept, roots } = await describe(name, options);
    const known = this.#known.get(collection) ?? { roots: [], dropped: false };
    known.roots = [...roots];
    this.#known.set(collection, known);
    return new Graph({
      name,
      collection,
      options: kept,
      coordinator,
      roots: () => rootsOf(kept, known.roots),
      assertOpen() {
        assertOpen();
        if (known.dropped) throw dropped(name);
      },
    });
  }

  /** Takes the new roots of a shard whose worker was replaced. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    for (const { engine, collection, state } of recovered) {
      const known = engine === "graph" ? this.#known.get(collection) : undefined;
      if (known !== undefined) known.roots[shard] = state as RegionRef;
    }
  }

  dropped(collection: number): void {
    const known = this.#known.get(collection);
    if (known !== undefined) known.dropped = true;
    this.#known.delete(collection);
  }
}

/** In the order of the members. */
export function rootsOf({ members }: KeptGraph, roots: readonly (RegionRef | undefined)[]): RegionRef[] {
  return members.map((shard) => roots[shard] as RegionRef);
}

function dropped(name: string): ShardloomError {
  return new ShardloomError("ERR_UNKNOWN_COLLECTION", `Cannot use graph ${JSON.stringify(name)} as it was dropped`, {
    details: { name },
  });
}
