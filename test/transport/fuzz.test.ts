/**
 * Damaged bytes against the frame reader, and against listeners that must stay healthy: cut, changed, repeated, oversized, at every layer that
 * a peer can reach. `SEED=…` repeats; ten times as much with `SHARDLOOM_LONG=1`.
 */
import http2 from "node:http2";
import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { afterEach, describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { FrameReader, frameBytes } from "../../src/transport/frame.ts";
import { createLoopbackTransport } from "../../src/transport/loopback.ts";
import type { Credentials, Transport } from "../../src/transport/session.ts";
import {
  attachFrame,
  closeFrame,
  inviteFrame,
  openFrame,
  resetFrame,
  SOCKET_PROTOCOLS,
} from "../../src/transport/socket-frames.ts";
import type { NodeConnection } from "../../src/transport/transport.ts";
import { encodeWireHello, ownHello } from "../../src/transport/wire-hello.ts";
import { createWireTransport, type WireTransport } from "../../src/transport/wire-transport.ts";
import { eventually } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { patterned, SessionRecord, StreamRecord } from "./parties.ts";
import { transportOf } from "./under-test.ts";

const SCALE = process.env["SHARDLOOM_LONG"] === "1" ? 10 : 1;
const SEED = Number(process.env["SEED"] ?? 1);
const DATA = 2;
const CREDIT = 3;
const OPENING = 1;

/** Changes bytes in one of the ways in which a wire or a program damages them. Never gives the same bytes back. */
function damaged(random: Random, bytes: Uint8Array): Uint8Array {
  const result = change(random, bytes);
  // Behind what is the same, more is no damage.
  return Buffer.compare(result.subarray(0, bytes.length), bytes) === 0 ? damaged(random, bytes) : result;
}

function change(random: Random, bytes: Uint8Array): Uint8Array {
  const at = random.u32() % bytes.length;
  const copy = bytes.slice();
  switch (random.u32() % 6) {
    case 0: // one bit
      copy[at] = (copy[at] as number) ^ (1 << (random.u32() % 8));
      return copy;
    case 1: // cut, with something else behind
      return Uint8Array.from([...bytes.subarray(0, at), ...patterned(16, random.u32())]);
    case 2: // a length as large as can be
      for (const index of [4, 5, 6]) if (index < copy.length) copy[index] = 0xff;
      return copy;
    case 3: // a run of noise
      copy.set(patterned(Math.min(8, copy.length - at), random.u32()), at);
      return copy;
    case 4: // a byte too few in the middle, and so all that follows in the wrong place
      return Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + 1), 0x5a]);
    default: // zeros
      return new Uint8Array(bytes.length + 8);
  }
}

describe("the frame reader", () => {
  test("gives out what was written up to the damage, and nothing after it", () => {
    const random = createSeededRandom(SEED);
    const count = 100_000 * SCALE;
    let refused = 0;
    let waiting = 0;
    for (let round = 0; round < count; round++) {
      const payloads = Array.from({ length: 1 + (random.u32() % 3) }, () => patterned(random.u32() % 48, random.u32()));
      const frames = payloads.map((payload) => frameBytes(1 + (random.u32() % 15), payload));
      const wrong = random.u32() % frames.length;
      frames[wrong] = damaged(random, frames[wrong] as Uint8Array);
      const bytes = Buffer.concat(frames);
      const given: Uint8Array[] = [];
      const reader = new FrameReader(64 * 1024, (_kind, payload) => given.push(payload));
      try {
        for (let at = 0; at < bytes.length; ) {
          const length = 1 + (random.u32() % bytes.length);
          reader.push(bytes.subarray(at, at + length));
          at += length;
        }
        waiting++; // for the rest of a frame that pretends to be longer
      } catch (error) {
        if (!ShardloomError.is(error) || !/^ERR_(CORRUPT|RECORD_TOO_LARGE)$/.test(error.code)) throw error;
        refused++;
        expect(reader.push(bytes)).toBe(0);
      }
      // What is given out is what was written, in order; the damaged one is not among it.
      const isRight =
        given.length <= wrong &&
        given.every((payload, at) => Buffer.compare(payload, payloads[at] as Uint8Array) === 0);
      if (!isRight) throw new Error(`round ${round}: ${given.length} frames before the damaged one, ${wrong}`);
    }
    expect(refused + waiting).toBe(count);
    expect(refused).toBeGreaterThan(count / 2);
  });
});

