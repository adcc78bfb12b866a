/** W1 to W4 of the bench `wire`: the same work over Shardloom, over bare sockets and over the bare WebTransport package, in turn. */
import type { ActorRef } from "../../src/index.ts";
import { type GoalResult, judge } from "../harness/goals.ts";
import { type BenchCase, type BenchContext, type BenchRow, interleave, ratioOf, sized } from "../harness/harness.ts";
import type { mirror } from "./wire-actors.ts";
import { MESSAGE_BYTES, type RawClient } from "./wire-raw.ts";
import { type Asker, BULK_BYTES } from "./wire-thread.ts";

/** Everything that is asked. */
export interface WireSides {
  readonly tls: Asker;
  readonly https: Asker;
  /** An actor on the other node's worker, and its node's own. */
  readonly actor: ActorRef<typeof mirror>;
  readonly echo: RawClient;
  readonly forward: RawClient;
  readonly bulkTls: RawClient;
  readonly web: RawClient;
  readonly bulkWeb: RawClient;
  readonly moleculer: ((text: string) => Promise<string>) | undefined;
}

const IN_FLIGHT = 64;
const W1 = "W1 ask 64 B in turn, receiving thread";
const W2 = "W2 ask 64 B in turn, worker";
const W3 = "W3 ask 64 B, 64 in flight";
const W4 = "W4 64 KiB blocks";
const W7B = "W7 one-way 64 B";
const TLS = "shardloom tls";
const HTTPS = "shardloom webtransport";
const WORKER = "shardloom tls, worker";
const RAW_TLS = "raw tls";
const RAW_WEB = "bare webtransport";
const MOLECULER = "moleculer tcp";
/** Tells after which a sender awaits the last one, to keep to the receiver's pace. */
const PACE = 256;

/** A call that checks its own answer. */
type Call = () => Promise<unknown>;

/** @returns the rows, goals W1 to W4, and asks and tells per second between two nodes, which W7 is judged by */
export async function measureWire(
  context: BenchContext,
  sides: WireSides,
): Promise<{ rows: BenchRow[]; goals: GoalResult[]; asks: number; tells: number }> {
  const { mode, goals } = context;
  const trips = sized(mode, 50, 1_000, 4_000);
  const flights = sized(mode, 500, 10_000, 50_000);
  const blocks = sized(mode, 32, 256, 512);
  const rounds = sized(mode, 1, 7, 11);
  const { tls, https, actor, echo, forward, web, bulkTls, bulkWeb, moleculer } = sides;
  const body = new Uint8Array(MESSAGE_BYTES).map((_, at) => at);
  const text = "x".repeat(MESSAGE_BYTES);
  const asking =
    (asker: { echo(body: Uint8Array): Promise<Uint8Array> }): Call =>
    async () =>
      same(await asker.echo(body));
  const raw =
    (client: RawClient): Call =>
    () =>
      client.echo(body);
  const called =
    (echoText: (text: string) => Promise<string>): Call =>
    async () => {
      if ((await echoText(text)) !== text) throw new Error("Moleculer gave back another text");
    };
  const cases: BenchCase[] = [
    inTurn(W1, TLS, asking(tls), trips),
    inTurn(W1, RAW_TLS, raw(echo), trips),
    inTurn(W1, HTTPS, asking(https), trips),
    inTurn(W1, RAW_WEB, raw(web), trips),
    inTurn(W2, WORKER, asking(actor), trips),
    inTurn(W2, RAW_TLS, raw(forward), trips),
    atOnce(W3, TLS, asking(tls), flights),
    atOnce(W3, WORKER, asking(actor), flights),
    ...(moleculer === undefined ? [] : [atOnce(W3, MOLECULER, called(moleculer), flights / 5)]),
    atOnce(W3, HTTPS, asking(https), flights),
    atOnce(W3, RAW_WEB, raw(web), flights / 5),
    inBulk(TLS, (count) => tls.bulk(count), blocks),
    inBulk(RAW_TLS, (count) => bulkTls.bulk(count), blocks),
    inBulk(HTTPS, (count) => https.bulk(count), blocks),
    inBulk(RAW_WEB, (count) => bulkWeb.bulk(count), blocks),
    oneWay(actor, body, flights * 2),
  ];
  const rows = await interleave(cases, rounds);
  const asks = medianOf(rows, W3, TLS);
  return {
    rows,
    asks: medianOf(rows, W3, WORKER),
    tells: medianOf(rows, W7B, WORKER),
    goals: [
      judge(goals, "W1", ratioOf(rows, W1, TLS, RAW_TLS)),
      judge(goals, "W1b", ratioOf(rows, W1, HTTPS, RAW_WEB)),
      judge(goals, "W2", ratioOf(rows, W2, WORKER, RAW_TLS)),
      judge(goals, "W3", asks, "on the receiving thread"),
      ...(moleculer === undefined ? [] : [judge(goals, "W3b", ratioOf(rows, W3, WORKER, MOLECULER), "on a worker")]),
      judge(goals, "W3c", ratioOf(rows, W3, HTTPS, RAW_WEB)),
      judge(goals, "W4", ratioOf(rows, W4, TLS, RAW_TLS)),
      judge(goals, "W4b", ratioOf(rows, W4, HTTPS, RAW_WEB)),
    ],
  };
}

