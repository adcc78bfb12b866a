/**
 * Work requests of many searches, gathered by the peer whose memory they read, and posted as one list to each.
 *
 * Invariant: a peer gets one list for each `post` (more only where a list is longer than the queue of its completions), and a request that is
 * asked for twice under one key is in it once. What was posted is what is counted. One thread only.
 * As no other processor could do it in the background, this thread executes a list, in slices between which it may do something else.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { type Completion, Verbs, type WorkRequest } from "../../native-bridge/verbs.ts";
import type { Slices } from "./slices.ts";

/** What a batch of searches cost. */
export interface ListCounts {
  /** Posted lists, each to one peer: round trips. */
  lists: number;
  /** Work requests in them. */
  requests: number;
  /** Requests that were not made, as another query of the batch had made the same. */
  deduplicated: number;
  /** Bytes that came. */
  bytes: number;
}

/** Of a request: all but its number, which the lists give. */
export type Request = Omit<WorkRequest, "id">;

const LONGEST_LIST = 65_536;
/** Requests of a slice. */
const SLICE_REQUESTS = 16;

export class PostedLists {
  readonly counts: ListCounts = { lists: 0, requests: 0, deduplicated: 0, bytes: 0 };
  readonly #verbs: Verbs;
  readonly #lists: Map<number, WorkRequest[]> = new Map();
  readonly #keys: Set<number> = new Set();
  readonly #out: Completion[] = [];

  constructor(arena: Arena) {
    this.#verbs = new Verbs(arena, { completionCapacity: SLICE_REQUESTS });
  }

  /**
   * Whether something has to be asked for: once for each key until the next {@link post}.
   *
   * @param key A number for what is read.
   */
  wants(key: number): boolean {
    if (this.#keys.has(key)) {
      this.counts.deduplicated++;
      return false;
    }
    this.#keys.add(key);
    return true;
  }

  /** Whether nobody has asked for that yet. */
  isUnwanted(key: number): boolean {
    return !this.#keys.has(key);
  }

  /** @param id Comes back with its status. */
  add(peer: number, id: number, request: Request): void {
    const list = this.#lists.get(peer);
    if (list === undefined) this.#lists.set(peer, [{ ...request, id }]);
    else list.push({ ...request, id });
  }

  /** Posts what was gathered: one list to each peer. @param ended Is told how each request ended */
  *post(ended: (id: number, status: number) => void): Slices<void> {
    for (const list of this.#lists.values()) {
      for (let first = 0; first < list.length; first += SLICE_REQUESTS) {
        const posted = this.#verbs.post(list.slice(first, first + SLICE_REQUESTS));
        if (first % LONGEST_LIST === 0) this.counts.lists++;
        this.counts.requests += posted;
        const count = this.#verbs.poll(this.#out, posted);
        for (let at = 0; at < count; at++) {
          const { id, status, byteLength } = this.#out[at] as Completion;
          this.counts.bytes += byteLength;
          ended(id, status);
        }
        yield;
      }
    }
    this.#lists.clear();
    this.#keys.clear();
  }
}
