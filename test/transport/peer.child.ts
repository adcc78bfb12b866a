/**
 * A node's network in a process of its own: gives back every frame and datagram to whoever sent it.
 *
 * Invariant: it says where it can be reached once it listens, and ends with its parent.
 */
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { Credentials } from "../../src/transport/session.ts";
import { createWireTransport, type WireTransportLimits } from "../../src/transport/wire-transport.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { transportOf } from "./under-test.ts";

/** What the parent says first. */
export interface PeerOptions {
  readonly scheme: "tls" | "https";
  readonly self: string;
  readonly credentials: Credentials;
  readonly limits?: Partial<WireTransportLimits>;
}

process.once("disconnect", () => process.exit(0));
process.once("message", (options: PeerOptions) => {
  void run(options);
});

async function run({ scheme, self, credentials, limits = {} }: PeerOptions): Promise<void> {
  const network = await createWireTransport({
    scheduler: systemScheduler,
    cluster: "test",
    self,
    transports: [transportOf(scheme)],
    listen: [new URL(`${scheme}://127.0.0.1:0`)],
    addressOf: () => undefined,
    credentials,
    identify: identifyTestNode,
    limits,
  });
  network.listen((connection) => ({
    onOpen: () => undefined,
    onFrame: (frame) => connection.send(frame),
    onDatagram: (datagram) => connection.sendDatagram(datagram),
    onClose: (error) => process.send?.({ closed: error.code }),
  }));
  process.send?.({ address: network.addresses[0]?.href });
}
