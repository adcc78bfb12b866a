/**
 * What every transport promises, as one suite: sessions, streams of all kinds, datagrams, resets, limits and closes.
 *
 * Invariant: nothing here knows which transport it runs over, except by the options of the suite.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  CLOSE,
  type ConnectOptions,
  type Credentials,
  type Listener,
  type ListenOptions,
  MAX_DATAGRAM_BYTES,
  MAX_REASON_BYTES,
  type Session,
  STREAM_LOST,
  STREAM_REFUSED,
  type Transport,
} from "../../src/transport/session.ts";
import { eventually } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { echo, open, patterned, SessionRecord, type StreamRecord } from "./parties.ts";

/** An implementation under test. */
export interface TransportUnderTest {
  readonly name: string;
  readonly create: () => Transport;
  /** Where a test listens; port 0. */
  readonly address: string;
  /** Where nobody listens. */
  readonly nowhere: string;
  readonly hasCertificates: boolean;
}

/** Both ends of a session. */
interface Pair {
  readonly near: Session;
  readonly far: Session;
  readonly nearRecord: SessionRecord;
  readonly farRecord: SessionRecord;
  readonly listener: Listener;
}

interface PairOptions {
  readonly near?: SessionRecord;
  readonly far?: SessionRecord;
  readonly limits?: Partial<ListenOptions>;
  readonly nearLimits?: Partial<ConnectOptions>;
}

