/**
 * The link to one other node: dials or is dialled, greets, carries frames both ways, and begins anew when the connection is lost.
 *
 * ```
 *  DOWN ──dial, or accepted──▶ GREETING ──greeting fits──▶ UP ──closed, damaged, superseded──▶ DOWN
 *    ▲──── closed, does not fit, silent ────┘
 * ```
 *
 * Invariant: at most one connection is UP; what a connection that is not this link's any more delivers is ignored. Of two nodes the one
 * whose name comes first dials, again and again with jittered growing pauses. Once a life of the peer was heard of, no earlier one is
 * listened to.
 */
import { ShardloomError } from "../errors.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Timer } from "../runtime/scheduler.ts";
import type { TopologySource } from "../topology/topology-source.ts";
import type { ConnectionHandler, NodeConnection, NodeTransport } from "../transport/transport.ts";
import {
  bodyOf,
  FLAG_ALL,
  frameOf,
  LINK_FRAME,
  type LinkFrame,
  openDatagram,
  openFrame,
  sealDatagram,
  sealFrame,
} from "../wire/link-frame.ts";
import {
  type ClusterShape,
  decodeHello,
  encodeHello,
  LINK_PROTOCOL,
  type LinkHello,
  misfit,
} from "../wire/link-hello.ts";
import type { LinkCollections } from "./collection-exchange.ts";
import { LinkAnswers } from "./link-answers.ts";
import { LinkCalls } from "./link-calls.ts";

/** What a link tells its node. */
export interface LinkEvents {
  onUp(peer: string, incarnation: number): void;
  onDown(peer: string, incarnation: number, error: ShardloomError): void;
  onShardUp(shard: number, incarnation: number): void;
  onShardLost(shard: number, incarnation: number): void;
  /** A local thread's bridge to a shard of the peer is damaged. */
  onDamaged(asker: string, shard: number): void;
  onThreadGone(peer: string, thread: string): void;
  onDatagram(peer: string, bytes: Uint8Array): void;
  /** The peer has this map, encoded. */
  onMap(bytes: Uint8Array): void;
  /** There may be requests to take, or to refuse. */
  onReady(): void;
  /** Answers were written to local threads. */
  onAnswers(): void;
}

/** What a link is made from. */
export interface NodeLinkOptions extends Runtime, LinkEvents {
  readonly self: string;
  /** Counts the lives of this node, from 1. */
  readonly incarnation: number;
  readonly peer: string;
  readonly shards: readonly number[];
  readonly transport: NodeTransport;
  readonly topology: TopologySource;
  /** The map of this node, encoded; told to the peer when it is connected. */
  readonly map: () => Uint8Array | undefined;
  /** What the two nodes tell each other of collections: until the peer's are here, it is told of no shard. @default nothing */
  readonly collections?: () => LinkCollections | undefined;
}

/** A greeting must be answered within. */
const GREETING_MS = 5_000;
/** Range of the pause before the first new dial, in ms; it doubles with every failure. */
const PAUSE_MS = 50;
const PAUSE_LIMIT_MS = 2_000;
/** Ended threads that are kept for a peer that is not connected. */
const GONE_LIMIT = 1_024;

/** One attempt to be connected. */
interface Attempt {
  connection: NodeConnection | undefined;
  greeting: Timer | undefined;
  /** The peer has told of all its collections. */
  hasTold: boolean;
  ended: boolean;
}

/** Connection, asking half and answering half to one peer. */
export class NodeLink {
  readonly peer: string;
  readonly calls: LinkCalls;
  readonly answers: LinkAnswers;
  readonly #options: NodeLinkOptions;
  readonly #dials: boolean;
  readonly #attempts: Set<Attempt> = new Set();
  #up: Attempt | undefined;
  #shape: (() => ClusterShape) | undefined;
  #retry: Timer | undefined;
  #failures = 0;
  #dialled = 0;
  /** The newest life and dial of the peer that was heard of. */
  #incarnation = 0;
  #attempt = 0;
  #lastError: ShardloomError | undefined;
  /** Threads of this node whose end the peer was not told yet. */
  readonly #gone: string[] = [];
  #closed = false;
  #isRetired = false;

