/**
 * One shard's part in the graph of its node: the vertices of its documents, in its partition.
 *
 * Invariant: each row has at most one vertex that is neither deleted nor about to be replaced. The vertex of a row whose vector has changed stays
 * until the one for the new vector is linked: who finds it scores the document by its row, so that at no moment a document cannot be found.
 * Owner thread only. The graph's root belongs to the main thread; the partition's chunks belong to the worker and outlive it.
 */
import { INCARNATION, USER0, USER1, USER4 } from "../../../native-bridge/cell-layout.ts";
import type { GraphKernels } from "../../../native-bridge/graph-kernels.ts";
import { ELEMENT } from "../../../native-bridge/kernels.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { Verbs } from "../../../native-bridge/verbs.ts";
import type { Adopted } from "../../../src/store/collection-root.ts";
import { GRAPH_COLLECTION, GRAPH_LEAVES_READY, GRAPH_LEAVES_VERSION } from "../../../src/store/graph-layout.ts";
import type { EngineContext } from "../../engine.ts";
import type { Code } from "../routing/code-table.ts";
import { readExchangeReply } from "../strategy/exchange-messages.ts";
import { LeafExchange, type TableRouter } from "../strategy/leaf-exchange.ts";
import { isExactCode, learnsLeaves, type ResolvedVectorOptions } from "../vector-options.ts";
import type { VectorStore } from "../vector-store.ts";
import { GraphCode } from "./graph-code.ts";
import { linkOrLetGo, unlessFull, unlessPassing } from "./graph-errors.ts";
import { GraphPartition, type VertexPlace } from "./graph-partition.ts";
import { GraphRoot } from "./graph-root.ts";
import { GraphWriter } from "./graph-writer.ts";
import { LabelSearch } from "./label-search.ts";
import { LeafMembers } from "./leaf-members.ts";
import { LeafPlacement } from "./leaf-placement.ts";
import { LeafPlacer } from "./leaf-placer.ts";
import { LeafScan } from "./leaf-scan.ts";
import { adoptLeaves, dropLeaves } from "./leaf-table.ts";
import { LeafTrainer } from "./leaf-trainer.ts";
import { LevelView } from "./level-view.ts";
import { hasMoved } from "./vertex-record.ts";

/** Deleted vertices, as a share of the others, that are worth a pass over all lists; and how many, where there are few others. */
const DELETED_SHARE = 0.1;
const LEAST_DELETED = 64;
const EXCHANGE_TIMEOUT_MS = 2_000;

export class GraphIndex {
  /** Levels above the leaves. */
  readonly levels: LevelView;
  /** What this thread knows of the leaves. */
  readonly placer: LeafPlacer;
  readonly #store: VectorStore;
  readonly #context: EngineContext;
  readonly #partition: GraphPartition;
  readonly #writer: GraphWriter;
  readonly #code: GraphCode;
  readonly #learnsLeaves: boolean;
  /** Whose length it is that cosine divides by. */
  readonly #normOf: "row" | "code" | "none";
  /** By row; −1 = it has none. */
  #vertexOf: Int32Array = new Int32Array(256).fill(-1);
  readonly #trainer: LeafTrainer;
  readonly #members: LeafMembers;
  #scan: LeafScan | undefined;
  #exchange: LeafExchange | undefined;
  #search: LabelSearch | undefined;
  #searchKernels: GraphKernels | undefined;
  #sweeping = false;
  readonly #placement: LeafPlacement;

