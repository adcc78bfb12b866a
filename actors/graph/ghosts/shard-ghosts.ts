/**
 * The ghosts of one graph on one shard: what it knows of vertices of other shards that its edges lead to, and who has ghosts of its own.
 *
 * Ghosts follow from the adjacency: after every build the shard counts its edges to each such vertex, and tells the owners what has changed.
 * What is read of vertices of other shards is kept with their ghosts, see end-properties.ts.
 * Invariant: so all of it can be made anew, by a successor from the adjacency that it takes over, by an owner from what its peers tell it
 * again when its worker was replaced. Edges beyond `capacity` have no ghosts, and say so. Whatever goes over all ghosts does so in slices of
 * {@link KEYS_A_SLICE}: a count that ends in the middle is gone on with by the next build.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import type { Payload, ReplyFrame } from "../../../src/routing/requester.ts";
import { GRAPH_GHOST_CREATE, GRAPH_GHOST_DELETE, GRAPH_GHOST_VERIFY } from "../../../src/wire/message-types.ts";
import type { EngineContext, EnginePeers } from "../../engine.ts";
import type { Csr, PeerEdges } from "../csr.ts";
import type { GhostOptions } from "../graph-options.ts";
import { ROOT_WORD } from "../graph-root.ts";
import type { VertexKey } from "../vertex-key.ts";
import { keyAt } from "../vertex-table.ts";
import {
  ghostChangesBytes,
  ghostQuestionBytes,
  readGhostReply,
  writeGhostChanges,
  writeGhostQuestion,
} from "./ghost-codec.ts";
import { type GhostChange, GhostHolders } from "./ghost-holders.ts";
import { GhostNews } from "./ghost-news.ts";
import { GhostSweeper } from "./ghost-sweeper.ts";
import { GhostTable, type GhostValues } from "./ghost-table.ts";
import { TurnTimers } from "./turn-timers.ts";

const ASK_MS = 2_000;
const ROWS_A_SLICE = 65_536;
const KEYS_A_SLICE = 4096;

/** What ghosts of one graph are made of. */
export interface ShardGhostsParts {
  readonly context: EngineContext;
  readonly peers: EnginePeers;
  readonly collection: number;
  /** The shards of the graph, and which of them this one is. */
  readonly members: readonly number[];
  readonly shard: number;
  readonly options: GhostOptions;
}

/** Counts of one shard. */
export interface GhostStatus {
  /** Vertices of other shards that are known here, and edges that lead to them. */
  readonly ghosts: number;
  readonly references: number;
  /** Vertices of other shards without a ghost, as there were too many. */
  readonly unheld: number;
  /** Vertices of this shard that others have ghosts of. */
  readonly held: number;
  /** Changes that owners have not acknowledged. */
  readonly untold: number;
  /** Ghosts whose owners were asked whether they still exist, and those that were told that they do not. */
  readonly verified: number;
  readonly gone: number;
  /** Ghosts besides those, without references: kept for what was read of their vertices, or as no edge leads to these any more. */
  readonly cached: number;
  /** Vertices of other shards that were asked for with what they carry: those that a ghost knew, and those for their owners. */
  readonly hits: number;
  readonly misses: number;
  /** Cached ghosts that were dropped: for want of room, and as they were too old or of a former worker of their owner. */
  readonly evicted: number;
  readonly expired: number;
}

interface Reference {
  readonly owner: number;
  readonly references: number;
}

export class ShardGhosts {
  readonly holders: GhostHolders;
  /** Of this shard's worker. */
  readonly epoch: number;
  readonly #parts: ShardGhostsParts;
  readonly #table: GhostTable;
  readonly #timers: TurnTimers;
  readonly #sweeper: GhostSweeper;
  readonly #news: GhostNews;
  readonly #known: Map<VertexKey, Reference> = new Map();
  /** Known vertices whose owners have new workers, of which these are told again. */
  #again: { readonly owners: Set<number>; readonly left: Iterator<[VertexKey, Reference]> } | undefined;
  #references = 0;
  #unheld = 0;
  #derived: Csr | undefined;

