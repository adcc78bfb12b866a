/** Connections between nodes: what they promise the links above, who is refused and told why, and what a peer can make a node hold. */
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { FrameStream } from "../../src/transport/frame-stream.ts";
import { createLoopbackTransport } from "../../src/transport/loopback.ts";
import type { Credentials, Transport } from "../../src/transport/session.ts";
import { createTlsTransport } from "../../src/transport/tls.ts";
import type { ConnectionHandler, NodeConnection } from "../../src/transport/transport.ts";
import { createWebTransport } from "../../src/transport/webtransport.ts";
import { BULK_REPLY_BYTES } from "../../src/transport/wire-connection.ts";
import { decodeOpening, encodeWireHello, LANE, ownHello, type WireHello } from "../../src/transport/wire-hello.ts";
import {
  createWireTransport,
  type WireTransport,
  type WireTransportOptions,
} from "../../src/transport/wire-transport.ts";
import { LINK_FRAME } from "../../src/wire/link-frame.ts";
import { eventually } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { patterned, SessionRecord } from "./parties.ts";

/** What one end of a connection was told. */
class End implements ConnectionHandler {
  connection!: NodeConnection;
  opened = 0;
  readonly frames: Uint8Array[] = [];
  readonly datagrams: Uint8Array[] = [];
  readonly errors: ShardloomError[] = [];

  onOpen(): void {
    this.opened++;
  }
  onFrame(frame: Uint8Array): void {
    this.frames.push(frame);
  }
  onDatagram(datagram: Uint8Array): void {
    this.datagrams.push(datagram);
  }
  onClose(error: ShardloomError): void {
    this.errors.push(error);
  }
}

let authority: TestAuthority;
const known: Map<string, Credentials> = new Map();
const networks: WireTransport[] = [];
const refused: ShardloomError[] = [];

beforeAll(async () => {
  authority = await TestAuthority.create();
});
afterEach(async () => {
  for (const network of networks) network.close();
  await Promise.all(networks.map(({ closed }) => closed));
  networks.length = 0;
  refused.length = 0;
});

const loopback = createLoopbackTransport(systemScheduler);
const tls = createTlsTransport({ scheduler: systemScheduler, random: systemRandom });
const https = createWebTransport({ scheduler: systemScheduler });

/** An address of a transport. */
function at(over: Transport, port: number): URL {
  return new URL(`${over.scheme}://${over === loopback ? "here" : "127.0.0.1"}:${port}`);
}

async function credentialsOf(node: string): Promise<Credentials> {
  const credentials = known.get(node) ?? (await authority.issue(node));
  known.set(node, credentials);
  return credentials;
}

type Settings = Partial<WireTransportOptions> & { readonly to?: Record<string, URL> };

async function network(self: string, over: Transport, settings: Settings = {}): Promise<WireTransport> {
  const { to = {}, ...options } = settings;
  const made = await createWireTransport({
    scheduler: systemScheduler,
    cluster: "test",
    self,
    transports: [over],
    listen: [at(over, 0)],
    addressOf: (peer) => to[peer],
    ...(over !== loopback ? { credentials: await credentialsOf(self), identify: identifyTestNode } : {}),
    onRefused: (error) => refused.push(error),
    ...options,
  });
  networks.push(made);
  return made;
}

/** Accepts, and keeps what each connection is told. */
function accepting(of: WireTransport): End[] {
  const ends: End[] = [];
  of.listen((connection) => {
    const end = new End();
    end.connection = connection;
    ends.push(end);
    return end;
  });
  return ends;
}

function dial(from: WireTransport, peer: string): End {
  const end = new End();
  end.connection = from.dial(peer, end);
  return end;
}

/** A dial that must fail, and with what. */
async function failedDial(from: WireTransport, peer: string): Promise<ShardloomError> {
  const end = dial(from, peer);
  await eventually("the dial has failed", () => end.errors.length > 0);
  expect(end.opened).toBe(0);
  return end.errors[0] as ShardloomError;
}

