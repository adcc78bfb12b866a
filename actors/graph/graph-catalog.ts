/**
 * The graphs of one cluster: opens, drops and recovers them (see collection-catalog.ts).
 *
 * Invariant: a graph lies on the shards of one node, as they read each other's memory; all handles on it know the roots of their present
 * workers. It ends with the process: nothing of it is on disk.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { RecoverTask, ShardReady } from "../../src/plane/shard-task.ts";
import { GRAPH_DROP, GRAPH_OPEN } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import type { CatalogEntry, CatalogParts } from "../catalog-types.ts";
import { CollectionCatalog } from "../collection-catalog.ts";
import type { GraphHandle } from "./client-calls.ts";
import { Graph } from "./client-graph.ts";
import { type GraphDescription, rootsOf } from "./connected-graphs.ts";
import type { KeptGraph } from "./graph-engine.ts";
import { decodeBody, encodeBody, type PlainRef, payloadOf, refOf } from "./graph-messages.ts";
import { type MovedGraph, moveGraph } from "./graph-move.ts";
import { assertSameGraphOptions, type GraphOptions, resolveGraphOptions } from "./graph-options.ts";
import { type LostPart, lostPartOf } from "./lost-part.ts";

/** What names of copies that are being made begin with. */
const COPY = "moving.";

/** What the graphs of a cluster are made of. */
export interface GraphCatalogParts extends Omit<CatalogParts, "store"> {
  /** The node's memory. */
  readonly arena: Arena;
}

/** The graphs of one cluster. */
export class GraphCatalog {
  readonly #parts: GraphCatalogParts;
  readonly #catalog: CollectionCatalog<KeptGraph>;
  /** What a graph that was moved is now. */
  readonly #moved: WeakMap<CatalogEntry<KeptGraph>, CatalogEntry<KeptGraph>> = new WeakMap();
  /** Graphs that are being opened. */
  readonly #opening: Set<Promise<unknown>> = new Set();
  /** Shards that are about to be removed: new graphs lie on the others. */
  readonly #leaving: Set<number> = new Set();

