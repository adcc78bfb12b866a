/**
 * Loading a graph from the client: vertices and edges in batches, grouped by the shard that owns them.
 *
 * Invariant: a batch is checked whole before its first message; its vertices are acknowledged before its edges are sent. At most
 * {@link MESSAGES_IN_FLIGHT} messages are unanswered, and the source is not asked for more meanwhile. After an error
 * `details` tells how much was acknowledged.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { GRAPH_EDGES, GRAPH_VERTICES } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import { type GraphHandle, sendList } from "./client-calls.ts";
import { setVertexProperties } from "./client-properties.ts";
import { type EncodedList, encodeList, LIST } from "./graph-messages.ts";
import { aborted, duplicate, placed, withDetails } from "./load-errors.ts";
import { checkKey, hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";
import type { PropertyColumns } from "./vertex-properties.ts";

const MESSAGES_IN_FLIGHT = 16;
/** How often one list of edges makes an end anew that somebody has removed since it was made. */
const MOST_ANEW = 256;
/** Most entries of one message, and bytes that a key may take as text. */
const MAX_ENTRIES = 8192;
const TEXT_BYTES = 520;
const OVERHEAD_BYTES = 64;

/** An edge. */
export interface GraphEdge {
  readonly source: VertexKey;
  readonly target: VertexKey;
  /** Finite; in weighted graphs only. @default 1 */
  readonly weight?: number;
  /** Finite numbers by the names that the graph was created with. @default it has none of them */
  readonly properties?: Readonly<Record<string, number>>;
}

/** Edges as columns: edge `i` leads from `sources[i]` to `targets[i]`. */
export interface GraphEdgeColumns {
  readonly sources: ArrayLike<VertexKey>;
  readonly targets: ArrayLike<VertexKey>;
  /** As long as the others; in weighted graphs only. @default 1 each */
  readonly weights?: ArrayLike<number> | undefined;
  /** Each as long as the others; NaN for an edge that has none. */
  readonly properties?: Readonly<Record<string, ArrayLike<number>>> | undefined;
}

/** Edges as objects or as columns; columns take less time. */
export type GraphEdges = readonly GraphEdge[] | GraphEdgeColumns;

/** A part of a graph to load: vertices and edges, or only one of them, as the readers of files give them. */
export type GraphBatch =
  | { readonly vertices?: ArrayLike<VertexKey>; readonly properties?: PropertyColumns; readonly edges?: GraphEdges }
  | { readonly keys: ArrayLike<VertexKey>; readonly properties?: PropertyColumns }
  | GraphEdgeColumns;

/** How far a load is. */
export interface GraphLoadProgress {
  /** Vertices and edges that were acknowledged; of vertices, those that were new. */
  readonly vertices: number;
  readonly edges: number;
}

/** Options of {@link Graph.load} and of the other writes. */
export interface GraphLoadOptions extends CallOptions {
  /**
   * Whether vertices that exist are left as they are, and ends of edges are made when they are missing, again when somebody removes them
   * before the edge is there; otherwise both are errors.
   * @default false
   */
  readonly createMissing?: boolean;
  /** Called after each batch that was acknowledged. */
  readonly onProgress?: (progress: GraphLoadProgress) => void;
}

/** Adds vertices. @returns how many were new */
export async function addVertices(
  handle: GraphHandle,
  keys: ArrayLike<VertexKey>,
  options: GraphLoadOptions,
): Promise<number> {
  const missing = options.createMissing === true;
  const seen = missing ? undefined : new Set<VertexKey>();
  const check = (at: number): void => {
    const key = checkKey("add vertex", "vertices", keys[at], at);
    if (seen?.has(key) === true) throw duplicate(key, at);
    seen?.add(key);
  };
  return sendVertices(handle, keys, missing ? LIST.IF_MISSING : 0, check, options);
}

/** Removes vertices. @returns how many there were */
export async function removeVertices(
  handle: GraphHandle,
  keys: ArrayLike<VertexKey>,
  options: CallOptions,
): Promise<number> {
  const check = (at: number): void => void checkKey("remove vertex", "vertices", keys[at], at);
  return sendVertices(handle, keys, LIST.REMOVE, check, options);
}

