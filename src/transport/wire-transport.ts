/**
 * The network of a node: connections to other nodes over whatever transports it has, each peer known by its certificate.
 *
 * Invariant: a connection that is given out leads to the node that it names, of this cluster, whose certificate an authority of this
 * cluster has signed; without certificates only where no network is (loopback). Numbers of connections, of a peer's too, and what waits on
 * each are bounded. Whoever goes silent is given up; dialling again is the link's part (node-link.ts).
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import type { Credentials, Listener, Session, SessionHandler, Transport } from "./session.ts";
import type { ConnectionHandler, NodeConnection, NodeTransport } from "./transport.ts";
import { WireConnection, type WireConnectionOptions, type WireLimits } from "./wire-connection.ts";
import { encodeWireHello, ownHello, type WireHello } from "./wire-hello.ts";

/** What a node's network is made from. */
export interface WireTransportOptions {
  readonly scheduler: Scheduler;
  /** Name of the cluster; nodes of another one are refused. */
  readonly cluster: string;
  readonly self: string;
  /** One for each scheme of the addresses. */
  readonly transports: readonly Transport[];
  /** Where this node is to be reached; port 0 takes a free one. */
  readonly listen: readonly URL[];
  /** Where another node is to be reached, asked at each dial. */
  readonly addressOf: (peer: string) => URL | undefined;
  /** Needed by all schemes but `loopback`. */
  readonly credentials?: Credentials;
  /** Whose certificate that is; throws when it is nobody's. Needed with {@link credentials}. */
  readonly identify?: (certificate: Uint8Array) => { readonly cluster: string; readonly node: string };
  readonly limits?: Partial<WireTransportLimits>;
  /** Somebody was refused: who, as far as is known, and why. */
  readonly onRefused?: (error: ShardloomError, address: string) => void;
}

/** Limits of a node's network. */
export interface WireTransportLimits extends WireLimits {
  /** Connections of others to this node at once. @default 256 */
  readonly maxConnections: number;
  /** Of these, from one node: the next one is refused. @default 4 */
  readonly maxConnectionsOfPeer: number;
}

/** A node's network. */
export interface WireTransport extends NodeTransport {
  /** Where this node can be reached, in the order of the option. */
  readonly addresses: readonly URL[];
  /** Resolves when everything is closed after {@link NodeTransport.close}. */
  readonly closed: Promise<void>;
  /** Connects and accepts with these from now on; connections that are open stay. */
  updateCredentials(credentials: Credentials): void;
  stats(): WireStats;
}

export interface WireStats {
  readonly connections: number;
  /** Bytes that wait for peers. */
  readonly queuedBytes: number;
}

const DEFAULTS: WireTransportLimits = {
  handshakeMs: 5_000,
  pingMs: 1_000,
  silentLooks: 4,
  windowBytes: 4 * 1024 * 1024,
  maxFrameBytes: 16 * 1024 * 1024,
  maxQueuedBytes: 64 * 1024 * 1024,
  maxConnections: 256,
  maxConnectionsOfPeer: 4,
};

/** Streams of a connection that a peer may open: the lanes, and one more that is refused with a reason. */
const STREAMS = 3;

/**
 * Opens a node's network: it listens when this resolves, and refuses everybody until {@link NodeTransport.listen} is called.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_UNAVAILABLE` when an address cannot be had.
 */
export async function createWireTransport(options: WireTransportOptions): Promise<WireTransport> {
  const network = new WireNetwork(options);
  await network.open();
  return network;
}

class WireNetwork implements WireTransport {
  readonly closed: Promise<void>;
  readonly #options: WireTransportOptions;
  readonly #limits: WireTransportLimits;
  readonly #hello: WireHello;
  readonly #greeting: Uint8Array;
  readonly #transports: ReadonlyMap<string, Transport>;
  readonly #connections: Set<WireConnection> = new Set();
  #listeners: readonly Listener[] = [];
  #credentials: Credentials | undefined;
  #accept: ((connection: NodeConnection) => ConnectionHandler) | undefined;
  #looks: Timer | undefined;
  #dials = 0;
  #isClosed = false;
  #resolveClosed!: () => void;

