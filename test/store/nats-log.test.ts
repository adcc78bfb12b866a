/** The shard log over a real nats-server: the suite of its interface, and servers that are frozen, restarted, full or have lost their stream. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { NatsConnection, NatsStream } from "../../src/runtime/nats.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { nextTurn, systemScheduler } from "../../src/runtime/scheduler.ts";
import { NatsLog, type NatsLogOptions } from "../../src/store/nats-log.ts";
import { fails } from "../conformance/disk.ts";
import { shardLogConformance } from "../conformance/shard-log.ts";
import { eventually } from "../support/cluster.ts";
import { ALL, codeOf, entryOf, framesOf, valuesIn } from "../support/log-frames.ts";
import { NatsServer } from "../support/nats-server.ts";

// A server of its own beside everything else that a busy machine does.
vi.setConfig({ testTimeout: 120_000 });
const soon = (what: string, condition: () => boolean | Promise<boolean>): Promise<void> =>
  eventually(what, condition, 60_000);

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const CALL_MS = 10_000;
/** Of calls to a server that does not answer: long enough that one that does is in time on a machine that pauses for a moment. */
const HASTY_MS = 1_200;

let server: NatsServer;
let connection: NatsConnection;
let streams = 0;
const opened: NatsLog[] = [];

beforeAll(async () => {
  server = await NatsServer.start();
  connection = await server.connect();
});
afterEach(async () => {
  server.thaw();
  for (const log of opened.splice(0)) await log.close();
});
afterAll(() => server[Symbol.asyncDispose]());

function newStream(maxBytes?: number): Promise<NatsStream> {
  return connection.openStream({ name: `log-${streams++}`, ...(maxBytes === undefined ? {} : { maxBytes }) }, CALL_MS);
}

async function open(stream: NatsStream, options: Partial<NatsLogOptions> = {}): Promise<NatsLog> {
  const log = await NatsLog.open(stream, { scheduler: systemScheduler, random: systemRandom, ...options });
  opened.push(log);
  return log;
}

