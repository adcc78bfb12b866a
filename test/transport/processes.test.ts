/** Two processes: frames there and back, a peer that is killed, one that is stopped and goes on, one that takes nothing. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { ShardloomError } from "../../src/errors.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import type { ConnectionHandler, NodeConnection } from "../../src/transport/transport.ts";
import {
  createWireTransport,
  type WireTransport,
  type WireTransportLimits,
} from "../../src/transport/wire-transport.ts";
import { eventually } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { patterned } from "./parties.ts";
import type { PeerOptions } from "./peer.child.ts";
import { transportOf } from "./under-test.ts";

const CHILD = fileURLToPath(new URL("./peer.child.js", import.meta.url));

/** The other process. */
class Peer {
  address: URL | undefined;
  readonly closed: string[] = [];
  readonly process: ChildProcess;

  constructor(options: PeerOptions) {
    this.process = fork(CHILD, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.process.on("message", (message: { address?: string; closed?: string }) => {
      if (message.address !== undefined) this.address = new URL(message.address);
      if (message.closed !== undefined) this.closed.push(message.closed);
    });
    this.process.send(options);
  }
}

/** This side of a connection. */
class End implements ConnectionHandler {
  connection!: NodeConnection;
  isOpen = false;
  readonly frames: Uint8Array[] = [];
  readonly datagrams: Uint8Array[] = [];
  error: ShardloomError | undefined;

  onOpen(): void {
    this.isOpen = true;
  }
  onFrame(frame: Uint8Array): void {
    this.frames.push(frame);
  }
  onDatagram(datagram: Uint8Array): void {
    this.datagrams.push(datagram);
  }
  onClose(error: ShardloomError): void {
    this.error = error;
  }
}

describe.each(["tls", "https"] as const)("two processes over %s", (scheme) => {
  let authority: TestAuthority;
  let peers: Peer[] = [];
  let networks: WireTransport[] = [];
  beforeAll(async () => {
    authority = await TestAuthority.create();
  });
  afterEach(async () => {
    for (const network of networks) network.close();
    for (const peer of peers) peer.process.kill("SIGKILL");
    await Promise.all(networks.map(({ closed }) => closed));
    [peers, networks] = [[], []];
  });

  const start = async (limits: Partial<WireTransportLimits> = {}): Promise<Peer> => {
    const peer = new Peer({ scheme, self: "peer", credentials: await authority.issue("peer"), limits });
    peers.push(peer);
    await eventually("the peer listens", () => peer.address !== undefined, 20_000);
    return peer;
  };
  const network = async (limits: Partial<WireTransportLimits> = {}): Promise<WireTransport> => {
    const made = await createWireTransport({
      scheduler: systemScheduler,
      cluster: "test",
      self: "here",
      transports: [transportOf(scheme)],
      listen: [],
      addressOf: () => peers.at(-1)?.address,
      credentials: await authority.issue("here"),
      identify: identifyTestNode,
      limits,
    });
    networks.push(made);
    return made;
  };
  const dial = async (of: WireTransport): Promise<End> => {
    const end = new End();
    end.connection = of.dial("peer", end);
    await eventually("it is open", () => end.isOpen || end.error !== undefined);
    expect(end.error).toBeUndefined();
    return end;
  };

  test("frames and datagrams come back as they were", async () => {
    await start();
    const end = await dial(await network());
    const sent = Array.from({ length: 3_000 }, (_, at) => patterned(16 + ((at * 7_919) % 600), at));
    sent.push(patterned(1_500_000, 1), patterned(5_000_000, 2));
    for (const frame of sent) end.connection.send(frame);
    await eventually("a datagram is back", () => {
      end.connection.sendDatagram(Uint8Array.of(1, 2, 3));
      return end.datagrams.length > 0;
    });
    await eventually("all frames are back", () => end.frames.length === sent.length, 20_000);
    const differing = end.frames.findIndex((frame, at) => Buffer.compare(frame, sent[at] as Uint8Array) !== 0);
    expect(differing).toBe(-1);
    expect(end.datagrams[0]).toEqual(Uint8Array.of(1, 2, 3));
  });

  test("a peer that is killed is noticed at once, and its successor is reached", async () => {
    const peer = await start();
    const here = await network();
    const end = await dial(here);
    peer.process.kill("SIGKILL");
    // By the end of its connection: its silence would be noticed with another code.
    await eventually("it is noticed", () => end.error !== undefined);
    expect(end.error).toMatchObject({ code: "ERR_UNAVAILABLE" });
    expect(here.stats()).toEqual({ connections: 0, queuedBytes: 0 });
    await start();
    const next = await dial(here);
    next.connection.send(patterned(100, 1));
    await eventually("it answers", () => next.frames.length === 1);
  });

  test("a peer that is stopped is given up, learns of it when it goes on, and is reached again", async () => {
    const limits = { pingMs: 100, silentLooks: 15 };
    const peer = await start();
    const here = await network(limits);
    const end = await dial(here);
    end.connection.send(patterned(100, 1));
    await eventually("it answers", () => end.frames.length === 1);
    // While it runs it may be silent for as long as it likes.
    const idleUntil = performance.now() + 2_000;
    await eventually("time has passed", () => performance.now() > idleUntil);
    expect(end.error).toBeUndefined();
    peer.process.kill("SIGSTOP");
    await eventually("it is given up", () => end.error !== undefined);
    expect(end.error).toMatchObject({ code: "ERR_TIMEOUT", details: { node: "peer" } });
    peer.process.kill("SIGCONT");
    await eventually("it learns of it", () => peer.closed.length === 1);
    const next = await dial(here);
    next.connection.send(patterned(100, 2));
    await eventually("it answers again", () => next.frames.length === 1);
  });

  test("a peer that takes nothing makes this process hold no more than the limit", async () => {
    const peer = await start();
    const here = await network({ silentLooks: 1_000, maxQueuedBytes: 8 * 1024 * 1024 });
    const end = await dial(here);
    peer.process.kill("SIGSTOP");
    const frame = patterned(64 * 1024, 1);
    let most = 0;
    let sentBytes = 0;
    const before = process.memoryUsage().external;
    let grown = 0;
    for (let at = 0; at < 4_000 && end.error === undefined; at++) {
      end.connection.send(frame.slice());
      sentBytes += frame.length;
      most = Math.max(most, here.stats().queuedBytes);
      grown = Math.max(grown, process.memoryUsage().external - before);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(end.error).toMatchObject({ code: "ERR_OVERLOADED" });
    expect(most).toBeLessThanOrEqual(8 * 1024 * 1024);
    expect(sentBytes, "given up long before").toBeLessThan(64 * 1024 * 1024);
    expect(grown, "memory outside of the heap").toBeLessThan(64 * 1024 * 1024);
    peer.process.kill("SIGCONT");
  });
});
