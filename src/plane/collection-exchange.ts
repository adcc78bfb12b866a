/**
 * What the nodes of a cluster tell each other of their collections, so that one that is opened or dropped on one node is so on all.
 *
 * Each node tells what it has itself: everything to who has just connected, then each change. Of one name the higher generation is newer, and of one
 * generation the collection that is open newer than none; who hears of something newer opens or drops, and tells that in turn. So what was told once
 * reaches everybody, in whatever order and however often it comes, and what was dropped does not come back with a node that did not hear of it.
 *
 * Invariant: nobody waits for a node that is not connected, nor for longer than a bound for one that is. What could not be opened here is tried again.
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { withinMs } from "../runtime/scheduler.ts";
import { FLAG_ALL } from "../wire/link-frame.ts";
import type { NodeLinks } from "./node-links.ts";

/** What a node has of the collections of one name. */
export interface CollectionNews {
  readonly engine: string;
  readonly name: string;
  /** How often collections of the name were dropped. */
  readonly generation: number;
  /** Of the one that is open, as its engine keeps them, plain JSON; absent: none is open. */
  readonly options?: unknown;
}

/** Who has collections and is told of others. */
export interface CollectionHolder {
  news(): readonly CollectionNews[];
  /** Opens or drops what the news say, unless that is older than what is here. @throws {ShardloomError} As opening and dropping do. */
  learn(news: CollectionNews): Promise<void>;
}

/** The exchange as links use it. */
export interface LinkCollections {
  /** Flags and bodies of the frames that tell everything; at least one. */
  all(): readonly (readonly [flags: number, body: Uint8Array])[];
  /**
   * A peer has told.
   *
   * @param isAll Whether that is all, with what it has told before. @returns resolves then when everything is here, or takes too long
   * @throws {ShardloomError} `ERR_CORRUPT`
   */
  take(peer: string, body: Uint8Array, isAll: boolean): Promise<void>;
  /** There was time enough for a first contact. */
  giveUpWaiting(): void;
  /** A peer is no member any more. */
  forget(peer: string): void;
}

/** What is known of another node. */
interface Peer {
  isUp: boolean;
  /** It has told all that it had, at least once. */
  hasTold: boolean;
  /** What it has told on the present connection. */
  readonly told: Map<string, CollectionNews>;
  /** Of what it tells when it has just connected; absent: it has told all of that. */
  taking: Promise<void>[] | undefined;
}

/** Collections in one frame. */
const PER_FRAME = 256;
/** How long who tells, and who has just connected, waits for others to open. */
const SPREAD_MS = 1_000;
/** Pause before what could not be opened is tried again. */
const RETRY_MS = 1_000;
/** Errors that another try does not help: options that differ or are no such, a collection that was dropped, a node that is closed. */
const FINAL: ReadonlySet<string> = new Set([
  "ERR_COLLECTION_MISMATCH",
  "ERR_INVALID_ARGUMENT",
  "ERR_UNKNOWN_COLLECTION",
  "ERR_CLOSED",
]);

/** One node's side of the exchange. */
export class CollectionExchange implements LinkCollections {
  readonly #links: Pick<NodeLinks, "tellCollections">;
  readonly #scheduler: Scheduler;
  readonly #holder: CollectionHolder;
  readonly #peers: ReadonlyMap<string, Peer>;
  /** Called whenever something has changed that somebody may wait for. */
  readonly #waiting: Set<() => void> = new Set();
  #isLate = false;

  constructor(links: NodeLinks, scheduler: Scheduler, holder: CollectionHolder) {
    this.#links = links;
    this.#scheduler = scheduler;
    this.#holder = holder;
    this.#peers = new Map(
      links.stats().map(({ peer }) => [peer, { isUp: false, hasTold: false, told: new Map(), taking: undefined }]),
    );
    links.exchange(this);
    links.onNode(({ peer, state }) => this.#connected(peer, state === "up"));
  }