interface Both {
  readonly near: End;
  readonly far: End;
  readonly a: WireTransport;
  readonly b: WireTransport;
}

async function connected(over: Transport, settings: Settings = {}): Promise<Both> {
  const b = await network("b", over, settings);
  const ends = accepting(b);
  const a = await network("a", over, { ...settings, to: { b: b.addresses[0] as URL } });
  const near = dial(a, "b");
  await eventually("both are open", () => near.opened === 1 && ends[0]?.opened === 1);
  return { near, far: ends[0] as End, a, b };
}

/** A link's frame of a kind, otherwise only bytes. */
function frameOf(kind: number, length: number, seed: number): Uint8Array {
  const frame = patterned(length, seed);
  frame[8] = kind;
  return frame;
}

describe.each([
  ["loopback", loopback],
  ["tls", tls],
  ["https", https],
] as const)("a connection over %s", (_name, over) => {
  test("carries frames whole and in order, both ways, from before it is open", async () => {
    const b = await network("b", over);
    const ends = accepting(b);
    const a = await network("a", over, { to: { b: b.addresses[0] as URL } });
    const near = dial(a, "b");
    const sent = Array.from({ length: 300 }, (_, n) => frameOf(LINK_FRAME.REQUEST, 9 + ((n * n * 37) % 40_000), n));
    for (const frame of sent) near.connection.send(frame);
    await eventually("all have come", () => ends[0]?.frames.length === sent.length);
    const far = ends[0] as End;
    expect([far.connection.peer, near.connection.peer]).toEqual(["a", "b"]);
    for (const [at, frame] of far.frames.entries())
      expect(Buffer.compare(frame, sent[at] as Uint8Array), `${at}`).toBe(0);
    for (const frame of far.frames) expect(frame.byteOffset % 8).toBe(0);
    for (const frame of sent) far.connection.send(frame);
    await eventually("all have come back", () => near.frames.length === sent.length);
    for (const [at, frame] of near.frames.entries())
      expect(Buffer.compare(frame, sent[at] as Uint8Array), `${at}`).toBe(0);
  });

  test("carries frames longer than the window, and refuses those that are too long", async () => {
    const limits = { windowBytes: 64 * 1024, maxFrameBytes: 1024 * 1024 };
    const { near, far } = await connected(over, { limits });
    const long = frameOf(LINK_FRAME.REQUEST, 1024 * 1024, 1);
    for (let at = 0; at < 3; at++) near.connection.send(long);
    await eventually("they have come", () => far.frames.length === 3);
    expect(far.frames.every((frame) => Buffer.compare(frame, long) === 0)).toBe(true);
    near.connection.send(new Uint8Array(1024 * 1024 + 1));
    expect(near.errors).toMatchObject([{ code: "ERR_RECORD_TOO_LARGE" }]);
  });

  test("gives long replies a lane of their own, whole and once", async () => {
    const { near, far } = await connected(over);
    const replies = Array.from({ length: 8 }, (_, at) => frameOf(LINK_FRAME.REPLY, BULK_REPLY_BYTES + at, at));
    const small = Array.from({ length: 8 }, (_, at) => frameOf(LINK_FRAME.REPLY, 100, 100 + at));
    for (const at of replies.keys()) {
      near.connection.send(replies[at] as Uint8Array);
      near.connection.send(small[at] as Uint8Array);
    }
    await eventually("all have come", () => far.frames.length === 16);
    const order = (length: number): Uint8Array[] =>
      far.frames.filter((frame) => frame.length < BULK_REPLY_BYTES === length < BULK_REPLY_BYTES);
    expect(order(0).map((frame) => Buffer.compare(frame, small[order(0).indexOf(frame)] as Uint8Array))).toEqual(
      small.map(() => 0),
    );
    expect(order(1e9).map((frame) => Buffer.compare(frame, replies[order(1e9).indexOf(frame)] as Uint8Array))).toEqual(
      replies.map(() => 0),
    );
  });

  test("carries datagrams beside frames that are under way", async () => {
    const { near, far } = await connected(over);
    let before = -1;
    const { onDatagram } = far;
    far.onDatagram = (datagram) => {
      if (before < 0) before = far.frames.length;
      onDatagram.call(far, datagram);
    };
    for (let at = 0; at < 24; at++) near.connection.send(frameOf(LINK_FRAME.REQUEST, 1024 * 1024, at));
    near.connection.sendDatagram(Uint8Array.of(1, 2, 3));
    await eventually("all has come", () => far.frames.length === 24 && far.datagrams.length === 1);
    expect(far.datagrams).toEqual([Uint8Array.of(1, 2, 3)]);
    expect(before, "frames that came before it").toBeLessThan(12);
  });

  test("ends once for both, with the reason, and carries nothing after", async () => {
    const { near, far, a, b } = await connected(over);
    const error = new ShardloomError("ERR_CLOSED", "enough");
    near.connection.close(error);
    expect(near.errors).toEqual([error]);
    near.connection.close(error);
    near.connection.send(Uint8Array.of(1));
    near.connection.sendDatagram(Uint8Array.of(1));
    await eventually("the peer is told", () => far.errors.length > 0);
    expect(far.errors[0]?.message).toContain("enough");
    far.connection.send(Uint8Array.of(1));
    await eventually("nobody keeps it", () => a.stats().connections === 0 && b.stats().connections === 0);
    expect([near.errors.length, far.errors.length, near.frames, far.frames]).toEqual([1, 1, [], []]);
  });

  test("cannot be made to somebody unknown, absent, closed, or not started", async () => {
    const b = await network("b", over);
    const a = await network("a", over, {
      to: { b: b.addresses[0] as URL, absent: at(over, 9), odd: new URL("gopher://x:1") },
    });
    expect((await failedDial(a, "unknown")).message).toContain("address");
    expect(await failedDial(a, "absent")).toMatchObject({ code: "ERR_UNAVAILABLE" });
    expect(await failedDial(a, "odd")).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    expect(await failedDial(a, "b")).toMatchObject({ code: "ERR_UNAVAILABLE" }); // it does not listen yet
    b.close();
    await b.closed;
    expect(await failedDial(a, "b")).toMatchObject({ code: "ERR_UNAVAILABLE" });
    a.close();
    expect(await failedDial(a, "b")).toMatchObject({ code: "ERR_CLOSED" });
  });

  test("is refused beyond the number that one node may have", async () => {
    const b = await network("b", over, { limits: { maxConnectionsOfPeer: 2 } });
    accepting(b);
    const a = await network("a", over, { to: { b: b.addresses[0] as URL } });
    const ends = [dial(a, "b"), dial(a, "b")];
    await eventually("two are open", () => ends.every(({ opened }) => opened === 1));
    expect((await failedDial(a, "b")).message).toContain("at most 2");
    expect(refused).toMatchObject([{ code: "ERR_OVERLOADED" }]);
    ends[0]?.connection.close(new ShardloomError("ERR_CLOSED", "done"));
    await eventually("there is a place", () => b.stats().connections === 1);
    const next = dial(a, "b");
    await eventually("it is open", () => next.opened === 1);
  });

  test("is refused by another cluster, with the reason", async () => {
    const b = await network("b", over, { cluster: "other" });
    accepting(b);
    const a = await network("a", over, { to: { b: b.addresses[0] as URL } });
    const error = await failedDial(a, "b");
    expect(error.code).toBe("ERR_VERSION_MISMATCH");
    expect(error.message).toContain("cluster must be other: current value is test");
  });
});