function medianOf(rows: readonly BenchRow[], name: string, side: string): number {
  return rows.find((row) => row.case === name && row.side === side)?.median ?? Number.NaN;
}

function same(answer: Uint8Array): void {
  if (answer.length !== MESSAGE_BYTES || answer[MESSAGE_BYTES - 1] !== MESSAGE_BYTES - 1)
    throw new Error("an actor gave back other bytes");
}

/** Counts the answers of a run: a case that lost one did not measure what it says. */
function counted(
  name: string,
  side: string,
  unit: string,
  expected: number,
  run: (done: () => void) => Promise<number>,
): BenchCase {
  let answers = 0;
  return {
    ...{ name, side, unit },
    run: () => {
      answers = 0;
      return run(() => {
        answers++;
      });
    },
    validate: () => {
      if (answers !== expected) throw new Error(`${name}, ${side}: ${answers} answers of ${expected}`);
    },
  };
}

function inTurn(name: string, side: string, call: Call, count: number): BenchCase {
  return counted(name, side, "us", count, async (done) => {
    const started = performance.now();
    for (let at = 0; at < count; at++) {
      await call();
      done();
    }
    return ((performance.now() - started) * 1_000) / count;
  });
}

function atOnce(name: string, side: string, call: Call, count: number): BenchCase {
  return counted(name, side, "asks/s", count, async (done) => {
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next++ < count) {
        await call();
        done();
      }
    };
    const started = performance.now();
    await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
    return (count / (performance.now() - started)) * 1_000;
  });
}

function inBulk(side: string, bulk: (count: number) => Promise<void>, count: number): BenchCase {
  return counted(W4, side, "MB/s", 1, async (done) => {
    const started = performance.now();
    await bulk(count);
    done();
    return (count * BULK_BYTES) / (performance.now() - started) / 1_000;
  });
}

/** Tells to the other node's worker, until it says that it has them all. */
function oneWay(actor: ActorRef<typeof mirror>, body: Uint8Array, count: number): BenchCase {
  let arrived = 0;
  return {
    name: W7B,
    side: WORKER,
    unit: "messages/s",
    run: async () => {
      const before = await actor.total();
      const started = performance.now();
      for (let at = 0; at < count; at++) {
        const accepted = actor.tell.take(body);
        if (at % PACE === PACE - 1) await accepted;
      }
      arrived = (await actor.total()) - before;
      return (count / (performance.now() - started)) * 1_000;
    },
    validate: () => {
      if (arrived !== count) throw new Error(`${W7B}: ${arrived} messages of ${count} came`);
    },
  };
}
