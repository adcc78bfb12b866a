/**
 * A process with a cluster on a directory, killed with no warning again and again: while it starts, while it writes, while it takes
 * snapshots. What was acknowledged is there in its next life, what was not is there as a whole on each shard or not at all, and searches, counts
 * and copies agree with the documents.
 *
 * With SHARDLOOM_LONG=1 at least 200 times. `SEED` repeats the choices; where the kills fall is the machine's.
 */
import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { DURABILITIES } from "../../src/store/log.ts";
import { type Batch, type Found, KINDS, Ledger, type Life, type Line } from "../support/kill-nine.ts";
import { NatsServer } from "../support/nats-server.ts";

const CHILD = fileURLToPath(new URL("./kill-nine.child.js", import.meta.url));
const LONG = process.env["SHARDLOOM_LONG"] === "1";
const SEED = Number(process.env["SEED"] ?? 1);
/** Kills of each of the scenes. */
const KILLS = LONG ? 110 : 11;
const KILLS_IN_NATS = LONG ? 60 : 2;
/** Of a life, each of which ends when it is refused. */
const WRITERS = 6;
/** Share of the lives that are killed before they serve. */
const EARLY = 0.3;
const MOST_ACKNOWLEDGED = LONG ? 400 : 60;
const LEAST_SNAPSHOT_BYTES = 64 * 1024;
const LOOK_MS = 20;
const TIMEOUT_MS = LONG ? 1_800_000 : 300_000;

let root = "";
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-kill-"));
});
afterEach(() => rm(root, { recursive: true }));

/** How a life ends: so long after its start, after so many acknowledgements and a moment, or when a snapshot is whole. */
type End =
  | { readonly afterMs: number }
  | { readonly acknowledged: number; readonly thenMs: number }
  | { readonly snapshotIn: string };

interface LifeReport {
  readonly found: Found | undefined;
  readonly startedMs: number;
}

/** Runs a life to its end. Everything that it said before its death is taken. */
async function live(life: Life, end: End | undefined, ledger: Ledger): Promise<LifeReport> {
  const child = spawn(process.execPath, [CHILD, JSON.stringify(life)], { stdio: ["ignore", "pipe", "pipe"] });
  const beganMs = performance.now();
  let found: Found | undefined;
  let startedMs = 0;
  let acknowledged = 0;
  let complaint = "";
  const wrong: string[] = [];
  const kill = (): unknown => child.kill("SIGKILL");
  const timer = end !== undefined && "afterMs" in end ? setTimeout(kill, end.afterMs) : undefined;
  const looks =
    end !== undefined && "snapshotIn" in end
      ? setInterval(() => void snapshotsIn(end.snapshotIn).then(({ whole }) => whole > 0 && kill(), ignore), LOOK_MS)
      : undefined;
  child.stderr.on("data", (text: Buffer) => (complaint += text.toString()));
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (text) => {
    if (!text.endsWith("}")) return; // cut by the kill
    const line = JSON.parse(text) as Line;
    if (line.type === "found") {
      found = line.found;
      startedMs = performance.now() - beganMs;
      wrong.push(...ledger.check(found));
      if (end === undefined) kill();
    } else ledger.take(line);
    if (
      line.type === "acknowledged" &&
      end !== undefined &&
      "acknowledged" in end &&
      ++acknowledged === end.acknowledged
    )
      setTimeout(kill, end.thenMs);
  });
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (...how) => resolve(how));
  });
  clearTimeout(timer);
  clearInterval(looks);
  expect(wrong, `in the life that began with batch ${life.firstBatch}`).toEqual([]);
  expect([code, signal, complaint]).toEqual([null, "SIGKILL", ""]);
  return { found, startedMs };
}

function endOf(random: Random, startMs: number): End {
  if (random.float() < EARLY) return { afterMs: random.float() * startMs };
  return { acknowledged: 1 + (random.u32() % MOST_ACKNOWLEDGED), thenMs: random.float() * 20 };
}

async function snapshotsIn(directory: string): Promise<{ whole: number; begun: number }> {
  const names = await readdir(directory, { recursive: true });
  return {
    whole: names.filter((name) => name.endsWith(".snapshot")).length,
    begun: names.filter((name) => name.includes("/snapshots/") && name.endsWith(".temporary")).length,
  };
}