  constructor(parts: ShardGhostsParts) {
    const { context, peers, options } = parts;
    const { nowMs } = context;
    const clock = { nowMs, nowUs: () => nowMs() * 1000 };
    this.#parts = parts;
    this.epoch = peers.incarnation;
    this.holders = new GhostHolders({ clock });
    this.#table = new GhostTable({ clock, capacity: options.capacity, ttlMs: options.ttlMs });
    this.#timers = new TurnTimers(nowMs);
    this.#news = new GhostNews((owner, kind, changes) => this.#tell(owner, kind, changes));
    this.#sweeper = new GhostSweeper({
      table: this.#table,
      clock,
      scheduler: this.#timers,
      verify: (owner, keys) => this.#verify(owner, keys),
      onGone: (key) => this.#forget(key),
      checksPerSecond: options.checksPerSecond,
    });
    this.#sweeper.start();
  }

  get dueAtMs(): number {
    const isBusy = this.#again !== undefined || !this.holders.isSwept;
    return isBusy ? Number.NEGATIVE_INFINITY : Math.min(this.#timers.dueAtMs, this.#news.dueAtMs);
  }

  /** @returns whether anything was done */
  turn(nowMs: number): boolean {
    const worked = [this.#tellAgain(), this.holders.sweep(), this.#timers.run(nowMs), this.#news.run(nowMs)];
    return worked.includes(true);
  }

  /** Counts the edges to vertices of other shards anew, and tells their owners what is different. @param roots Addresses, by shard. */
  *derive(csr: Csr, roots: readonly number[]): Generator<boolean> {
    if (this.#derived === csr) return;
    const { context, shard } = this.#parts;
    const counted = new Map<VertexKey, Reference>();
    for (const [owner, edges] of csr.peers.entries())
      if (owner !== shard) yield* count(context.arena, edges, owner, roots[owner] as number, counted);
    // What is known may change between two slices, as the sweep finds that vertices are gone.
    let seen = 0;
    for (const [key, { owner }] of this.#known) {
      if (!counted.has(key)) this.#change(key, owner, 0, 0);
      if (++seen % KEYS_A_SLICE === 0) yield true;
    }
    this.#unheld = 0;
    let epochs = this.#epochsAt(roots);
    for (const [key, { owner, references }] of counted) {
      this.#change(key, owner, epochs[owner] as number, references);
      if (++seen % KEYS_A_SLICE !== 0) continue;
      yield true;
      epochs = this.#epochsAt(roots); // an owner may have a new worker
    }
    this.#derived = csr;
  }

  /** Epoch of the worker of the shard whose root is at that address. */
  epochAt(root: number): number {
    return Atomics.load(this.#parts.context.arena.u32, (root >>> 2) + ROOT_WORD.epoch);
  }

  /** What was read of a vertex of another shard, if that is still to be used. @param epoch Of its owner's present worker. */
  look(key: VertexKey, owner: number, epoch: number): GhostValues | undefined {
    this.#table.setOwnerEpoch(owner, epoch);
    return this.#table.look(key);
  }

  /** Keeps what was read of a vertex of another shard. @param epoch Of the owner's worker when it was asked, or a former one. */
  keep(key: VertexKey, owner: number, epoch: number, values: GhostValues): void {
    this.#table.keep(key, owner, epoch, values);
  }

  /** The worker of a shard was lost: what it held is told again by its successor. */
  peerLost(shard: number): void {
    this.holders.removeHolder(this.#parts.members.indexOf(shard));
  }

  /** A new worker knows nothing of what it was told before. */
  peerBack(shard: number): void {
    const owners = this.#again?.owners ?? new Set();
    this.#again = { owners: owners.add(this.#parts.members.indexOf(shard)), left: this.#known.entries() };
  }

  status(): GhostStatus {
    const { asked, gone } = this.#sweeper.counters();
    return {
      ghosts: this.#known.size,
      references: this.#references,
      unheld: this.#unheld,
      held: this.holders.size,
      untold: this.#news.size,
      verified: asked,
      gone,
      cached: this.#table.size - this.#table.pinned,
      ...this.#table.counters(),
    };
  }

  close(): void {
    this.#sweeper.stop();
  }

  #epochsAt(roots: readonly number[]): number[] {
    return roots.map((root) => this.epochAt(root));
  }

  /** A slice of what owners are told again. */
  #tellAgain(): boolean {
    const again = this.#again;
    if (again === undefined) return false;
    for (let at = 0; at < KEYS_A_SLICE; at++) {
      const { done, value } = again.left.next();
      if (done === true) {
        this.#again = undefined;
        break;
      }
      const [key, { owner, references }] = value;
      if (again.owners.has(owner)) this.#news.add(owner, key, references);
    }
    return true;
  }

  /** The edges go with the next build; its owner need not remember who had them. */
  #forget(key: VertexKey): void {
    const known = this.#known.get(key);
    if (known === undefined) return;
    this.#know(key, known.owner, 0);
  }

  #change(key: VertexKey, owner: number, epoch: number, references: number): void {
    const before = this.#known.get(key)?.references ?? 0;
    if (before === references) return;
    if (references < before) this.#table.release(key, before - references);
    else if (!this.#table.acquire(key, owner, epoch, references - before)) {
      this.#unheld++; // no room for a ghost, as only the first reference needs it: the edge is there all the same
      return;
    }
    this.#know(key, owner, references);
  }

  /** So many edges lead to a vertex now, which its owner is told. */
  #know(key: VertexKey, owner: number, references: number): void {
    this.#references += references - (this.#known.get(key)?.references ?? 0);
    if (references === 0) this.#known.delete(key);
    else this.#known.set(key, { owner, references });
    this.#news.add(owner, key, references);
  }

  #tell(owner: number, kind: "create" | "delete", changes: readonly GhostChange[]): Promise<unknown> {
    const { collection: collectionId, members, peers, shard } = this.#parts;
    const message = { collectionId, holder: shard, holderEpoch: this.epoch, changes };
    const payload: Payload = {
      byteLength: ghostChangesBytes(message),
      write: (target, offset) => writeGhostChanges(target, offset, message),
    };
    const type = kind === "create" ? GRAPH_GHOST_CREATE : GRAPH_GHOST_DELETE;
    return peers.ask(members[owner] as number, type, payload, () => undefined, ASK_MS);
  }

  #verify(owner: number, keys: readonly VertexKey[]): ReturnType<GhostVerify> {
    const { collection: collectionId, members, peers, shard } = this.#parts;
    const question = { collectionId, asker: shard, keys };
    const payload: Payload = {
      byteLength: ghostQuestionBytes(question),
      write: (target, offset) => writeGhostQuestion(target, offset, question),
    };
    const read = (frame: ReplyFrame): ReturnType<typeof readGhostReply> => readGhostReply(frame, keys.length);
    return peers.ask(members[owner] as number, GRAPH_GHOST_VERIFY, payload, read, ASK_MS);
  }
}

type GhostVerify = ConstructorParameters<typeof GhostSweeper>[0]["verify"];

/** How many edges lead to each vertex of one peer. */
function* count(
  arena: Arena,
  { targets }: PeerEdges,
  owner: number,
  root: number,
  into: Map<VertexKey, Reference>,
): Generator<boolean> {
  const counts = new Map<number, number>();
  for (let from = 0; from < targets.length; from += ROWS_A_SLICE) {
    for (const target of targets.subarray(from, from + ROWS_A_SLICE)) counts.set(target, (counts.get(target) ?? 0) + 1);
    yield true;
  }
  let seen = 0;
  for (const [local, references] of counts) {
    into.set(keyAt(arena, root, local), { owner, references });
    if (++seen % KEYS_A_SLICE === 0) yield true;
  }
  yield true;
}
