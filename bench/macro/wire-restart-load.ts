/**
 * What each node of W6 runs (`shardloom node --run`): keyed writes and strong reads of its own documents, a few at once with pauses, from the first
 * line of standard input to the end; every line has it say what became of the requests since the line before, as its end does.
 *
 * Invariant: a request that was begun is counted, also when the node is told to stop meanwhile.
 */
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { Cluster } from "../../src/index.ts";

/** What became of requests. */
export interface LoadReport {
  readonly event: "load";
  /** Times of those that succeeded, in ms. */
  readonly tookMs: readonly number[];
  /** Codes of the others. */
  readonly failed: readonly string[];
}

const LANES = 4;
const PAUSE_MS = 10;
const DOCUMENTS = 50;

async function load(cluster: Cluster, signal: AbortSignal): Promise<void> {
  const self = process.env["NODE_NAME"] ?? "";
  const documents = await cluster.vectors("documents", { dimensions: 2 });
  let tookMs: number[] = [];
  let failed: string[] = [];
  let next = 0;
  const one = async (): Promise<void> => {
    const at = next++;
    const id = `${self}-${at % DOCUMENTS}`;
    const started = performance.now();
    try {
      const idempotencyKey = `${self} ${process.pid} ${at}`;
      await documents.upsert([{ id, vector: [1, at] }], { idempotencyKey });
      if ((await documents.get(id, { consistency: "strong" })) === undefined) throw new Error("it is not there");
      tookMs.push(performance.now() - started);
    } catch (error) {
      failed.push((error as { code?: string }).code ?? String(error));
    }
  };
  const lane = async (): Promise<void> => {
    while (!signal.aborted) {
      await one();
      await sleep(PAUSE_MS);
    }
  };
  const report = (): void => {
    const said: LoadReport = { event: "load", tookMs, failed };
    process.stdout.write(`${JSON.stringify(said)}\n`);
    [tookMs, failed] = [[], []];
  };
  let lanes: Promise<unknown> | undefined;
  const lines = createInterface({ input: process.stdin, signal });
  lines.on("line", () => {
    lanes ??= Promise.all(Array.from({ length: LANES }, lane));
    report();
  });
  await new Promise((resolve) => lines.once("close", resolve));
  await lanes;
  report();
}

// biome-ignore lint/style/noDefaultExport: what `shardloom node --run` calls.
export default load;
