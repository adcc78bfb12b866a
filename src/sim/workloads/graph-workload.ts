/**
 * Graphs: each client changes a graph of its own and asks about it, all algorithms, a vertex program and some traversals, pushed and pulled.
 *
 * Rules: every answer is that of a plain, unsharded algorithm over what the graph must hold; where workers alone go wrong no run ends for it, nor
 * repeats what it has saved; and no run is left behind. A graph lies in one node's memory, so the world must have one node; what a change has left undone nobody knows, so
 * the graph is loaded anew after one that failed.
 */
import type { Graph } from "../../../actors/graph/client-graph.ts";
import type { GraphResult } from "../../../actors/graph/client-run.ts";
import type { RunOptions, RunProgress } from "../../../actors/graph/run-options.ts";
import type { Cluster } from "../../cluster.ts";
import { invalidArgument, ShardloomError } from "../../errors.ts";
import type { Violation } from "../history-types.ts";
import type { Operation, Workload, WorkloadRef } from "../workload-types.ts";
import {
  changed,
  DAMPING,
  differences,
  drawChange,
  drawQuestion,
  expectedAnswer,
  type GraphChange,
  type GraphModel,
  type GraphQuestion,
  HOPS,
  QUESTIONS,
  resolveChange,
  vertexAt,
} from "./graph-model.ts";
import { type AlarmState, alarm, alarmNumber } from "./graph-program.ts";
import { type GraphAnswer, judgeGraphs } from "./graph-rules.ts";
import { type LoadOptions, spread } from "./spread.ts";

/** Options of {@link graphWorkload}. */
export interface GraphWorkloadOptions extends LoadOptions {
  /** Keys of each graph, `1..1000`. @default 40 */
  readonly vertices?: number;
  /** Share of operations that change a graph, in `[0, 1]`. @default 0.2 */
  readonly changes?: number;
  /** Deadline of each operation in simulated ms. @default 20000 */
  readonly timeoutMs?: number;
}

/** Algorithms over graphs that change. */
export function graphWorkload(options: GraphWorkloadOptions = {}): WorkloadRef {
  return { module: import.meta.url, export: "createGraphWorkload", options };
}

/** Results that could not be closed give way to others after this. */
const RESULT_IDLE_MS = 1_000;

/** The workload itself, made inside a world by its reference. @public */
export function createGraphWorkload(options: GraphWorkloadOptions = {}): Workload {
  const { vertices = 40, changes = 0.2, timeoutMs = 20_000 } = options;
  if (!Number.isInteger(vertices) || vertices < 1 || vertices > 1000)
    throw invalidArgument("create graph workload", "vertices", "an integer in [1, 1000]", vertices);
  if (!(changes >= 0 && changes <= 1))
    throw invalidArgument("create graph workload", "changes", "a number in [0, 1]", changes);
  const clients = new Map<number, GraphClient>();
  const clientOf = (process: number): GraphClient => {
    const client = clients.get(process) ?? new GraphClient(process, timeoutMs);
    clients.set(process, client);
    return client;
  };
  return {
    name: "graph",
    actors: [new URL("./graph-program.js", import.meta.url)],
    generate: (random, shape) => {
      if (shape.nodes !== 1)
        throw invalidArgument("create graph workload", "nodes", "1, as a graph lies in one node's memory", shape.nodes);
      const begun = new Set<number>();
      return spread(random, shape, options, (stream, process) => {
        const isFirst = !begun.has(process);
        begun.add(process);
        if (isFirst || stream.float() < changes) return { f: "change", value: drawChange(stream, vertices, isFirst) };
        return { f: "ask", value: drawQuestion(stream) };
      });
    },
    async invoke({ f, value }: Operation, { process, cluster }) {
      const client = clientOf(process);
      return f === "change"
        ? client.change(cluster, value as GraphChange)
        : client.ask(cluster, value as GraphQuestion);
    },
    async check({ history, faults, nodes }) {
      const violations = judgeGraphs(
        history,
        faults.map(({ kind }) => kind),
      );
      for (const { cluster } of nodes)
        for (const client of clients.values()) violations.push(...(await client.audit(cluster)));
      return violations;
    },
  };
}

