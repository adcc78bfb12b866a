/**
 * What a shard knows of vertices that other shards own: one ghost a vertex, counted by the edges here that lead to it, and with what was read of it.
 *
 * Invariant: a ghost with references is never evicted and never expires silently: it becomes due for a check. One without is kept as a cache, least
 * recently used first to go. What was read of a vertex is not given out when it is older than `ttlMs` or of a former epoch of its owner.
 * There are never more than `capacity` ghosts. Every list is ordered by the time of the last check, so that a new epoch of an owner makes
 * all its ghosts stale at once by changing one number, and those due are found at the heads of lists.
 * Cost: every call O(1), amortised where it drops ghosts. About 60 bytes a ghost besides its key and what was read.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import type { VertexKey } from "../vertex-key.ts";
import type { PropertyValue } from "../vertex-properties.ts";
import { emptyList, NO_SLOT, SlotLinks, type SlotList } from "./slot-links.ts";

const DEFAULT_CAPACITY = 65_536;
const MAX_CAPACITY = 2 ** 24;
const DEFAULT_TTL_MS = 60_000;
/** A ghost with references is checked so many times before it is stale, should answers be lost. */
const CHECKS_PER_TTL = 3;
/** Most ghosts that one look for what is due drops; the next goes on. */
const DROPS_AT_ONCE = 4096;

export interface GhostTableOptions {
  /** Most ghosts, `1..2^24`; memory for all is taken at once. @default 65536 */
  readonly capacity?: number | undefined;
  /** Milliseconds for which what its owner has told is given out; a ghost is checked three times in as many. > 0. @default 60000 */
  readonly ttlMs?: number | undefined;
  readonly clock: Clock;
}

/** What a vertex carries, in the order of the graph's properties. */
export type GhostValues = readonly (PropertyValue | null)[];

interface Read {
  readonly values: GhostValues;
  readonly epoch: number;
  readonly atMs: number;
}

/** A question to the owner of a ghost: does the vertex exist? */
export interface GhostCheck {
  readonly key: VertexKey;
  readonly owner: number;
  /** Tells whether the ghost is still the one that was asked about, with no better news since. */
  readonly version: number;
}

/** What an owner says: there, not there, or nothing that can be used. */
export type GhostAnswer =
  | { readonly kind: "exists" | "gone"; readonly ownerEpoch: number }
  | { readonly kind: "unknown" };

/** What became of an answer. `gone`: the ghost was dropped; `references` edges lead to a vertex that does not exist. */
export type GhostVerdict =
  | { readonly kind: "kept" | "unknown" | "outdated" }
  | { readonly kind: "gone"; readonly references: number };

/** Counts since the table was made. */
export interface GhostCounters {
  /** Questions that a ghost has answered, and those for its owner. */
  readonly hits: number;
  readonly misses: number;
  /** Ghosts without references that were dropped: for want of room, and as they were too old or of a former epoch. */
  readonly evicted: number;
  readonly expired: number;
}

interface Owner {
  epoch: number;
  /** Ghosts whose stamp is below were checked before this epoch. */
  staleBelow: number;
  readonly ghosts: SlotList;
}