async function sendVertices(
  handle: GraphHandle,
  keys: ArrayLike<VertexKey>,
  flags: number,
  check: (at: number) => void,
  options: CallOptions,
): Promise<number> {
  const groups = groupsOf(handle);
  for (let at = 0; at < keys.length; at++) {
    check(at);
    (groups[ownerOf(handle, keys[at] as VertexKey)] as number[]).push(at);
  }
  const sends: (() => Promise<number>)[] = [];
  for (const [shard, group] of groups.entries()) {
    for (const part of partsOf(handle, group, 1, (at) => typeof keys[at] === "string")) {
      const column = part.map((at) => keys[at] as VertexKey);
      const list = encodeList(handle.collection, flags, { keys: [column] });
      sends.push(() => placed(part, () => sendList(handle, shard, GRAPH_VERTICES, list, options)));
    }
  }
  return sendAll(sends, "vertices", options.signal);
}

/** What is done with edges: they are added, or all between their ends are removed, or given other numbers. */
export type EdgeChange = "add" | "remove" | "set";

const EDGE_FLAGS: Readonly<Record<EdgeChange, number>> = { add: 0, remove: LIST.REMOVE, set: LIST.SET };

/** Adds or changes edges. @returns how many */
export async function sendEdges(
  handle: GraphHandle,
  edges: GraphEdges,
  options: GraphLoadOptions,
  change: EdgeChange,
): Promise<number> {
  return (await sendCounted(handle, edges, options, change)).edges;
}

/** @returns also how many of their ends were made */
async function sendCounted(
  handle: GraphHandle,
  edges: GraphEdges,
  options: GraphLoadOptions,
  change: EdgeChange,
): Promise<GraphLoadProgress> {
  const columns = columnsOf(edges, change);
  const groups = groupEdges(handle, columns, change);
  const values = change === "remove" ? [] : valuesOf(handle, columns, change);
  const creates = options.createMissing === true && change === "add";
  let vertices = creates ? await addVertices(handle, endsOf(columns), options) : 0;
  const sends: (() => Promise<number>)[] = [];
  for (const [shard, group] of groups.entries()) {
    for (const { list, part } of listsOf(handle, columns, values, group, EDGE_FLAGS[change])) {
      const send = (): Promise<number> => sendList(handle, shard, GRAPH_EDGES, list, options);
      const make = async (key: VertexKey): Promise<void> => {
        vertices += await addVertices(handle, [key], options);
      };
      sends.push(() => placed(part, () => (creates ? sendWithEnds(send, make) : send())));
    }
  }
  return { edges: await sendAll(sends, "edges", options.signal), vertices };
}

/** Edges that are to be added, as columns; what is wrong with them whatever the graph has is an error. */
export function checkedEdges(handle: GraphHandle, edges: GraphEdges): GraphEdgeColumns {
  const columns = columnsOf(edges, "add");
  groupEdges(handle, columns, "add");
  valuesOf(handle, columns, "add");
  return columns;
}

/** A list whose ends were made is refused whole when one of them was removed since: then it is made anew. */
async function sendWithEnds(send: () => Promise<number>, make: (missing: VertexKey) => Promise<void>): Promise<number> {
  for (let made = 0; ; made++) {
    try {
      return await send();
    } catch (error) {
      if (made === MOST_ANEW || !ShardloomError.is(error) || error.code !== "ERR_UNKNOWN_VERTEX") throw error;
      await make(error.details["vertex"] as VertexKey);
    }
  }
}

/** Places of edges by shard; `-1 - place` is an edge the other way round, as undirected ones are looked for at both ends. */
function groupEdges(handle: GraphHandle, columns: GraphEdgeColumns, change: EdgeChange): number[][] {
  const { sources, targets } = columns;
  const action = `${change} edge`;
  if (targets.length !== sources.length)
    throw invalidArgument(action, "columns", `of one length, ${sources.length}`, targets.length);
  const groups = groupsOf(handle);
  for (let at = 0; at < sources.length; at++) {
    const source = checkKey(action, "source", sources[at], at);
    const target = checkKey(action, "target", targets[at], at);
    (groups[ownerOf(handle, source)] as number[]).push(at);
    if (change !== "add" && !handle.options.directed && source !== target)
      (groups[ownerOf(handle, target)] as number[]).push(-1 - at);
  }
  return groups;
}

