/** Sessions over TLS 1.3 keep what every transport promises; and what only concerns sockets: who may join a session, in which order what comes. */
import { connect as connectTcp } from "node:net";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { afterEach, beforeAll, describe, expect, test } from "vitest";
import type { ShardloomError } from "../../src/errors.ts";
import { FrameReader, frameBytes } from "../../src/transport/frame.ts";
import type { Credentials, Listener } from "../../src/transport/session.ts";
import {
  attachFrame,
  decodeClose,
  decodeReset,
  endFrame,
  openFrame,
  resetFrame,
  SOCKET_FRAME,
  SOCKET_PROTOCOLS,
} from "../../src/transport/socket-frames.ts";
import { eventually } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { describeTransport } from "./conformance.ts";
import { SessionRecord } from "./parties.ts";
import { transportOf } from "./under-test.ts";

describeTransport({
  name: "tls",
  create: () => transportOf("tls"),
  address: "tls://127.0.0.1:0",
  nowhere: "tls://127.0.0.1:9",
  hasCertificates: true,
});

describe("a listener for TLS", () => {
  let authority: TestAuthority;
  let member: Credentials;
  let listener: Listener | undefined;
  let record: SessionRecord;
  const refused: ShardloomError[] = [];
  const sockets: TLSSocket[] = [];

  beforeAll(async () => {
    authority = await TestAuthority.create();
    member = await authority.issue("member");
  });
  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    await listener?.close();
    refused.length = 0;
  });

  const listen = async (handshakeMs = 5_000): Promise<void> => {
    record = new SessionRecord();
    listener = await transportOf("tls").listen(new URL("tls://127.0.0.1:0"), {
      credentials: await authority.issue("host"),
      handshakeMs,
      accept: () => record,
      onRefused: (error) => refused.push(error),
    });
  };
  /** A connection of the test's making, and the frames that come on it. */
  const dial = (
    options: ConnectionOptions = {},
  ): { socket: TLSSocket; frames: [number, Uint8Array][]; isClosed: () => boolean } => {
    const frames: [number, Uint8Array][] = [];
    const reader = new FrameReader(10_000, (kind, payload) => frames.push([kind, payload]));
    let closed = false;
    const socket = connect({
      host: "127.0.0.1",
      port: Number(listener?.address.port),
      cert: member.certificate,
      key: member.key,
      ca: [authority.certificate],
      checkServerIdentity: () => undefined,
      ALPNProtocols: [...SOCKET_PROTOCOLS],
      ...options,
    });
    socket.on("data", (chunk) => reader.push(chunk)).on("error", () => undefined);
    socket.on("close", () => {
      closed = true;
    });
    sockets.push(socket);
    return { socket, frames, isClosed: () => closed };
  };
  /** Opens a session. @returns its connection and token */
  const open = async (): Promise<ReturnType<typeof dial> & { token: Uint8Array }> => {
    const control = dial();
    control.socket.write(openFrame());
    await eventually("it is accepted", () => control.frames.length === 1);
    expect(control.frames[0]?.[0]).toBe(SOCKET_FRAME.ACCEPT);
    return { ...control, token: control.frames[0]?.[1] as Uint8Array };
  };
  const OPENING = { id: 0, direction: "both" } as const;

  test("lets a stream join its session with the token and the certificate, not with one of them", async () => {
    await listen();
    const { token } = await open();
    const other = await authority.issue("other");
    const thief = dial({ cert: other.certificate, key: other.key });
    thief.socket.write(attachFrame(token, OPENING));
    await eventually("it is refused", () => thief.isClosed());
    expect(decodeClose(thief.frames[0]?.[1] as Uint8Array).reason).toContain("its session's certificate");
    expect(refused).toMatchObject([{ code: "ERR_UNTRUSTED" }]);
    const guess = dial();
    guess.socket.write(attachFrame(new Uint8Array(16), OPENING));
    await eventually("it is cut off", () => guess.isClosed());
    expect(record.streams).toEqual([]);
    const stream = dial();
    stream.socket.write(Buffer.concat([attachFrame(token, OPENING), Uint8Array.of(1, 2, 3)]));
    await eventually("it has joined", () => record.streams[0]?.bytes === 3);
    const again = dial();
    again.socket.write(attachFrame(token, OPENING));
    await eventually("the same stream does not join twice", () => again.isClosed());
    expect(record.streams).toHaveLength(1);
  });

  test("takes ends and resets that come before the streams that they are of", async () => {
    await listen();
    const { socket, frames, token } = await open();
    socket.write(
      Buffer.concat([endFrame(0, 3), resetFrame(2, 7), frameBytes(SOCKET_FRAME.DATAGRAM, Uint8Array.of(9))]),
    );
    await eventually("they have come", () => record.datagrams.length === 1);
    const ended = dial();
    ended.socket.write(Buffer.concat([attachFrame(token, OPENING), Uint8Array.of(1, 2)]));
    await eventually("it has joined", () => record.streams[0]?.bytes === 2);
    expect(record.streams[0]?.ended).toBe(false);
    ended.socket.write(Uint8Array.of(3));
    await eventually("it has ended", () => record.streams[0]?.ended === true);
    expect(record.streams[0]?.bytes).toBe(3);
    const reset = dial();
    reset.socket.write(attachFrame(token, { id: 2, direction: "both" }));
    await eventually("it is over", () => reset.isClosed());
    expect(record.streams).toHaveLength(1);
    // And what this side does with a stream is told on the session's connection.
    record.streams[0]?.stream.reset(5);
    await eventually("it is told", () => frames.some(([kind]) => kind === SOCKET_FRAME.RESET));
    const [, told] = frames.find(([kind]) => kind === SOCKET_FRAME.RESET) as [number, Uint8Array];
    expect(decodeReset(told)).toEqual({ id: 0, code: 5 });
  });

  test("takes a stream that is lost for reset, and the session goes on", async () => {
    await listen();
    const { token } = await open();
    const lost = dial();
    lost.socket.write(Buffer.concat([attachFrame(token, OPENING), Uint8Array.of(1)]));
    await eventually("it has joined", () => record.streams[0]?.bytes === 1);
    lost.socket.destroy();
    await eventually("it is lost", () => record.streams[0]?.resetCode === 255);
    const next = dial();
    next.socket.write(Buffer.concat([attachFrame(token, { id: 2, direction: "both" }), Uint8Array.of(1)]));
    await eventually("another has joined", () => record.streams[1]?.bytes === 1);
  });

  const FOREIGN: [string, ConnectionOptions][] = [
    ["TLS 1.2", { maxVersion: "TLSv1.2" }],
    ["another protocol", { ALPNProtocols: ["h2"] }],
  ];
  test.for(FOREIGN)("speaks no %s", async ([, options]) => {
    await listen();
    const { frames, isClosed } = dial(options);
    await eventually("it is refused", () => isClosed());
    expect(frames).toEqual([]);
    expect(refused).toMatchObject([{ code: "ERR_UNAVAILABLE" }]);
    expect(record.session).toBeUndefined();
  });

  test("tells who has no certificate why it is refused", async () => {
    await listen();
    const { socket, frames, isClosed } = dial({ cert: "", key: "" });
    socket.write(openFrame());
    await eventually("it is refused", () => isClosed());
    expect(frames.map(([kind]) => kind)).toEqual([SOCKET_FRAME.CLOSE]);
    expect(decodeClose(frames[0]?.[1] as Uint8Array)).toMatchObject({
      code: 2,
      reason: expect.stringContaining("certificate"),
    });
    expect(refused).toMatchObject([{ code: "ERR_UNTRUSTED" }]);
  });

  test.for(["nothing", "half a frame"] as const)("waits a while for who says %s", async (what) => {
    await listen(200);
    const { socket, isClosed } = dial();
    if (what !== "nothing") socket.write(openFrame().subarray(0, 5));
    await eventually("it is cut off", () => isClosed());
    expect(refused).toMatchObject([{ code: "ERR_TIMEOUT" }]);
    const plain = connectTcp(Number(listener?.address.port), "127.0.0.1");
    await new Promise((resolve) =>
      plain
        .on("error", () => undefined)
        .on("close", resolve)
        .resume(),
    );
  });
});