export class GhostTable {
  readonly #clock: Clock;
  readonly #capacity: number;
  readonly #ttlMs: number;
  readonly #slots = new Map<VertexKey, number>();
  readonly #keys: (VertexKey | undefined)[] = [];
  readonly #owner: Int32Array;
  readonly #epoch: Float64Array;
  readonly #references: Uint32Array;
  readonly #read: (Read | undefined)[] = [];
  readonly #checkedMs: Float64Array;
  /** Order of the last check, and version of what is known. */
  readonly #stamp: Float64Array;
  readonly #version: Float64Array;
  #nextStamp = 1;
  readonly #free: number[] = [];
  /** `#idle` (least recently used first) and `#pinned` (least recently checked first). */
  readonly #links: SlotLinks;
  readonly #idle = emptyList();
  readonly #pinned = emptyList();
  /** Lists of owners, each least recently checked first. */
  readonly #ownerLinks: SlotLinks;
  readonly #owners = new Map<number, Owner>();
  /** Owners that may have ghosts of a former epoch. */
  readonly #renewed = new Set<number>();
  readonly #counters = { hits: 0, misses: 0, evicted: 0, expired: 0 };

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
  constructor({ capacity = DEFAULT_CAPACITY, ttlMs = DEFAULT_TTL_MS, clock }: GhostTableOptions) {
    if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_CAPACITY) {
      throw invalidArgument("create ghost table", "capacity", `an integer between 1 and ${MAX_CAPACITY}`, capacity);
    }
    if (!(ttlMs > 0 && ttlMs < Number.POSITIVE_INFINITY)) {
      throw invalidArgument("create ghost table", "ttlMs", "a finite number above 0", ttlMs);
    }
    this.#clock = clock;
    this.#capacity = capacity;
    this.#ttlMs = ttlMs;
    this.#owner = new Int32Array(capacity);
    this.#epoch = new Float64Array(capacity);
    this.#references = new Uint32Array(capacity);
    this.#checkedMs = new Float64Array(capacity);
    this.#stamp = new Float64Array(capacity);
    this.#version = new Float64Array(capacity);
    this.#links = new SlotLinks(capacity);
    this.#ownerLinks = new SlotLinks(capacity);
  }

  get size(): number {
    return this.#slots.size;
  }

  /** Ghosts with references. */
  get pinned(): number {
    return this.#pinned.size;
  }

  counters(): GhostCounters {
    return { ...this.#counters };
  }

  /**
   * Adds references to a vertex that its owner, in that epoch, just said exists; makes the ghost if it is not there.
   *
   * @returns Whether there is room for it; false: every ghost has references, and nothing was changed.
   * @throws {ShardloomError} `ERR_STALE_EPOCH` if a newer epoch of the owner is known
   */
  acquire(key: VertexKey, owner: number, ownerEpoch: number, count = 1): boolean {
    const { epoch } = this.#ownerOf(owner);
    if (ownerEpoch < epoch) {
      const message = `Cannot reference ghost as its owner's epoch must be at least ${epoch}: current value is ${ownerEpoch}`;
      throw new ShardloomError("ERR_STALE_EPOCH", message, { details: { vertex: key, owner, ownerEpoch, epoch } });
    }
    const slot = this.#slotFor(key, owner);
    if (slot === NO_SLOT) return false;
    if (this.#references[slot] === 0) {
      this.#links.remove(this.#idle, slot);
      this.#links.append(this.#pinned, slot);
    }
    this.#references[slot] = (this.#references[slot] as number) + count;
    this.#confirm(slot, ownerEpoch);
    this.setOwnerEpoch(owner, ownerEpoch);
    return true;
  }

  /**
   * Takes references back. Without any the ghost stays as a cache.
   *
   * @returns References left; 0: the owner is to be told (ghost delete).
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if there is no ghost with as many
   */
  release(key: VertexKey, count = 1): number {
    const slot = this.#slots.get(key);
    const references = slot === undefined ? 0 : (this.#references[slot] as number);
    if (slot === undefined || references < count) {
      throw invalidArgument("release ghost", "vertex", `one that ${count} edges of this shard lead to`, key);
    }
    this.#references[slot] = references - count;
    if (references === count) {
      this.#links.remove(this.#pinned, slot);
      this.#links.append(this.#idle, slot);
    }
    return references - count;
  }

  /** Keeps what an owner, in that epoch, just said that a vertex carries, if there is room; what a former epoch says is not kept. */
  keep(key: VertexKey, owner: number, ownerEpoch: number, values: GhostValues): void {
    if (ownerEpoch < this.#ownerOf(owner).epoch) return;
    const slot = this.#slotFor(key, owner);
    if (slot === NO_SLOT) return;
    this.#read[slot] = { values, epoch: ownerEpoch, atMs: this.#clock.nowMs() };
    this.#confirm(slot, ownerEpoch);
    this.#used(slot);
    this.setOwnerEpoch(owner, ownerEpoch);
  }

  /** What was read of a vertex; its ghost is from now on the one used last. Undefined when that is too old, or of a former epoch of its owner. */
  look(key: VertexKey): GhostValues | undefined {
    const slot = this.#slots.get(key);
    const read = slot === undefined ? undefined : this.#read[slot];
    if (slot !== undefined && read !== undefined && this.#isFresh(slot, read)) {
      this.#used(slot);
      this.#counters.hits++;
      return read.values;
    }
    this.#counters.misses++;
    if (slot === undefined) return undefined;
    if (this.#references[slot] === 0) this.#expire(slot);
    else this.#read[slot] = undefined;
    return undefined;
  }

  /** The owner has this epoch now: all that it said in a former one is stale. A lower number than the one known changes nothing. */
  setOwnerEpoch(owner: number, epoch: number): void {
    const state = this.#ownerOf(owner);
    if (epoch <= state.epoch) return;
    state.epoch = epoch;
    // What this epoch itself said has a stamp already: its list ends with it.
    const { last } = state.ghosts;
    const isLastNew = last !== NO_SLOT && (this.#epoch[last] as number) >= epoch;
    state.staleBelow = isLastNew ? (this.#stamp[last] as number) : this.#nextStamp;
    this.#renewed.add(owner);
  }

  /**
   * The ghost that should be checked next; it is not given again before a third of `ttlMs` has passed or its owner has a newer epoch.
   * Ghosts of former epochs come first, then those that were checked longest ago.
   */
  takeDue(): GhostCheck | undefined {
    const enough = this.#counters.expired + DROPS_AT_ONCE;
    for (const owner of this.#renewed) {
      const state = this.#ownerOf(owner);
      for (let slot = state.ghosts.first; slot !== NO_SLOT; slot = state.ghosts.first) {
        if ((this.#stamp[slot] as number) >= state.staleBelow) break;
        if (this.#references[slot] !== 0) return this.#ask(slot);
        if (this.#counters.expired === enough) return undefined;
        this.#expire(slot);
      }
      this.#renewed.delete(owner);
    }
    const { first } = this.#pinned;
    const isDue = first !== NO_SLOT && this.#clock.nowMs() - (this.#checkedMs[first] as number) >= this.recheckMs;
    return isDue ? this.#ask(first) : undefined;
  }

  /** Milliseconds between two checks of a ghost with references. */
  get recheckMs(): number {
    return this.#ttlMs / CHECKS_PER_TTL;
  }

  /** Takes the answer to a check. One that is older than what is known by now changes nothing (`outdated`). */
  settle({ key, owner, version }: GhostCheck, answer: GhostAnswer): GhostVerdict {
    const slot = this.#slots.get(key);
    if (slot === undefined || this.#version[slot] !== version) return { kind: "outdated" };
    if (answer.kind === "unknown") return { kind: "unknown" };
    if (answer.ownerEpoch < this.#ownerOf(owner).epoch) return { kind: "outdated" };
    if (answer.kind === "gone") {
      const references = this.#references[slot] as number;
      this.#drop(slot);
      this.setOwnerEpoch(owner, answer.ownerEpoch);
      return { kind: "gone", references };
    }
    this.#confirm(slot, answer.ownerEpoch);
    this.setOwnerEpoch(owner, answer.ownerEpoch);
    return { kind: "kept" };
  }

  #isFresh(slot: number, { epoch, atMs }: Read): boolean {
    return epoch === this.#ownerOf(this.#owner[slot] as number).epoch && this.#clock.nowMs() - atMs < this.#ttlMs;
  }

  #used(slot: number): void {
    if (this.#references[slot] === 0) this.#links.toEnd(this.#idle, slot);
  }

  #ownerOf(owner: number): Owner {
    let state = this.#owners.get(owner);
    if (state === undefined) {
      state = { epoch: Number.NEGATIVE_INFINITY, staleBelow: 0, ghosts: emptyList() };
      this.#owners.set(owner, state);
    }
    return state;
  }

  /** The owner answered for it just now. */
  #confirm(slot: number, ownerEpoch: number): void {
    this.#epoch[slot] = ownerEpoch;
    this.#version[slot] = this.#nextStamp;
    this.#restamp(slot);
  }

  #ask(slot: number): GhostCheck {
    this.#restamp(slot);
    const key = this.#keys[slot] as VertexKey;
    return { key, owner: this.#owner[slot] as number, version: this.#version[slot] as number };
  }

  #restamp(slot: number): void {
    this.#checkedMs[slot] = this.#clock.nowMs();
    this.#stamp[slot] = this.#nextStamp++;
    this.#ownerLinks.toEnd(this.#ownerOf(this.#owner[slot] as number).ghosts, slot);
    if (this.#references[slot] !== 0) this.#links.toEnd(this.#pinned, slot);
  }

  /** The ghost of a vertex that belongs to that owner, or a new one without references, as the last of the idle ones, if there is room. */
  #slotFor(key: VertexKey, owner: number): number {
    const known = this.#slots.get(key);
    if (known === undefined) return this.#create(key, owner);
    if (this.#owner[known] !== owner) {
      this.#ownerLinks.remove(this.#ownerOf(this.#owner[known] as number).ghosts, known);
      this.#owner[known] = owner;
      this.#read[known] = undefined;
      this.#ownerLinks.append(this.#ownerOf(owner).ghosts, known);
    }
    return known;
  }

  #create(key: VertexKey, owner: number): number {
    if (this.#slots.size === this.#capacity) {
      if (this.#idle.first === NO_SLOT) return NO_SLOT;
      this.#drop(this.#idle.first);
      this.#counters.evicted++;
    }
    const slot = this.#free.pop() ?? this.#slots.size;
    this.#slots.set(key, slot);
    this.#keys[slot] = key;
    this.#read[slot] = undefined; // in order, so that it is no sparse array
    this.#owner[slot] = owner;
    this.#references[slot] = 0;
    this.#links.append(this.#idle, slot);
    this.#ownerLinks.append(this.#ownerOf(owner).ghosts, slot);
    return slot;
  }

  #expire(slot: number): void {
    this.#drop(slot);
    this.#counters.expired++;
  }

  #drop(slot: number): void {
    this.#slots.delete(this.#keys[slot] as VertexKey);
    this.#keys[slot] = undefined;
    this.#read[slot] = undefined;
    this.#links.remove(this.#references[slot] === 0 ? this.#idle : this.#pinned, slot);
    this.#ownerLinks.remove(this.#ownerOf(this.#owner[slot] as number).ghosts, slot);
    this.#free.push(slot);
  }
}
