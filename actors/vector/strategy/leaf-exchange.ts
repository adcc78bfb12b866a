/**
 * How the shards of a node come to know each other's leaves: each describes those it computes for and sends its table to its peers. Where there are
 * levels above the leaves it describes the clusters of the highest that it reads, instead.
 *
 * Invariant: as of routing/centroid-exchange.ts, which decides what is newer: messages may be lost, doubled or late. A shard's row names the leaf, or cluster, by its
 * number and the version of the leaf table, in the column of partitions: `leaf | version << 16`; who asks by a number of another version is refused.
 * A worker that was replaced knows nothing, and gets every table, its predecessor's included, from its peers; then it describes its leaves anew.
 */
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import { VECTOR_EXCHANGE } from "../../../src/wire/message-types.ts";
import type { GraphRoot } from "../graph/graph-root.ts";
import type { LeafMembers } from "../graph/leaf-members.ts";
import { LeafTable, spaceOfGraph } from "../graph/leaf-table.ts";
import { type LevelView, leafOfRow, rowOfLeaf } from "../graph/level-view.ts";
import { CentroidExchange, type ExchangeMessage } from "../routing/centroid-exchange.ts";
import { emptyColumns, type LeafColumns, type MergedCentroids, mergeCentroids } from "../routing/centroid-table.ts";
import { type Code, type CodeHost, type CodeSpace, groupingMetric } from "../routing/code-table.ts";
import { Compass } from "../routing/compass.ts";
import type { CompassCalibration } from "../routing/compass-calibration.ts";
import { EXCHANGE_OVERHEAD_BYTES, exchangePayload } from "./exchange-messages.ts";
import { SPIRE } from "./spire-strategy.ts";
import type { DirectMessage, HeldTables } from "./vector-strategy.ts";

/** What an exchange needs of its shard. */
export interface LeafExchangeOptions {
  readonly root: GraphRoot;
  readonly host: CodeHost;
  readonly members: LeafMembers;
  readonly levels: LevelView;
  readonly shard: number;
  /** Of this worker; higher than those of the shard's workers before. */
  readonly epoch: number;
  readonly nowMs: () => number;
  readonly collectionId: number;
  /** Longest message to a peer, and answer to one. @default no limit */
  readonly mostBytes?: (peer: number) => number;
  /** Sends a message to a peer. @returns its answers; rejects when it has none */
  readonly ask: (peer: number, message: DirectMessage) => Promise<readonly ExchangeMessage[]>;
}

/** Between two offers of what is held: while tables are missing, and when none is. */
const TICK_MS = { missing: 1_000, whole: 10_000 } as const;
/** A description is made anew when the shard's vertices have changed by this share. */
const STALE_SHARE = 0.25;
const PERCENTILE = 0.9;
/** Of a table, in a message: also where a peer is not there yet, and what is sent fails. */
const LEAST_PART_BYTES = 256;

/** A router, and the tables that it is over. */
export interface TableRouter {
  readonly table: MergedCentroids;
  readonly compass: Compass;
  readonly version: number;
}

export class LeafExchange implements HeldTables {
  readonly #options: LeafExchangeOptions;
  #exchange: CentroidExchange | undefined;
  #peers: readonly number[] = [];
  #described = { version: 0, vertices: 0 };
  #nextTickMs = 0;
  #router: TableRouter | undefined;
  #merged: { readonly stamps: string; readonly table: MergedCentroids } | undefined;

  constructor(options: LeafExchangeOptions) {
    this.#options = options;
  }

  /** Shards whose tables are not held, of all that have leaves. */
  missing(): number[] {
    return this.#current().missing();
  }