describe("who greets wrongly", () => {
  /** Dials with a greeting of the test's making. @returns how the session ended */
  async function greet(
    b: WireTransport,
    change: Partial<WireHello> | Uint8Array,
  ): Promise<{ code: number; reason: string }> {
    const session = loopback.connect(b.addresses[0] as URL, { handler: new SessionRecord() });
    await session.ready;
    const handler = { onOpening: () => undefined, onFrame: () => undefined, onOver: () => undefined };
    const lane = new FrameStream({ scheduler: systemScheduler, handler });
    lane.attach(session.openBidirectional(lane));
    lane.sendOpening(change instanceof Uint8Array ? change : encodeWireHello({ ...ownHello("test", "a"), ...change }));
    return session.closed;
  }

  test.for([
    ["protocol", { protocolFrom: 2, protocolTo: 3 }, "protocol must be 1: current value is 2 to 3"],
    ["cluster", { cluster: "other" }, "cluster must be test: current value is other"],
    ["envelope", { envelope: 99 }, "envelope version must be 1: current value is 99"],
    ["structures", { structures: 1 }, "structure table"],
    [
      "message types",
      { types: { "1": "other.name" } },
      "message type 1 must be runtime.ping: current value is other.name",
    ],
    ["fields", { node: 5 as unknown as string }, "its node is missing"],
  ] as const)("is told what does not fit: %s", async ([, change, reason]) => {
    const b = await network("b", loopback);
    const ends = accepting(b);
    const closed = await greet(b, change);
    expect(closed.reason).toContain(reason);
    expect(ends).toEqual([]);
    expect(refused).toHaveLength(1);
  });

  test("is cut off when it sends no greeting, or two", async () => {
    const b = await network("b", loopback);
    accepting(b);
    expect((await greet(b, patterned(100, 1))).reason).not.toBe("");
    expect(refused).toHaveLength(1);
  });

  test("knows fewer message types, or more: that is no reason to part", async () => {
    const b = await network("b", loopback);
    const ends = accepting(b);
    const session = loopback.connect(b.addresses[0] as URL, { handler: new SessionRecord() });
    await session.ready;
    let answers = 0;
    const handler = { onOpening: () => answers++, onFrame: () => undefined, onOver: () => undefined };
    const lane = new FrameStream({ scheduler: systemScheduler, handler });
    lane.attach(session.openBidirectional(lane));
    lane.sendOpening(encodeWireHello({ ...ownHello("test", "a"), types: { "1": "runtime.ping", "60000": "new.one" } }));
    await eventually("it is answered", () => answers === 1);
    expect(ends.map(({ opened }) => opened)).toEqual([1]);
    session.close({ code: 0, reason: "" });
  });

  test("or not at all: is closed in time", async () => {
    const b = await network("b", loopback, { limits: { handshakeMs: 50 } });
    accepting(b);
    const session = loopback.connect(b.addresses[0] as URL, { handler: new SessionRecord() });
    expect((await session.closed).reason).toContain("did not greet within 50 ms");
    const mute = await loopback.listen(new URL("loopback://mute:0"), { accept: () => new SessionRecord() });
    const a = await network("a", loopback, { to: { mute: mute.address }, limits: { handshakeMs: 50 } });
    expect(await failedDial(a, "mute")).toMatchObject({ code: "ERR_TIMEOUT" });
    await mute.close();
  });
});

