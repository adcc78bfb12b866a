/**
 * W6 of the bench `wire`: three nodes as processes, each of which writes and reads; one after the other is told to end, and started again.
 *
 * Invariant: nodes are restarted under load that all three make, and all requests begun are counted.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { type GoalResult, judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, quantile, sized, toRow } from "../harness/harness.ts";
import type { LoadReport } from "./wire-restart-load.ts";
import { freePort } from "./wire-setup.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));
const LOAD = fileURLToPath(new URL("./wire-restart-load.js", import.meta.url));
const NAMES = ["a", "b", "c"] as const;
const CASE = "W6 write and strong read, 3 nodes";
const SAY_MS = 30_000;
/** Vshards go back to a node that has been well for some seconds: before that the next one is not restarted. */
const SETTLE_MS = 6_000;

type Said = Readonly<Record<string, unknown>>;

/** One process of `shardloom node`. */
class NodeUnderLoad {
  readonly child: ChildProcess;
  readonly #said: Said[] = [];
  #log = "";
  #wake: () => void = () => undefined;

  constructor(root: string, name: string, args: readonly string[]) {
    const all = [MAIN, "node", "--json", "--log-level", "warn", "--data", join(root, name), "--run", LOAD, ...args];
    this.child = spawn(process.execPath, all, { env: { ...process.env, NODE_NAME: name }, stdio: "pipe" });
    createInterface({ input: this.child.stdout as NodeJS.ReadableStream }).on("line", (line) => {
      this.#said.push(JSON.parse(line) as Said);
      this.#wake();
    });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      this.#log += String(chunk);
    });
    this.child.once("exit", () => this.#wake());
  }

  async next<T = Said>(event: string): Promise<T> {
    const byMs = performance.now() + SAY_MS;
    for (;;) {
      const at = this.#said.findIndex((said) => said["event"] === event);
      if (at >= 0) return this.#said.splice(at, 1)[0] as T;
      if (this.child.exitCode !== null || performance.now() > byMs)
        throw new Error(`a node did not say ${event}: ${this.#log}`);
      await Promise.race([new Promise<void>((resolve) => (this.#wake = resolve)), sleep(1_000)]);
    }
  }

  /** Begins the load, or goes on. @returns what came of it since the last time */
  report(): Promise<LoadReport> {
    this.child.stdin?.write("report\n");
    return this.next<LoadReport>("load");
  }

  async stop(): Promise<LoadReport> {
    const last = this.next<LoadReport>("load");
    const gone = once(this.child, "exit");
    this.child.kill("SIGTERM");
    const report = await last;
    await gone;
    return report;
  }
}

/** Measures W6. */
export async function measureRestart(
  { mode, goals, log }: BenchContext,
  root: string,
  nats: string,
): Promise<{ rows: BenchRow[]; goals: GoalResult[] }> {
  const nodes = new Map<string, NodeUnderLoad>();
  const start = (name: string, ...args: string[]): NodeUnderLoad => {
    const node = new NodeUnderLoad(root, name, args);
    nodes.set(name, node);
    return node;
  };
  try {
    await found(start, nats);
    const all = (): Promise<LoadReport[]> => Promise.all([...nodes.values()].map((node) => node.report()));
    await all();
    await sleep(sized(mode, 3_000, 3_000, 5_000)); // the first writes of all
    await all();
    await sleep(sized(mode, 10_000, 10_000, 20_000));
    const before = merged(await all());
    const reports: LoadReport[] = [];
    for (const name of NAMES) {
      reports.push(await (nodes.get(name) as NodeUnderLoad).stop());
      const node = start(name);
      await node.next("serving");
      await node.report();
      await sleep(SETTLE_MS);
      reports.push(...(await all()));
    }
    const during = merged(reports);
    if (before.tookMs.length === 0 || during.tookMs.length === 0) throw new Error("no request has succeeded");
    if (during.failed.length > 0) log(`W6: failed requests: ${JSON.stringify(countOf(during.failed))}`);
    const note = `${during.failed.length} of ${during.failed.length + during.tookMs.length} failed`;
    return {
      rows: [
        toRow(CASE, "before", "ms", before.tookMs, `${before.failed.length} failed`),
        toRow(CASE, "during a rolling restart", "ms", during.tookMs, note),
      ],
      goals: [
        judge(goals, "W6", during.failed.length, note),
        judge(goals, "W6b", quantile(during.tookMs, 0.99) / quantile(before.tookMs, 0.99)),
      ],
    };
  } finally {
    for (const { child } of nodes.values()) child.kill("SIGKILL");
  }
}

async function found(start: (name: string, ...args: string[]) => NodeUnderLoad, nats: string): Promise<void> {
  const ports = await Promise.all(NAMES.map(freePort));
  const members = NAMES.map((name, at) => `${name}=tls://127.0.0.1:${ports[at]}`).join(",");
  const options = ["--found", "bench", "--name", "a", "--members", members, "--vshards", "16", "--copies", "3"];
  const founder = start("a", ...options, "--nats", nats);
  const invitations = [await founder.next("invitation"), await founder.next("invitation")];
  const others = invitations.map(({ node, invitation }) => start(String(node), "--join", String(invitation)));
  for (const node of [founder, ...others]) await node.next("serving");
}

function merged(reports: readonly LoadReport[]): Omit<LoadReport, "event"> {
  return { tookMs: reports.flatMap(({ tookMs }) => tookMs), failed: reports.flatMap(({ failed }) => failed) };
}

function countOf(codes: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const code of codes) counts[code] = (counts[code] ?? 0) + 1;
  return counts;
}