  constructor(options: NodeLinkOptions) {
    const { self, peer } = options;
    this.#options = options;
    this.peer = peer;
    this.#dials = self < peer;
    this.calls = new LinkCalls(options);
    this.answers = new LinkAnswers(options);
  }

  /** Whether frames reach the peer, as far as is known. */
  get isUp(): boolean {
    return this.#up !== undefined;
  }

  /** Life of the peer that was heard of last; 0: none. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /** Why the link is down, when something has failed. */
  get lastError(): ShardloomError | undefined {
    return this.#lastError;
  }

  /** Begins to dial, if it is this side that does. */
  start(shape: () => ClusterShape): void {
    this.#shape = shape;
    if (this.#dials && !this.#isRetired) this.#dial();
  }

  /** The peer has dialled. */
  accept(connection: NodeConnection): ConnectionHandler {
    const attempt: Attempt = { connection, greeting: undefined, hasTold: false, ended: false };
    this.#begin(attempt, 0);
    return this.#handler(attempt);
  }

  /** There was time enough for a first contact. */
  giveUpWaiting(): void {
    this.calls.giveUpWaiting((shard) => this.#unreachable(shard));
    this.#options.onReady();
  }

  /** Ends the connection that is up, if there is one: it is known to be dead, though it was not closed. */
  sever(error: ShardloomError): void {
    if (this.#up !== undefined) this.#end(this.#up, error);
  }

  /** The peer is no member any more: it is not dialled again. A connection that is up goes on until the peer ends it. */
  retire(): void {
    this.#isRetired = true;
    this.#retry?.cancel();
    this.giveUpWaiting();
  }

  sendDatagram(bytes: Uint8Array): void {
    this.#up?.connection?.sendDatagram(sealDatagram(bytes));
  }

  /** Tells the peer the map of this node; whatever is sent after it is by that map or a later one. */
  tellMap(): void {
    const map = this.#options.map();
    if (map !== undefined) sendOn(this.#up?.connection, frameOf({ kind: LINK_FRAME.MAP }, map));
  }

  /** Tells the peer of collections; while it is not connected it is told of all when it is. */
  tellCollections(body: Uint8Array): void {
    sendOn(this.#up?.connection, frameOf({ kind: LINK_FRAME.COLLECTIONS }, body));
  }

  /** Tells the peer that a thread of this node has ended; while it is not connected the latest ones are kept for it. */
  tellThreadGone(name: string): void {
    this.#gone.push(name);
    if (this.#gone.length > GONE_LIMIT) this.#gone.shift();
    this.#tellGone();
  }

  close(error: ShardloomError): void {
    this.#closed = true;
    this.#retry?.cancel();
    for (const attempt of [...this.#attempts]) this.#end(attempt, error);
    this.giveUpWaiting();
    this.answers.close();
  }

  #dial(): void {
    this.#retry = undefined;
    const { transport, peer } = this.#options;
    const attempt: Attempt = { connection: undefined, greeting: undefined, hasTold: false, ended: false };
    attempt.connection = transport.dial(peer, this.#handler(attempt));
    this.#begin(attempt, ++this.#dialled);
  }

  #begin(attempt: Attempt, number: number): void {
    if (attempt.ended || attempt.connection === undefined) return;
    const { self, incarnation, scheduler } = this.#options;
    this.#attempts.add(attempt);
    if (this.#closed || this.#shape === undefined) {
      this.#end(attempt, new ShardloomError("ERR_UNAVAILABLE", `Cannot connect to node ${self} as it is not started`));
      return;
    }
    attempt.greeting = scheduler.timer(GREETING_MS, () => {
      const message = `Cannot connect to node ${this.peer} as it did not greet within ${GREETING_MS} ms`;
      this.#end(attempt, new ShardloomError("ERR_TIMEOUT", message));
    });
    attempt.greeting.unref();
    const hello: LinkHello = { ...this.#shape(), protocol: LINK_PROTOCOL, name: self, incarnation, attempt: number };
    sendOn(attempt.connection, frameOf({ kind: LINK_FRAME.HELLO }, encodeHello(hello)));
  }

  #handler(attempt: Attempt): ConnectionHandler {
    return {
      onOpen: () => undefined,
      onFrame: (bytes) => {
        if (!attempt.ended) this.#receive(attempt, bytes);
      },
      onDatagram: (bytes) => {
        if (attempt !== this.#up) return;
        const opened = openDatagram(bytes);
        if (opened !== undefined) this.#options.onDatagram(this.peer, opened);
      },
      onClose: (error) => this.#end(attempt, error),
    };
  }

  #receive(attempt: Attempt, bytes: Uint8Array): void {
    try {
      const frame = openFrame(bytes, attempt.connection?.isChecked);
      if (frame.kind === LINK_FRAME.HELLO) this.#greeted(attempt, decodeHello(bodyOf(frame)));
      else if (attempt === this.#up) this.#take(frame);
      else throw new ShardloomError("ERR_CORRUPT", `Cannot take frame as node ${this.peer} must greet first`);
    } catch (error) {
      this.#end(attempt, ShardloomError.from(error, "ERR_CORRUPT"));
    }
  }

  #greeted(attempt: Attempt, hello: LinkHello): void {
    this.#check(attempt, hello);
    attempt.greeting?.cancel();
    const former = this.#up;
    if (former !== undefined)
      this.#end(former, new ShardloomError("ERR_CLOSED", `Cannot go on as node ${this.peer} has connected anew`));
    this.#incarnation = hello.incarnation;
    this.#attempt = hello.attempt;
    this.#failures = 0;
    this.#lastError = undefined;
    this.#up = attempt;
    const send = (frame: LinkFrame): void => sendOn(attempt.connection, frame);
    this.tellMap();
    this.calls.opened(send);
    const collections = this.#options.collections?.();
    if (collections === undefined) this.answers.opened(send);
    else for (const [flags, body] of collections.all()) send(frameOf({ kind: LINK_FRAME.COLLECTIONS, flags }, body));
    this.#tellGone();
    this.#options.onUp(this.peer, hello.incarnation);
  }

  #check(attempt: Attempt, hello: LinkHello): void {
    const { peer, incarnation } = this;
    const refuse = (rule: string, value: unknown): ShardloomError =>
      new ShardloomError(
        "ERR_VERSION_MISMATCH",
        `Cannot connect to node ${peer} as its ${rule}: current value is ${String(value)}`,
      );
    if (attempt === this.#up) throw new ShardloomError("ERR_CORRUPT", `Cannot take a second greeting of node ${peer}`);
    if (hello.name !== peer) throw refuse("name must be its own", hello.name);
    const older = hello.incarnation < incarnation;
    if (older) throw refuse(`incarnation must be at least ${incarnation}`, hello.incarnation);
    const isLate = !this.#dials && hello.incarnation === incarnation && hello.attempt <= this.#attempt;
    if (isLate) throw refuse(`attempt must be later than ${this.#attempt}`, hello.attempt);
    const error = this.#shape === undefined ? undefined : misfit(this.#shape(), hello);
    if (error !== undefined) throw error;
  }

  #take(frame: LinkFrame): void {
    const { calls, answers } = this;
    const { onShardUp, onShardLost, onThreadGone, onMap, onReady, onAnswers } = this.#options;
    const { shard, incarnation } = frame;
    switch (frame.kind) {
      case LINK_FRAME.HELLO: // taken before, as the first frame
        return;
      case LINK_FRAME.REQUEST:
        return answers.onRequest(frame);
      case LINK_FRAME.TELL:
        return answers.onTell(frame);
      case LINK_FRAME.CANCEL:
        return answers.onCancel(frame);
      case LINK_FRAME.REPLY:
        calls.onReply(frame);
        return onAnswers();
      case LINK_FRAME.FAILURE:
        calls.onFailure(frame);
        return onAnswers();
      case LINK_FRAME.TOLD:
        return calls.onTold(frame);
      case LINK_FRAME.SHARD_UP:
        calls.shardUp(shard, incarnation);
        onShardUp(shard, incarnation);
        return onReady();
      case LINK_FRAME.SHARD_LOST:
        calls.shardLost(shard, incarnation, bodyOf(frame).slice());
        onShardLost(shard, incarnation);
        return onReady(); // what waited for the first contact is refused
      case LINK_FRAME.THREAD_GONE:
        return onThreadGone(this.peer, new TextDecoder().decode(bodyOf(frame)));
      case LINK_FRAME.MAP:
        return onMap(bodyOf(frame).slice());
      case LINK_FRAME.COLLECTIONS:
        return this.#takeCollections(frame);
    }
  }

  /** The peer has told of collections. Once those that it has are here, it may ask: it is told of this node's shards. */
  #takeCollections(frame: LinkFrame): void {
    const attempt = this.#up;
    const isAll = (frame.flags & FLAG_ALL) !== 0;
    const taken = this.#options.collections?.()?.take(this.peer, bodyOf(frame), isAll);
    if (!isAll || attempt === undefined || attempt.hasTold) return;
    attempt.hasTold = true;
    void taken?.then(() => {
      if (this.#up === attempt) this.answers.opened((reply) => sendOn(attempt.connection, reply));
    });
  }

  #tellGone(): void {
    const connection = this.#up?.connection;
    if (connection === undefined) return;
    for (const name of this.#gone.splice(0))
      sendOn(connection, frameOf({ kind: LINK_FRAME.THREAD_GONE }, new TextEncoder().encode(name)));
  }

  /** A connection is over, or is ended by this side. */
  #end(attempt: Attempt, reason: ShardloomError): void {
    if (attempt.ended) return;
    attempt.ended = true;
    attempt.greeting?.cancel();
    this.#attempts.delete(attempt);
    attempt.connection?.close(reason);
    this.#lastError = reason;
    if (attempt === this.#up) this.#lost(reason);
    if (this.#dials && this.#up === undefined && this.#attempts.size === 0) this.#dialLater();
  }

  #lost(reason: ShardloomError): void {
    const { peer, calls, answers } = this;
    const { onDown, onAnswers } = this.#options;
    const lost = new ShardloomError(
      "ERR_WORKER_LOST",
      `Cannot finish request as the connection to node ${peer} was lost`,
      {
        details: { node: peer, reason: reason.code },
        cause: reason,
      },
    );
    this.#up = undefined;
    calls.closed(lost, (shard) => this.#unreachable(shard));
    answers.closed(lost);
    onDown(peer, this.#incarnation, reason);
    onAnswers();
  }

  #unreachable(shard: number): ShardloomError {
    const { peer } = this;
    const cause = this.#lastError;
    return new ShardloomError("ERR_UNAVAILABLE", `Cannot reach shard ${shard} as node ${peer} is not connected`, {
      details: { shard, node: peer },
      ...(cause === undefined ? {} : { cause }),
    });
  }

  #dialLater(): void {
    if (this.#closed || this.#isRetired || this.#retry !== undefined) return;
    const { scheduler, random } = this.#options;
    const pauseMs = Math.min(PAUSE_LIMIT_MS, PAUSE_MS * 2 ** Math.min(this.#failures++, 16));
    this.#retry = scheduler.timer(pauseMs * (0.5 + random.float() / 2), () => this.#dial());
    this.#retry.unref();
  }
}

function sendOn(connection: NodeConnection | undefined, frame: LinkFrame): void {
  connection?.send(sealFrame(frame, connection.isChecked));
}