/** A node that gives back what it is sent, and a connection to it that must go on working. */
class Target {
  readonly node: WireTransport;
  readonly #friend: WireTransport;
  readonly #connection: NodeConnection;
  readonly #frames: Uint8Array[] = [];
  frames = 0;
  #closed: ShardloomError | undefined;
  #rounds = 0;

  private constructor(node: WireTransport, friend: WireTransport) {
    this.node = node;
    this.#friend = friend;
    this.node.listen((connection) => ({
      onOpen: () => undefined,
      onFrame: (frame) => {
        this.frames++;
        connection.send(frame);
      },
      onDatagram: () => undefined,
      onClose: () => undefined,
    }));
    this.#connection = friend.dial("target", {
      onOpen: () => undefined,
      onFrame: (frame) => this.#frames.push(frame),
      onDatagram: () => undefined,
      onClose: (error) => {
        this.#closed = error;
      },
    });
  }

  static async create(
    over: Transport,
    credentials: (node: string) => Promise<Credentials | undefined>,
  ): Promise<Target> {
    const make = async (self: string, to?: URL): Promise<WireTransport> => {
      const own = await credentials(self);
      const host = over.scheme === "loopback" ? "here" : "127.0.0.1";
      return createWireTransport({
        scheduler: systemScheduler,
        cluster: "test",
        self,
        transports: [over],
        listen: to === undefined ? [new URL(`${over.scheme}://${host}:0`)] : [],
        addressOf: () => to,
        ...(own === undefined ? {} : { credentials: own, identify: identifyTestNode }),
        limits: { maxFrameBytes: 64 * 1024, handshakeMs: 10_000, maxConnections: 512, maxConnectionsOfPeer: 512 },
      });
    };
    const node = await make("target");
    return new Target(node, await make("friend", node.addresses[0]));
  }

  /** The old connection answers, and nobody else is left. */
  async isHealthy(): Promise<void> {
    const frame = patterned(1_000, this.#rounds++);
    this.#frames.length = 0;
    this.#connection.send(frame);
    await eventually("it answers", () => this.#frames.length === 1 || this.#closed !== undefined);
    expect(this.#closed).toBeUndefined();
    expect(Buffer.compare(this.#frames[0] as Uint8Array, frame)).toBe(0);
    await eventually("nobody else is left", () => this.node.stats().connections === 1, 20_000);
    expect(this.node.stats().queuedBytes).toBe(0);
  }

  async close(): Promise<void> {
    for (const network of [this.#friend, this.node]) {
      network.close();
      await network.closed;
    }
  }
}

let target: Target | undefined;
afterEach(async () => {
  await target?.close();
  target = undefined;
});

function memoryBytes(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

describe("a node that listens", () => {
  test("cuts off who sends damaged frames, and nobody else", async () => {
    const random = createSeededRandom(SEED + 1);
    const over = createLoopbackTransport(systemScheduler);
    target = await Target.create(over, async () => undefined);
    const { node } = target;
    const hello = frameBytes(OPENING, encodeWireHello(ownHello("test", "stranger")));
    const credit = frameBytes(CREDIT, Uint8Array.of(0, 0, 16, 0));
    const count = 20_000 * SCALE * (SCALE === 1 ? 1 : 5); // a million in long runs
    const together = 200;
    await target.isHealthy();
    const before = memoryBytes();
    /** @returns when the node has closed the session, or the stranger has after it waited for the rest of a frame in vain */
    const attack = async (): Promise<void> => {
      const session = over.connect(node.addresses[0] as URL, { handler: new SessionRecord() });
      await session.ready;
      const record = new StreamRecord(() => undefined);
      const stream = session.openBidirectional(record);
      const isLate = random.u32() % 4 > 0;
      const good = frameBytes(DATA, patterned(random.u32() % 64, random.u32()));
      const parts = isLate ? [hello, credit, good, damaged(random, good)] : [damaged(random, hello), good];
      const bytes = Buffer.concat(parts);
      const cut = random.u32() % bytes.length;
      stream.write(bytes.subarray(0, cut));
      stream.write(bytes.subarray(cut));
      // A frame that claims to be longer than it is waits for the rest: then the stream ends within it.
      stream.end();
      await session.closed;
    };
    for (let round = 0; round < count; round += together) {
      await Promise.all(Array.from({ length: together }, attack));
      if (round % 20_000 === 0) await target.isHealthy();
    }
    await target.isHealthy();
    expect(target.frames, "frames before the damaged ones are taken").toBeGreaterThan(count / 2);
    expect(memoryBytes() - before, "bytes held after it").toBeLessThan(32 * 1024 * 1024);
  }, 600_000);

  test("survives damaged frames of sessions over TLS, of members and strangers", async () => {
    const random = createSeededRandom(SEED + 2);
    const authority = await TestAuthority.create();
    target = await Target.create(transportOf("tls"), (node) => authority.issue(node));
    const { hostname: host, port } = target.node.addresses[0] as URL;
    const member = await authority.issue("member");
    const token = patterned(16, 1);
    const firsts = [openFrame(), attachFrame(token, { id: 0, direction: "both" })];
    const others = [
      resetFrame(4, 1),
      inviteFrame({ id: 3, direction: "send" }),
      closeFrame({ code: 9, reason: "some reason" }),
      frameBytes(6, patterned(100, 1)),
      frameBytes(8, patterned(12, 1)),
      frameBytes(2, token),
    ];
    const attack = (secure: boolean): Promise<void> =>
      new Promise((resolve) => {
        const options = { host, port: Number(port) };
        const socket = secure
          ? connectTls({
              ...options,
              cert: member.certificate,
              key: member.key,
              ca: [...member.authorities],
              checkServerIdentity: () => undefined,
              minVersion: "TLSv1.3",
              ALPNProtocols: [...SOCKET_PROTOCOLS],
            })
          : connectTcp(options);
        const [first, next] = [random.u32() % firsts.length, random.u32() % others.length];
        const isLate = random.u32() % 2 === 0;
        if (isLate) socket.write(firsts[first] as Uint8Array);
        const chosen = (isLate ? others[next] : firsts[first]) as Uint8Array;
        socket.write(random.u32() % 4 === 0 ? chosen : damaged(random, chosen));
        // A half-open connection must not be kept; one that speaks no TLS has until the handshake's limit.
        socket.end(() => (secure ? undefined : socket.destroy()));
        socket.on("error", () => undefined).on("close", () => resolve());
        socket.resume();
      });
    for (let round = 0; round < 20 * SCALE; round++) {
      await Promise.all(Array.from({ length: 16 }, (_, at) => attack(at % 4 > 0)));
      await target.isHealthy();
    }
  }, 120_000);

  test("survives damaged capsules of WebTransport sessions", async () => {
    const random = createSeededRandom(SEED + 3);
    const authority = await TestAuthority.create();
    target = await Target.create(transportOf("https"), (node) => authority.issue(node));
    const { host } = target.node.addresses[0] as URL;
    const member = await authority.issue("member");
    const attack = (at: number): Promise<void> =>
      new Promise((resolve) => {
        const session = http2.connect(`https://${host}`, {
          cert: member.certificate,
          key: member.key,
          ca: [...member.authorities],
          checkServerIdentity: () => undefined,
          settings: { enableConnectProtocol: true },
        });
        session.on("error", () => undefined).on("close", () => resolve());
        session.once("remoteSettings", () => {
          const path = at % 8 === 0 ? "/elsewhere" : "/shardloom";
          const stream = session.request({
            ":method": "CONNECT",
            ":protocol": "webtransport",
            ":scheme": "https",
            ":path": path,
          });
          stream.on("error", () => undefined).on("close", () => session.destroy());
          stream.resume();
          for (let count = 0; count < 8; count++) stream.write(damaged(random, capsule(random)));
          stream.end(() => setImmediate(() => session.destroy()));
        });
      });
    for (let round = 0; round < 5 * SCALE; round++) {
      await Promise.all(Array.from({ length: 16 }, (_, at) => attack(at)));
      await target.isHealthy();
    }
  }, 120_000);
});

/** A capsule as draft-ietf-webtrans-http2 has them: `type | length | value`, the first two of variable length. */
function capsule(random: Random): Uint8Array {
  const types = [0x00, 0x190b4d39, 0x190b4d3a, 0x190b4d3b, 0x190b4d3c, 0x190b4d3d, 0x190b4d3e, 0x190b4d3f, 0x2843];
  const type = types[random.u32() % types.length] as number;
  const value = patterned(1 + (random.u32() % 60), random.u32());
  value[0] = random.u32() % 64; // most values begin with the number of a stream
  const head = type < 64 ? [type] : [0x80 | (type >>> 24), (type >>> 16) & 0xff, (type >>> 8) & 0xff, type & 0xff];
  return Uint8Array.from([...head, value.length, ...value]);
}
