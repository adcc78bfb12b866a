/**
 * A connection between two nodes over one session: a stream for requests, a stream for bulk, and datagrams.
 *
 * All frames whose order matters go through the one stream of requests. Only long replies take the other: who asked waits for a reply
 * by the number of its call, so that it may overtake and be overtaken. Heartbeats are datagrams and wait behind neither: where all of a session
 * goes over one connection, they have a second session.
 *
 * ```
 *  OPENING ──greetings fit──▶ OPEN ──closed, damaged, overrun, silent──▶ CLOSED
 *     └──refused, late──────────────────────────────────────────────────────▲
 * ```
 *
 * Invariant: as `transport.ts` says. No frame is delivered before the peer's certificate, name, cluster and versions were found to be right.
 * Silence is counted in looks, not in time: who was itself asleep accuses nobody.
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import { LINK_FRAME } from "../wire/link-frame.ts";
import { FrameStream } from "./frame-stream.ts";
import { CLOSE, type Session, type SessionHandler, type Stream, type StreamHandler } from "./session.ts";
import { closeCodeOf } from "./session-life.ts";
import type { ConnectionHandler, NodeConnection } from "./transport.ts";
import {
  type ControlOpening,
  decodeOpening,
  encodeBulkOpening,
  encodeControlOpening,
  encodeWireHello,
  LANE,
  type WireHello,
  wireMisfit,
} from "./wire-hello.ts";

/** Limits of one connection. */
export interface WireLimits {
  /** Until both sides have greeted, in ms. @default 5000 */
  readonly handshakeMs: number;
  /** Pause between two looks whether the peer has said anything; after one without, it is asked to. @default 1000 */
  readonly pingMs: number;
  /** Looks without a sign of life after which the peer counts as gone. @default 4 */
  readonly silentLooks: number;
  /** Bytes that a peer may have sent on a lane and this side has not taken. @default 4 MiB */
  readonly windowBytes: number;
  /** Longest frame, in bytes. @default 16 MiB */
  readonly maxFrameBytes: number;
  /** Bytes that wait on a lane for a peer that takes nothing, before the connection is given up. @default 64 MiB */
  readonly maxQueuedBytes: number;
}

/** What a connection needs of its node. */
export interface WireConnectionOptions {
  readonly scheduler: Scheduler;
  readonly hello: WireHello;
  /** {@link hello}, encoded. */
  readonly greeting: Uint8Array;
  readonly limits: WireLimits;
  /** Throws when the certificate is not that of the node. */
  readonly check: (session: Session, node: string) => void;
  /** The connection has ended. */
  readonly onGone: (connection: WireConnection) => void;
  /** A session that is for the datagrams of the connection with that number; throws when there is none. */
  readonly adopted: (session: WireConnection, node: string, number: number) => void;
  /** The peer was refused while it greeted. */
  readonly onRefused: (error: ShardloomError, address: string) => void;
}

/** A datagram's first byte. */
const DATAGRAM_USER = 0;
const DATAGRAM_PING = 1;
const DATAGRAM_PONG = 2;
/** Replies of this length and more take the stream for bulk, in bytes. */
export const BULK_REPLY_BYTES: number = 64 * 1024;
/** Byte of a link's frame that has its kind. */
const KIND_BYTE = 8;

const NO_FRAMES = { onOpening: () => undefined, onFrame: () => undefined };

/** Takes a connection that the peer has dialled; what is thrown refuses it. */
export type Greeted = (connection: WireConnection) => ConnectionHandler;

export class WireConnection implements NodeConnection, SessionHandler {
  peer: string;
  readonly isChecked = true;
  /** Whether it was this side that dialled. */
  readonly isDialler: boolean;
  /** Counts the dials of the node that has dialled. */
  number: number;
  readonly #options: WireConnectionOptions;
  readonly #greeted: Greeted;
  #session: Session | undefined;
  /** Carries datagrams when all of a session goes over one connection. */
  #control: Session | undefined;
  #dialControl: (() => Session) | undefined;
  /** It, from before it is ready. */
  #controlDialled: Session | undefined;
  /** Whose control session this one turned out to be. */
  #principal: WireConnection | undefined;
  #handler: ConnectionHandler | undefined;
  /** In the order in which they came to be; at most two. */
  readonly #lanes: FrameStream[] = [];
  #requests: FrameStream | undefined;
  #bulk: FrameStream | undefined;
  #state: "opening" | "open" | "closed" = "opening";
  readonly #handshake: Timer;
  #datagrams = 0;
  #datagramsSeen = -1;
  /** Looks in a row without a sign of life: of datagrams, and of each lane. */
  readonly #silent: number[] = [];

