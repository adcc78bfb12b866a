/**
 * How nodes reach each other: connections that carry frames in order, and datagrams beside them.
 *
 * Invariant: the frames of one connection arrive whole, in order and at most once, or the connection closes; which of the frames before
 * a close arrived is unknown to the sender. Datagrams may be lost, duplicated, reordered and damaged.
 * Source: the shape of WebTransport (sessions, streams, datagrams), with one stream per connection.
 */
import type { ShardloomError } from "../errors.ts";

/** What a side of a connection is told. Nothing is called after `onClose`, and `onClose` once. */
export interface ConnectionHandler {
  /** The peer has accepted: what was sent before is on its way. */
  onOpen(): void;
  /** The bytes are the receiver's. */
  onFrame(frame: Uint8Array): void;
  /** The bytes are the receiver's. */
  onDatagram(datagram: Uint8Array): void;
  onClose(error: ShardloomError): void;
}

/** One side of a connection to a peer. */
export interface NodeConnection {
  /** Name of the node at the other end. */
  readonly peer: string;
  /** Whether every frame has a checksum of the connection's own: then frames need none besides. @default false */
  readonly isChecked?: boolean;
  /** Sends a frame, now or once open; after the close it is dropped. The bytes must not be changed any more. */
  send(frame: Uint8Array): void;
  /** As {@link send}, without any promise. */
  sendDatagram(datagram: Uint8Array): void;
  /** Ends the connection; the peer's `onClose` follows, this side's is called at once. Idempotent. */
  close(error: ShardloomError): void;
}

/** A node's access to the network. */
export interface NodeTransport {
  /** Opens a connection. A peer that cannot be reached shows as `onClose`, later. */
  dial(peer: string, handler: ConnectionHandler): NodeConnection;
  /** Accepts connections of peers from now on. Called once. */
  listen(accept: (connection: NodeConnection) => ConnectionHandler): void;
  /** Closes all connections and accepts no more. */
  close(): void;
}
