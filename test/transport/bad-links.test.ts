/** Links that fail in one direction only, are cut, or stall: who notices, and that nodes are connected again. */
import { afterEach, describe, expect, test } from "vitest";
import type { ShardloomError } from "../../src/errors.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { ConnectionHandler, NodeConnection } from "../../src/transport/transport.ts";
import { createWireTransport, type WireTransport } from "../../src/transport/wire-transport.ts";
import { eventually } from "../support/cluster.ts";
import { LinkProxy } from "../support/link-proxy.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { patterned } from "./parties.ts";
import { transportOf } from "./under-test.ts";

class End implements ConnectionHandler {
  connection!: NodeConnection;
  isOpen = false;
  frames = 0;
  error: ShardloomError | undefined;
  onOpen(): void {
    this.isOpen = true;
  }
  onFrame(): void {
    this.frames++;
  }
  datagrams = 0;
  onDatagram(): void {
    this.datagrams++;
  }
  onClose(error: ShardloomError): void {
    this.error = error;
  }
}

describe.each(["tls", "https"] as const)("a bad link under %s", (scheme) => {
  let proxy: LinkProxy | undefined;
  const networks: WireTransport[] = [];
  afterEach(async () => {
    for (const network of networks) network.close();
    await proxy?.close();
    await Promise.all(networks.map(({ closed }) => closed));
    networks.length = 0;
    proxy = undefined;
  });

  /** Two nodes, and what lies between them. */
  const connected = async (): Promise<{ near: () => End; far: End[]; link: LinkProxy; dial: () => Promise<End> }> => {
    const authority = await TestAuthority.create();
    const make = async (self: string, port?: () => number): Promise<WireTransport> => {
      const network = await createWireTransport({
        scheduler: systemScheduler,
        cluster: "test",
        self,
        transports: [transportOf(scheme)],
        listen: port === undefined ? [new URL(`${scheme}://127.0.0.1:0`)] : [],
        addressOf: () => new URL(`${scheme}://127.0.0.1:${port?.()}`),
        credentials: await authority.issue(self),
        identify: identifyTestNode,
        limits: { pingMs: 100, silentLooks: 5 },
      });
      networks.push(network);
      return network;
    };
    const b = await make("b");
    const far: End[] = [];
    b.listen((connection) => {
      const end = new End();
      end.connection = connection;
      far.push(end);
      return end;
    });
    const link = await LinkProxy.create(() => Number(b.addresses[0]?.port));
    proxy = link;
    const a = await make("a", () => link.port);
    let near = new End();
    const dial = async (): Promise<End> => {
      near = new End();
      near.connection = a.dial("b", near);
      await eventually("it is open", () => near.isOpen && far.at(-1)?.isOpen === true);
      return near;
    };
    await dial();
    return { near: () => near, far, link, dial };
  };

  test.for(["there", "back"] as const)(
    "that carries nothing %s is given up by who hears nothing",
    async (direction) => {
      const { near, far, link, dial } = await connected();
      const [first] = far;
      link.hold(direction);
      const deaf = direction === "there" ? (first as End) : near();
      await eventually("who hears nothing notices", () => deaf.error !== undefined);
      expect(deaf.error).toMatchObject({ code: "ERR_TIMEOUT" });
      link.release();
      await eventually("the other one learns of it", () => near().error !== undefined && first?.error !== undefined);
      const again = await dial();
      again.connection.send(patterned(10, 1));
      await eventually("it carries frames again", () => far.at(-1)?.frames === 1);
    },
  );

  test("that stalls for less than the limit loses nothing", async () => {
    const { near, far, link } = await connected();
    for (let round = 0; round < 3; round++) {
      link.hold("there");
      for (let at = 0; at < 20; at++) near().connection.send(patterned(10_000, at));
      const until = performance.now() + 150;
      await eventually("a stall has passed", () => performance.now() > until);
      link.release();
      await eventually("all has come", () => far[0]?.frames === 20 * (round + 1));
    }
    expect([near().error, far[0]?.error]).toEqual([undefined, undefined]);
  });

  test("that is cut is noticed by both at once", async () => {
    const { near, far, link, dial } = await connected();
    link.cut();
    // Silence would be noticed with another code.
    await eventually("both notice", () => near().error !== undefined && far[0]?.error !== undefined);
    expect([near().error, far[0]?.error]).toMatchObject([{ code: "ERR_UNAVAILABLE" }, { code: "ERR_UNAVAILABLE" }]);
    const again = await dial();
    again.connection.send(patterned(10, 1));
    await eventually("it carries frames again", () => far.at(-1)?.frames === 1);
  });

  test("that carries no frames carries datagrams still, and is given up in time", async () => {
    const { near, far, link } = await connected();
    await eventually("all are made", () => link.connections === (scheme === "tls" ? 3 : 2));
    await eventually("datagrams go both ways", () => {
      near().connection.sendDatagram(Uint8Array.of(1));
      far[0]?.connection.sendDatagram(Uint8Array.of(1));
      return near().datagrams > 0 && (far[0]?.datagrams ?? 0) > 0;
    });
    for (const at of scheme === "tls" ? [1, 2] : [0]) link.holdOne(at);
    const before = [near().datagrams, far[0]?.datagrams ?? 0];
    for (let at = 0; at < 10; at++) near().connection.send(patterned(100_000, at));
    await eventually("datagrams go both ways", () => {
      near().connection.sendDatagram(Uint8Array.of(2));
      far[0]?.connection.sendDatagram(Uint8Array.of(2));
      return near().datagrams > (before[0] as number) + 1 && (far[0]?.datagrams ?? 0) > (before[1] as number) + 1;
    });
    expect([near().error, far[0]?.error, far[0]?.frames]).toEqual([undefined, undefined, 0]);
    await eventually(
      "the stuck stream is noticed, although the peer lives",
      () => near().error !== undefined && far[0]?.error !== undefined,
    );
    expect([near().error?.code, far[0]?.error?.code]).toContain("ERR_TIMEOUT");
  });

  test("that loses one of a connection's streams ends it for both", async () => {
    const { near, far, link } = await connected();
    // Of a session over TLS itself and its two streams; of WebTransport for frames and for datagrams.
    await eventually("all are made", () => link.connections === (scheme === "tls" ? 3 : 2));
    near().connection.send(patterned(10, 1));
    await eventually("it carries frames", () => far[0]?.frames === 1);
    link.cutOne();
    await eventually("both notice", () => near().error !== undefined && far[0]?.error !== undefined);
  });
});
