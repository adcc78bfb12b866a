/**
 * Clients that read and write a few registers and record what they asked and were told, as the simulator's checkers read it.
 *
 * Invariant: a value is written once. A write counts as not done only when it was refused before anything can have been sent; any other
 * failure of one may have happened, or may still.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { VectorCollection } from "../../src/index.ts";
import type { Random } from "../../src/runtime/random.ts";
import { History } from "../../src/sim/history.ts";
import { certainlyRefused } from "../../src/sim/workloads/failures.ts";
import { codeOf } from "./copies.ts";

/** Collections of registers have vectors of this length: the value, and the key. */
export const REGISTER_DIMENSIONS = 2;

export interface RecordedClientsOptions {
  readonly random: Random;
  readonly keys: number;
  /** @default 0 */
  readonly firstKey?: number;
  readonly clients: number;
  /** Consistency of the reads of a client, which are recorded as if they were strong. @default strong */
  readonly consistencyOf?: (client: number) => "strong" | "eventual";
  readonly timeoutMs: number;
  /** Longest pause of a client between two operations, in ms. */
  readonly pauseMs: number;
}

export class RecordedClients {
  readonly history: History = new History(() => Math.round(performance.now() * 1e6));
  readonly #options: RecordedClientsOptions;
  /** By client: answers, and codes of failures. */
  readonly #told: Map<string, number>[];
  #next = 1;
  #stopping = false;
  #running: Promise<unknown> | undefined;

  constructor(options: RecordedClientsOptions) {
    this.#options = options;
    this.#told = Array.from({ length: options.clients }, () => new Map());
  }

  /** @param docs Which client uses which handle. */
  start(docs: (client: number) => VectorCollection): void {
    const { clients } = this.#options;
    this.#stopping = false;
    this.#running = Promise.all(Array.from({ length: clients }, (_, client) => this.#run(docs(client), client)));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
  }

  /** How often a client was told something: "read ok", "write ok", "read ERR_…", "write ERR_…". @param client All of them without */
  told(what: string, client?: number): number {
    const some = client === undefined ? this.#told : [this.#told[client] as Map<string, number>];
    return some.reduce((sum, counts) => sum + (counts.get(what) ?? 0), 0);
  }

  /** Everything that clients were told, for a failing test's reader. */
  summary(): string {
    return JSON.stringify(this.#told.map((counts) => Object.fromEntries(counts)));
  }

  /** One read of every key, by a process of its own. */
  async readAll(docs: VectorCollection): Promise<void> {
    const { keys, clients, firstKey = 0 } = this.#options;
    for (let key = 0; key < keys; key++) await this.#read(docs, clients, firstKey + key, "strong");
  }

  async #run(docs: VectorCollection, client: number): Promise<void> {
    const { random, keys, firstKey = 0, pauseMs, consistencyOf } = this.#options;
    while (!this.#stopping) {
      const key = firstKey + (random.u32() % keys);
      if (random.float() < 0.4) await this.#write(docs, client, key);
      else await this.#read(docs, client, key, consistencyOf?.(client) ?? "strong");
      await sleep(random.float() * pauseMs);
    }
  }

  async #write(docs: VectorCollection, client: number, key: number): Promise<void> {
    const value = this.#next++;
    this.history.invoke(client, "write", [key, value]);
    try {
      await docs.upsert({ id: key, vector: [value, key] }, { timeoutMs: this.#options.timeoutMs });
      this.history.ok(client, [key, value]);
      this.#note(client, "write ok");
    } catch (error) {
      const code = codeOf(error);
      if (certainlyRefused(error)) this.history.fail(client, code);
      else this.history.info(client, code);
      this.#note(client, `write ${code}`);
    }
  }

  async #read(docs: VectorCollection, client: number, key: number, consistency: "strong" | "eventual"): Promise<void> {
    this.history.invoke(client, "read", [key, null]);
    try {
      const found = await docs.get(key, { consistency, timeoutMs: this.#options.timeoutMs });
      this.history.ok(client, [key, found?.vector?.[0] ?? null]);
      this.#note(client, "read ok");
    } catch (error) {
      const code = codeOf(error);
      this.history.fail(client, code); // whatever became of it, it changes nothing
      this.#note(client, `read ${code}`);
    }
  }

  #note(client: number, what: string): void {
    const counts = this.#told[client];
    counts?.set(what, (counts.get(what) ?? 0) + 1);
  }
}
