/**
 * How the shards of a collection come to hold each other's centroid tables: a state machine without I/O.
 *
 * Invariant: of every shard the newest table that was ever received is held, by (epoch, version, checksum); receiving one again,
 * or an older one after it, changes nothing. So messages may be lost, doubled and reordered, and once every pair of shards
 * that is connected through others has exchanged `tick` messages without loss, all hold the same tables.
 * Tables travel when they are asked for, and any shard passes on any table that it holds: one that crashed gets its peers' tables,
 * and its own, from whoever is there. One that is larger than a message travels in parts, each asked for once the part before it has come
 * (table-parts.ts); who has lost one goes on from there at the next offer.
 * Source: the build-time exchange of shared centroid tables ("VectorBuildExchange"); offers as in anti-entropy gossip,
 * Demers et al., PODC 1987.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import { checkSpace, type LeafColumns, type ShardCentroids, type TableStamp } from "./centroid-table.ts";
import { checksumOf, decodeCentroids, encodeCentroids } from "./centroid-table-codec.ts";
import type { CodeSpace } from "./code-table.ts";
import { PartialTables, type PartRequest, partOf, type TablePart } from "./table-parts.ts";

/** A stamp as peers compare it. */
export interface OfferedStamp extends TableStamp {
  readonly checksum: number;
}

/** Plain data, to be sent by whatever transport there is; all kinds are idempotent. */
export type ExchangeMessage =
  | {
      readonly kind: "offer";
      readonly from: number;
      readonly to: number;
      readonly stamps: readonly OfferedStamp[];
      /** Whether it answers an offer; it is not answered by one, or two shards would offer for ever. */
      readonly isReply: boolean;
    }
  | { readonly kind: "request"; readonly from: number; readonly to: number; readonly shards: readonly number[] }
  | { readonly kind: "table"; readonly from: number; readonly to: number; readonly bytes: Uint8Array }
  | ({ readonly kind: "part"; readonly from: number; readonly to: number } & TablePart)
  | ({ readonly kind: "rest"; readonly from: number; readonly to: number } & PartRequest);

/** What a shard keeps over a crash; losing it costs only what must be asked for again. */
export interface ExchangeState {
  readonly tables: readonly Uint8Array[];
}

export interface ExchangeOptions {
  readonly self: number;
  /** The other shards of the collection. */
  readonly peers: readonly number[];
  readonly space: CodeSpace;
  /** Of this ownership of the shard; higher than any before, which makes what it publishes newer. */
  readonly epoch: number;
  /** @default nothing known */
  readonly state?: ExchangeState;
  /** Bytes of tables that one message to a peer may hold, at least 1. @default no limit */
  readonly mostBytes?: (to: number) => number;
}

interface Held {
  readonly stamp: OfferedStamp;
  readonly bytes: Uint8Array;
  readonly table: ShardCentroids;
}

export class CentroidExchange {
  readonly #self: number;
  readonly #peers: ReadonlySet<number>;
  readonly #space: CodeSpace;
  readonly #epoch: number;
  readonly #mostBytes: (to: number) => number;
  readonly #held = new Map<number, Held>();
  readonly #partial = new PartialTables();
  /** Messages that could not be used, and why the last could not. */
  #refused = 0;
  #lastRefusal: ShardloomError | undefined;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. A table of the state that cannot be used is refused and asked for again. */
  constructor(options: ExchangeOptions) {
    const { self, peers, epoch, state } = options;
    const shard = (value: number): boolean => Number.isInteger(value) && value >= 0;
    if (!shard(self)) throw invalidArgument("exchange centroids", "self", "the number of a shard", self);
    if (!peers.every(shard) || peers.includes(self) || new Set(peers).size !== peers.length)
      throw invalidArgument("exchange centroids", "peers", "different numbers of other shards", peers);
    if (!Number.isSafeInteger(epoch) || epoch < 0)
      throw invalidArgument("exchange centroids", "epoch", "a non-negative integer", epoch);
    this.#self = self;
    this.#peers = new Set(peers);
    this.#space = options.space;
    this.#epoch = epoch;
    this.#mostBytes = options.mostBytes ?? (() => Number.POSITIVE_INFINITY);
    for (const bytes of state?.tables ?? []) this.#accept(bytes);
  }

  /** Messages that were refused so far. */
  get refused(): number {
    return this.#refused;
  }

  get lastRefusal(): ShardloomError | undefined {
    return this.#lastRefusal;
  }

