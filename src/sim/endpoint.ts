/**
 * What of the network lies at a node: its transport in one incarnation, and the packets that begin a connection.
 *
 * Invariant: once a node crashed, nothing is called in it, whatever is on its way to its thread; a dial is sent again until
 * somebody answers or its dialler gave up.
 */
import { ShardloomError } from "../errors.ts";
import type { ConnectionHandler, NodeConnection, NodeTransport } from "../transport/transport.ts";
import type { Carrier, Endpoint, Packet, Side } from "./connection.ts";
import type { Link } from "./link.ts";

const NO_BYTES = new Uint8Array(0);

/** Runs a callback on a node's thread: later than now while that is busy or paused, but in order. */
export type Enter = (callback: () => void) => void;

/** Starts a connection for a node. */
export type DialFrom = (node: SimNode, peer: string, handler: ConnectionHandler) => NodeConnection;

/** A node in one incarnation. */
export class SimNode implements Endpoint, NodeTransport {
  readonly name: string;
  readonly incarnation: number;
  readonly sides: Set<Side> = new Set();
  readonly closing: Set<Side> = new Set();
  isAlive = true;
  isClosed = false;
  accept: ((connection: NodeConnection) => ConnectionHandler) | undefined;
  readonly #dial: DialFrom;
  readonly #enter: Enter;

  constructor(dial: DialFrom, name: string, incarnation: number, enter: Enter) {
    this.#dial = dial;
    this.name = name;
    this.incarnation = incarnation;
    this.#enter = enter;
  }

  enter(callback: () => void): void {
    this.#enter(() => {
      if (this.isAlive) callback();
    });
  }

  forget(side: Side): void {
    this.sides.delete(side);
  }

  takeSides(): Side[] {
    const sides = [...this.sides];
    this.sides.clear();
    return sides;
  }

  dial(peer: string, handler: ConnectionHandler): NodeConnection {
    return this.#dial(this, peer, handler);
  }

  listen(accept: (connection: NodeConnection) => ConnectionHandler): void {
    if (this.accept !== undefined)
      throw new ShardloomError("ERR_INTERNAL", "Cannot listen as the node listens already");
    this.accept = accept;
  }

  close(): void {
    this.isClosed = true;
    this.accept = undefined;
    const error = new ShardloomError("ERR_CLOSED", `Transport of ${this.name} was closed`);
    for (const side of this.takeSides()) side.close(error);
  }
}

/** The first packet of a connection: sent again until somebody answers or the dialler gives up. */
export class Dial implements Packet {
  readonly kind = "dial";
  readonly data: Uint8Array = NO_BYTES;
  attempt = 0;
  readonly #carrier: Carrier;
  readonly #link: Link;
  readonly #dialler: Side;
  readonly #onArrival: () => boolean;

  constructor(carrier: Carrier, link: Link, dialler: Side, onArrival: () => boolean) {
    this.#carrier = carrier;
    this.#link = link;
    this.#dialler = dialler;
    this.#onArrival = onArrival;
  }

  arrived(): void {
    if (!this.#onArrival()) this.dropped();
  }

  dropped(): void {
    this.#carrier.later(this.#carrier.retransmitUs(this.attempt++), () => {
      if (!this.#dialler.isClosed) this.#carrier.transmit(this.#link, this);
    });
  }

  expired(): void {
    // The dialler has given up by itself.
  }
}

/** Nobody takes the dial. */
export class Refusal implements Packet {
  readonly kind = "reset";
  readonly data: Uint8Array = NO_BYTES;
  readonly attempt = 0;
  readonly arrived: () => void;

  constructor(onArrival: () => void) {
    this.arrived = onArrival;
  }

  dropped(): void {
    // The dialler's timeout is the answer.
  }

  expired(): void {
    // As above.
  }
}
