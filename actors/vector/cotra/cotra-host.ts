/**
 * The collaborative searches of all collections on one worker, driven by the turns of its duty loop.
 *
 * Invariant: whatever is open here makes progress in {@link CotraHost.turn}: after each round of messages, and at the latest when
 * {@link CotraHost.dueAtMs} says. Nothing is kept of a collection that was dropped. Peers are lost and back as the worker is told; a message
 * of a worker that was replaced cannot come, since its ring was taken away before.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import type { Kernels } from "../../../native-bridge/kernels.ts";
import type { TaskBoard } from "../../../native-bridge/task-board.ts";
import { Verbs } from "../../../native-bridge/verbs.ts";
import { ShardloomError } from "../../../src/errors.ts";
import type { EngineRequest, HeldReply, PeerWorker } from "../../engine.ts";
import { ArenaView } from "./arena-view.ts";
import { readCollaborateRequest } from "./collaborate-codec.ts";
import { CollectionSearches } from "./collection-searches.ts";
import { CotraOutbox, type PeerSender, readEnvelope } from "./cotra-outbox.ts";
import type { SharedGraph } from "./navigation-sample.ts";
import { RecordDistances } from "./record-distances.ts";
import { StealingPool } from "./stealing-pool.ts";

/** Between two looks at deadlines and at callers that have given up. */
const TICK_MS = 10;

/** What a host works with. */
export interface CotraHostOptions {
  readonly self: number;
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly nowMs: () => number;
  readonly randomU32: () => number;
  /** The part of the graph over a collection; undefined while this shard has no part in one. */
  readonly graphOf: (collection: number) => SharedGraph | undefined;
  readonly sender: (peer: number) => PeerSender | undefined;
  /** Board of this worker; undefined: nobody takes its work over. */
  readonly board: TaskBoard | undefined;
}

export class CotraHost {
  readonly #options: CotraHostOptions;
  readonly #outbox: CotraOutbox;
  readonly #distances: RecordDistances;
  readonly #verbs: Verbs;
  readonly #pool: StealingPool | undefined;
  readonly #collections = new Map<number, CollectionSearches>();
  readonly #lost = new Set<number>();
  #tickedAtMs = 0;

  constructor(options: CotraHostOptions) {
    this.#options = options;
    const { arena, kernels, self, sender, board } = options;
    this.#outbox = new CotraOutbox(sender);
    this.#distances = new RecordDistances(arena, kernels, self);
    this.#verbs = new Verbs(arena);
    this.#pool = board === undefined ? undefined : new StealingPool(self, arena, this.#distances, board);
  }

  /** Runs the search of a client; `held` gets its outcome. @throws {ShardloomError} `ERR_UNAVAILABLE`, `ERR_CORRUPT`. */
  ask(request: EngineRequest, hold: () => HeldReply | undefined): void {
    const wanted = readCollaborateRequest(request);
    const searches = this.#searchesOf(wanted.collectionId);
    if (searches === undefined) {
      const { collectionId } = wanted;
      const message = "Cannot search as this shard has no part in a graph over the collection";
      throw new ShardloomError("ERR_UNAVAILABLE", message, { details: { collectionId } });
    }
    const held = hold();
    if (held !== undefined) searches.ask(wanted, held);
  }

  /** Takes what a peer has sent. @throws {ShardloomError} `ERR_CORRUPT` when a part of it is no message; the rest counts. */
  receive(envelope: EngineRequest): void {
    let failure: ShardloomError | undefined;
    readEnvelope(envelope, (collection, bytes) => {
      try {
        this.#searchesOf(collection)?.receive(bytes);
      } catch (error) {
        failure ??= ShardloomError.from(error);
      }
    });
    if (failure !== undefined) throw failure;
  }

  /** A turn of everything that runs here. @returns Whether anything was done */
  turn(nowMs: number): boolean {
    let worked = false;
    const mayStep = !this.#outbox.congested;
    for (const searches of this.#collections.values()) if (searches.open > 0 && searches.turn(mayStep)) worked = true;
    if (this.#pool?.run() === true) worked = true;
    if (this.#outbox.flush()) worked = true;
    if (!worked && this.#pool?.steal() === true) return true;
    if (nowMs - this.#tickedAtMs >= TICK_MS) this.#tick(nowMs);
    return worked;
  }

  /** When {@link turn} has to be called at the latest; infinity: when a message comes. */
  get dueAtMs(): number {
    const waits = this.#outbox.waiting + (this.#pool?.open ?? 0) > 0;
    const busy = waits || [...this.#collections.values()].some(({ open }) => open > 0);
    return busy ? this.#tickedAtMs + TICK_MS : Number.POSITIVE_INFINITY;
  }

  peerLost(peer: number): void {
    this.#lost.add(peer);
    this.#outbox.drop(peer);
    this.#pool?.peerLost(peer);
    for (const searches of this.#collections.values()) searches.peerLost(peer);
  }

  /** @param there Its board and bell, when it is a worker of this node. */
  peerBack(peer: number, there: PeerWorker | undefined): void {
    this.#lost.delete(peer);
    if (there !== undefined) this.#pool?.peerBack(peer, there);
    for (const searches of this.#collections.values()) searches.peerBack(peer);
  }

  /** Ends everything, and gives the scratch back. */
  close(): void {
    const error = new ShardloomError("ERR_CLOSED", "Cannot finish search as its shard is closed");
    for (const searches of this.#collections.values()) searches.close(error);
    this.#collections.clear();
    this.#distances.close();
  }

  #tick(nowMs: number): void {
    this.#tickedAtMs = nowMs;
    this.#pool?.tick();
    for (const [collection, searches] of this.#collections)
      if (searches.open > 0 && this.#searchesOf(collection) !== undefined) searches.tick();
  }

  /** The searches of a collection, undefined when it has no graph here, or not any more. */
  #searchesOf(collection: number): CollectionSearches | undefined {
    const { self, arena, graphOf, sender, nowMs, randomU32 } = this.#options;
    const known = this.#collections.get(collection);
    if (graphOf(collection) === undefined) {
      known?.close(new ShardloomError("ERR_UNAVAILABLE", "Cannot finish search as its collection was dropped"));
      this.#collections.delete(collection);
      return undefined;
    }
    if (known !== undefined) return known;
    const view = new ArenaView({
      self,
      arena,
      verbs: this.#verbs,
      distances: this.#distances,
      root: () => graphOf(collection)?.root,
      isShard: (partition) => partition === self || sender(partition) !== undefined,
    });
    view.refresh();
    const searches = new CollectionSearches({
      collection,
      view,
      graph: () => graphOf(collection),
      nowMs,
      firstSerial: randomU32(),
      outbox: this.#outbox,
      pool: this.#pool,
    });
    for (const peer of this.#lost) searches.peerLost(peer);
    this.#collections.set(collection, searches);
    return searches;
  }
}