  /** Shards, this one included, of which no table is held. */
  missing(): number[] {
    return [this.#self, ...this.#peers].filter((shard) => !this.#held.has(shard)).sort((a, b) => a - b);
  }

  /** The tables held, in ascending order of shard. */
  tables(): ShardCentroids[] {
    return [...this.#held.values()].map(({ table }) => table).sort((a, b) => a.shard - b.shard);
  }

  /** To be kept before the messages of the same step leave, if own publications must survive a crash of all. */
  state(): ExchangeState {
    return { tables: this.tables().map(({ shard }) => (this.#held.get(shard) as Held).bytes) };
  }

  /** Puts this shard's own leaves in the place of what it published before, and offers them. */
  publish(columns: LeafColumns): ExchangeMessage[] {
    const before = this.#held.get(this.#self)?.stamp;
    const version = before !== undefined && before.epoch >= this.#epoch ? before.version + 1 : 1;
    const epoch = Math.max(before?.epoch ?? 0, this.#epoch);
    const table: ShardCentroids = { ...columns, space: this.#space, shard: this.#self, epoch, version };
    const bytes = encodeCentroids(table);
    const stamp = { shard: this.#self, epoch, version, checksum: checksumOf(bytes) };
    this.#held.set(this.#self, { stamp, bytes, table });
    return this.tick();
  }

  /** Offers what is held to every peer: to be called now and then, and after a restart. */
  tick(): ExchangeMessage[] {
    const stamps = this.#stamps();
    return [...this.#peers].map((to) => ({ kind: "offer", from: this.#self, to, stamps, isReply: false }));
  }

  /** Takes a message and gives the answers. Never throws for what a peer sent: see {@link refused}. */
  receive(message: ExchangeMessage): ExchangeMessage[] {
    const { from } = message;
    if (message.to !== this.#self || !this.#peers.has(from)) {
      this.#refuse(
        new ShardloomError("ERR_INVALID_ARGUMENT", `Cannot take message as shard ${from} is no peer of ${this.#self}`),
      );
      return [];
    }
    switch (message.kind) {
      case "offer":
        return this.#answerOffer(from, message.stamps, message.isReply);
      case "request":
        return this.#answerRequest(from, message.shards);
      case "rest":
        return this.#answerRest(from, message);
      case "part":
        return this.#takePart(from, message);
      case "table":
        this.#accept(message.bytes);
        return [];
    }
  }

  /** The tables that one message has room for, and of the first that it has none for the first part; what is left out is asked for again. */
  #answerRequest(from: number, shards: readonly number[]): ExchangeMessage[] {
    const answers: ExchangeMessage[] = [];
    let room = this.#mostBytes(from);
    for (const shard of shards) {
      const held = this.#held.get(shard);
      if (held === undefined) continue;
      if (held.bytes.length > room) {
        const part = partOf(held.bytes, { shard, checksum: held.stamp.checksum, at: 0 }, room);
        if (part !== undefined) answers.push({ kind: "part", from: this.#self, to: from, ...part });
        return answers;
      }
      answers.push({ kind: "table", from: this.#self, to: from, bytes: held.bytes });
      room -= held.bytes.length;
    }
    return answers;
  }

  #answerRest(from: number, { shard, checksum, at }: PartRequest): ExchangeMessage[] {
    const held = this.#held.get(shard);
    if (held === undefined || held.stamp.checksum !== checksum) return []; // the newer one is offered at the next tick
    const part = partOf(held.bytes, { shard, checksum, at }, this.#mostBytes(from));
    return part === undefined ? [] : [{ kind: "part", from: this.#self, to: from, ...part }];
  }

  #takePart(from: number, part: TablePart): ExchangeMessage[] {
    if (!this.#knows(part.shard) || this.#held.get(part.shard)?.stamp.checksum === part.checksum) return [];
    const taken = this.#partial.take(part);
    if (taken instanceof Uint8Array) this.#accept(taken);
    return taken === undefined || taken instanceof Uint8Array
      ? []
      : [{ kind: "rest", from: this.#self, to: from, ...taken }];
  }

  /** Asks for what the peer has newer, and offers what it has older. */
  #answerOffer(from: number, stamps: readonly OfferedStamp[], isReply: boolean): ExchangeMessage[] {
    const offered = new Map(stamps.filter((stamp) => this.#knows(stamp.shard)).map((stamp) => [stamp.shard, stamp]));
    const wanted = [...offered.values()].filter((stamp) => isNewer(stamp, this.#held.get(stamp.shard)?.stamp));
    const better = this.#stamps().filter((stamp) => isNewer(stamp, offered.get(stamp.shard)));
    const answers: ExchangeMessage[] = [];
    const address = { from: this.#self, to: from };
    for (const { shard } of wanted) answers.push({ kind: "request", ...address, shards: [shard] });
    if (!isReply && better.length > 0) answers.push({ kind: "offer", ...address, stamps: better, isReply: true });
    return answers;
  }

  #accept(bytes: Uint8Array): void {
    try {
      const own = bytes.slice(); // a transport may reuse its buffer
      const table = decodeCentroids(own);
      checkSpace(table.space, this.#space);
      if (!this.#knows(table.shard))
        throw new ShardloomError(
          "ERR_INVALID_ARGUMENT",
          `Cannot take table as shard ${table.shard} is not of this collection`,
        );
      const { shard, epoch, version } = table;
      const stamp = { shard, epoch, version, checksum: checksumOf(own) };
      if (isNewer(stamp, this.#held.get(shard)?.stamp)) this.#held.set(shard, { stamp, bytes: own, table });
    } catch (error) {
      this.#refuse(ShardloomError.from(error));
    }
  }

  #refuse(error: ShardloomError): void {
    this.#refused++;
    this.#lastRefusal = error;
  }

  #knows(shard: number): boolean {
    return shard === this.#self || this.#peers.has(shard);
  }

  #stamps(): OfferedStamp[] {
    return [...this.#held.values()].map(({ stamp }) => stamp).sort((a, b) => a.shard - b.shard);
  }
}

function isNewer(stamp: OfferedStamp, than: OfferedStamp | undefined): boolean {
  if (than === undefined) return true;
  if (stamp.epoch !== than.epoch) return stamp.epoch > than.epoch;
  if (stamp.version !== than.version) return stamp.version > than.version;
  return stamp.checksum > than.checksum;
}