describe.each([1, 2])("%i copies of everything, killed", (replicationFactor) => {
  test("have all that was acknowledged and no batch in part", { timeout: TIMEOUT_MS }, async () => {
    console.info(`kill -9: SEED=${SEED}, ${replicationFactor} copies, ${KILLS} kills`);
    const random = createSeededRandom(SEED + 7919 * replicationFactor);
    const directory = join(root, "data");
    const ledger = new Ledger();
    const seen = { early: 0, late: 0, duringSnapshots: 0, snapshots: 0 };
    const acknowledged = { fsync: 0, os: 0, memory: 0 };
    let startMs = 500;
    const lifeOf = (number: number): Life => ({
      directory,
      seed: random.u32(),
      replicationFactor,
      durability: DURABILITIES[number % 2] as Life["durability"],
      snapshotBytes: LEAST_SNAPSHOT_BYTES * 4 ** (random.u32() % 3),
      firstBatch: 1 + number * 1_000_000,
    });
    for (let number = 0; number < KILLS; number++) {
      // The first of each durability must have written something before there is anything to lose.
      // The third goes on until there is a snapshot.
      const written: End = number < 2 ? { acknowledged: MOST_ACKNOWLEDGED, thenMs: 0 } : { snapshotIn: directory };
      const end: End = number < 3 ? written : endOf(random, startMs);
      const life = number === 2 ? { ...lifeOf(number), snapshotBytes: LEAST_SNAPSHOT_BYTES } : lifeOf(number);
      const before = ledger.counts.acknowledged;
      const { found, startedMs } = await live(life, end, ledger);
      acknowledged[life.durability] += ledger.counts.acknowledged - before;
      if (found === undefined) seen.early++;
      else seen.late++;
      if (found !== undefined) startMs = startedMs;
      const { whole, begun } = await snapshotsIn(directory);
      if (begun > 0) seen.duringSnapshots++;
      seen.snapshots = Math.max(seen.snapshots, whole);
    }
    const last = await live(lifeOf(KILLS), undefined, ledger);
    console.info(JSON.stringify({ ...seen, ...ledger.counts }));
    expect(Object.keys(last.found?.vectors ?? {}).length).toBeGreaterThan(0);
    expect(Object.keys(last.found?.texts ?? {}).length).toBeGreaterThan(0);
    if (KILLS > 50) expect(seen.early).toBeGreaterThan(0); // of few none may meet a start
    expect(seen.snapshots).toBeGreaterThan(0);
    expect(ledger.counts.open).toBeGreaterThan(0);
    expect(ledger.counts.acknowledged).toBeGreaterThan((LONG ? 10 : 5) * KILLS);
    expect([acknowledged.fsync > 0, acknowledged.os > 0]).toEqual([true, true]);
    expect(ledger.counts.failed).toBe(0);
  });
});

describe("in NATS, with nothing on this machine", () => {
  test("killed, or frozen while another one goes on, have all that was acknowledged and no batch in part", {
    timeout: TIMEOUT_MS,
  }, async () => {
    console.info(`kill -9 in NATS: SEED=${SEED}, ${KILLS_IN_NATS} kills`);
    const random = createSeededRandom(SEED);
    const ledger = new Ledger();
    await using server = await NatsServer.start();
    let startMs = 1_500;
    let lives = 0;
    const nextLife = (): Life => ({
      nats: server.url,
      seed: random.u32(),
      replicationFactor: 1,
      durability: "fsync",
      snapshotBytes: LEAST_SNAPSHOT_BYTES * 4 ** (random.u32() % 3),
      firstBatch: 1 + lives++ * 1_000_000,
    });
    for (let number = 0; number < KILLS_IN_NATS; number++) {
      if (number % 4 === 1) {
        await usurp({ ...nextLife(), patienceMs: 3_000 }, nextLife(), ledger);
        await server.stop("SIGKILL");
        await server.startAgain();
        continue;
      }
      const end: End = number === 0 ? { acknowledged: 40, thenMs: 0 } : endOf(random, startMs);
      const { found, startedMs } = await live(nextLife(), end, ledger);
      if (found !== undefined) startMs = startedMs;
    }
    const last = await live(nextLife(), undefined, ledger);
    console.info(JSON.stringify(ledger.counts));
    for (const kind of KINDS) expect(Object.keys(last.found?.[kind] ?? {}).length).toBeGreaterThan(0);
    expect(ledger.counts.acknowledged).toBeGreaterThan(50);
    expect(ledger.counts.failed).toBe(0);
  });
});

/** Freezes a life, begins the next one, and wakes the former: it may acknowledge only what the next one has found. */
async function usurp(life: Life, next: Life, ledger: Ledger): Promise<void> {
  const former = spawn(process.execPath, [CHILD, JSON.stringify(life)], { stdio: ["ignore", "pipe", "inherit"] });
  const wrong: string[] = [];
  const begun = new Map<number, Batch>();
  const late: number[] = [];
  let acknowledged = 0;
  let isSilent = false;
  try {
    const refused = new Promise<void>((resolve) => {
      let failed = 0;
      former.once("exit", () => resolve());
      const frozen = (): void => void former.kill("SIGSTOP");
      createInterface({ input: former.stdout }).on("line", (text) => {
        const line = JSON.parse(text) as Line;
        if (line.type === "found") wrong.push(...ledger.check(line.found));
        if (line.type === "begin") begun.set(line.batch.batch, line.batch);
        if (line.type === "failed" && ++failed === WRITERS) resolve();
        if (line.type === "acknowledged" && isSilent) late.push(line.batch);
        if (line.type !== "found" && !isSilent) ledger.take(line);
        if (line.type === "acknowledged" && ++acknowledged === 30) frozen();
      });
    });
    while (acknowledged < 30) await pause(20);
    await pause(200); // what it has said by then is read
    isSilent = true;
    const { found } = await live(next, { acknowledged: 15, thenMs: 0 }, ledger);
    former.kill("SIGCONT");
    await refused;
    // What was in the stream before the next one came may be acknowledged now: it is there.
    for (const batch of late) {
      const { kind, ids, deletes } = begun.get(batch) as Batch;
      for (const id of ids)
        if (found?.[kind][id] !== (deletes ? undefined : batch)) wrong.push(`${kind} ${id} of ${batch} is not there`);
    }
    expect(wrong).toEqual([]);
  } finally {
    former.kill("SIGKILL");
  }
}

/** Files come and go while they are listed. */
function ignore(): void {}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
