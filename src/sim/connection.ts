/**
 * A connection between two simulated nodes: two sides, and a lane of packets in each direction.
 *
 * Invariant: what `transport.ts` promises, under every fault: frames arrive in order and at most once, without gaps up to
 * the close, and `onClose` comes once and last. A lane delivers a packet only when all before it were; one that is lost is sent
 * again until the idle limit closes both sides. Nothing is called in a node that crashed.
 * Source: RFC 9000 (QUIC), sections 10 and 13, in outline. Divergence: acknowledgements take no packets of their own; a
 * close is followed by what was sent before it or cuts it off, by a draw, as callers may rely on neither.
 */
import { ShardloomError } from "../errors.ts";
import type { ConnectionHandler, NodeConnection } from "../transport/transport.ts";
import type { Link } from "./link.ts";
import type { MessageKind } from "./network-types.ts";

/** A packet on its way: the network calls exactly one of these for each try that ends. */
export interface Packet {
  readonly kind: MessageKind;
  readonly data: Uint8Array;
  readonly attempt: number;
  /** @param data Its own copy, possibly damaged. */
  arrived(data: Uint8Array): void;
  dropped(): void;
  /** A rule has held it for the idle limit. */
  expired(): void;
}

/** A node in one incarnation, as connections see it. */
export interface Endpoint {
  readonly name: string;
  /** False once it crashed: nothing is called in it. */
  readonly isAlive: boolean;
  /** Runs a callback on the node's thread, in order. */
  enter(callback: () => void): void;
  /** The side's node has been told of its close. */
  forget(side: Side): void;
  /** Sides that it closed in order, whose peers do not know of it yet. */
  readonly closing: Set<Side>;
}

/** What connections need of the network. */
export interface Carrier {
  readonly nowUs: number;
  readonly idleLimitUs: number;
  transmit(link: Link, packet: Packet): void;
  /** How long to wait before a packet is sent again. */
  retransmitUs(attempt: number): number;
  later(delayUs: number, callback: () => void): void;
  /** Whether packets for a dead incarnation of a node are answered with a reset. */
  answers(node: string): boolean;
}

const NO_BYTES = new Uint8Array(0);

/** Everything that is sent in one direction, as a list from the oldest that was not delivered. */
class Lane {
  readonly link: Link;
  readonly #carrier: Carrier;
  readonly #sender: Side;
  readonly #receiver: Side;
  #first: LanePacket | undefined;
  #last: LanePacket | undefined;
  #isPumping = false;
  /** Cut off: what has not arrived never will. */
  #isAborted = false;

  constructor(carrier: Carrier, link: Link, sender: Side, receiver: Side) {
    this.#carrier = carrier;
    this.link = link;
    this.#sender = sender;
    this.#receiver = receiver;
  }

