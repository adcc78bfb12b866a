/** What transports promise (see conformance.ts), between two processes: the far side of every session is in another one. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  CLOSE,
  type ConnectOptions,
  type Credentials,
  type Session,
  STREAM_LOST,
  STREAM_REFUSED,
} from "../../src/transport/session.ts";
import { eventually } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { open, patterned, SessionRecord, type StreamRecord } from "./parties.ts";
import { ASK, FAR_DATAGRAM, FAR_STREAM, type SessionOptions, type SessionReport } from "./session-asks.ts";
import { transportOf } from "./under-test.ts";

const CHILD = fileURLToPath(new URL("./session.child.js", import.meta.url));
const LIMITS = { maxStreams: 8, maxSessions: 2 };

describe.each(["tls", "https"] as const)("a session between two processes over %s", (scheme) => {
  let child: ChildProcess;
  let address: URL;
  let credentials: Credentials;
  const reports: SessionReport[] = [];
  let sessions: Session[] = [];

  beforeAll(async () => {
    const authority = await TestAuthority.create();
    credentials = await authority.issue("near");
    child = fork(CHILD, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const listening = new Promise<string>((resolve) => {
      child.on("message", (message: SessionReport | { address: string }) => {
        if ("address" in message) resolve(message.address);
        else reports.push(message);
      });
    });
    child.send({ scheme, credentials: await authority.issue("far"), ...LIMITS } satisfies SessionOptions);
    address = new URL(await listening);
  });
  afterAll(() => {
    child.kill("SIGKILL");
  });
  afterEach(async () => {
    for (const session of sessions) session.close({ code: CLOSE.NORMAL, reason: "the test is over" });
    await Promise.all(sessions.map(({ closed }) => closed));
    sessions = [];
    await eventually("the far side is done", () => reports.length === taken);
  });

  let taken = 0;
  const connect = async (limits: Partial<ConnectOptions> = {}): Promise<SessionRecord> => {
    const record = new SessionRecord();
    record.session = transportOf(scheme).connect(address, { credentials, ...limits, handler: record });
    sessions.push(record.session);
    await record.session.ready;
    taken++;
    return record;
  };
  const ask = (session: Session, ...bytes: number[]): StreamRecord => {
    const record = open(session, "openBidirectional");
    record.call((stream) => stream.write(Uint8Array.from(bytes)));
    return record;
  };
  const lastReport = async (): Promise<SessionReport> => {
    await eventually("the far side has told", () => reports.length === taken);
    return reports.at(-1) as SessionReport;
  };

  test("is ready on both sides, each knowing the other", async () => {
    const { session } = await connect();
    expect(Buffer.from(session.remote.certificate ?? []).toString("latin1")).toContain("test/far");
    const who = ask(session, ASK.WHO);
    const named = (): boolean => Buffer.from(who.content).toString("latin1").includes("test/near");
    await eventually("it has said who", named);
    session.close({ code: CLOSE.NORMAL, reason: "done" });
    expect(await lastReport()).toMatchObject({
      close: { code: CLOSE.NORMAL, reason: "done", by: "remote" },
      faults: [],
    });
  });

  test("carries streams that do not mix, whole and both ways, each direction to its end", async () => {
    const { session } = await connect({ streamBufferBytes: 64 * 1024 });
    const records = Array.from({ length: LIMITS.maxStreams }, () => ask(session, ASK.ECHO));
    const sent = records.map((_, at) => patterned(300_000 + at, at));
    let refused = 0;
    for (let from = 0; from < 310_000; from += 10_000)
      for (const [at, record] of records.entries())
        if (!record.call((stream) => stream.write((sent[at] as Uint8Array).subarray(from, from + 10_000)))) refused++;
    expect(refused, "more than a stream holds").toBeGreaterThan(0);
    for (const { stream } of records) stream.end();
    await eventually("all streams have ended", () => records.every(({ ended }) => ended), 20_000);
    for (const [at, { content }] of records.entries()) expect(Buffer.compare(content, sent[at] as Uint8Array)).toBe(0);
    await eventually("there is room again", () =>
      records.every(({ drains, stream }) => drains > 0 || stream.bufferedBytes === 0),
    );
    expect(records.flatMap(({ faults }) => faults)).toEqual([]);
    const counted = open(session, "openUnidirectional");
    counted.stream.write(Uint8Array.of(ASK.COUNT));
    counted.stream.end();
  });

  test("carries streams and datagrams of the far side", async () => {
    const near = await connect();
    const asking = ask(near.session, ASK.OPEN);
    await eventually("its stream has ended", () => near.streams[0]?.ended === true);
    expect(near.streams[0]?.stream.direction).toBe("receive");
    expect(Buffer.compare(near.streams[0]?.content ?? new Uint8Array(0), FAR_STREAM)).toBe(0);
    asking.stream.end();
    expect(near.session.sendDatagram(new Uint8Array(near.session.maxDatagramBytes + 1))).toBe(false);
    await eventually("a datagram has come", () => {
      if (near.datagrams.length === 0) ask(near.session, ASK.DATAGRAM).stream.end();
      return near.datagrams.length > 0;
    });
    expect(near.datagrams[0]).toEqual(FAR_DATAGRAM);
    expect(near.faults).toEqual([]);
  });

  test("tells of resets with their codes, and refuses streams beyond the limit", async () => {
    const { session } = await connect();
    const told = ask(session, ASK.RESET, 7);
    await eventually("it is reset by the far side", () => told.resetCode !== undefined);
    expect(told.resetCode).toBe(7);
    const many = Array.from({ length: LIMITS.maxStreams + 1 }, () => ask(session, ASK.ECHO, 1));
    await eventually("one is refused", () => many.some(({ resetCode }) => resetCode === STREAM_REFUSED));
    await eventually(
      "the others are taken",
      () => many.filter(({ bytes }) => bytes === 1).length === LIMITS.maxStreams,
    );
    for (const { stream, resetCode } of many) if (resetCode === undefined) stream.reset(9);
    const counted = open(session, "openBidirectional");
    await eventually("there is a place again", () => {
      const again = ask(session, ASK.RESET, 8);
      return eventually("it is over", () => again.resetCode !== undefined).then(() => again.resetCode === 8);
    });
    counted.stream.reset(9);
    session.close({ code: CLOSE.NORMAL, reason: "done" });
    const { resets, faults } = await lastReport();
    expect(resets.filter((code) => code === 9).length).toBeGreaterThanOrEqual(LIMITS.maxStreams);
    expect(faults).toEqual([]);
  });

  test("is closed by the far side with code and reason, its streams with it", async () => {
    const { session } = await connect();
    const left = ask(session, ASK.ECHO, 1);
    await eventually("it is taken", () => left.bytes === 1);
    ask(session, ASK.CLOSE, 42);
    expect(await session.closed).toMatchObject({ code: 42, reason: "enough", by: "remote" });
    await eventually("its stream is over", () => left.resetCode === STREAM_LOST);
    expect(await lastReport()).toMatchObject({ close: { code: 42, by: "local" }, faults: [] });
  });

  test("beyond the limit is refused, and is lost when the other process dies", async () => {
    const first = await connect();
    await connect();
    const third = transportOf(scheme).connect(address, { credentials, handler: new SessionRecord() });
    await expect(third.ready).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    child.kill("SIGKILL");
    expect(await first.session.closed).toMatchObject({ code: CLOSE.LOST, by: "network" });
    taken = reports.length; // it tells no more
  });
});