/** A client process with its graph, which it makes anew when nobody knows what is in it. */
class GraphClient {
  readonly #process: number;
  readonly #timeoutMs: number;
  readonly #graphs: WeakMap<Cluster, Graph> = new WeakMap();
  #model: GraphModel;
  #lives = 0;

  constructor(process: number, timeoutMs: number) {
    this.#process = process;
    this.#timeoutMs = timeoutMs;
    this.#model = { directed: process % 2 === 0, keys: new Set(), edges: [] };
  }

  async change(cluster: Cluster, change: GraphChange): Promise<GraphAnswer> {
    const graph = await this.#open(cluster);
    try {
      const { pairs, gone, add } = resolveChange(this.#model, change);
      const { next, cut } = changed(this.#model, change);
      const wait = { timeoutMs: this.#timeoutMs };
      const wrong: string[] = [];
      const expect = (what: string, found: number, count: number): void => {
        if (found !== count) wrong.push(`${found} ${what} went instead of ${count}`);
      };
      if (pairs.length > 0)
        expect(
          "edges",
          await graph.removeEdges(
            pairs.map(([source, target]) => ({ source, target })),
            wait,
          ),
          cut,
        );
      if (gone.length > 0) expect("vertices", await graph.removeVertices(gone, wait), gone.length);
      await graph.addEdges(
        add.map(([source, target, weight]) => ({ source, target, weight })),
        { ...wait, createMissing: true },
      );
      this.#model = next;
      return { wrong, attempts: 0 };
    } catch (error) {
      await this.#abandon(cluster, graph);
      throw error;
    }
  }

  async ask(cluster: Cluster, question: GraphQuestion): Promise<GraphAnswer> {
    const graph = await this.#open(cluster).catch((error: unknown) => ShardloomError.from(error).code);
    if (typeof graph === "string") return { wrong: [], attempts: 0, unread: graph };
    if (this.#model.keys.size === 0) return { wrong: [], attempts: 0 };
    const expected = expectedAnswer(this.#model, question);
    const traversed = await this.#traverse(graph, question);
    if (traversed !== undefined) return { wrong: differences(traversed, expected), attempts: 0 };
    const losses = new Losses(question);
    const result = await this.#run(graph, question, (progress) => losses.told(progress));
    const known = { attempts: result.attempts, ...losses.of(result) };
    try {
      const wrong = [...this.#sizes(result), ...differences(numbersOf(await result.toMap()), expected)];
      return { ...known, wrong };
    } catch (error) {
      return { ...known, wrong: [], unread: ShardloomError.from(error).code };
    } finally {
      await result.close().catch(() => undefined); // then it gives way to another
    }
  }

  /** Once everything has healed: all answers, and nothing left of the runs that ended badly. */
  async audit(cluster: Cluster): Promise<Violation[]> {
    const violations: Violation[] = [];
    const say = (rule: string, message: string): void => {
      violations.push({ rule, message: `process ${this.#process}: ${message}`, entries: [] });
    };
    for (const name of QUESTIONS) {
      const question = { name, exchange: "auto", checkpointEvery: 0, iterations: 8, from: 1, to: 2 } as const;
      try {
        const { wrong, unread } = await this.ask(cluster, question);
        if (wrong.length > 0) say("answers are those of the reference", `${name} at the end: ${wrong.join(", ")}`);
        if (unread !== undefined) say("nothing fails without a cause", `${name} at the end ended with ${unread}`);
      } catch (error) {
        say("nothing fails without a cause", `${name} at the end: ${ShardloomError.from(error).message}`);
      }
    }
    const left = (await (await this.#open(cluster)).status()).map(({ runs }) => runs);
    if (left.some((runs) => runs > 0)) say("no run is left behind", `the shards have ${left.join(", ")} runs`);
    return violations;
  }

  async #open(cluster: Cluster): Promise<Graph> {
    const known = this.#graphs.get(cluster);
    if (known !== undefined) return known;
    const { directed, keys, edges } = this.#model;
    const graph = await cluster.graph(`graph-${this.#process}-${this.#lives++}`, { directed, weighted: true });
    try {
      await graph.addVertices([...keys], { timeoutMs: this.#timeoutMs });
      await graph.addEdges(
        edges.map(([source, target, weight]) => ({ source, target, weight })),
        { timeoutMs: this.#timeoutMs },
      );
    } catch (error) {
      await this.#abandon(cluster, graph);
      throw error;
    }
    this.#graphs.set(cluster, graph);
    return graph;
  }

  async #abandon(cluster: Cluster, graph: Graph): Promise<void> {
    this.#graphs.delete(cluster);
    await cluster.dropGraph(graph.name).catch(() => undefined); // the next has another name
  }

  async #traverse(graph: Graph, { name, from, to }: GraphQuestion): Promise<Map<unknown, number> | undefined> {
    const wait = { timeoutMs: this.#timeoutMs };
    const [source, target] = [vertexAt(this.#model, from) as number, vertexAt(this.#model, to) as number];
    switch (name) {
      case "kHop":
        return new Map((await graph.kHop([source], { ...wait, hops: HOPS })).depths);
      case "path":
        return new Map([[target, (await graph.shortestPath(source, target, { ...wait, weighted: true })).distance]]);
      case "triangles":
        return new Map([[0, (await graph.countTriangles(wait)).triangles]]);
      default:
        return undefined;
    }
  }

  #run(
    graph: Graph,
    { name, exchange, checkpointEvery, iterations, from }: GraphQuestion,
    onProgress: NonNullable<RunOptions["onProgress"]>,
  ): Promise<GraphResult<number | AlarmState>> {
    const options = { exchange, checkpointEvery, timeoutMs: this.#timeoutMs, resultIdleMs: RESULT_IDLE_MS, onProgress };
    const source = vertexAt(this.#model, from) as number;
    switch (name) {
      case "pageRank":
        return graph.pageRank({ ...options, damping: DAMPING, iterations });
      case "cdlp":
        return graph.cdlp({ ...options, iterations });
      case "bfs":
        return graph.bfs({ ...options, source });
      case "sssp":
        return graph.sssp({ ...options, source });
      case "lcc":
        return graph.lcc(options);
      case "program":
        return graph.run<AlarmState>(alarm, {}, options);
      default:
        return graph.wcc(options);
    }
  }

  #sizes({ vertices, edges }: Pick<GraphResult, "vertices" | "edges">): string[] {
    const { keys, edges: known } = this.#model;
    if (vertices === keys.size && edges === known.length) return [];
    return [`${vertices} vertices and ${edges} edges instead of ${keys.size} and ${known.length}`];
  }
}

/** Of what a run tells of its supersteps: in which of them it was broken, and where it went on. */
class Losses {
  readonly #every: number;
  readonly #all: { readonly broken: number; readonly saved: number; readonly from: number }[] = [];
  #last: Pick<RunProgress, "superstep" | "attempt"> = { superstep: -1, attempt: 1 };
  #saved = -1;

  constructor({ checkpointEvery }: GraphQuestion) {
    this.#every = checkpointEvery;
  }

  told(progress: RunProgress): void {
    const { superstep, attempt } = progress;
    if (attempt > this.#last.attempt) {
      this.#all.push({ broken: this.#last.superstep + 1, saved: this.#saved, from: superstep });
      this.#saved = Math.min(this.#saved, superstep - 1);
    }
    if (superstep > 0 && superstep % this.#every === 0) this.#saved = superstep;
    this.#last = progress;
  }

  /** A run that was broken behind its last superstep had been told to keep its result alone. */
  of({ supersteps }: Pick<GraphResult, "supersteps">): Required<Pick<GraphAnswer, "broken" | "resumed">> {
    return {
      broken: this.#all.map(({ broken }) => broken),
      resumed: this.#all.filter(({ broken }) => broken < supersteps).map(({ saved, from }) => ({ saved, from })),
    };
  }
}

function numbersOf(values: ReadonlyMap<unknown, number | AlarmState>): Map<unknown, number> {
  return new Map([...values].map(([key, value]) => [key, typeof value === "number" ? value : alarmNumber(value)]));
}
