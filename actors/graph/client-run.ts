/**
 * The result of a run as its user sees it: values of vertices, page by page or by key.
 *
 * Invariant: the shards hold a result until it is closed, so it can be read often; what was added to the graph since is not in it.
 */
import { ShardloomError } from "../../src/errors.ts";
import { GRAPH_COMPLETE, GRAPH_RESULTS } from "../../src/wire/message-types.ts";
import { createValueCodec } from "../../src/wire/value-codec.ts";
import { checkExplain } from "../explained-value.ts";
import { askAgain, askAll, askShard, type GraphHandle } from "./client-calls.ts";
import { type ResultsPage, readResults } from "./graph-results.ts";
import { RunAccount, type RunExplanation } from "./run-account.ts";
import { DEFAULT_CHECKPOINTS, type FinishedRun, RunDriver, type RunPlan } from "./run-driver.ts";
import type { ResultsRequest } from "./run-messages.ts";
import type { RunOptions } from "./run-options.ts";
import { checkKey, hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";

const PAGE = 4096;
const codec = createValueCodec();

/** Drives a run to its end. @throws {ShardloomError} those of every call, and the algorithm's. */
export async function runToResult<Value>(
  handle: GraphHandle,
  plan: RunPlan,
  options: RunOptions,
): Promise<GraphResult<Value>> {
  const { explain, exchange = "auto", checkpointEvery = DEFAULT_CHECKPOINTS } = options;
  if (!checkExplain("run algorithm", explain))
    return new GraphResult(handle, await new RunDriver(handle, plan, options).drive());
  const account = new RunAccount(handle.coordinator);
  const finished = await new RunDriver({ ...handle, account }, plan, options, account).drive();
  const { algorithm } = plan;
  const told = account.explain({ algorithm, exchange, checkpointEvery, shards: handle.options.shards });
  const result = new GraphResult<Value>(handle, finished, told);
  try {
    if (typeof explain === "function") explain(told);
  } catch (error) {
    await result.close(); // nobody else has it
    throw error;
  }
  return result;
}

/** A vertex with what was computed for it. */
export interface VertexValue<Value = number> {
  readonly key: VertexKey;
  readonly value: Value;
}

/** The result of a run. Iterate over it, or `get` a vertex; `close` it when it is no longer needed. */
export class GraphResult<Value = number> implements AsyncDisposable, AsyncIterable<VertexValue<Value>> {
  readonly supersteps: number;
  readonly vertices: number;
  readonly edges: number;
  /** 1, and one more after each worker that was lost. */
  readonly attempts: number;
  /** Reductions of the last superstep, as the algorithm has them. */
  readonly sums: readonly number[];
  /** Its supersteps and what was asked of whom, when `explain` was asked for. */
  readonly explain: RunExplanation | undefined;
  readonly #handle: GraphHandle;
  readonly #finished: FinishedRun;

  constructor(handle: GraphHandle, finished: FinishedRun, explain?: RunExplanation) {
    this.#handle = handle;
    this.#finished = finished;
    this.supersteps = finished.supersteps;
    this.vertices = finished.vertices;
    this.edges = finished.edges;
    this.attempts = finished.attempts;
    this.sums = finished.totals?.sums ?? [];
    this.explain = explain;
  }

  /** The value of one vertex; undefined when it was not in the graph, or is not any more. @throws {ShardloomError} `ERR_CLOSED`. */
  async get(key: VertexKey): Promise<Value | undefined> {
    checkKey("get result", "key", key);
    const shard = ownerOfHash(hashOfKey(key), this.#handle.options.shards);
    const { fields, keys } = await this.#page(shard, { from: 0, count: 1, key });
    return keys.length === 0 ? undefined : this.#value(fields, 0);
  }

  /** All vertices, shard by shard. @throws {ShardloomError} `ERR_CLOSED`. */
  async *[Symbol.asyncIterator](): AsyncIterator<VertexValue<Value>> {
    for (const shard of this.#handle.options.members.keys()) {
      for (let from = 0; from >= 0; ) {
        const { keys, fields, next } = await this.#page(shard, { from, count: PAGE });
        for (let at = 0; at < keys.length; at++) yield { key: keys[at] as VertexKey, value: this.#value(fields, at) };
        if (next === from)
          throw new ShardloomError("ERR_RECORD_TOO_LARGE", "Cannot read results as one does not fit a reply");
        from = next;
      }
    }
  }

  /** Everything, by key. */
  async toMap(): Promise<Map<VertexKey, Value>> {
    const map = new Map<VertexKey, Value>();
    for await (const { key, value } of this) map.set(key, value);
    return map;
  }

  /** Lets the shards forget it. Idempotent. */
  async close(): Promise<void> {
    const { collection } = this.#handle;
    try {
      this.#handle.assertOpen();
    } catch (error) {
      if (ShardloomError.from(error).code === "ERR_UNKNOWN_COLLECTION") return; // it was forgotten with the graph
      throw error;
    }
    await askAll(this.#handle, GRAPH_COMPLETE, () => ({ collection, run: this.#finished.run, keep: false }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #page(shard: number, part: Pick<ResultsRequest, "from" | "count" | "key">): Promise<ResultsPage> {
    this.#handle.assertOpen();
    const body: ResultsRequest = { collection: this.#handle.collection, run: this.#finished.run, ...part };
    return askAgain(this.#handle, () =>
      askShard(this.#handle, shard, GRAPH_RESULTS, body, undefined, (frame) =>
        readResults(frame, (offset, length) => codec.decode(frame.bytes, offset, length)),
      ),
    );
  }

  #value(fields: readonly Float64Array[], at: number): Value {
    const { names } = this.#finished;
    if (names.length === 1) return fields[0]?.[at] as Value;
    return Object.fromEntries(names.map((name, field) => [name, fields[field]?.[at]])) as Value;
  }
}