describe.each([
  ["tls", tls],
  ["https", https],
] as const)("certificates over %s", (_name, over) => {
  test("of another authority are refused, by either side, with the reason", async () => {
    const stranger = await (await TestAuthority.create("stranger")).issue("a");
    const b = await network("b", over);
    const ends = accepting(b);
    const to = { b: b.addresses[0] as URL };
    // It trusts us, we do not trust it.
    const trusting = { ...stranger, authorities: [authority.certificate] };
    expect(await failedDial(await network("a", over, { to, credentials: trusting }), "b")).toMatchObject({
      code: "ERR_UNTRUSTED",
    });
    expect(refused.map(({ code }) => code)).toEqual(["ERR_UNTRUSTED"]);
    // It does not trust us.
    expect(await failedDial(await network("a", over, { to, credentials: stranger }), "b")).toMatchObject({
      code: "ERR_UNTRUSTED",
    });
    expect(ends).toEqual([]);
  });

  test.for([
    ["expired", -3, -2],
    ["not valid yet", 1, 2],
  ] as const)("that are %s are refused", async ([, from, to]) => {
    const b = await network("b", over);
    const ends = accepting(b);
    const old = await authority.issue("a", from, to);
    const a = await network("a", over, { to: { b: b.addresses[0] as URL }, credentials: old });
    expect(await failedDial(a, "b")).toMatchObject({ code: "ERR_UNTRUSTED" });
    accepting(a);
    const c = await network("c", over, { to: { a: a.addresses[0] as URL } });
    expect(await failedDial(c, "a")).toMatchObject({ code: "ERR_UNTRUSTED" });
    expect(ends).toEqual([]);
  });

  test("of another node are refused: where it was dialled, and where it dials", async () => {
    const b = await network("b", over);
    const ends = accepting(b);
    const to = { b: b.addresses[0] as URL, c: b.addresses[0] as URL };
    const a = await network("a", over, { to });
    expect((await failedDial(a, "c")).message).toContain("must be that of test/c: current value is test/b");
    // Its certificate says a, its greeting c.
    const liar = await network("c", over, { to, credentials: await credentialsOf("a") });
    expect((await failedDial(liar, "b")).message).toContain("must be that of test/c: current value is test/a");
    expect([ends, refused.map(({ code }) => code)]).toEqual([[], ["ERR_UNTRUSTED"]]);
  });

  test("are exchanged without a restart: what is open stays, what comes has the new ones", async () => {
    const other = await TestAuthority.create("next");
    const { near, far, a, b } = await connected(over);
    const both = [authority.certificate, other.certificate];
    const next = { ...(await other.issue("b")), authorities: both };
    b.updateCredentials(next);
    expect(await failedDial(a, "b")).toMatchObject({ code: "ERR_UNTRUSTED" }); // it does not know the authority yet
    a.updateCredentials({ ...(await credentialsOf("a")), authorities: both });
    const again = dial(a, "b");
    await eventually("it is open", () => again.opened === 1);
    near.connection.send(Uint8Array.of(1));
    await eventually("the old one carries frames", () => far.frames.length === 1);
    expect([near.errors, far.errors]).toEqual([[], []]);
  });

  test("are needed", async () => {
    const bare = { listen: [at(over, 0)] };
    await expect(
      createWireTransport({
        ...bare,
        scheduler: systemScheduler,
        cluster: "test",
        self: "a",
        transports: [over],
        addressOf: () => undefined,
      }),
    ).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });
});