describe("the log over NATS", () => {
  shardLogConformance(
    async () => {
      const stream = await newStream();
      return {
        open: (options) => open(stream, options),
        run: (work) => work,
        keep: (log) => log.flush(),
        crash: () => undefined, // who opens it next ends whoever has it
        idle: () => nextTurn(systemScheduler),
        close: async () => {
          for (const log of opened.splice(0)) await log.close();
        },
      };
    },
    LONG ? 300 : 30,
  );

  test("ends a writer whose log is opened by another one, and has nothing of it after that", async () => {
    const stream = await newStream();
    const first = await open(stream);
    first.append(framesOf(1, 100));
    await first.flush();
    const second = await open(stream);
    const changes: (string | undefined)[] = [];
    first.onChange = () => changes.push(first.failure?.code);
    first.append(framesOf(2, 100));
    await fails(first.flush(), "ERR_READ_ONLY");
    expect([codeOf(() => first.append(framesOf(3, 100))), first.durable, first.head]).toEqual(["ERR_READ_ONLY", 1, 2]);
    expect(changes).toEqual(["ERR_READ_ONLY"]);
    expect(await valuesIn(first)).toEqual([1]);
    second.append(framesOf(5, 100));
    await second.flush();
    expect(await valuesIn(second)).toEqual([1, 5]);
  });

  test("says in time that a frozen server does not answer, takes nothing meanwhile, and has everything once when it does", async () => {
    const stream = await newStream();
    const log = await open(stream, { timeoutMs: HASTY_MS });
    log.append(framesOf(1, 100));
    await log.flush();
    await server.freeze();
    log.append(framesOf(2, 100));
    await nextTurn(systemScheduler);
    log.append(framesOf(3, 100));
    await fails(log.flush(), "ERR_TIMEOUT");
    expect([codeOf(() => log.append(framesOf(9, 100))), log.durable, log.head]).toEqual(["ERR_TIMEOUT", 1, 3]);
    server.thaw();
    await soon("the log works", () => log.failure === undefined && log.durable === 3);
    log.append(framesOf(5, 100));
    await log.flush();
    expect(await valuesIn(log)).toEqual([1, 2, 3, 5]);
    expect(await valuesIn(await open(stream))).toEqual([1, 2, 3, 5]);
  });

  test("opens on a frozen server when it answers; who had it before adds nothing", async () => {
    const stream = await newStream();
    const before = await open(stream, { timeoutMs: HASTY_MS });
    before.append(framesOf(1, 100));
    await before.flush();
    await server.freeze();
    before.append(framesOf(2, 100));
    await fails(before.flush(), "ERR_TIMEOUT");
    await fails(
      NatsLog.open(stream, { scheduler: systemScheduler, random: systemRandom, timeoutMs: HASTY_MS }),
      "ERR_TIMEOUT",
    );
    server.thaw();
    const log = await open(stream);
    // What was sent before may have come before: then it is there, and nobody was told otherwise.
    const found = await valuesIn(log);
    expect([[1], [1, 2]]).toContainEqual(found);
    log.append(framesOf(5, 100));
    await log.flush();
    await soon("the earlier writer knows what became of it", () =>
      found.length === 1 ? before.failure?.code === "ERR_READ_ONLY" : before.durable === 2,
    );
    if (found.length === 2) before.append(framesOf(3, 100));
    await fails(before.flush(), "ERR_READ_ONLY");
    expect(await valuesIn(log)).toEqual([...found, 5]);
  });

  test("has lost nothing that was acknowledged, and nothing twice, when the server is killed again and again", async () => {
    const stream = await newStream();
    const log = await open(stream);
    const asked: number[] = [];
    let most = 0;
    let isOver = false;
    const write = async (): Promise<void> => {
      for (let value = 1; !isOver; value++) {
        if (codeOf(() => log.append(framesOf(value, 300))) === undefined) asked.push(value);
        await (value % 3 === 0 ? nextTurn(systemScheduler) : log.flush().catch(() => undefined));
      }
    };
    const writing = write();
    for (let round = 0; round < (LONG ? 20 : 4); round++) {
      const { durable } = log;
      await soon("it writes", () => log.durable > durable + 20);
      await server.stop(round % 2 === 0 ? "SIGKILL" : "SIGTERM");
      most = Math.max(most, log.durable);
      await server.startAgain();
      await soon("it writes again", () => log.durable > most);
    }
    isOver = true;
    await writing;
    await log.flush();
    expect(await valuesIn(log)).toEqual(asked);
    expect(await valuesIn(await open(stream))).toEqual(asked);
  });

  test("takes nothing for kept that was appended while there was no connection, and keeps it then", async () => {
    const own = await server.connect();
    const stream = await own.openStream({ name: "away" }, CALL_MS);
    const log = await open(stream, { timeoutMs: HASTY_MS });
    await server.stop();
    await soon("it is known to be away", () => !own.isConnected && own.library.info === undefined);
    log.append(framesOf(1, 300));
    await expect(log.flush()).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    expect(log.durable).toBe(0);
    await server.startAgain();
    await soon("it is kept", () => log.durable === 1);
    log.append(framesOf(2, 300));
    await log.flush();
    expect(await valuesIn(await open(stream))).toEqual([1, 2]);
  });

  test("waits for room in a full stream, and says so", async () => {
    const stream = await newStream(20_000);
    const log = await open(stream);
    let value = 1;
    for (; log.failure === undefined; value++) {
      log.append(framesOf(value, 1_000));
      await log.flush().catch((error: unknown) => expect(error).toMatchObject({ code: "ERR_DISK_FULL" }));
    }
    const { durable, head } = log;
    expect([codeOf(() => log.append(framesOf(1, 10))), head]).toEqual(["ERR_DISK_FULL", durable + 1]);
    expect(durable).toBeGreaterThan(5);
    await log.truncateBelow(durable);
    await soon("there is room", () => log.durable === head);
    expect([log.failure, log.first]).toEqual([undefined, durable]);
    log.append(framesOf(1, 10));
    await log.flush();
  });

  test("cuts a group into messages, and forgets one whose parts did not all come", async () => {
    const stream = await newStream();
    let log = await open(stream);
    log.append([entryOf(1, 3 * 1024 * 1024)]);
    await log.flush();
    const before = (await stream.bounds(CALL_MS)).last;
    // Another writer that dies after two of four parts.
    let sent = 0;
    const dying: NatsStream = {
      ...stream,
      maxMessageBytes: stream.maxMessageBytes,
      append: (...message) => (sent++ < 3 ? stream.append(...message) : new Promise(() => undefined)),
    };
    const dead = await NatsLog.open(dying, { scheduler: systemScheduler, random: systemRandom });
    dead.append([entryOf(2, 3 * 1024 * 1024)]);
    await soon("two parts are there", async () => (await stream.bounds(CALL_MS)).last === before + 3);
    log = await open(stream);
    expect([log.head, (await log.read(1, ALL)).length]).toEqual([1, 1]);
    log.append([entryOf(3, 10)]);
    await log.flush();
    expect(await valuesIn(log)).toEqual([1, 3]);
    expect((await log.read(2, ALL)).map(({ position }) => position)).toEqual([2]);
    await log.truncateBelow(2);
    expect([log.first, await valuesIn(log)]).toEqual([2, [3]]);
    expect(await valuesIn(await open(stream))).toEqual([3]);
  });

  test.for([
    ["that is ahead", 1],
    ["that is behind", -1],
  ] as const)("goes on after a refusal by a server %s of the others", async ([, ahead]) => {
    const stream = await newStream();
    let refusals = 0;
    const disagreeing: NatsStream = {
      ...stream,
      maxMessageBytes: stream.maxMessageBytes,
      append: (bytes, expected, timeoutMs) => {
        if (expected < 2 || refusals++ > 2) return stream.append(bytes, expected, timeoutMs);
        const details = { last: expected + ahead };
        return Promise.reject(new ShardloomError("ERR_STALE_EPOCH", "Cannot append as it is behind: 1", { details }));
      },
    };
    const log = await open(disagreeing);
    log.append(framesOf(1, 10));
    await log.flush();
    log.append(framesOf(2, 10));
    await fails(log.flush(), "ERR_TIMEOUT");
    await soon("it is durable", () => log.durable === 2);
    expect([refusals, log.failure, await valuesIn(log)]).toEqual([4, undefined, [1, 2]]);
  });

  test("knows that another one has it, also when what that has written first is gone already", async () => {
    const stream = await newStream();
    const first = await open(stream);
    const second = await open(stream);
    for (let value = 1; value < 5; value++) {
      second.append(framesOf(value, 10));
      await second.flush();
    }
    await second.truncateBelow(4);
    first.append(framesOf(9, 10));
    await fails(first.flush(), "ERR_READ_ONLY");
    expect(await valuesIn(second)).toEqual([4]);
  });

  test("closes on a frozen server, after one more try", async () => {
    const stream = await newStream();
    const log = await open(stream, { timeoutMs: HASTY_MS });
    log.append(framesOf(1, 10));
    await log.flush();
    await server.freeze();
    log.append(framesOf(2, 10));
    await log.close();
    expect(log.durable).toBe(1);
    await fails(log.flush(), "ERR_TIMEOUT");
    server.thaw();
    // Nobody was told of the second; whether it is there is open.
    expect([[1], [1, 2]]).toContainEqual(await valuesIn(await open(stream)));
  });

  test("finds every position among many messages, also after the oldest are gone", async () => {
    const stream = await newStream();
    let log = await open(stream);
    for (let value = 0; value < 300; value++) {
      log.append(framesOf(value, 20));
      if (value % 3 !== 0) await log.flush();
    }
    await log.flush();
    for (const position of [300, 1, 150, 149, 151, 299, 2]) {
      log = position === 150 ? await open(stream) : log;
      const [frame] = await log.read(position, 1);
      expect([frame?.position, frame?.entries[0]?.lsn]).toEqual([position, 1_000 + position - 1]);
    }
    const reading = log.read(1, ALL);
    await log.truncateBelow(120);
    expect((await reading).length).toBeGreaterThan(0);
    expect(log.first).toBeGreaterThan(115);
    expect(log.first).toBeLessThanOrEqual(120);
    for (const position of [120, 250]) expect((await log.read(position, 1))[0]?.position).toBe(position);
    expect((await log.read(1, 1))[0]?.position).toBe(log.first);
  });

  test.for(["a message is missing", "the last messages are gone", "the stream is gone"])(
    "does not go on as if nothing had happened when %s",
    async (what) => {
      const stream = await newStream();
      const log = await open(stream);
      for (let value = 1; value <= 9; value++) {
        log.append(framesOf(value, 100));
        await log.flush();
      }
      const manager = await import("@nats-io/jetstream").then(({ jetstreamManager }) =>
        jetstreamManager(connection.library),
      );
      if (what === "a message is missing") {
        await manager.streams.deleteMessage(stream.name, 5);
        // Message 1 is the opening.
        expect((await log.read(1, ALL)).length).toBe(3);
        await expect(log.read(4, ALL)).rejects.toMatchObject({ code: "ERR_CORRUPT", details: { position: 4 } });
        expect((await log.read(5, ALL)).length).toBe(5);
        return;
      }
      const config = (await manager.streams.info(stream.name)).config;
      await manager.streams.delete(stream.name);
      if (what === "the stream is gone") {
        log.append(framesOf(10, 100));
        await fails(log.flush(), "ERR_IO");
        await manager.streams.add(config);
        await soon("it finds that what was there is gone", () => log.failure?.code === "ERR_CORRUPT");
        expect((await stream.bounds(CALL_MS)).last).toBe(0);
        await fails(open(stream, { begun: true }), "ERR_CORRUPT");
        expect((await open(stream)).head).toBe(0);
        return;
      }
      await manager.streams.add(config);
      for (let message = 0; message < 4; message++) await stream.append(new Uint8Array(8), message, CALL_MS);
      log.append(framesOf(10, 100));
      await fails(log.flush(), "ERR_CORRUPT");
      expect((await stream.bounds(CALL_MS)).last).toBe(4);
      await fails(open(stream), "ERR_CORRUPT");
    },
  );

  test.for([
    [{ timeoutMs: 0 }, "timeoutMs"],
    [{ maxLineBytes: 0 }, "maxLineBytes"],
  ] as const)("refuses %o", async ([options, name]) => {
    const stream = await newStream();
    await expect(open(stream, options)).rejects.toThrow(new RegExp(`Cannot open log as ${name} must be`));
    expect((await stream.bounds(CALL_MS)).last).toBe(0);
  });
});