  constructor(parts: GraphCatalogParts) {
    this.#parts = parts;
    this.#catalog = new CollectionCatalog<KeptGraph>(parts, {
      name: "graph",
      assertSame: assertSameGraphOptions,
      liesOn: ({ members }, shard) => members.includes(shard),
      openType: GRAPH_OPEN,
      openPayload: (collection, options, checkOnly) => payloadOf(encodeBody({ collection, options, checkOnly })),
      readRoot: (frame) => refOf(decodeBody<PlainRef>(frame)),
      dropType: GRAPH_DROP,
      dropPayload: (collection, undo) => payloadOf(encodeBody({ collection, undo })),
      toKept: (options) => options,
      fromKept: (options) => options as KeptGraph,
    });
  }

  /** Names of the open graphs. */
  names(): string[] {
    return this.#catalog.names().filter((name) => !name.startsWith(COPY));
  }

  /** Opens a graph, creating it when it is new. @throws {ShardloomError} `ERR_UNAVAILABLE` in a cluster of several nodes. */
  async open(name: string, options: GraphOptions | undefined): Promise<Graph> {
    const entry = await this.#entry(name, options);
    return new Graph(this.#handle(name, entry));
  }

  /** It follows its graph to where that is moved; who needs it to stay as it is for several steps copies it. */
  #handle(name: string, opened: CatalogEntry<KeptGraph>): GraphHandle {
    const entry = (): CatalogEntry<KeptGraph> => {
      let now = opened;
      for (let next = this.#moved.get(now); next !== undefined; next = this.#moved.get(now)) now = next;
      return now;
    };
    return {
      name,
      get collection() {
        return entry().collectionId;
      },
      get options() {
        return entry().options;
      },
      coordinator: this.#parts.coordinator,
      roots: () => rootsOf(entry().options, entry().roots),
      assertOpen: () => this.#catalog.assertEntry(name, entry()),
    };
  }

  /**
   * Moves what graphs have on a shard to their other shards, and lets no new graph lie on it.
   *
   * @param isLost Whether it was given up: then they go on without what they had on it.
   * @returns what each graph had there
   * @throws {ShardloomError} as {@link moveGraph}; graphs that were moved before stay where they are then.
   */
  async leave(shard: number, byMs: number, isLost: boolean): Promise<MovedGraph[]> {
    this.#leaving.add(shard);
    await Promise.allSettled(this.#opening);
    const moved: MovedGraph[] = [];
    for (const name of this.names()) {
      const entry = this.#catalog.known(name);
      const place = entry?.options.members.indexOf(shard) ?? -1;
      if (entry === undefined || place < 0) continue;
      try {
        moved.push(await this.#move(name, entry, place, byMs, isLost));
      } catch (error) {
        if (!entry.dropped) throw error;
      }
    }
    return moved;
  }

  /** The shard is not removed after all. */
  stays(shard: number): void {
    this.#leaving.delete(shard);
  }

  /** What graphs have on a shard that was given up, as its last worker has left it. */
  left(shard: number): MovedGraph[] {
    return this.names().flatMap((name) => {
      const entry = this.#catalog.known(name);
      const place = entry?.options.members.indexOf(shard) ?? -1;
      if (entry === undefined || place < 0) return [];
      const { vertices, edges } = this.#lostPart(entry, place);
      return [{ name, vertices, edges }];
    });
  }

  #lostPart({ collectionId, options: { members }, roots }: CatalogEntry<KeptGraph>, place: number): LostPart {
    return lostPartOf(this.#parts.arena, collectionId, place, roots[members[place] as number] as RegionRef);
  }

  async #move(
    name: string,
    entry: CatalogEntry<KeptGraph>,
    place: number,
    byMs: number,
    isLost: boolean,
  ): Promise<MovedGraph> {
    const { coordinator, arena } = this.#parts;
    const lost = isLost ? this.#lostPart(entry, place) : undefined;
    const members = entry.options.members.filter((shard) => !this.#leaving.has(shard));
    const copyName = `${COPY}${entry.collectionId}`;
    const copy = await this.#catalog.entry(copyName, { ...entry.options, members, shards: members.length });
    const limits = (): CallOptions => ({ timeoutMs: Math.max(1, byMs - coordinator.nowMs()) });
    const [from, to] = [{ ...this.#handle(name, entry), lost }, { ...this.#handle(copyName, copy) }];
    try {
      const { had, edgesLost } = await moveGraph(from, to, limits, arena, () => {
        this.#catalog.assertEntry(name, entry);
        const renamed = this.#catalog.rename(copyName, name);
        this.#moved.set(entry, copy);
        return renamed;
      });
      const { vertices = 0, edges = 0 } = lost ?? had[place] ?? {};
      const moved = { name, vertices, edges };
      return isLost ? { ...moved, lost: { vertices, edges: edges + edgesLost } } : moved;
    } catch (error) {
      if (this.#catalog.known(copyName) === copy) await this.#catalog.drop(copyName).catch(() => undefined);
      throw error;
    }
  }

  /** What another thread needs for a handle of its own; creates the graph as {@link open} does. */
  async describe(name: string, options: GraphOptions | undefined): Promise<GraphDescription> {
    const entry = await this.#entry(name, options);
    return { collection: entry.collectionId, options: entry.options, roots: [...entry.roots] };
  }

  async #entry(name: string, options: GraphOptions | undefined): Promise<CatalogEntry<KeptGraph>> {
    const { coordinator, ownShards } = this.#parts;
    const { shards } = coordinator.snapshot;
    const members = coordinator.shards.filter((shard) => !this.#leaving.has(shard));
    if (ownShards !== undefined && ownShards.length !== shards) {
      throw new ShardloomError(
        "ERR_UNAVAILABLE",
        `Cannot open graph ${JSON.stringify(name)} as all ${shards} shards must be of this node: current value is ${ownShards.length}`,
        { details: { shards, own: ownShards.length }, retryable: false }, // nodes do not go
      );
    }
    const isKnown = options === undefined && this.#catalog.known(name) !== undefined;
    const kept = { ...resolveGraphOptions(options ?? {}), shards: members.length, members };
    const opening = this.#catalog.entry(name, isKnown ? undefined : kept);
    this.#opening.add(opening);
    return opening.finally(() => this.#opening.delete(opening));
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
