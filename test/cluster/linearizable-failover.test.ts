/**
 * Histories of strong reads and writes over real threads and files, while workers die, primaries move and nodes are cut off: judged by the same
 * checker as simulated ones. Each has its control: what must not be linearizable is reported.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { VectorCollection } from "../../src/index.ts";
import type { History } from "../../src/sim/history.ts";
import type { HistoryEntry } from "../../src/sim/history-types.ts";
import { linearizable } from "../../src/sim/linearizability.ts";
import { keyValue } from "../../src/sim/register-model.ts";
import { ownerOf, vshardOfId } from "../../src/topology/snapshot.ts";
import { ACTORS_URL, eventually } from "../support/cluster.ts";
import { codeOf, kill, SABOTAGES, seeded, startCopies, whenAllUp } from "../support/copies.ts";
import { DurableNodes } from "../support/durable-nodes.ts";
import { holdStarts } from "../support/gate.ts";
import { REGISTER_DIMENSIONS, RecordedClients } from "../support/recorded-clients.ts";

const TROUBLE = new URL("../support/start-trouble.js", import.meta.url);
const MIB = 1024 * 1024;
const LONG = process.env["SHARDLOOM_LONG"] === "1";
const ROUNDS = LONG ? 10 : 1;
const REGISTERS = { dimensions: REGISTER_DIMENSIONS, metric: "l2" } as const;

/** As `eventually`, without keeping a core busy that the clients and workers need. */
function soon(what: string, condition: () => boolean): Promise<void> {
  const look = async (): Promise<boolean> => {
    await sleep(10);
    return condition();
  };
  return eventually(what, look, 60_000);
}

const OLD = 1_000_001;
const NEW = 1_000_002;

let root = "";
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-history-"));
});
afterEach(async () => {
  delete process.env["SHARDLOOM_TEST_START"];
  await rm(root, { recursive: true });
});

/** A read gets the answer of a later one of the same key, whose value was written only after the first had ended. */
function withReadOfTheFuture(history: History): HistoryEntry[] {
  const calls = history.calls().filter(({ outcome }) => outcome === "ok");
  const writes = calls.filter(({ invoke }) => invoke.f === "write");
  for (const { invoke, completion } of calls) {
    if (invoke.f !== "read" || completion === undefined) continue;
    const [key] = completion.value as [number, number];
    const later = writes.find(
      (write) => (write.invoke.value as [number])[0] === key && write.invoke.index > completion.index,
    );
    if (later === undefined) continue;
    return history.entries.map((entry) => (entry === completion ? { ...entry, value: later.invoke.value } : entry));
  }
  throw new Error("no read has ended before a write of its key began");
}

/** An id that a node is primary of, in a vshard that no client writes to. */
function quietId(nodes: DurableNodes, victim: number, keys: number): number {
  const { topology } = nodes.node(victim);
  const written = new Set(Array.from({ length: keys }, (_, key) => vshardOfId(topology, key)));
  let id = 200;
  while (ownerOf(topology, vshardOfId(topology, id)) !== victim || written.has(vshardOfId(topology, id))) id++;
  return id;
}

function expectLinearizable(history: History): void {
  const result = linearizable(history, keyValue());
  result.assert();
  expect(result).toMatchObject({ valid: true, verdict: "linearizable" });
  expect(linearizable(withReadOfTheFuture(history), keyValue()).verdict).toBe("not linearizable");
}

test("strong reads and writes are linearizable while workers die and primaries move", {
  timeout: LONG ? 900_000 : 120_000,
}, async () => {
  const { seed, random } = seeded(70);
  console.info(`linearizable failover: SEED=${seed}`);
  for (let round = 0; round < ROUNDS; round++) {
    await using cluster = await startCopies({
      actors: [ACTORS_URL, TROUBLE],
      directory: join(root, `data-${round}`),
      memoryBytes: 64 * MIB,
      maxHandlerMs: 500,
      startTimeoutMs: 60_000,
      snapshotBytes: 64 * 1024,
    });
    const docs = await cluster.vectors("registers", REGISTERS);
    const clients = new RecordedClients({ random, keys: 4, clients: 6, timeoutMs: 1_500, pauseMs: 12 });
    const { mapVersion } = cluster.topology;
    clients.start(() => docs);
    for (const sabotage of SABOTAGES) {
      const answers = clients.told("read ok");
      await soon("reads", () => clients.told("read ok") > answers + 50);
      const owners = [...new Set(cluster.topology.owners)];
      const victim = owners[random.u32() % owners.length] as number;
      const letStart = sabotage === "exit" ? holdStarts() : () => undefined;
      const back = kill(cluster, victim, sabotage);
      if (sabotage === "exit") await soon("nothing left to it", () => !cluster.topology.owners.includes(victim));
      letStart();
      await back;
      await whenAllUp(cluster);
    }
    await clients.stop();
    await clients.readAll(docs);
    expect(cluster.topology.mapVersion).toBeGreaterThan(mapVersion);
    expect(clients.told("read ok"), clients.summary()).toBeGreaterThan(150);
    expect(clients.told("write ok"), clients.summary()).toBeGreaterThan(50);
    expectLinearizable(clients.history);
    expect(await cluster.audit({ timeoutMs: 60_000 })).toMatchObject({ equal: true });
  }
});