/** What edges carry, weights first, then properties in the order of the options; none: nothing was given. */
function valuesOf({ options }: GraphHandle, columns: GraphEdgeColumns, change: EdgeChange): ArrayLike<number>[] {
  const { sources, weights, properties = {} } = columns;
  const { weighted, edgeProperties } = options;
  if (weights !== undefined && !weighted)
    throw invalidArgument("add edge", "weights", "absent in a graph without weights", weights);
  for (const name of Object.keys(properties))
    if (!edgeProperties.includes(name))
      throw invalidArgument("add edge", "property", `one of ${edgeProperties.join(", ")}`, name);
  if (weights === undefined && Object.keys(properties).length === 0) return [];
  // NaN: an edge that is added has none, one that is set keeps what it has.
  const isNumber = (value: number): boolean => Number.isFinite(value) || Number.isNaN(value);
  const isWeight = change === "set" ? isNumber : (value: number): boolean => Number.isFinite(value);
  if (weights !== undefined) checkValues("weight", weights, sources.length, isWeight, "a finite number");
  const constant = (value: number): ArrayLike<number> => new Float64Array(sources.length).fill(value);
  const values = weighted ? [weights ?? constant(change === "set" ? Number.NaN : 1)] : [];
  for (const name of edgeProperties) {
    const given = properties[name];
    if (given !== undefined) checkValues(name, given, sources.length, isNumber, "a finite number, or NaN");
    values.push(given ?? constant(Number.NaN));
  }
  return values;
}

function checkValues(
  name: string,
  values: ArrayLike<number>,
  length: number,
  isGood: (value: number) => boolean,
  rule: string,
): void {
  if (values.length !== length) throw invalidArgument("add edge", "columns", `of one length, ${length}`, values.length);
  for (let at = 0; at < length; at++)
    if (!isGood(values[at] as number)) throw invalidArgument("add edge", `${name} of edge ${at}`, rule, values[at]);
}

function* listsOf(
  handle: GraphHandle,
  { sources, targets }: GraphEdgeColumns,
  values: readonly ArrayLike<number>[],
  group: readonly number[],
  flags: number,
): Generator<{ readonly list: EncodedList; readonly part: readonly number[] }> {
  const isText = (at: number): boolean => {
    const place = at < 0 ? -1 - at : at;
    return typeof sources[place] === "string" || typeof targets[place] === "string";
  };
  for (const part of partsOf(handle, group, 2 + values.length, isText)) {
    const end = (forth: ArrayLike<VertexKey>, back: ArrayLike<VertexKey>): VertexKey[] =>
      part.map((at) => (at < 0 ? back[-1 - at] : forth[at]) as VertexKey);
    const list = encodeList(handle.collection, flags, {
      keys: [end(sources, targets), end(targets, sources)],
      values: values.map((column) => part.map((at) => column[at < 0 ? -1 - at : at] as number)),
    });
    yield { list, part };
  }
}

function columnsOf(edges: GraphEdges, change: EdgeChange): GraphEdgeColumns {
  if (!Array.isArray(edges)) return edges as GraphEdgeColumns;
  const list = edges as readonly GraphEdge[];
  const weighted = list.some((edge) => edge?.weight !== undefined);
  const names = new Set(list.flatMap((edge) => Object.keys(edge?.properties ?? {})));
  const column = (name: string): number[] =>
    list.map(({ properties }, at) => {
      const value = properties?.[name];
      if (value === undefined) return Number.NaN;
      if (Number.isFinite(value)) return value;
      throw invalidArgument("add edge", `${name} of edge ${at}`, "a finite number", value);
    });
  return {
    sources: list.map((edge) => edge?.source),
    targets: list.map((edge) => edge?.target),
    weights: weighted ? list.map((edge, at) => weightOf(edge, at, change)) : undefined,
    properties: names.size === 0 ? undefined : Object.fromEntries([...names].map((name) => [name, column(name)])),
  };
}