  all(): readonly (readonly [flags: number, body: Uint8Array])[] {
    const news = this.#holder.news();
    const frames = Math.max(1, Math.ceil(news.length / PER_FRAME));
    return Array.from({ length: frames }, (_, at) => {
      const body = encodeNews(news.slice(at * PER_FRAME, (at + 1) * PER_FRAME));
      return [at + 1 === frames ? FLAG_ALL : 0, body] as const;
    });
  }

  take(name: string, body: Uint8Array, isAll: boolean): Promise<void> {
    const peer = this.#peers.get(name) as Peer;
    for (const news of decodeNews(body)) {
      peer.told.set(keyOf(news), news);
      const taken = this.#learn(news);
      peer.taking?.push(taken);
    }
    this.#wake();
    if (!isAll) return Promise.resolve();
    const all = Promise.all(peer.taking ?? []);
    peer.taking = undefined;
    return withinMs(this.#scheduler, SPREAD_MS, all).then(() => {
      peer.hasTold = true;
      this.#wake();
    });
  }

  giveUpWaiting(): void {
    this.#isLate = true;
    this.#wake();
  }

  forget(name: string): void {
    (this.#peers.get(name) as Peer).hasTold = true; // whatever it has not told, nobody waits for it
    this.#wake();
  }

  /** Tells the others what this node has now. */
  tell(news: CollectionNews): void {
    this.#links.tellCollections(encodeNews([news]));
  }

  /** Resolves when this node has heard of what each other one had, or there was time enough for a first contact. */
  async settled(): Promise<void> {
    const isSettled = (): boolean => this.#isLate || [...this.#peers.values()].every(({ hasTold }) => hasTold);
    while (!isSettled()) await this.#change();
  }

  /** Resolves when all nodes that are connected have what the news say, or something newer; or when that takes too long. */
  async spread(news: CollectionNews): Promise<void> {
    const key = keyOf(news);
    const has = ({ isUp, told }: Peer): boolean => !isUp || isAsNew(told.get(key), news);
    const isSpread = (): boolean => [...this.#peers.values()].every(has);
    if (isSpread()) return;
    let isOver = false;
    const timer = this.#scheduler.timer(SPREAD_MS, () => {
      isOver = true;
      this.#wake();
    });
    while (!isOver && !isSpread()) await this.#change();
    timer.cancel();
  }

  #connected(name: string, isUp: boolean): void {
    const peer = this.#peers.get(name) as Peer;
    peer.isUp = isUp;
    peer.told.clear();
    peer.taking = isUp ? [] : undefined;
    this.#wake();
  }

  /** Tries until it succeeds, or cannot. @returns resolves after the first try */
  async #learn(news: CollectionNews): Promise<void> {
    try {
      await this.#holder.learn(news);
    } catch (error) {
      if (FINAL.has(ShardloomError.from(error).code)) return;
      this.#scheduler.timer(RETRY_MS, () => void this.#learn(news)).unref();
    }
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  #wake(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of waiting) wake();
  }
}

function keyOf({ engine, name }: CollectionNews): string {
  return `${engine} ${name}`;
}

/** Whether who has told something has what the news say, or something newer. */
function isAsNew(told: CollectionNews | undefined, news: CollectionNews): boolean {
  const generation = told?.generation ?? 0;
  if (generation !== news.generation) return generation > news.generation;
  return news.options === undefined || told?.options !== undefined;
}

function encodeNews(news: readonly CollectionNews[]): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(news));
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
function decodeNews(body: Uint8Array): readonly CollectionNews[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(body));
  } catch (error) {
    throw ShardloomError.from(error, "ERR_CORRUPT");
  }
  if (Array.isArray(value) && value.every(isNews)) return value;
  throw new ShardloomError(
    "ERR_CORRUPT",
    "Cannot read collections as each must have an engine, a name and a generation",
  );
}

function isNews(value: unknown): value is CollectionNews {
  const { engine, name, generation } = (value ?? {}) as Partial<CollectionNews>;
  return typeof engine === "string" && typeof name === "string" && Number.isSafeInteger(generation);
}