  send(kind: MessageKind, data: Uint8Array, error?: ShardloomError): void {
    const packet = new LanePacket(this, kind, data, error, this.#carrier.nowUs);
    if (this.#last === undefined) this.#first = packet;
    else this.#last.next = packet;
    this.#last = packet;
    this.#carrier.transmit(this.link, packet);
  }

  abort(): void {
    this.#isAborted = true;
  }

  arrived(packet: LanePacket, data: Uint8Array): void {
    if (this.#isAborted || packet.received !== undefined) return;
    const refusal = this.#receiver.refusal();
    if (refusal === "silent") this.dropped(packet);
    else if (refusal === "reset") this.#receiver.reset();
    else {
      packet.received = data;
      if (!this.#isPumping && this.#first === packet) this.#deliverNext();
    }
  }

  dropped(packet: LanePacket): void {
    if (this.#isAborted || !this.#sender.canResend) return;
    const waitUs = this.#carrier.retransmitUs(packet.attempt);
    const leftUs = packet.sentUs + this.#carrier.idleLimitUs - this.#carrier.nowUs;
    packet.attempt++;
    if (waitUs > leftUs) {
      this.#carrier.later(Math.max(0, leftUs), () => this.expired());
      return;
    }
    this.#carrier.later(waitUs, () => {
      if (!this.#isAborted && this.#sender.canResend) this.#carrier.transmit(this.link, packet);
    });
  }

  /** A packet did not come through for the idle limit. */
  expired(): void {
    if (!this.#isAborted && this.#sender.canResend) this.#sender.timeOut();
  }

  /** One packet an event, so that everything it sets off has happened before the next. */
  #deliverNext(): void {
    this.#isPumping = false;
    const packet = this.#first;
    if (packet?.received === undefined || this.#isAborted) return;
    this.#first = packet.next;
    if (this.#first === undefined) this.#last = undefined;
    if (this.#first?.received !== undefined) {
      this.#isPumping = true;
      this.#carrier.later(0, () => this.#deliverNext());
    }
    this.#receiver.receive(packet.kind, packet.received, packet.error);
  }
}

class LanePacket implements Packet {
  readonly kind: MessageKind;
  readonly data: Uint8Array;
  readonly error: ShardloomError | undefined;
  readonly sentUs: number;
  attempt = 0;
  received: Uint8Array | undefined;
  next: LanePacket | undefined;
  readonly #lane: Lane;

  constructor(lane: Lane, kind: MessageKind, data: Uint8Array, error: ShardloomError | undefined, sentUs: number) {
    this.#lane = lane;
    this.kind = kind;
    this.data = data;
    this.error = error;
    this.sentUs = sentUs;
  }

  arrived(data: Uint8Array): void {
    this.#lane.arrived(this, data);
  }

  dropped(): void {
    this.#lane.dropped(this);
  }

  expired(): void {
    this.#lane.expired();
  }
}

/** A packet that is sent once. */
class LoosePacket implements Packet {
  readonly kind: MessageKind;
  readonly data: Uint8Array;
  readonly attempt = 0;
  readonly #onArrival: (data: Uint8Array) => void;

  constructor(kind: MessageKind, data: Uint8Array, onArrival: (data: Uint8Array) => void) {
    this.kind = kind;
    this.data = data;
    this.#onArrival = onArrival;
  }

  arrived(data: Uint8Array): void {
    this.#onArrival(data);
  }

  dropped(): void {
    // Nobody waits for it.
  }

  expired(): void {
    // As long as it takes.
  }
}

/** One end. */
export class Side implements NodeConnection {
  readonly peer: string;
  /** Who is at this end; undefined at the accepting end until the dial arrives. */
  endpoint: Endpoint | undefined;
  handler: ConnectionHandler | undefined;
  readonly #carrier: Carrier;
  #other!: Side;
  #out!: Lane;
  #isOpen = false;
  /** Closed for the network: nothing is sent or taken any more. */
  #isClosed = false;
  /** Closed for its node: nothing is called any more. Behind the former while the node has not run. */
  #isTold = false;
  /** Its close is on the way, so that the peer needs no reset. */
  #isClosing = false;
  /** Frames of the time before it opened. */
  #early: Uint8Array[] = [];

  private constructor(carrier: Carrier, peer: string) {
    this.#carrier = carrier;
    this.peer = peer;
  }

  /** Both ends of a connection that is not open yet: the dialling one, and the other. */
  static pair(carrier: Carrier, there: Link, back: Link): readonly [Side, Side] {
    const dialler = new Side(carrier, there.to);
    const acceptor = new Side(carrier, there.from);
    dialler.#join(acceptor, there);
    acceptor.#join(dialler, back);
    return [dialler, acceptor];
  }

  #join(other: Side, link: Link): void {
    this.#other = other;
    this.#out = new Lane(this.#carrier, link, this, other);
  }

  get other(): Side {
    return this.#other;
  }

  get link(): Link {
    return this.#out.link;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** A crashed node sends nothing again; one that closed in order does, until its close has arrived. */
  get canResend(): boolean {
    return this.endpoint?.isAlive === true && (!this.#isClosed || this.#isClosing);
  }

  send(frame: Uint8Array): void {
    if (this.#isClosed || this.#isTold) return;
    if (this.#isOpen) this.#out.send("frame", frame);
    else this.#early.push(frame);
  }

  /** Before the connection is open a datagram is lost. */
  sendDatagram(datagram: Uint8Array): void {
    if (this.#isClosed || this.#isTold || !this.#isOpen) return;
    const { other } = this;
    const packet = new LoosePacket("datagram", datagram, (data) => other.#receiveDatagram(data));
    this.#carrier.transmit(this.#out.link, packet);
  }

  close(error: ShardloomError): void {
    if (this.#isTold) return;
    const wasUp = this.#isOpen && !this.#isClosed;
    this.#end();
    this.#tell(error);
    if (!wasUp) return;
    const reason = closedByPeer(this.#other.peer, error);
    this.#isClosing = true;
    if (!this.#other.#isClosed) this.endpoint?.closing.add(this);
    if (this.#out.link.endings.float() < 0.5) {
      this.#out.send("close", NO_BYTES, reason);
      return;
    }
    this.#out.abort();
    this.#out = new Lane(this.#carrier, this.#out.link, this, this.#other);
    this.#out.send("close", NO_BYTES, reason);
  }

  /** The accepting node takes the connection. */
  accept(endpoint: Endpoint, accept: (connection: NodeConnection) => ConnectionHandler): void {
    this.#isOpen = true;
    this.#out.send("accept", NO_BYTES);
    this.handler = accept(this);
    if (!this.#isTold && endpoint.isAlive) this.handler.onOpen();
  }

  receive(kind: MessageKind, data: Uint8Array, error: ShardloomError | undefined): void {
    if (kind === "close") {
      this.#fail(error as ShardloomError);
      return;
    }
    if (kind === "accept") this.#open();
    this.#enter(() => {
      if (kind === "accept") this.handler?.onOpen();
      else this.handler?.onFrame(data);
    });
  }

  /** Its node crashed: nothing is called here any more, and the peer finds out by itself. */
  crash(): void {
    this.#isClosed = true;
    this.#isTold = true;
  }

  /** What becomes of a packet that arrives for this side. */
  refusal(): "none" | "reset" | "silent" {
    const { endpoint } = this;
    if (endpoint !== undefined && !endpoint.isAlive) return this.#carrier.answers(endpoint.name) ? "reset" : "silent";
    return this.#isClosed ? "reset" : "none";
  }

  /** Answers a packet that found nobody here. */
  reset(): void {
    const { other } = this;
    if (this.#isClosing || other.#isClosed) return;
    const packet = new LoosePacket("reset", NO_BYTES, () => other.#fail(resetBy(other.peer)));
    this.#carrier.transmit(this.#out.link, packet);
  }

  /** The dial found nobody, or nobody answered it. */
  refuse(reason: string): void {
    if (!this.#isOpen) this.#fail(unavailable(this.peer, reason));
  }

  /** Nothing has come for the idle limit: both ends notice, not at the same time. */
  timeOut(): void {
    const lateUs = Math.floor(this.#out.link.endings.float() * (this.#carrier.idleLimitUs / 5));
    const { other } = this;
    this.#fail(idle(this.peer));
    if (!other.#isClosed) this.#carrier.later(lateUs, () => other.#fail(idle(other.peer)));
  }

  #open(): void {
    this.#isOpen = true;
    for (const frame of this.#early) this.#out.send("frame", frame);
    this.#early = [];
  }

  #receiveDatagram(data: Uint8Array): void {
    if (this.#isClosed || !this.#isOpen) return;
    this.#enter(() => this.handler?.onDatagram(data));
  }

  #fail(error: ShardloomError): void {
    if (this.#isClosed) return;
    this.#end();
    this.endpoint?.enter(() => this.#tell(error));
  }

  #end(): void {
    this.#isClosed = true;
    this.#other.endpoint?.closing.delete(this.#other);
    this.#early = [];
  }

  #tell(error: ShardloomError): void {
    if (this.#isTold) return;
    this.#isTold = true;
    this.endpoint?.forget(this);
    this.handler?.onClose(error);
  }

  #enter(callback: () => void): void {
    this.endpoint?.enter(() => {
      if (!this.#isTold) callback();
    });
  }
}

function unavailable(peer: string, reason: string): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", `Connection to ${peer} failed: ${reason}`, { details: { peer } });
}

function idle(peer: string): ShardloomError {
  return unavailable(peer, "nothing came from it for the idle limit");
}

function resetBy(peer: string): ShardloomError {
  return unavailable(peer, "it knows nothing of this connection");
}

function closedByPeer(peer: string, error: ShardloomError): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", `Connection to ${peer} was closed by it: ${error.message}`, {
    details: { peer, code: error.code },
  });
}