  private constructor(
    context: EngineContext,
    options: ResolvedVectorOptions,
    store: VectorStore,
    root: GraphRoot,
    partition: GraphPartition,
  ) {
    this.#context = context;
    this.#store = store;
    this.#partition = partition;
    this.#code = new GraphCode(options);
    this.#normOf = options.metric !== "cosine" ? "none" : isExactCode(options) ? "row" : "code";
    this.#learnsLeaves = learnsLeaves(options);
    const { arena, workerIndex, kernels } = context;
    const settings = { efConstruction: options.expansionAdd };
    this.#writer = new GraphWriter(root, kernels.module, new Verbs(arena), workerIndex, settings);
    const host = { arena, kernels };
    this.placer = new LeafPlacer(root, host);
    this.#members = new LeafMembers(root, workerIndex);
    this.levels = new LevelView(host, () => this.placer.table);
    this.#trainer = new LeafTrainer(root, host, () => this.search(), workerIndex, options.index);
    this.#placement = new LeafPlacement(root, workerIndex, {
      rowsUsed: () => store.rowsUsed,
      place: (row, version) => this.#placeRow(row, version),
      freshPass: () => partition.freshPass(),
      sweep: (deadlineMs) => this.#sweep(deadlineMs),
      nowMs: context.nowMs,
    });
  }

  /** The part of a shard that has none yet. */
  static create(
    context: EngineContext,
    options: ResolvedVectorOptions,
    store: VectorStore,
    graph: RegionRef,
  ): GraphIndex {
    const { arena, regions, workerIndex, nowMs } = context;
    const root = GraphRoot.open(arena, regions, graph);
    return new GraphIndex(context, options, store, root, GraphPartition.create(root, workerIndex, { nowMs }));
  }

  /**
   * Takes over the part of a dead worker, whose rows were taken over before.
   *
   * @returns With the rows whose vectors are in the graph; the others have to be added.
   */
  static adopt(
    context: EngineContext,
    options: ResolvedVectorOptions,
    store: VectorStore,
    graph: RegionRef,
    adopted: Adopted,
  ): { readonly index: GraphIndex; readonly rows: number[] } {
    const { arena, regions, workerIndex, nowMs } = context;
    const root = GraphRoot.open(arena, regions, graph);
    root.closeWriter(workerIndex);
    adoptLeaves(root, adopted);
    const { partition, unlinked } = GraphPartition.adopt(root, workerIndex, adopted, { nowMs });
    const index = new GraphIndex(context, options, store, root, partition);
    return { index, rows: index.#claim(new Set(unlinked)) };
  }

  /** What the shards tell each other of their leaves; undefined: there are none, or nobody can be told. */
  get exchange(): LeafExchange | undefined {
    const { peers, arena, kernels, workerIndex: shard, nowMs } = this.#context;
    if (peers === undefined || !this.#learnsLeaves) return undefined;
    this.#exchange ??= new LeafExchange({
      root: this.#writer.root,
      host: { arena, kernels },
      members: this.#members,
      levels: this.levels,
      shard,
      epoch: peers.incarnation,
      nowMs,
      collectionId: this.#writer.root.get(GRAPH_COLLECTION),
      mostBytes: (peer) => peers.maxPayloadBytes(peer),
      ask: (peer, { type, payload }) => peers.ask(peer, type, payload, readExchangeReply, EXCHANGE_TIMEOUT_MS),
    });
    return this.#exchange;
  }

  /** Version of the leaf table by which the vertices of all shards are placed, and lists mended; 0: of none. */
  get placedVersion(): number {
    const { root } = this.#writer;
    const ready = root.get(GRAPH_LEAVES_READY);
    return ready === root.get(GRAPH_LEAVES_VERSION) ? ready : 0;
  }

  /** The router over the leaves of all shards, as they were exchanged; undefined while none are known. */
  router(version: number): TableRouter | undefined {
    return this.exchange?.router(version, () => this.placer.table?.calibration() ?? []);
  }

  /** The shard that computes for a leaf; −1 when there is no such leaf. */
  labelOf(leaf: number): number {
    const { table } = this.placer;
    return table === undefined || !(leaf >= 0 && leaf < table.count) ? -1 : table.label(leaf);
  }

  /** A code's components. */
  componentsOf(code: Uint8Array): Code {
    return this.#writer.root.geometry.element === ELEMENT.F32 ? new Float32Array(code.slice().buffer) : code;
  }

  /** Reads leaves of this shard whole. */
  scan(): LeafScan {
    this.#scan ??= new LeafScan(this.#writer.root, this.#context.kernels, this.#members, this.#writer.scanArena());
    return this.#scan;
  }

  /** Done share of a learning of leaves that is under way here; 1: none is. */
  get learnt(): number {
    return this.#trainer.progress;
  }

  get codeBytes(): number {
    return this.#writer.root.geometry.codeBytes;
  }

  /** Search of the graph on this thread. */
  search(): LabelSearch {
    const { arena, kernels } = this.#context;
    this.#searchKernels ??= this.#writer.searchKernels(kernels.module);
    this.#search ??= new LabelSearch(this.#writer.root, new Verbs(arena), this.#searchKernels);
    return this.#search;
  }

  /**
   * Documents that are to be placed, about; 1 at least while leaves are learnt here, or are to be, and until all lists are mended since.
   *
   * @param idle Whether none wait to be linked.
   */
  unplaced(idle: boolean): number {
    const { table } = this.placer;
    const due = this.#isTrainingDue(idle) ? 1 : 0;
    if (table === undefined || this.#placement.isSettled(table.version)) return due;
    return this.#placement.isPlaced(table.version) ? 1 : Math.max(1, this.size);
  }

  /**
   * One slice of learning the leaves, or of bringing vertices to where they are to be and mending lists after that.
   *
   * @param idle Whether no document waits to be linked.
   * @returns Whether more is left.
   */
  arrange(deadlineMs: number, idle: boolean): boolean {
    const { nowMs } = this.#context;
    if (this.#isTrainingDue(idle)) {
      this.#trainer.run(deadlineMs, nowMs);
      return true;
    }
    if (this.placer.prepare(deadlineMs, nowMs)) return true;
    const { table } = this.placer;
    const { placedVersion } = this;
    if (placedVersion !== 0) unlessFull(() => this.exchange?.tick(placedVersion), undefined); // else it is told later
    return idle && table !== undefined && this.#placement.run(table.version, deadlineMs);
  }

  /** Root of the graph that this is a part of. */
  get root(): RegionRef {
    return this.#writer.root.ref;
  }

  /** Documents in the graph. */
  get size(): number {
    return this.#partition.count;
  }

  /**
   * Links the vector that a row has now.
   *
   * @returns Whether it is in the graph now; false when it has to be tried again.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`: it has what it had.
   */
  add(row: number): boolean {
    this.#code.encode(this.#store.vectorOf(row)); // it has one: others are refused
    return this.#take(row, this.placer.placeOf(this.#code.components), (vertex) => this.#writer.insert(vertex));
  }

  /** Deletes the vertex of a row, if it has one. */
  remove(row: number): void {
    const vertex = this.#vertexOf[row] ?? -1;
    if (vertex < 0) return;
    this.#vertexOf[row] = -1;
    this.placer.leaves(vertex, this.#partition.placeOf(vertex));
    // A document goes also while there is no room to look for who is a landmark in its place.
    unlessFull(() => unlessPassing(() => this.#writer.retire(vertex), undefined), undefined);
    this.#partition.delete(vertex);
  }

  /** One slice of repair, while many vertices of the graph are deleted; true when more is left. */
  background(deadlineMs: number): boolean {
    const { root } = this.#writer;
    if (!this.#sweeping) {
      this.#partition.freeDeleted();
      const { live, deleted } = root.counts();
      if (deleted <= Math.max(LEAST_DELETED, DELETED_SHARE * live)) return false;
    }
    this.#sweep(deadlineMs);
    return this.#sweeping && this.#context.nowMs() >= deadlineMs; // it waits for another shard's part otherwise
  }

  /** Frees the partition: the collection is gone. */
  drop(): void {
    this.close();
    dropLeaves(this.#writer.root);
    this.#partition.drop();
  }

  /** Gives private memory back; the partition stays for a successor. */
  close(): void {
    this.#trainer.close();
    this.placer.close();
    this.#searchKernels?.close();
    this.#scan?.close();
    this.#exchange?.close();
    this.levels.close();
    this.#writer.close();
  }

  #isTrainingDue(idle: boolean): boolean {
    if (!this.#learnsLeaves) return false;
    const { table } = this.placer;
    return this.#trainer.isDue(table?.trained ?? 0, table?.labels ?? [], idle);
  }

  #placeRow(row: number, version: number): boolean {
    const vertex = this.#vertexOf[row] ?? -1;
    if (vertex < 0) return true;
    const before = this.#partition.placeOf(vertex);
    if (before.version === version || !this.#code.encode(this.#store.vectorOf(row))) return true;
    const place = this.placer.placeOf(this.#code.components);
    if (!this.#hasCode(vertex)) return this.add(row);
    // With its neighbours, so that the graph stays what it was: linked anew it would only know those that are near. But once others have mended their
    // lists they would lead to where it was for good.
    if (place?.label !== before.label && this.placedVersion === version) return this.add(row);
    if (place?.label !== before.label) return this.#take(row, place, (copy) => this.#writer.move(vertex, copy));
    this.placer.leaves(vertex, before);
    this.#partition.restamp(vertex, place);
    this.placer.arrived(vertex, place);
    return true;
  }

  /** Takes a vertex for a row whose vector is encoded, links it, and lets go of the one that the row had. */
  #take(row: number, place: VertexPlace | undefined, link: (vertex: number) => boolean): boolean {
    const cell = this.#store.cellOf(row);
    const { i32 } = this.#context.arena;
    const [incarnation, version] = [i32[(cell >>> 2) + INCARNATION] as number, i32[(cell >>> 2) + USER1] as number];
    const document = { address: cell, incarnation, shard: this.#context.workerIndex, version };
    const vertex = this.#partition.take(document, this.#code.bytes, this.#norm(row), place);
    const letGo = (): boolean => this.#partition.delete(vertex);
    if (!linkOrLetGo(() => link(vertex), letGo)) return false;
    this.#partition.markLinked(vertex);
    if (place !== undefined) this.placer.arrived(vertex, place);
    this.remove(row);
    this.#map(row, vertex);
    return true;
  }

  /** Whether a vertex has the code that was encoded last. */
  #hasCode(vertex: number): boolean {
    const { root } = this.#writer;
    const at = this.#partition.addressOf(vertex) + root.geometry.codeOffset;
    return this.#code.bytes.every((byte, index) => byte === root.arena.bytes[at + index]);
  }

  #sweep(deadlineMs: number): void {
    const repair = (vertex: number): number => unlessPassing(() => this.#writer.repair(vertex), -1);
    this.#sweeping = !this.#partition.sweep(repair, deadlineMs);
  }

  /** Gives rows the vertices that a dead worker linked for them, as far as their vectors are still those. */
  #claim(unlinked: ReadonlySet<number>): number[] {
    const { arena } = this.#context;
    const { root } = this.#writer;
    const rowAt = new Map<number, number>();
    for (let row = 0; row < this.#store.rowsUsed; row++)
      if (this.#store.recordOf(row) !== 0) rowAt.set(this.#store.cellOf(row), row);
    const claimed: number[] = [];
    const vertices: number[] = [];
    this.#partition.forEach((vertex) => {
      vertices.push(vertex);
    });
    for (const vertex of vertices) {
      if (!this.#partition.isLive(vertex)) continue;
      const word = this.#partition.addressOf(vertex) >>> 2;
      const row = rowAt.get(arena.u32[word + USER0] as number);
      const cell = row === undefined ? 0 : this.#store.cellOf(row);
      const same = row !== undefined && arena.i32[(cell >>> 2) + INCARNATION] === arena.i32[word + USER1];
      if (
        !same ||
        unlinked.has(vertex) ||
        hasMoved(arena, root.geometry, this.#partition.addressOf(vertex)) || // its copy was not linked
        (this.#vertexOf[row] ?? -1) >= 0 ||
        !this.#code.encode(this.#store.vectorOf(row))
      ) {
        if (!unlinked.has(vertex)) this.placer.leaves(vertex, this.#partition.placeOf(vertex));
        this.#partition.delete(vertex);
        continue;
      }
      if (this.#hasCode(vertex)) claimed.push(row);
      this.#map(row, vertex); // an older vector's stays until the row is added
    }
    return claimed;
  }

  /** 1 / |vector|, or of its code where that has another length, as the kernels take it. */
  #norm(row: number): number {
    if (this.#normOf === "code") return this.#code.inverseNorm;
    return this.#normOf === "row" ? (this.#context.arena.f32[(this.#store.cellOf(row) >>> 2) + USER4] as number) : 0;
  }

  #map(row: number, vertex: number): void {
    if (row >= this.#vertexOf.length) {
      const wider = new Int32Array(Math.max(row + 1, 2 * this.#vertexOf.length)).fill(-1);
      wider.set(this.#vertexOf);
      this.#vertexOf = wider;
    }
    this.#vertexOf[row] = vertex;
  }
}