  constructor(options: WireTransportOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULTS, ...options.limits };
    this.#transports = new Map(options.transports.map((transport) => [transport.scheme, transport]));
    this.#credentials = options.credentials;
    this.#hello = ownHello(options.cluster, options.self);
    this.#greeting = encodeWireHello(this.#hello);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  async open(): Promise<void> {
    const { listen, onRefused } = this.#options;
    const { maxConnections, handshakeMs } = this.#limits;
    const listeners: Listener[] = [];
    try {
      for (const address of listen) {
        const listener = await this.#transportOf(address).listen(address, {
          ...this.#secrets(),
          handshakeMs,
          maxSessions: maxConnections,
          maxStreams: STREAMS,
          accept: (session) => this.#acceptSession(session),
          onRefused: (error) => onRefused?.(error, addressIn(error)),
        });
        listeners.push(listener);
      }
    } catch (error) {
      await Promise.all(listeners.map((listener) => listener.close()));
      throw error;
    }
    this.#listeners = listeners;
    this.#look();
  }

  get addresses(): readonly URL[] {
    return this.#listeners.map(({ address }) => address);
  }

  dial(peer: string, handler: ConnectionHandler): NodeConnection {
    const number = ++this.#dials;
    const connection = this.#connection(peer, number);
    try {
      if (this.#isClosed) throw closedError(this.#options.self);
      const address = this.#options.addressOf(peer);
      if (address === undefined)
        throw new ShardloomError("ERR_UNAVAILABLE", `Cannot connect to node ${peer} as its address must be known`);
      const { handshakeMs } = this.#limits;
      const transport = this.#transportOf(address);
      const settings = { ...this.#secrets(), handshakeMs, maxStreams: STREAMS, handler: connection };
      const control = transport.sharesConnection ? (): Session => transport.connect(address, settings) : undefined;
      connection.begin(transport.connect(address, settings), handler, control);
    } catch (error) {
      // Whoever dials is told later, as of every other failure.
      const reason = ShardloomError.from(error, "ERR_UNAVAILABLE");
      connection.close(reason);
      this.#options.scheduler.turn(() => handler.onClose(reason));
    }
    return connection;
  }

  listen(accept: (connection: NodeConnection) => ConnectionHandler): void {
    this.#accept = accept;
  }

  updateCredentials(credentials: Credentials): void {
    this.#credentials = credentials;
    for (const listener of this.#listeners) listener.updateCredentials(credentials);
  }

  stats(): WireStats {
    let queuedBytes = 0;
    for (const connection of this.#connections) queuedBytes += connection.queuedBytes;
    return { connections: this.#connections.size, queuedBytes };
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#looks?.cancel();
    for (const connection of [...this.#connections]) connection.close(closedError(this.#options.self));
    void Promise.all(this.#listeners.map((listener) => listener.close())).then(() => this.#resolveClosed());
  }

  #acceptSession(session: Session): SessionHandler | undefined {
    if (this.#accept === undefined || this.#isClosed) return undefined;
    const connection = this.#connection(undefined, 0);
    connection.begin(session);
    return connection;
  }

  #connection(peer: string | undefined, number: number): WireConnection {
    const { scheduler, onRefused } = this.#options;
    const options: WireConnectionOptions = {
      scheduler,
      hello: number === 0 ? this.#hello : { ...this.#hello, number },
      greeting: this.#greeting,
      limits: this.#limits,
      check: (session, node) => this.#check(session, node),
      adopted: (session, node, of) => this.#adopt(session, node, of),
      onGone: (gone) => this.#connections.delete(gone),
      onRefused: (error, address) => onRefused?.(error, address),
    };
    const connection = new WireConnection(peer, options, (greeted) => this.#greeted(greeted));
    this.#connections.add(connection);
    return connection;
  }

  #greeted(connection: WireConnection): ConnectionHandler {
    const { peer } = connection;
    const { maxConnectionsOfPeer } = this.#limits;
    let count = 0;
    for (const other of this.#connections) if (other.peer === peer && !other.isDialler) count++;
    if (count > maxConnectionsOfPeer)
      throw new ShardloomError(
        "ERR_OVERLOADED",
        `Cannot accept node ${peer} as it must have at most ${maxConnectionsOfPeer} connections: current value is ${count}`,
      );
    const accept = this.#accept;
    if (accept === undefined) throw closedError(this.#options.self);
    return accept(connection);
  }

  /** A session has come for the datagrams of a connection. */
  #adopt(session: WireConnection, node: string, number: number): void {
    for (const connection of this.#connections) {
      if (connection.peer !== node || connection.isDialler || connection.number !== number) continue;
      this.#connections.delete(session);
      connection.adopt(session);
      return;
    }
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot take datagrams of node ${node} as connection ${number} must be open`,
    );
  }

  #check({ remote: { certificate, address } }: Session, node: string): void {
    const { cluster, identify } = this.#options;
    if (certificate === undefined) {
      // Only a transport without a network gives no certificate; all others refuse who has none.
      if (this.#credentials === undefined) return;
      throw new ShardloomError("ERR_UNTRUSTED", `Cannot accept ${address} as it must have a certificate`);
    }
    if (identify === undefined)
      throw new ShardloomError("ERR_UNTRUSTED", `Cannot accept ${address} as nobody can tell whose its certificate is`);
    const identity = identify(certificate);
    if (identity.cluster === cluster && identity.node === node) return;
    const found = `${identity.cluster}/${identity.node}`;
    throw new ShardloomError(
      "ERR_UNTRUSTED",
      `Cannot accept ${address} as its certificate must be that of ${cluster}/${node}: current value is ${found}`,
      { details: { address, node, certificate: found } },
    );
  }

  #transportOf(address: URL): Transport {
    const scheme = address.protocol.slice(0, -1);
    const transport = this.#transports.get(scheme);
    if (transport !== undefined) return transport;
    const known = [...this.#transports.keys()].join(", ");
    throw new ShardloomError(
      "ERR_INVALID_ARGUMENT",
      `Cannot use address ${address.href} as its scheme must be one of ${known}: current value is ${scheme}`,
    );
  }

  #secrets(): { readonly credentials?: Credentials } {
    return this.#credentials === undefined ? {} : { credentials: this.#credentials };
  }

  #look(): void {
    for (const connection of [...this.#connections]) connection.look();
    this.#looks = this.#options.scheduler.timer(this.#limits.pingMs, () => this.#look());
    this.#looks.unref();
  }
}

function addressIn({ details }: ShardloomError): string {
  const { address } = details;
  return typeof address === "string" ? address : "";
}

function closedError(self: string): ShardloomError {
  return new ShardloomError("ERR_CLOSED", `Cannot go on as the transport of node ${self} is closed`);
}
