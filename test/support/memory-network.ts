/**
 * A network in memory for tests of nodes: ordered connections, delayed by a scheduler, that tests cut, heal and damage.
 *
 * Invariant: as `transport.ts` demands: frames of a connection arrive whole, in order and once, or it closes.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import type { ConnectionHandler, NodeConnection, NodeTransport } from "../../src/transport/transport.ts";

type Accept = (connection: NodeConnection) => ConnectionHandler;

/** One direction's end of a connection. */
class End implements NodeConnection {
  readonly peer: string;
  readonly self: string;
  readonly #network: MemoryNetwork;
  handler: ConnectionHandler | undefined;
  other!: End;
  closed = false;

  constructor(network: MemoryNetwork, self: string, peer: string) {
    this.#network = network;
    this.self = self;
    this.peer = peer;
  }

  send(frame: Uint8Array): void {
    this.#carry(frame, (handler, bytes) => handler.onFrame(bytes));
  }

  sendDatagram(datagram: Uint8Array): void {
    this.#carry(datagram, (handler, bytes) => handler.onDatagram(bytes));
  }

  close(error: ShardloomError): void {
    if (this.closed) return;
    this.closed = true;
    this.handler?.onClose(error);
    const gone = new ShardloomError("ERR_CLOSED", `Cannot go on as ${this.self} has closed the connection`);
    this.#network.after(() => this.other.drop(gone));
  }

  /** The network says that the connection is over. */
  drop(error: ShardloomError): void {
    if (this.closed) return;
    this.closed = true;
    this.handler?.onClose(error);
  }

  #carry(bytes: Uint8Array, deliver: (handler: ConnectionHandler, bytes: Uint8Array) => void): void {
    if (this.closed) return;
    const arrived = this.#network.transform(this.self, this.peer, bytes.slice());
    this.#network.after(() => {
      if (arrived !== undefined && !this.other.closed && this.other.handler !== undefined)
        deliver(this.other.handler, arrived);
    });
  }
}

/** All nodes and what lies between them. */
export class MemoryNetwork {
  readonly #scheduler: Scheduler;
  readonly #delayMs: number;
  readonly #accepts: Map<string, Accept> = new Map();
  readonly #cut: Set<string> = new Set();
  readonly #ends: Set<End> = new Set();
  /** What happens to bytes on their way; undefined loses them. */
  transform: (from: string, to: string, bytes: Uint8Array) => Uint8Array | undefined = (_from, _to, bytes) => bytes;
  dials = 0;

  constructor(scheduler: Scheduler, delayMs = 1) {
    this.#scheduler = scheduler;
    this.#delayMs = delayMs;
  }

  after(callback: () => void): void {
    this.#scheduler.after(this.#delayMs, callback);
  }

  /** A node's access. */
  transport(name: string): NodeTransport {
    const own = new Set<End>();
    let closed = false;
    return {
      dial: (peer, handler) => {
        this.dials++;
        const near = new End(this, name, peer);
        const far = new End(this, peer, name);
        near.other = far;
        far.other = near;
        near.handler = handler;
        own.add(near);
        this.#ends.add(near).add(far);
        this.after(() => {
          const accept = this.#accepts.get(peer);
          if (near.closed) return;
          if (accept === undefined || this.#cut.has(pairOf(name, peer))) {
            near.drop(new ShardloomError("ERR_UNAVAILABLE", `Cannot reach ${peer}`));
            return;
          }
          handler.onOpen();
          far.handler = accept(far);
          far.handler.onOpen();
        });
        return near;
      },
      listen: (accept) => {
        this.#accepts.set(name, (connection) => {
          own.add(connection as End);
          return accept(connection);
        });
      },
      close: () => {
        if (closed) return;
        closed = true;
        this.#accepts.delete(name);
        for (const end of own) end.close(new ShardloomError("ERR_CLOSED", "Cannot go on as the transport is closed"));
      },
    };
  }

  /** Closes what is between two nodes, and lets nothing through until {@link heal}. */
  cut(a: string, b: string): void {
    this.#cut.add(pairOf(a, b));
    for (const end of [...this.#ends])
      if (pairOf(end.self, end.peer) === pairOf(a, b))
        end.drop(new ShardloomError("ERR_UNAVAILABLE", "Cannot go on as the link is cut"));
  }

  heal(a: string, b: string): void {
    this.#cut.delete(pairOf(a, b));
  }

  /** A node's machine is gone: nobody of it is told anything. */
  crash(name: string): void {
    this.#accepts.delete(name);
    for (const end of this.#ends) {
      if (end.self !== name) continue;
      end.closed = true;
      this.after(() => end.other.drop(new ShardloomError("ERR_UNAVAILABLE", `Cannot go on as ${name} is gone`)));
    }
  }
}

function pairOf(a: string, b: string): string {
  return a < b ? `${a}|${b}` : `${b}|${a}`;
}
