/**
 * What an owner knows of the ghosts of its vertices: which shards hold one, with how many references.
 *
 * Invariant: the state depends on the newest change a holder sent for a vertex, never on the order in which changes came or on how often:
 * counts are absolute and numbered by their holder. What a holder deleted is remembered for `forgetMs`, so that an older create that
 * comes late does not bring it back; a change of a former epoch of its holder changes nothing.
 * Cost: O(1) a change, and to drop a holder, whose ghosts go in slices ({@link GhostHolders.sweep}); nobody is told of them meanwhile, only `size` has
 * them still. `holdersOf` costs O(holders of the vertex).
 */
import type { Clock } from "../../../src/runtime/clock.ts";
import type { VertexKey } from "../vertex-key.ts";

/** A holder's ghost of a vertex: made or changed (`references` ≥ 1), or deleted (0). */
export interface GhostChange {
  readonly key: VertexKey;
  readonly references: number;
  /** Higher than in every earlier change that the holder sent in its present epoch. */
  readonly version: number;
}

interface Held {
  references: number;
  version: number;
}

interface Holder {
  epoch: number;
  readonly ghosts: Map<VertexKey, Held>;
}

interface Forgotten {
  readonly atMs: number;
  readonly holder: number;
  readonly key: VertexKey;
  readonly held: Held;
}

export interface GhostHoldersOptions {
  /** Milliseconds for which a deleted ghost is remembered: longer than a change can be under way. @default 60000 */
  readonly forgetMs?: number | undefined;
  readonly clock: Clock;
}

const DEFAULT_FORGET_MS = 60_000;
/** Ghosts of former holders that one sweep lets go. */
const SLICE = 4096;
/** Deleted ghosts that one change may forget: more than it can add. */
const FORGET_AT_ONCE = 4;
/** Forgotten entries that are let go from the front of their list at once. */
const COMPACT_AT = 1024;

export class GhostHolders {
  readonly #clock: Clock;
  readonly #forgetMs: number;
  readonly #holders = new Map<number, Holder>();
  /** Holders of each vertex with at least one reference. */
  readonly #held = new Map<VertexKey, Set<number>>();
  /** What holders had before they were dropped, or had a new epoch. */
  readonly #former: { readonly holder: number; readonly left: Iterator<[VertexKey, Held]> }[] = [];
  /** In order of time. */
  #deleted: Forgotten[] = [];
  #firstDeleted = 0;

  constructor({ forgetMs = DEFAULT_FORGET_MS, clock }: GhostHoldersOptions) {
    this.#forgetMs = forgetMs;
    this.#clock = clock;
  }

  /** Vertices of which somebody holds a ghost, or did until just now. */
  get size(): number {
    return this.#held.size;
  }

  /** Takes a change. @returns Whether it was news. */
  apply(holder: number, holderEpoch: number, { key, references, version }: GhostChange): boolean {
    this.#forget();
    const state = this.#stateOf(holder, holderEpoch);
    if (state === undefined) return false;
    const held = state.ghosts.get(key);
    if (held !== undefined && held.version >= version) return false;
    const now: Held = { references, version };
    state.ghosts.set(key, now);
    if (references > 0) {
      const holders = this.#held.get(key);
      if (holders === undefined) this.#held.set(key, new Set([holder]));
      else holders.add(holder);
    } else {
      this.#unhold(key, holder);
      this.#deleted.push({ atMs: this.#clock.nowMs(), holder, key, held: now });
    }
    return true;
  }

  /** Shards that hold a ghost of the vertex: whom to tell that it is gone. */
  holdersOf(key: VertexKey): number[] {
    return [...(this.#held.get(key) ?? [])].filter((holder) => this.references(key, holder) > 0);
  }

  /** References that a shard has to the vertex. */
  references(key: VertexKey, holder: number): number {
    return this.#holders.get(holder)?.ghosts.get(key)?.references ?? 0;
  }

  /** Drops all that a shard holds, as it is no more. */
  removeHolder(holder: number): void {
    const state = this.#holders.get(holder);
    this.#holders.delete(holder);
    this.#drop(holder, state);
  }

  /** Whether {@link sweep} has anything to do. */
  get isSwept(): boolean {
    return this.#former.length === 0;
  }

  /** Lets some of what former holders had go. @returns whether there was any */
  sweep(): boolean {
    for (let at = 0; at < SLICE; at++) {
      const [former] = this.#former;
      if (former === undefined) return at > 0;
      const { done, value } = former.left.next();
      if (done === true) {
        this.#former.shift();
        continue;
      }
      const [key] = value;
      if (this.references(key, former.holder) === 0) this.#unhold(key, former.holder); // else it has one again
    }
    return true;
  }

  /** The holder's state in that epoch; undefined when it has a newer one. */
  #stateOf(holder: number, epoch: number): Holder | undefined {
    const known = this.#holders.get(holder);
    if (known !== undefined && known.epoch >= epoch) return known.epoch === epoch ? known : undefined;
    this.#drop(holder, known);
    const state: Holder = { epoch, ghosts: new Map() };
    this.#holders.set(holder, state);
    return state;
  }

  #drop(holder: number, state: Holder | undefined): void {
    if (state !== undefined && state.ghosts.size > 0) this.#former.push({ holder, left: state.ghosts.entries() });
  }

  #unhold(key: VertexKey, holder: number): void {
    const holders = this.#held.get(key);
    if (holders?.delete(holder) === true && holders.size === 0) this.#held.delete(key);
  }

  #forget(): void {
    const before = this.#clock.nowMs() - this.#forgetMs;
    const end = Math.min(this.#deleted.length, this.#firstDeleted + FORGET_AT_ONCE);
    for (; this.#firstDeleted < end; this.#firstDeleted++) {
      const { atMs, holder, key, held } = this.#deleted[this.#firstDeleted] as Forgotten;
      if (atMs > before) break;
      const ghosts = this.#holders.get(holder)?.ghosts;
      if (ghosts?.get(key) === held) ghosts.delete(key);
    }
    if (this.#firstDeleted < COMPACT_AT || this.#firstDeleted * 2 < this.#deleted.length) return;
    this.#deleted = this.#deleted.slice(this.#firstDeleted);
    this.#firstDeleted = 0;
  }
}
