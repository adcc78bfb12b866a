/** Nothing goes over a network in plain text: what is without certificates stays in its process, and has to be asked for there. */
import { expect, test } from "vitest";
import { checkNodeAddresses } from "../../src/cluster-wire.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createLoopbackTransport } from "../../src/transport/loopback.ts";
import { createWireTransport } from "../../src/transport/wire-transport.ts";
import { SessionRecord } from "./parties.ts";
import { transportOf } from "./under-test.ts";

const refused = expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" });

test.each(["tls", "https"] as const)(
  "%s neither listens nor connects without certificates, wherever that is",
  async (scheme) => {
    for (const host of ["127.0.0.1", "[::1]", "0.0.0.0"]) {
      const address = new URL(`${scheme}://${host}:0`);
      const listening = async (): Promise<unknown> => transportOf(scheme).listen(address, { accept: () => undefined });
      await expect(listening()).rejects.toEqual(refused);
      const dialling = async (): Promise<void> =>
        transportOf(scheme).connect(address, { handler: new SessionRecord() }).ready;
      await expect(dialling()).rejects.toEqual(refused);
    }
  },
);

test("a node has no address of another scheme", () => {
  for (const scheme of ["tcp", "http", "ws", "loopback"]) {
    const members = ["a", "b"].map((name, at) => ({ name, address: `${scheme}://127.0.0.1:${7_000 + at}` }));
    expect(() => checkNodeAddresses("start node", members)).toThrow(refused);
  }
});

test("who has certificates dials nobody by loopback, unless that was asked for", async () => {
  const ports = new Map();
  const create = (transports: Parameters<typeof createWireTransport>[0]["transports"]) =>
    createWireTransport({
      scheduler: systemScheduler,
      cluster: "test",
      self: "a",
      transports,
      listen: [],
      addressOf: () => new URL("loopback://b:1"),
    });
  for (const transports of [[transportOf("tls")], [createLoopbackTransport(systemScheduler, ports)]]) {
    const network = await create(transports);
    const closed = new Promise<Error>((resolve) => {
      const ignore = (): void => undefined;
      network.dial("b", { onOpen: ignore, onFrame: ignore, onDatagram: ignore, onClose: resolve });
    });
    const isAsked = transports[0]?.scheme === "loopback";
    expect(await closed).toMatchObject({ code: isAsked ? "ERR_UNAVAILABLE" : "ERR_INVALID_ARGUMENT" });
    network.close();
  }
});
