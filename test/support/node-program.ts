/**
 * What test nodes run (`shardloom node --run`), for every line of standard input: `store` documents of its own, in a collection that the first node
 * opens and the others are told of, `find` those of all by strong reads, `find-now`, without waiting long, `look` for them by eventual ones, `audit` its copies; `write` a third of the texts
 * and `read` all of them; `load` writes and reads all the time from
 * then on, and says what came of that since the last time, as the end of the node does. It says what came of it in a line of JSON.
 */
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { Cluster, TextCollection, TextDocument, VectorCollection, VectorDocument } from "../../src/index.ts";

const OPTIONS = { dimensions: 2, metric: "l2" } as const;

/** Documents that each node stores. */
export const DOCUMENTS_PER_NODE = 40;

/** The vector of a node's document. */
export function vectorOf(node: number, at: number): [number, number] {
  return [Math.cos(node + 3 * at) * (at + 1), Math.sin(node * 7 + at)];
}

const WORDS = ["tea", "cup", "pot", "leaf", "water", "fire", "stone"];
/** How collections of texts are opened. */
export const TEXT_OPTIONS = { fields: { title: 2, body: 1 }, positions: true } as const;

/** Texts of one node. */
export function textsOf(node: number): TextDocument[] {
  return Array.from({ length: 60 }, (_, at) => {
    const id = node * 60 + at;
    const word = (step: number): string => WORDS[(id * step + at) % WORDS.length] as string;
    return {
      id,
      fields: { title: word(3), body: Array.from({ length: 3 + (id % 5) }, (__, n) => word(n + 1)).join(" ") },
    };
  });
}

/** What searches of texts find, in order and with their scores. */
export async function readTexts(texts: TextCollection): Promise<object> {
  const found: string[][] = [];
  for (const query of ["tea leaf", '"cup pot"', "fire", "stone water cup"]) {
    const { hits } = await texts.search(query, { k: 30, consistency: "strong" });
    found.push(hits.map(({ id, score }) => `${id} ${score.toFixed(5)}`));
  }
  return { count: await texts.count({ consistency: "strong" }), found };
}

async function program(cluster: Cluster, signal: AbortSignal): Promise<void> {
  const nodes = cluster.members().filter(({ kind }) => kind === "node");
  const self = nodes.findIndex(({ id }) => id === process.env["NODE_NAME"]);
  const lines = createInterface({ input: process.stdin, signal });
  let load: Load | undefined;
  const say = (event: string, said: object): unknown => process.stdout.write(`${JSON.stringify({ event, ...said })}\n`);
  for await (const line of lines) {
    if (line === "load") {
      load ??= new Load(cluster, signal);
      say(line, load.report());
      continue;
    }
    const said = await act(cluster, line, self).catch((error: unknown) => ({
      error: (error as { code?: string }).code,
    }));
    say(line, said);
  }
  if (load === undefined) return;
  await load.over;
  say("load", load.report());
}

/** Writes with keys, each read again strongly, a few at once, until the node is told to end. */
class Load {
  readonly over: Promise<unknown>;
  #done = 0;
  #failed: string[] = [];
  #next = 0;

  constructor(cluster: Cluster, signal: AbortSignal) {
    const lane = async (_: unknown, at: number): Promise<void> => {
      const documents = await cluster.vectors("documents", OPTIONS);
      while (!signal.aborted) {
        await this.#one(documents, `${process.pid}-${at}`);
        await sleep(20);
      }
    };
    this.over = Promise.all(Array.from({ length: 3 }, lane));
  }

  /** Since the last time. */
  report(): { readonly done: number; readonly failed: readonly string[] } {
    const report = { done: this.#done, failed: this.#failed };
    [this.#done, this.#failed] = [0, []];
    return report;
  }

  async #one(documents: VectorCollection, lane: string): Promise<void> {
    const at = this.#next++;
    const id = `${lane}-${at % 20}`;
    try {
      await documents.upsert([{ id, vector: [at, 1] }], { idempotencyKey: `${lane} ${at}` });
      const read = await documents.get(id, { consistency: "strong" });
      const [found] = read?.vector ?? [];
      if (found !== at) throw new Error(`it is ${String(found)} and not ${at}`);
      this.#done++;
    } catch (error) {
      this.#failed.push((error as { code?: string }).code ?? String(error));
    }
  }
}

/** Stores documents once, however often it has to be tried while nodes are lost. */
async function store(documents: VectorCollection, all: VectorDocument[], idempotencyKey: string): Promise<void> {
  const deadline = performance.now() + 25_000;
  for (;;) {
    try {
      await documents.upsert(all, { idempotencyKey, timeoutMs: 5_000 });
      return;
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
  }
}

async function act(cluster: Cluster, line: string, self: number): Promise<object> {
  if (line === "audit") return cluster.audit();
  const opens = (line === "store" || line === "write") && self === 0;
  if (line === "write" || line === "read") {
    const texts = await cluster.text("texts", opens ? TEXT_OPTIONS : undefined);
    return line === "read"
      ? readTexts(texts)
      : { written: await texts.upsert(textsOf(self)).then(() => textsOf(self).length) };
  }
  const documents: VectorCollection = await cluster.vectors("documents", opens ? OPTIONS : undefined);
  if (line === "store") {
    const all = Array.from({ length: DOCUMENTS_PER_NODE }, (_, at) => ({
      id: `${self}-${at}`,
      vector: vectorOf(self, at),
    }));
    await store(documents, all, `store of ${self}`);
    return { stored: all.length };
  }
  const consistency = line === "look" ? "eventual" : "strong";
  const timeoutMs = line === "find-now" ? 500 : 20_000;
  const { hits, completeness } = await documents.search([0.5, 0.5], {
    k: 20,
    exact: true,
    consistency,
    timeoutMs,
  });
  const count = await documents.count({ consistency, timeoutMs });
  return { ids: hits.map(({ id }) => id), complete: completeness.complete, count };
}

// biome-ignore lint/style/noDefaultExport: what `shardloom node --run` calls.
export default program;