test("a primary that is cut off answers no strong read and takes no write once it has successors, and the history is linearizable; one of its eventual reads is not", {
  timeout: LONG ? 900_000 : 120_000,
}, async () => {
  const { seed, random } = seeded(71);
  console.info(`linearizable failover of a node: SEED=${seed}`);
  for (let round = 0; round < ROUNDS; round++) {
    await using nodes = await new DurableNodes(join(root, `nodes-${round}`)).start();
    const docs = await Promise.all(nodes.nodes.map((node) => node.vectors("registers", REGISTERS)));
    const options = { random, keys: 4, timeoutMs: 1_000, pauseMs: 12 };
    const clients = new RecordedClients({ ...options, clients: 6 });
    const control = new RecordedClients({ ...options, firstKey: 100, clients: 2, consistencyOf: () => "eventual" });
    // Every node has two of the clients: also the one that is cut off, and does not know that it has successors.
    clients.start((client) => docs[client % 3] as VectorCollection);
    await soon("reads and writes", () => clients.told("read ok") > 60 && clients.told("write ok") > 20);
    const [victim, witness] = nodes.busiest();
    const quiet = quietId(nodes, victim, options.keys);
    await docs[witness]?.upsert({ id: quiet, vector: [OLD, quiet] }, { acks: "all" });
    const doubtful = nodes.doubtful[victim] as (typeof nodes.doubtful)[number];
    doubtful.state = "cut";
    nodes.separate(victim, true);
    await soon("it has successors", () => !nodes.node(witness).topology.owners.includes(victim));
    expect(nodes.node(victim).topology.owners.includes(victim)).toBe(true); // it does not know
    const own = [victim, victim + 3];
    const toldOwn = (what: string): number => own.reduce((sum, client) => sum + clients.told(what, client), 0);
    const refusedReads = (): number => toldOwn("read ERR_UNAVAILABLE");
    const before = { reads: toldOwn("read ok"), writes: toldOwn("write ok"), others: clients.told("write ok") };
    await soon("writes go on", () => clients.told("write ok") > before.others + 30);
    await soon("it is asked", () => refusedReads() > 1);
    expect(toldOwn("read ok"), clients.summary()).toBe(before.reads);
    expect(toldOwn("write ok"), clients.summary()).toBe(before.writes);
    // Nothing is in doubt of this one: but for the lease its old primary would answer.
    await docs[witness]?.upsert({ id: quiet, vector: [NEW, quiet] });
    const strong = await docs[victim]?.get(quiet, { timeoutMs: 2_000 }).catch(codeOf);
    expect(["ERR_UNAVAILABLE", "ERR_TIMEOUT"]).toContain(strong);
    expect((await docs[victim]?.get(quiet, { consistency: "eventual" }))?.vector?.[0]).toBe(OLD);
    expect((await docs[witness]?.get(quiet))?.vector?.[0]).toBe(NEW);
    // The control: the same code path of a client, with answers that nobody has promised to be new.
    const others = nodes.nodes.findIndex((_, at) => at !== victim);
    control.start((client) => docs[client === 0 ? victim : others] as VectorCollection);
    await soon("eventual reads", () => control.told("read ok", 0) > 40 && control.told("write ok", 1) > 10);
    await control.stop();
    nodes.separate(victim, false);
    await sleep(100);
    doubtful.state = "honest";
    await soon("it reads again", () => toldOwn("read ok") > before.reads + 10);
    await clients.stop();
    await clients.readAll(docs[victim] as VectorCollection);
    await nodes.untilEqual();
    const alone = await nodes.node(victim).audit();
    expect(alone).toMatchObject({ equal: false, copies: 16, same: 16, elsewhere: 32 }); // of the others it says nothing
    expect(linearizable(control.history, keyValue()).verdict).toBe("not linearizable");
    expectLinearizable(clients.history);
  }
});