  /** The tables of all shards that are known; undefined while there are none. */
  tables(): MergedCentroids | undefined {
    const tables = this.#current().tables();
    if (tables.length === 0) return undefined;
    const stamps = tables.map(({ shard, epoch, version }) => `${shard}:${epoch}:${version}`).join();
    if (this.#merged?.stamps !== stamps) this.#merged = { stamps, table: mergeCentroids(tables) };
    return this.#merged.table;
  }

  /** Shards whose tables are held, and are of no other version. */
  known(version: number): number {
    const table = this.tables();
    if (table === undefined) return 0;
    const others = Array.from(table.shardOf).filter(
      (_, row) => leafOfRow(table.partitions[row] as number).version !== version,
    );
    return table.stamps.length - new Set(others).size;
  }

  /** The router over the tables that are held, with what was learnt for one version. @returns undefined while none is held */
  router(version: number, calibration: () => CompassCalibration): TableRouter | undefined {
    const table = this.tables();
    if (table === undefined || table.counts.length === 0) return undefined;
    if (this.#router?.table === table && this.#router.version === version) return this.#router;
    this.close();
    const compass = new Compass(this.#options.host, table, { calibration: calibration() });
    this.#router = { table, compass, version };
    return this.#router;
  }

  /** Gives private memory back. */
  close(): void {
    this.#router?.compass.close();
    this.#router = undefined;
  }

  /**
   * Describes this shard's leaves when that is due, and offers what is held now and then.
   *
   * @param ready Version by which all vertices are placed.
   */
  tick(ready: number): void {
    const { nowMs } = this.#options;
    if (this.#described.version === ready && nowMs() < this.#nextTickMs) return;
    const exchange = this.#current();
    const { members } = this.#options;
    if (!members.open()) return; // a part is on its way to its next worker: it is told of later
    const leaves = members.all(ready);
    const vertices = [...leaves.values()].reduce((sum, list) => sum + list.length, 0);
    const { version, vertices: before } = this.#described;
    const isDue = version !== ready || Math.abs(vertices - before) > STALE_SHARE * Math.max(1, before);
    if (isDue) {
      const columns = this.#describe(ready, leaves);
      if (columns === undefined || !members.intact) return;
      this.#described = { version: ready, vertices };
      exchange.publish(columns);
    }
    for (const peer of this.#peers) this.#send(peer, SPIRE.buildTimeExchange(peer, this));
    this.#nextTickMs = nowMs() + (exchange.missing().length > 0 ? TICK_MS.missing : TICK_MS.whole);
  }

  /** The stamps of all tables that are held. */
  offer(peer: number): DirectMessage | undefined {
    const offer = this.#current()
      .tick()
      .find(({ to }) => to === peer);
    return offer === undefined ? undefined : this.#toMessage(offer);
  }

  /** Takes a peer's message. @returns the answers */
  receive(message: ExchangeMessage): readonly ExchangeMessage[] {
    return this.#current().receive(message);
  }

  /** The state for the shards that have leaves now; what is held of those that stay is kept. */
  #current(): CentroidExchange {
    const { root, shard, epoch, mostBytes = () => Number.POSITIVE_INFINITY } = this.#options;
    const peers = root.partitionsWithChunks().filter((other) => other !== shard);
    if (this.#exchange === undefined || peers.join() !== this.#peers.join()) {
      const state = this.#exchange === undefined ? {} : { state: this.#exchange.state() };
      this.#exchange = new CentroidExchange({
        self: shard,
        peers,
        space: spaceOfGraph(root.geometry),
        epoch,
        mostBytes: (to) => Math.max(LEAST_PART_BYTES, mostBytes(to) - EXCHANGE_OVERHEAD_BYTES),
        ...state,
      });
      this.#peers = peers;
    }
    return this.#exchange;
  }

  /** Asks a peer, and goes on with what it answers, until it has nothing to say. */
  #send(peer: number, message: DirectMessage | undefined): void {
    if (message === undefined) return;
    this.#options
      .ask(peer, message)
      .then((answers) => {
        for (const answer of answers)
          for (const next of this.#current().receive(answer)) this.#send(next.to, this.#toMessage(next));
      })
      .catch(() => undefined); // it is offered again at the next tick, unless the collection has gone meanwhile
  }

  #toMessage(message: ExchangeMessage): DirectMessage {
    return { type: VECTOR_EXCHANGE, payload: exchangePayload(this.#options.collectionId, message) };
  }

  /** What this shard's leaves hold, one row for each leaf of its label; with levels, one for each cluster of the highest that it reads. */
  #describe(version: number, leaves: ReadonlyMap<number, readonly number[]>): LeafColumns | undefined {
    const { root, host, shard, levels } = this.#options;
    const table = LeafTable.open(root, host);
    if (table === undefined || table.version !== version) return undefined;
    const clusters = levels.described(version, shard);
    if (clusters !== undefined) return clusterColumns(spaceOfGraph(root.geometry), clusters, version);
    const own = Array.from({ length: table.count }, (_, leaf) => leaf).filter((leaf) => table.label(leaf) === shard);
    const space = spaceOfGraph(root.geometry);
    const columns = emptyColumns(space, own.length);
    const { kernels } = host;
    for (const [row, leaf] of own.entries()) {
      const centroid = table.centroids.vector(leaf);
      columns.codes.set(centroid, row * space.dimensions);
      const at = table.centroids.cells + leaf * table.centroids.stride;
      const distances = (leaves.get(leaf) ?? []).map((vertex) => this.#distance(kernels, at, vertex));
      const known = distances.filter((distance) => distance >= 0).sort((a, b) => a - b);
      columns.counts[row] = distances.length;
      columns.radii[row] = known.at(-1) ?? 0;
      columns.radii90[row] = known[Math.max(0, Math.ceil(known.length * PERCENTILE) - 1)] ?? 0;
      columns.medoids[row] = table.medoid(leaf);
      columns.partitions[row] = rowOfLeaf(leaf, version);
    }
    return columns;
  }

  /** Of a vertex to a centroid's cell, under the metric that groups. */
  #distance(kernels: CodeHost["kernels"], centroid: number, vertex: number): number {
    const { geometry } = this.#options.root;
    const { chunkShift, stride, codeOffset, element, dimensions } = geometry;
    const chunk = this.#options.root.chunk(vertex >>> chunkShift);
    if (chunk === undefined) return -1;
    const record = chunk.address + (vertex & ((1 << chunkShift) - 1)) * stride;
    return kernels.distance(
      groupingMetric(spaceOfGraph(geometry).metric),
      element,
      centroid + CELL_HEADER_BYTES,
      record + codeOffset,
      dimensions,
    );
  }
}

function clusterColumns(
  space: CodeSpace,
  clusters: readonly { readonly cluster: number; readonly code: Code }[],
  version: number,
): LeafColumns {
  const columns = emptyColumns(space, clusters.length);
  columns.medoids.fill(-1);
  for (const [row, { cluster, code }] of clusters.entries()) {
    columns.codes.set(code, row * space.dimensions);
    columns.partitions[row] = rowOfLeaf(cluster, version);
  }
  return columns;
}
