/**
 * Clusters of several nodes in one process that reach each other by sockets: each has its certificate, and a free port in each life.
 *
 * Invariant: a node's address is known to the others as soon as it listens, and its transport is closed with it.
 */
import { X509Certificate } from "node:crypto";
import type { ClusterOptions } from "../../src/index.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { Transport } from "../../src/transport/session.ts";
import {
  createWireTransport,
  type WireTransport,
  type WireTransportLimits,
} from "../../src/transport/wire-transport.ts";
import { TestNodes } from "./nodes.ts";
import { TestAuthority } from "./test-certificates.ts";

/** Whose certificate that is, as {@link TestAuthority} issues them. */
export function identifyTestNode(certificate: Uint8Array): { cluster: string; node: string } {
  const names = new X509Certificate(certificate).subjectAltName ?? "";
  const [, cluster, node] = /URI:shardloom:\/\/([^/,]+)\/([^/,]+)/.exec(names) ?? [];
  if (cluster === undefined || node === undefined) throw new Error(`the certificate names no node: ${names}`);
  return { cluster, node };
}

/** How a node of a test is reached. */
export interface WireNodeOptions {
  readonly transport: Transport;
  /** With port 0. */
  readonly listen: string;
  readonly limits?: Partial<WireTransportLimits>;
}

/** Nodes over a transport with certificates. */
export class WireNodes extends TestNodes {
  readonly transports: WireTransport[] = [];
  readonly #wire: WireNodeOptions;
  readonly #addresses: Map<string, URL> = new Map();
  #authority: Promise<TestAuthority> | undefined;

  constructor(count: number, wire: WireNodeOptions, options: ClusterOptions = {}) {
    super(count, options);
    this.#wire = wire;
  }

  protected override async transportOf(self: string): Promise<WireTransport> {
    this.#authority ??= TestAuthority.create();
    const { transport, listen, limits = {} } = this.#wire;
    const wire = await createWireTransport({
      scheduler: systemScheduler,
      cluster: "test",
      self,
      transports: [transport],
      listen: [new URL(listen)],
      addressOf: (peer) => this.#addresses.get(peer),
      credentials: await (await this.#authority).issue(self),
      identify: identifyTestNode,
      limits,
    });
    this.#addresses.set(self, wire.addresses[0] as URL);
    this.transports[Number(self.slice(1))] = wire;
    return wire;
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    await Promise.all(this.transports.map(({ closed }) => closed));
  }
}
