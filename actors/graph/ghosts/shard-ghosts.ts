/**
 * The ghosts of one graph on one shard: what it knows of vertices of other shards that its edges lead to, and who has ghosts of its own.
 *
 * Ghosts follow from the adjacency: after every build the shard counts its edges to each such vertex, and tells the owners what has changed.
 * Invariant: so all of it can be made anew, by a successor from the adjacency that it takes over, by an owner from what its peers tell it
 * again when its worker was replaced. Edges beyond `capacity` have no ghosts, and say so.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { ShardloomError } from "../../../src/errors.ts";
import type { Payload, ReplyFrame } from "../../../src/routing/requester.ts";
import { GRAPH_GHOST_CREATE, GRAPH_GHOST_DELETE, GRAPH_GHOST_VERIFY } from "../../../src/wire/message-types.ts";
import type { EngineContext, EnginePeers } from "../../engine.ts";
import type { Csr, PeerEdges } from "../csr.ts";
import type { GhostOptions } from "../graph-options.ts";
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
import { GhostTable } from "./ghost-table.ts";
import { TurnTimers } from "./turn-timers.ts";

const ASK_MS = 2_000;
const ROWS_A_SLICE = 65_536;

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

/** Where the vertices of a shard are. */
export interface GhostOwner {
  /** Address of its root. */
  readonly root: number;
  /** Of its worker. */
  readonly epoch: number;
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
}

interface Reference {
  readonly owner: number;
  references: number;
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
    return Math.min(this.#timers.dueAtMs, this.#news.dueAtMs);
  }

  /** @returns whether anything was done */
  turn(nowMs: number): boolean {
    const swept = this.#timers.run(nowMs);
    return this.#news.run(nowMs) || swept;
  }

  /** Counts the edges to vertices of other shards anew, and tells their owners what is different. */
  *derive(csr: Csr, owners: readonly GhostOwner[]): Generator<boolean> {
    if (this.#derived === csr) return;
    const { context, shard } = this.#parts;
    const counted = new Map<VertexKey, Reference>();
    for (const [owner, edges] of csr.peers.entries()) {
      if (owner !== shard) yield* count(context.arena, edges, owner, owners[owner] as GhostOwner, counted);
    }
    // In one turn from here on.
    for (const [key, { owner }] of this.#known) if (!counted.has(key)) this.#change(key, owner, 0, 0);
    this.#unheld = 0;
    for (const [key, { owner, references }] of counted)
      this.#change(key, owner, (owners[owner] as GhostOwner).epoch, references);
    this.#derived = csr;
  }

  /** The worker of a shard was lost: what it held is told again by its successor. */
  peerLost(shard: number): void {
    this.holders.removeHolder(this.#parts.members.indexOf(shard));
  }

  /** A new worker knows nothing of what it was told before. */
  peerBack(shard: number): void {
    const peer = this.#parts.members.indexOf(shard);
    for (const [key, { owner, references }] of this.#known) if (owner === peer) this.#news.add(owner, key, references);
  }

  status(): GhostStatus {
    const { asked, gone } = this.#sweeper.counters();
    let references = 0;
    for (const known of this.#known.values()) references += known.references;
    return {
      ghosts: this.#known.size,
      references,
      unheld: this.#unheld,
      held: this.holders.size,
      untold: this.#news.size,
      verified: asked,
      gone,
    };
  }

  close(): void {
    this.#sweeper.stop();
  }

  /** The edges go with the next build; its owner need not remember who had them. */
  #forget(key: VertexKey): void {
    const known = this.#known.get(key);
    if (known === undefined) return;
    this.#known.delete(key);
    this.#news.add(known.owner, key, 0);
  }

  #change(key: VertexKey, owner: number, epoch: number, references: number): void {
    const before = this.#known.get(key)?.references ?? 0;
    if (before === references) return;
    try {
      for (let at = before; at < references; at++) this.#table.acquire(key, owner, epoch);
    } catch (error) {
      // No room for a ghost: the edge is there all the same. Nothing of it was acquired, as room is needed for the first reference only.
      if (ShardloomError.from(error).code !== "ERR_OVERLOADED") throw error;
      this.#unheld++;
      return;
    }
    for (let at = references; at < before; at++) this.#table.release(key);
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
  { root }: GhostOwner,
  into: Map<VertexKey, Reference>,
): Generator<boolean> {
  const counts = new Map<number, number>();
  for (let from = 0; from < targets.length; from += ROWS_A_SLICE) {
    for (const target of targets.subarray(from, from + ROWS_A_SLICE)) counts.set(target, (counts.get(target) ?? 0) + 1);
    yield true;
  }
  for (const [local, references] of counts) into.set(keyAt(arena, root, local), { owner, references });
  yield true;
}