  /** @param peer Who was dialled; undefined when the peer has dialled. */
  constructor(peer: string | undefined, options: WireConnectionOptions, greeted: Greeted) {
    this.peer = peer ?? "";
    this.isDialler = peer !== undefined;
    this.number = options.hello.number;
    this.#options = options;
    this.#greeted = greeted;
    const { scheduler, limits } = options;
    if (this.isDialler) {
      this.#requests = this.#lane();
      this.#bulk = this.#lane();
    }
    this.#handshake = scheduler.timer(limits.handshakeMs, () => {
      const message = `Cannot connect to ${this.#name()} as it did not greet within ${limits.handshakeMs} ms`;
      this.close(new ShardloomError("ERR_TIMEOUT", message));
    });
    this.#handshake.unref();
  }

  /** What datagrams go over. */
  get #carrier(): Session | undefined {
    return this.#control ?? this.#session;
  }

  /** Bytes that wait here for the peer. */
  get queuedBytes(): number {
    return this.#lanes.reduce((sum, { queuedBytes }) => sum + queuedBytes, 0);
  }

  /** Goes over this session; the side that has dialled greets when that is ready. */
  begin(session: Session, handler?: ConnectionHandler, control?: () => Session): void {
    this.#session = session;
    this.#dialControl = control;
    this.#handler = handler;
    void session.closed.then(({ error }) => this.#end(error));
    if (!this.isDialler) return;
    session.ready.then(
      () => this.#guard(() => this.#greet(session)),
      () => undefined, // `closed` says why
    );
  }

  send(frame: Uint8Array): void {
    if (this.#state === "closed") return;
    const isBulk = frame.length >= BULK_REPLY_BYTES && frame[KIND_BYTE] === LINK_FRAME.REPLY;
    const lane = isBulk && this.#bulk !== undefined ? this.#bulk : this.#requests;
    this.#guard(() => lane?.send(frame));
  }

  sendDatagram(datagram: Uint8Array): void {
    if (this.#state !== "open") return;
    const bytes = new Uint8Array(1 + datagram.length);
    bytes[0] = DATAGRAM_USER;
    bytes.set(datagram, 1);
    this.#carrier?.sendDatagram(bytes);
  }

  close(error: ShardloomError): void {
    if (this.#state === "closed") return;
    if (this.#state === "open") for (const lane of this.#lanes) lane.flush();
    const info = { code: closeCodeOf(error), reason: error.message };
    this.#session?.close(info);
    this.#control?.close(info);
    this.#end(error);
  }

  /** This side has dialled: datagrams go over a session of their own from when that is ready. */
  #addControl(session: Session): void {
    this.#controlDialled = session;
    session.ready.then(
      () =>
        this.#guard(() => {
          const { check, hello, scheduler, limits } = this.#options;
          check(session, this.peer);
          const over = (error: ShardloomError): void => this.close(error);
          const lane = new FrameStream({ scheduler, ...limits, handler: { ...NO_FRAMES, onOver: over } });
          lane.attach(session.openBidirectional(lane));
          lane.sendOpening(encodeControlOpening(hello.node, this.number));
          this.#takeControl(session);
        }),
      () => undefined, // `closed` says why
    );
    void session.closed.then(({ error }) => this.close(error));
  }

  /** The peer has dialled a session for the datagrams of this connection. */
  adopt(other: WireConnection): void {
    const session = other.#session as Session;
    other.#principal = this;
    other.#handshake.cancel();
    this.#takeControl(session);
    void session.closed.then(({ error }) => this.close(error));
  }

  #takeControl(session: Session): void {
    if (this.#state === "open" && this.#control === undefined) this.#control = session;
    else session.close({ code: CLOSE.REFUSED, reason: "the connection is not open" });
  }

  /** Has anything come since the last look, on each lane and beside them? Asks for it, and at last gives the peer up. */
  look(): void {
    if (this.#state !== "open") return;
    const { silentLooks, pingMs } = this.#options.limits;
    const heard = this.#datagrams !== this.#datagramsSeen;
    this.#datagramsSeen = this.#datagrams;
    if (!heard) this.#carrier?.sendDatagram(Uint8Array.of(DATAGRAM_PING));
    const moves = [heard, ...this.#lanes.map((lane) => lane.look())];
    for (const [at, moved] of moves.entries()) this.#silent[at] = moved ? 0 : (this.#silent[at] ?? 0) + 1;
    if (Math.max(...this.#silent) <= silentLooks) return;
    const message = `Cannot go on with ${this.#name()} as it must answer within ${silentLooks * pingMs} ms: nothing came`;
    this.close(new ShardloomError("ERR_TIMEOUT", message, { details: { node: this.peer } }));
  }

  onStream(stream: Stream): StreamHandler | undefined {
    if (this.isDialler || this.#state === "closed" || stream.direction !== "both" || this.#lanes.length === 2)
      return undefined;
    const lane = this.#lane();
    lane.attach(stream);
    return lane;
  }

  onDatagram(bytes: Uint8Array): void {
    if (this.#principal !== undefined) {
      this.#principal.onDatagram(bytes);
      return;
    }
    this.#datagrams++;
    if (this.#state !== "open") return;
    if (bytes[0] === DATAGRAM_PING) this.#carrier?.sendDatagram(Uint8Array.of(DATAGRAM_PONG));
    else if (bytes[0] === DATAGRAM_USER) this.#handler?.onDatagram(bytes.slice(1));
  }

  #greet(session: Session): void {
    if (this.#state === "closed") return;
    this.#options.check(session, this.peer);
    const [requests, bulk] = this.#lanes as [FrameStream, FrameStream];
    requests.attach(session.openBidirectional(requests));
    requests.sendOpening(encodeWireHello(this.#options.hello));
    bulk.attach(session.openBidirectional(bulk));
    bulk.sendOpening(encodeBulkOpening());
  }

  #lane(): FrameStream {
    const { scheduler, limits } = this.#options;
    const lane: FrameStream = new FrameStream({
      scheduler,
      ...limits,
      handler: {
        onOpening: (payload) => this.#opening(lane, payload),
        onFrame: (payload) => {
          if (this.#state === "open") this.#handler?.onFrame(payload);
          lane.release(payload);
        },
        onOver: (error) => this.#over(error),
      },
    });
    this.#lanes.push(lane);
    return lane;
  }

  #over(error: ShardloomError): void {
    if (this.#principal !== undefined) {
      this.#principal.close(error);
      return;
    }
    if (this.#state === "opening" && !this.isDialler)
      this.#options.onRefused(error, this.#session?.remote.address ?? "");
    this.close(error);
  }

  /** The first frame of a lane. */
  #opening(lane: FrameStream, payload: Uint8Array): void {
    if (this.#state === "closed") return;
    const opening = decodeOpening(payload);
    if (opening.lane === LANE.REQUESTS) this.#greetedBy(lane, opening);
    else if (opening.lane === LANE.CONTROL) this.#isControlOf(opening);
    else if (this.isDialler || this.#bulk !== undefined)
      throw new ShardloomError("ERR_CORRUPT", "Cannot take a second stream for bulk");
    else {
      this.#bulk = lane;
      if (this.#state === "open") lane.admit();
    }
  }

  /** The session is for the datagrams of a connection that this node has dialled before. */
  #isControlOf({ node, number }: ControlOpening): void {
    if (this.isDialler || this.#requests !== undefined || this.#bulk !== undefined)
      throw new ShardloomError("ERR_CORRUPT", "Cannot take a greeting for datagrams on a connection for frames");
    this.#options.check(this.#session as Session, node);
    this.#options.adopted(this, node, number);
  }

  #greetedBy(lane: FrameStream, hello: WireHello): void {
    const isDue =
      this.#state === "opening" && (this.isDialler ? lane === this.#requests : this.#requests === undefined);
    if (!isDue) throw new ShardloomError("ERR_CORRUPT", `Cannot take a second greeting of ${this.#name()}`);
    const { check, hello: own, greeting } = this.#options;
    const error = wireMisfit(own, hello);
    if (error !== undefined) throw error;
    check(this.#session as Session, hello.node);
    if (this.isDialler && hello.node !== this.peer)
      throw new ShardloomError("ERR_UNTRUSTED", `Cannot connect to ${this.peer} as it says that it is ${hello.node}`);
    this.peer = hello.node;
    if (!this.isDialler) this.number = hello.number;
    this.#requests = lane;
    if (!this.isDialler) {
      const handler = this.#greeted(this); // may refuse, or close
      if (this.#isClosed()) return;
      this.#handler = handler;
      lane.sendOpening(greeting);
    }
    this.#handshake.cancel();
    this.#state = "open";
    lane.admit();
    this.#bulk?.admit();
    const control = this.#dialControl?.();
    if (control !== undefined) this.#addControl(control);
    this.#handler?.onOpen();
  }

  /** What is thrown here ends the connection, and the peer is told why. */
  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.close(ShardloomError.from(error));
    }
  }

  #end(error: ShardloomError): void {
    if (this.#state === "closed") return;
    this.#session?.close({ code: CLOSE.NORMAL, reason: error.message });
    (this.#control ?? this.#controlDialled)?.close({ code: CLOSE.NORMAL, reason: error.message });
    this.#state = "closed";
    this.#handshake.cancel();
    this.#options.onGone(this);
    this.#handler?.onClose(error);
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }

  #name(): string {
    return this.peer === "" ? (this.#session?.remote.address ?? "a peer") : `node ${this.peer}`;
  }
}