describe("a peer that takes nothing", () => {
  test("makes a node hold no more than the limit, and is given up then", async () => {
    const limits = { windowBytes: 64 * 1024, maxQueuedBytes: 1024 * 1024 };
    // It greets, and grants nothing.
    const lazy = await loopback.listen(new URL("loopback://lazy:0"), {
      accept: () =>
        new SessionRecord((stream) => {
          const handler = {
            onOpening: (opening: Uint8Array) => {
              if (decodeOpening(opening).lane === LANE.REQUESTS)
                lane.sendOpening(encodeWireHello(ownHello("test", "lazy")));
            },
            onFrame: () => undefined,
            onOver: () => undefined,
          };
          const lane = new FrameStream({ scheduler: systemScheduler, handler });
          lane.attach(stream);
          return lane as never;
        }),
    });
    const a = await network("a", loopback, { to: { lazy: lazy.address }, limits });
    const end = dial(a, "lazy");
    await eventually("it is open", () => end.opened === 1);
    const frame = new Uint8Array(10_000);
    let most = 0;
    for (let at = 0; at < 200 && end.errors.length === 0; at++) {
      end.connection.send(frame);
      most = Math.max(most, a.stats().queuedBytes);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(most).toBeGreaterThan(900_000);
    expect(most).toBeLessThanOrEqual(1024 * 1024);
    expect(end.errors).toMatchObject([{ code: "ERR_OVERLOADED" }]);
    expect(a.stats()).toEqual({ connections: 0, queuedBytes: 0 });
    await lazy.close();
  });
});
