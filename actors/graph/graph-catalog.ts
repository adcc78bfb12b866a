/**
 * The graphs of one cluster: opens, drops and recovers them (see collection-catalog.ts).
 *
 * Invariant: a graph lies on the shards of one node, as they read each other's memory; all handles on it know the roots of their present
 * workers. It ends with the process: nothing of it is on disk.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { RecoverTask, ShardReady } from "../../src/plane/shard-task.ts";
import { GRAPH_DROP, GRAPH_OPEN } from "../../src/wire/message-types.ts";
import { assertAllShards } from "../catalog-errors.ts";
import type { CatalogEntry, CatalogParts } from "../catalog-types.ts";
import { CollectionCatalog } from "../collection-catalog.ts";
import { Graph } from "./client-graph.ts";
import type { GraphDescription } from "./connected-graphs.ts";
import type { KeptGraph } from "./graph-engine.ts";
import { decodeBody, encodeBody, type PlainRef, refOf } from "./graph-messages.ts";
import { assertSameGraphOptions, type GraphOptions, resolveGraphOptions } from "./graph-options.ts";

/** The graphs of one cluster. */
export class GraphCatalog {
  readonly #parts: Omit<CatalogParts, "store">;
  readonly #catalog: CollectionCatalog<KeptGraph>;

  constructor(parts: Omit<CatalogParts, "store">) {
    this.#parts = parts;
    this.#catalog = new CollectionCatalog<KeptGraph>(parts, {
      name: "graph",
      assertSame: assertSameGraphOptions,
      openType: GRAPH_OPEN,
      openPayload: (collection, options, checkOnly) => payloadOf({ collection, options, checkOnly }),
      readRoot: (frame) => refOf(decodeBody<PlainRef>(frame)),
      dropType: GRAPH_DROP,
      dropPayload: (collection, undo) => payloadOf({ collection, undo }),
      toKept: (options) => options,
      fromKept: (options) => options as KeptGraph,
    });
  }

  /** Names of the open graphs. */
  names(): string[] {
    return this.#catalog.names();
  }

  /** Opens a graph, creating it when it is new. @throws {ShardloomError} `ERR_UNAVAILABLE` in a cluster of several nodes. */
  async open(name: string, options: GraphOptions | undefined): Promise<Graph> {
    const entry = await this.#entry(name, options);
    return new Graph({
      name,
      collection: entry.collectionId,
      options: entry.options,
      coordinator: this.#parts.coordinator,
      roots: () => rootsOf(entry),
      assertOpen: () => this.#catalog.assertEntry(name, entry),
    });
  }

  /** What another thread needs for a handle of its own; creates the graph as {@link open} does. */
  async describe(name: string, options: GraphOptions | undefined): Promise<GraphDescription> {
    const entry = await this.#entry(name, options);
    return { collection: entry.collectionId, options: entry.options, roots: [...rootsOf(entry)] };
  }

  async #entry(name: string, options: GraphOptions | undefined): Promise<CatalogEntry<KeptGraph>> {
    const { coordinator, ownShards } = this.#parts;
    const { shards } = coordinator.snapshot;
    assertAllShards(coordinator.snapshot, "graph", name);
    if (ownShards !== undefined && ownShards.length !== shards) {
      throw new ShardloomError(
        "ERR_UNAVAILABLE",
        `Cannot open graph ${JSON.stringify(name)} as all ${shards} shards must be of this node: current value is ${ownShards.length}`,
        { details: { shards, own: ownShards.length }, retryable: false }, // nodes do not go
      );
    }
    const isKnown = options === undefined && this.#catalog.known(name) !== undefined;
    return this.#catalog.entry(name, isKnown ? undefined : { ...resolveGraphOptions(options ?? {}), shards });
  }

  /** Drops a graph. @returns whether it existed, or was still being dropped */
  drop(name: string): Promise<boolean> {
    return this.#catalog.drop(name);
  }

  /** What the next worker of a shard must take over. */
  recoverTasks(shard: number): RecoverTask[] {
    return this.#catalog.recoverTasks(shard);
  }

  /** Takes the new roots of a shard whose worker was replaced. */
  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    this.#catalog.recovered(shard, recovered);
  }
}

function rootsOf({ roots }: CatalogEntry<KeptGraph>): readonly RegionRef[] {
  return roots as readonly RegionRef[];
}

function payloadOf(value: unknown): {
  byteLength: number;
  write: (target: { bytes: Uint8Array }, offset: number) => void;
} {
  const body = encodeBody(value);
  return { byteLength: body.length, write: (target, offset) => target.bytes.set(body, offset) };
}
