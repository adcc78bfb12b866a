/**
 * What an owner knows of the ghosts of its vertices: which shards hold one, with how many references.
 *
 * Invariant: the state depends on the newest change a holder sent for a vertex, never on the order in which changes came or on how often:
 * counts are absolute and numbered by their holder. What a holder deleted is remembered for `forgetMs`, so that an older create that
 * comes late does not bring it back; a change of a former epoch of its holder changes nothing.
 * Cost: O(1) a change; `removeHolder` and a new epoch of a holder cost O(its ghosts here), `holdersOf` O(holders of the vertex).
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
/** Forgotten entries that are let go from the front of their list at once. */
const COMPACT_AT = 1024;

export class GhostHolders {
  readonly #clock: Clock;
  readonly #forgetMs: number;
  readonly #holders = new Map<number, Holder>();
  /** Holders of each vertex with at least one reference. */
  readonly #held = new Map<VertexKey, Set<number>>();
  /** In order of time. */
  #deleted: Forgotten[] = [];
  #firstDeleted = 0;

  constructor({ forgetMs = DEFAULT_FORGET_MS, clock }: GhostHoldersOptions) {
    this.#forgetMs = forgetMs;
    this.#clock = clock;
  }

  /** Vertices of which somebody holds a ghost. */
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
  holdersOf(key: VertexKey): ReadonlySet<number> {
    return this.#held.get(key) ?? NOBODY;
  }

  /** References that a shard has to the vertex. */
  references(key: VertexKey, holder: number): number {
    return this.#holders.get(holder)?.ghosts.get(key)?.references ?? 0;
  }

  /** Drops all that a shard holds, as it is no more. @returns Ghosts dropped. */
  removeHolder(holder: number): number {
    const state = this.#holders.get(holder);
    if (state === undefined) return 0;
    this.#holders.delete(holder);
    return this.#clear(holder, state);
  }

  /** The holder's state in that epoch; undefined when it has a newer one. */
  #stateOf(holder: number, epoch: number): Holder | undefined {
    const known = this.#holders.get(holder);
    if (known !== undefined && known.epoch >= epoch) return known.epoch === epoch ? known : undefined;
    if (known !== undefined) this.#clear(holder, known);
    const state: Holder = { epoch, ghosts: new Map() };
    this.#holders.set(holder, state);
    return state;
  }

  #clear(holder: number, { ghosts }: Holder): number {
    let dropped = 0;
    for (const [key, { references }] of ghosts) {
      if (references === 0) continue;
      this.#unhold(key, holder);
      dropped++;
    }
    ghosts.clear();
    return dropped;
  }

  #unhold(key: VertexKey, holder: number): void {
    const holders = this.#held.get(key);
    if (holders?.delete(holder) === true && holders.size === 0) this.#held.delete(key);
  }

  #forget(): void {
    const before = this.#clock.nowMs() - this.#forgetMs;
    for (; this.#firstDeleted < this.#deleted.length; this.#firstDeleted++) {
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

const NOBODY: ReadonlySet<number> = new Set();