function weightOf({ weight }: GraphEdge, at: number, change: EdgeChange): number {
  if (weight === undefined) return change === "set" ? Number.NaN : 1;
  if (Number.isFinite(weight)) return weight;
  throw invalidArgument(`${change} edge`, `weight of edge ${at}`, "a finite number", weight);
}

/** Loads batches of an iterable, one after the other. */
export async function loadBatches(
  handle: GraphHandle,
  source: Iterable<GraphBatch> | AsyncIterable<GraphBatch>,
  options: GraphLoadOptions,
): Promise<GraphLoadProgress> {
  const progress = { vertices: 0, edges: 0 };
  try {
    for await (const batch of source) {
      if (options.signal?.aborted === true) throw aborted(options.signal);
      const { vertices, properties, edges } = partsOfBatch(batch);
      progress.vertices += vertices === undefined ? 0 : await addVertices(handle, vertices, options);
      if (properties !== undefined) await setVertexProperties(handle, vertices ?? [], properties, options);
      const added = edges === undefined ? undefined : await sendCounted(handle, edges, options, "add");
      progress.vertices += added?.vertices ?? 0;
      progress.edges += added?.edges ?? 0;
      options.onProgress?.({ ...progress });
    }
  } catch (error) {
    throw ShardloomError.is(error) ? withDetails(error, { loaded: { ...progress } }) : error;
  }
  return progress;
}

function ownerOf({ options }: GraphHandle, key: VertexKey): number {
  return ownerOfHash(hashOfKey(key), options.shards);
}

interface BatchParts {
  readonly vertices?: ArrayLike<VertexKey>;
  readonly properties?: PropertyColumns;
  readonly edges?: GraphEdges;
}

function partsOfBatch(batch: GraphBatch): BatchParts {
  if (typeof batch !== "object" || batch === null)
    throw invalidArgument("load graph", "batch", "vertices and edges", batch);
  if ("sources" in batch) return { edges: batch };
  if (!("keys" in batch)) return batch;
  const { keys, properties } = batch;
  return { vertices: keys, ...(properties === undefined ? {} : { properties }) };
}

function groupsOf({ options }: GraphHandle): number[][] {
  return Array.from({ length: options.shards }, () => []);
}

function endsOf({ sources, targets }: GraphEdgeColumns): VertexKey[] {
  const ends = new Set<VertexKey>();
  for (let at = 0; at < sources.length; at++) ends.add(sources[at] as VertexKey).add(targets[at] as VertexKey);
  return [...ends];
}

/** Cuts a group into what a message can take. */
function* partsOf(
  { coordinator }: GraphHandle,
  group: readonly number[],
  columns: number,
  isText: (at: number) => boolean,
): Generator<readonly number[]> {
  const room = coordinator.maxBodyBytes - OVERHEAD_BYTES;
  const entries = Math.min(
    MAX_ENTRIES,
    Math.max(1, Math.floor(room / (columns * (group.some(isText) ? TEXT_BYTES : 8)))),
  );
  for (let from = 0; from < group.length; from += entries) yield group.slice(from, from + entries);
}

/** Runs calls, a few at a time. Waits for all that were made before it fails. */
async function sendAll(
  sends: readonly (() => Promise<number>)[],
  what: string,
  signal: AbortSignal | undefined,
): Promise<number> {
  let next = 0;
  let done = 0;
  let failure: ShardloomError | undefined;
  const one = async (): Promise<void> => {
    while (next < sends.length && failure === undefined) {
      if (signal?.aborted === true) failure = aborted(signal);
      else {
        try {
          const counted = await (sends[next++] as () => Promise<number>)();
          done += counted;
        } catch (error) {
          failure ??= ShardloomError.from(error);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(MESSAGES_IN_FLIGHT, sends.length) }, one));
  if (failure === undefined) return done;
  throw withDetails(failure, { [what]: done });
}