/** Declares the suite. */
export function describeTransport(subject: TransportUnderTest): void {
  const { name, create, address, nowhere, hasCertificates } = subject;
  let credentials: { readonly near?: Credentials; readonly far?: Credentials } = {};
  let transport: Transport;
  let listeners: Listener[] = [];

  beforeAll(async () => {
    if (!hasCertificates) return;
    const authority = await TestAuthority.create();
    credentials = { near: await authority.issue("near"), far: await authority.issue("far") };
  });
  afterEach(async () => {
    await Promise.all(listeners.map((listener) => listener.close()));
    listeners = [];
  });
  afterAll(() => {
    expect(listeners).toEqual([]);
  });

  const listen = async (options: Partial<ListenOptions> & Pick<ListenOptions, "accept">): Promise<Listener> => {
    transport = create();
    const listener = await transport.listen(new URL(address), {
      ...(credentials.far === undefined ? {} : { credentials: credentials.far }),
      ...options,
    });
    listeners.push(listener);
    return listener;
  };
  const connect = (to: URL, handler: SessionRecord, limits: Partial<ConnectOptions> = {}): Session => {
    handler.session = transport.connect(to, {
      ...(credentials.near === undefined ? {} : { credentials: credentials.near }),
      ...limits,
      handler,
    });
    return handler.session;
  };
  const pair = async (options: PairOptions = {}): Promise<Pair> => {
    const nearRecord = options.near ?? new SessionRecord();
    const farRecord = options.far ?? new SessionRecord();
    const listener = await listen({
      ...options.limits,
      accept: (session) => {
        farRecord.session = session;
        return farRecord;
      },
    });
    const near = connect(listener.address, nearRecord, options.nearLimits);
    await near.ready;
    await eventually("the far side has the session", () => farRecord.session !== undefined);
    return { near, far: farRecord.session, nearRecord, farRecord, listener };
  };

  describe(name, () => {
    test("a session is ready on both sides, each knowing the other", async () => {
      const { near, far } = await pair();
      await far.ready;
      expect(near.remote.address).not.toBe("");
      expect(far.remote.address).not.toBe("");
      const known = [near.remote.certificate, far.remote.certificate].map((der) =>
        der === undefined ? undefined : Buffer.from(der).toString("latin1"),
      );
      if (hasCertificates)
        expect(known).toEqual([expect.stringContaining("test/far"), expect.stringContaining("test/near")]);
      else expect(known).toEqual([undefined, undefined]);
    });

    test("a bidirectional stream carries bytes both ways, and each direction ends by itself", async () => {
      const { near, farRecord } = await pair({ far: new SessionRecord(echo) });
      const sent = patterned(3_000_000, 1);
      const record = open(near, "openBidirectional");
      for (let at = 0; at < sent.length; at += 70_000)
        record.call((stream) => stream.write(sent.subarray(at, at + 70_000)));
      record.call((stream) => stream.end());
      await eventually("the echo is whole", () => record.ended);
      expect(Buffer.compare(record.content, sent)).toBe(0);
      expect(farRecord.streams.map(({ stream }) => stream.direction)).toEqual(["both"]);
      expect([record.faults, farRecord.faults]).toEqual([[], []]);
    });

    test("the accepting side opens streams too", async () => {
      const { far, nearRecord } = await pair({ near: new SessionRecord(echo) });
      const sent = patterned(500_000, 2);
      const record = open(far, "openBidirectional");
      record.call((stream) => stream.write(sent));
      record.call((stream) => stream.end());
      await eventually("the echo is whole", () => record.ended);
      expect(Buffer.compare(record.content, sent)).toBe(0);
      expect([record.faults, nearRecord.faults]).toEqual([[], []]);
    });

    test.for(["near", "far"] as const)("a unidirectional stream of the %s side", async (side) => {
      const { near, far, nearRecord, farRecord } = await pair();
      const [opener, taker] = side === "near" ? [near, farRecord] : [far, nearRecord];
      const sent = patterned(200_000, 3);
      const record = open(opener, "openUnidirectional");
      expect(record.stream.direction).toBe("send");
      record.call((stream) => stream.write(sent));
      record.call((stream) => stream.end());
      await eventually("the stream has ended", () => taker.streams[0]?.ended === true);
      const taken = taker.streams[0] as StreamRecord;
      expect(taken.stream.direction).toBe("receive");
      expect(Buffer.compare(taken.content, sent)).toBe(0);
      taken.call((stream) => stream.write(Uint8Array.of(1))); // it cannot, and nothing happens
      expect([record.bytes, taken.faults, record.faults]).toEqual([0, [], []]);
    });

    test("streams do not mix", async () => {
      const { near, far, nearRecord, farRecord } = await pair({
        near: new SessionRecord(echo),
        far: new SessionRecord(echo),
      });
      const records = Array.from({ length: 8 }, (_, at) => open(at % 2 === 0 ? near : far, "openBidirectional"));
      const sent = records.map((_, at) => patterned(100_000 + at, at));
      for (let from = 0; from < 110_000; from += 1_000)
        for (const [at, { stream }] of records.entries())
          stream.write((sent[at] as Uint8Array).subarray(from, from + 1_000));
      for (const { stream } of records) stream.end();
      await eventually("all streams have ended", () => records.every(({ ended }) => ended));
      for (const [at, record] of records.entries())
        expect(Buffer.compare(record.content, sent[at] as Uint8Array)).toBe(0);
      expect(new Set(records.map(({ stream }) => stream)).size).toBe(8);
      expect([nearRecord.faults, farRecord.faults]).toEqual([[], []]);
    });

    test("more than a stream holds: write says false, and a drain follows", async () => {
      const { near, farRecord } = await pair({ nearLimits: { streamBufferBytes: 64 * 1024 } });
      const record = open(near, "openBidirectional");
      const chunk = patterned(32 * 1024, 4);
      let refused = 0;
      for (let at = 0; at < 64; at++) if (!record.call((stream) => stream.write(chunk))) refused++;
      expect(refused).toBeGreaterThan(0);
      expect(record.stream.bufferedBytes).toBeGreaterThan(64 * 1024);
      await eventually("there is room again", () => record.drains > 0);
      expect(record.stream.bufferedBytes).toBeLessThanOrEqual(64 * 1024);
      await eventually("all has come", () => farRecord.streams[0]?.bytes === 64 * chunk.length);
      expect(record.call((stream) => stream.write(Uint8Array.of(1)))).toBe(true);
    });

    test("datagrams go both ways, whole; those that are too long do not", async () => {
      const { near, far, nearRecord, farRecord } = await pair();
      const datagram = patterned(1_000, 5);
      expect(near.maxDatagramBytes).toBeLessThanOrEqual(MAX_DATAGRAM_BYTES);
      expect(near.sendDatagram(new Uint8Array(near.maxDatagramBytes + 1))).toBe(false);
      await eventually("datagrams have come", () => {
        near.sendDatagram(datagram);
        far.sendDatagram(datagram);
        return nearRecord.datagrams.length > 0 && farRecord.datagrams.length > 0;
      });
      for (const taken of [...nearRecord.datagrams, ...farRecord.datagrams])
        expect(Buffer.compare(taken, datagram)).toBe(0);
    });

    test("a session that is not ready carries nothing", async () => {
      const listener = await listen({ accept: () => new SessionRecord() });
      const session = connect(listener.address, new SessionRecord());
      expect(session.sendDatagram(Uint8Array.of(1))).toBe(false);
      expect(() => open(session, "openBidirectional")).toThrow(expect.objectContaining({ code: "ERR_UNAVAILABLE" }));
      await session.ready;
      session.close({ code: CLOSE.NORMAL, reason: "done" });
      expect(session.sendDatagram(Uint8Array.of(1))).toBe(false);
      expect(() => open(session, "openUnidirectional")).toThrow(expect.objectContaining({ code: "ERR_CLOSED" }));
    });

    test.for(["near", "far"] as const)("a reset by the %s side ends the stream for both", async (side) => {
      const { near, farRecord } = await pair();
      const record = open(near, "openBidirectional");
      record.stream.write(Uint8Array.of(1));
      await eventually("the stream is there", () => farRecord.streams[0]?.bytes === 1);
      const taken = farRecord.streams[0] as StreamRecord;
      const [resetting, told] = side === "near" ? [record, taken] : [taken, record];
      resetting.call((stream) => stream.reset(7));
      resetting.call((stream) => stream.write(Uint8Array.of(2)));
      await eventually("the other side is told", () => told.resetCode !== undefined);
      expect([told.resetCode, told.bytes, resetting.resetCode]).toEqual([7, told === taken ? 1 : 0, undefined]);
      // The session goes on.
      const next = open(near, "openBidirectional");
      next.stream.write(Uint8Array.of(3));
      await eventually("the next stream is there", () => farRecord.streams[1]?.bytes === 1);
      expect([...farRecord.faults, ...record.faults]).toEqual([]);
    });

    test("a stream that is not taken is reset", async () => {
      const { near } = await pair({ far: new SessionRecord(() => undefined) });
      const record = open(near, "openBidirectional");
      record.stream.write(Uint8Array.of(1));
      await eventually("it is reset", () => record.resetCode !== undefined);
      expect(record.resetCode).toBe(STREAM_REFUSED);
    });

    test("streams beyond the limit are reset, and their places are free again", async () => {
      const { near, farRecord } = await pair({ limits: { maxStreams: 2 } });
      const records = Array.from({ length: 3 }, () => {
        const record = open(near, "openBidirectional");
        record.stream.write(Uint8Array.of(1));
        return record;
      });
      await eventually("one is reset", () => records.some(({ resetCode }) => resetCode === STREAM_REFUSED));
      await eventually("two are there", () => farRecord.streams.filter(({ bytes }) => bytes === 1).length === 2);
      expect(records.filter(({ resetCode }) => resetCode !== undefined)).toHaveLength(1);
      for (const record of records) if (record.resetCode === undefined) record.stream.reset(0);
      await eventually("both are gone", () => farRecord.streams.every(({ resetCode }) => resetCode === 0));
      const next = open(near, "openBidirectional");
      next.stream.write(Uint8Array.of(1));
      await eventually("another is there", () => farRecord.streams[2]?.bytes === 1);
    });

    test.for(["near", "far"] as const)(
      "a close by the %s side reaches the other with its code and reason",
      async (side) => {
        const { near, far, nearRecord, farRecord } = await pair();
        const record = open(near, "openBidirectional");
        record.stream.write(Uint8Array.of(1));
        await eventually("the stream is there", () => farRecord.streams[0]?.bytes === 1);
        const [closing, told] = side === "near" ? [near, far] : [far, near];
        closing.close({ code: 42, reason: "enough" });
        closing.close({ code: 43, reason: "again" });
        expect(await closing.closed).toMatchObject({ code: 42, reason: "enough", by: "local" });
        expect(await told.closed).toMatchObject({ code: 42, reason: "enough", by: "remote" });
        const streams = [record, farRecord.streams[0] as StreamRecord];
        await eventually("the streams are over", () => streams.every(({ resetCode }) => resetCode === STREAM_LOST));
        expect([nearRecord.faults, farRecord.faults, record.faults]).toEqual([[], [], []]);
      },
    );

    test("a long reason is cut at a whole character", async () => {
      const { near, far } = await pair();
      near.close({ code: 1, reason: "ä".repeat(MAX_REASON_BYTES) });
      expect((await far.closed).reason).toBe("ä".repeat(MAX_REASON_BYTES / 2));
    });

    test("nobody listens", async () => {
      transport = create();
      const session = connect(new URL(nowhere), new SessionRecord());
      await expect(session.ready).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
      expect(await session.closed).toMatchObject({ code: CLOSE.LOST, by: "network" });
    });

    test("a session that is not accepted is closed", async () => {
      const listener = await listen({ accept: () => undefined });
      const session = connect(listener.address, new SessionRecord());
      await session.ready.catch(() => undefined);
      expect(await session.closed).toMatchObject({ code: CLOSE.REFUSED, by: "remote" });
    });

    test("sessions beyond the limit are refused, and their places are free again", async () => {
      const listener = await listen({ maxSessions: 1, accept: () => new SessionRecord() });
      const first = connect(listener.address, new SessionRecord());
      await first.ready;
      const second = connect(listener.address, new SessionRecord());
      await expect(second.ready).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
      first.close({ code: 0, reason: "done" });
      await eventually("there is a place", async () => {
        const next = connect(listener.address, new SessionRecord());
        return next.ready.then(
          () => true,
          () => false,
        );
      });
    });

    test("a listener that closes takes its sessions with it", async () => {
      const { near, listener } = await pair();
      await listener.close();
      expect(await near.closed).toMatchObject({ code: CLOSE.NORMAL, by: "remote" });
      const late = connect(listener.address, new SessionRecord());
      await expect(late.ready).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    });
  });
}
