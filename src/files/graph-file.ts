/**
 * Opens a graph in files, plain or gzip: LDBC's `NAME.v` and `NAME.e` (by either name, by `NAME`, or by `NAME.properties`), an edge list
 * `source target [weight]`, or CSV; and loads it.
 *
 * Invariant: the file's name decides the format, and a caller's `format` over it. No descriptor stays open: every call of `vertices` or
 * `edges` reads its file from the start. Where vertices are given, `edges` knows them only after `vertices` was read to its end.
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { CallOptions } from "../../actors/call-options.ts";
import type { Graph } from "../../actors/graph/client-graph.ts";
import type { GraphBatch, GraphLoadOptions, GraphLoadProgress } from "../../actors/graph/client-load.ts";
import { type EdgeTextOptions, readEdgeText } from "../../actors/graph/formats/edge-text.ts";
import type { EdgeBatch, VertexBatch } from "../../actors/graph/formats/graph-batch.ts";
import { KeySet } from "../../actors/graph/formats/key-set.ts";
import type { KeyKind } from "../../actors/graph/formats/text-fields.ts";
import type { TableFormat } from "../../actors/graph/formats/text-table.ts";
import { readVertexText } from "../../actors/graph/formats/vertex-text.ts";
import { invalidArgument, ShardloomError } from "../errors.ts";
import { ByteSource } from "./byte-source.ts";

export interface OpenGraphOptions {
  /** How both files are split. @default "csv" for a name that ends in `.csv`, else "list" */
  readonly format?: TableFormat | undefined;
  /** File of the vertices. @default beside an `.e` file the `.v` file, if there is one */
  readonly vertices?: string | undefined;
  /** @default "integer" for LDBC's files, else "auto" */
  readonly keys?: KeyKind | undefined;
  /** @default "auto" */
  readonly weights?: EdgeTextOptions["weights"];
  /** Rows of a batch, `1..1048576`. @default 8192 */
  readonly batchSize?: number | undefined;
  /** Whether duplicate vertices, and edges with ends that are no vertices, are errors; costs some 40 bytes a vertex. @default true */
  readonly check?: boolean | undefined;
}

/** A graph in files. */
export interface GraphFile {
  readonly edgePath: string;
  /** Undefined when only edges are given: then every end of an edge is a vertex. */
  readonly vertexPath: string | undefined;
  /** What `NAME.properties` says; undefined without one. */
  readonly directed: boolean | undefined;
  /** `NAME.properties` without its prefix `graph.NAME.`; empty without one. */
  readonly properties: ReadonlyMap<string, string>;
  /** Size of both files in bytes, compressed where they are. */
  byteLength(): number;
  /** Bytes read so far, of the files as they are. */
  bytesRead(): number;
  vertices(): AsyncGenerator<VertexBatch, void, undefined>;
  edges(): AsyncGenerator<EdgeBatch, void, undefined>;
}

/**
 * Opens a graph.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` no readable file. Reading throws what `readVertexText` and `readEdgeText` do, and
 *   `ERR_TRUNCATED` or `ERR_CORRUPT` for a gzip stream that ends early or does not decode.
 */
export async function openGraphFile(path: string, options: OpenGraphOptions = {}): Promise<GraphFile> {
  const { edgePath, vertexPath, properties } = await findFiles(path, options);
  const known = options.check === false || vertexPath === undefined ? undefined : new KeySet();
  const sizes = new Map<string, number>();
  for (const file of [edgePath, vertexPath]) {
    if (file === undefined) continue;
    await using source = await ByteSource.open(file);
    sizes.set(file, source.byteLength);
  }
  const read = new Map<string, ByteSource>();
  let isKnown = false;
  return {
    edgePath,
    vertexPath,
    directed: properties.has("directed") ? properties.get("directed") === "true" : undefined,
    properties,
    byteLength: () => [...sizes.values()].reduce((sum, bytes) => sum + bytes, 0),
    bytesRead: () => [...read.values()].reduce((sum, source) => sum + source.bytesRead, 0),
    async *vertices() {
      if (vertexPath === undefined) return;
      isKnown = false;
      known?.clear();
      const shared = textOptions(vertexPath, options);
      await using source = await reopen(vertexPath, read);
      yield* readVertexText(blocksOf(source), { ...shared, seen: known });
      isKnown = true;
    },
    async *edges() {
      if (known !== undefined && !isKnown) {
        const rule = `read after the vertices of ${vertexPath}, or with check: false`;
        throw invalidArgument("read graph", "edges", rule, edgePath);
      }
      const { weights } = options;
      await using source = await reopen(edgePath, read);
      yield* readEdgeText(blocksOf(source), { ...textOptions(edgePath, options), weights, vertices: known });
    },
  };
}

async function reopen(path: string, read: Map<string, ByteSource>): Promise<ByteSource> {
  const source = await ByteSource.open(path);
  read.set(path, source);
  return source;
}

async function* blocksOf(source: ByteSource): AsyncGenerator<Uint8Array, void, undefined> {
  while (await source.fill(1)) yield source.take(source.available);
}

/** How far the load of a file is. */
export interface GraphFileProgress extends GraphLoadProgress {
  /** Of the files as they are, compressed or not. */
  readonly bytesRead: number;
  readonly byteLength: number;
}

/** Options of {@link loadGraphFile}. */
export interface LoadGraphFileOptions extends CallOptions {
  /** Called after each batch that was acknowledged. */
  readonly onProgress?: (progress: GraphFileProgress) => void;
}

/**
 * Loads a graph of files into one of a cluster: vertices first; where the files name none, every end of an edge is one. Weights are left out
 * where the graph has none.
 *
 * @example
 * const file = await openGraphFile("wiki.properties");
 * const graph = await cluster.graph("wiki", { directed: file.directed ?? true });
 * await loadGraphFile(graph, file, { onProgress: ({ bytesRead, byteLength }) => show(bytesRead / byteLength) });
 *
 * @throws {ShardloomError} what reading throws, with `details.file` and `details.line`, and what `Graph.load` does, with `details.file`,
 *   `details.firstLine` and `details.lastLine` of the batch; `ERR_INVALID_ARGUMENT` for a file without weights where the graph has them.
 */
export async function loadGraphFile(
  graph: Graph,
  file: GraphFile,
  { onProgress, ...options }: LoadGraphFileOptions = {},
): Promise<GraphLoadProgress> {
  const { edgePath, vertexPath } = file;
  let done = { vertices: 0, edges: 0 };
  let place: Place | undefined;
  const load = async (batches: AsyncIterable<VertexBatch | EdgeBatch>, path: string, more: GraphLoadOptions) => {
    const before = done;
    const sum = ({ vertices, edges }: GraphLoadProgress): GraphLoadProgress => ({
      vertices: before.vertices + vertices,
      edges: before.edges + edges,
    });
    const told = (progress: GraphLoadProgress): void =>
      onProgress?.({ ...sum(progress), bytesRead: file.bytesRead(), byteLength: file.byteLength() });
    const placed = onWay(batches, graph.weighted, path, (next) => {
      place = next;
    });
    done = sum(await graph.load(placed, { ...options, ...more, onProgress: told }));
  };
  try {
    if (vertexPath !== undefined) await load(file.vertices(), vertexPath, {});
    await load(file.edges(), edgePath, { createMissing: vertexPath === undefined });
  } catch (error) {
    throw withPlace(error, place, done);
  }
  return done;
}

/** Lines of the batch that is being loaded. */
interface Place {
  readonly file: string;
  readonly firstLine: number;
  readonly lastLine: number;
}

async function* onWay(
  batches: AsyncIterable<VertexBatch | EdgeBatch>,
  weighted: boolean,
  file: string,
  at: (place: Place | undefined) => void,
): AsyncGenerator<GraphBatch> {
  for await (const batch of batches) {
    const { firstLine, lastLine } = batch;
    at({ file, firstLine, lastLine });
    if ("keys" in batch) yield { keys: batch.keys };
    else {
      const { sources, targets, weights } = batch;
      if (weighted && weights === undefined) throw invalidArgument("load graph", "edges", "edges with weights", file);
      yield { sources, targets, ...(weighted ? { weights } : {}) };
    }
    at(undefined); // what fails now is the file, which says where
  }
}

function withPlace(error: unknown, place: Place | undefined, before: GraphLoadProgress): unknown {
  if (!ShardloomError.is(error)) return error;
  const { code, message, retryable, details, cause } = error;
  const last = details["loaded"] as Partial<GraphLoadProgress> | undefined;
  const loaded = {
    vertices: before.vertices + (last?.vertices ?? 0),
    edges: before.edges + (last?.edges ?? 0),
  };
  return new ShardloomError(code, message, { retryable, details: { ...place, ...details, loaded }, cause });
}

function textOptions(
  path: string,
  { format, keys, batchSize }: OpenGraphOptions,
): { file: string; format: TableFormat; keys: KeyKind; batchSize: number | undefined } {
  return {
    file: path,
    format: format ?? (/\.csv(\.gz)?$/i.test(path) ? "csv" : "list"),
    keys: keys ?? (/\.[ev](\.gz)?$/.test(path) ? "integer" : "auto"),
    batchSize,
  };
}

interface Found {
  readonly edgePath: string;
  readonly vertexPath: string | undefined;
  readonly properties: ReadonlyMap<string, string>;
}

async function findFiles(path: string, options: OpenGraphOptions): Promise<Found> {
  if (path.endsWith(".properties")) return ofProperties(path, options);
  const ldbc = /^(.*)\.[ev](\.gz)?$/.exec(path)?.[1] ?? (existsSync(path) ? undefined : path);
  if (ldbc === undefined) return { edgePath: path, vertexPath: options.vertices, properties: new Map() };
  const edgePath = firstFile(`${ldbc}.e`) ?? path;
  return { edgePath, vertexPath: options.vertices ?? firstFile(`${ldbc}.v`), properties: new Map() };
}

/** `NAME.properties` of LDBC: lines `graph.NAME.key = value`. Some of LDBC's own name the vertex file as edge file too. */
async function ofProperties(path: string, options: OpenGraphOptions): Promise<Found> {
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    const message = `Cannot open file as path must be a readable file: current value is ${JSON.stringify(path)}`;
    throw new ShardloomError("ERR_INVALID_ARGUMENT", message, { details: { file: path }, cause });
  });
  const properties = new Map<string, string>();
  for (const line of text.split(/\r?\n/)) {
    const found = /^\s*graph\.([^=]+?)\s*=\s*(.*?)\s*$/.exec(line);
    if (found !== null) properties.set(withoutName(found[1] as string), found[2] as string);
  }
  const folder = dirname(path);
  const name = basename(path, ".properties");
  const vertexFile = join(folder, properties.get("vertex-file") ?? `${name}.v`);
  const edgeFile = join(folder, properties.get("edge-file") ?? `${name}.e`);
  const edgePath = edgeFile === vertexFile ? join(folder, `${name}.e`) : edgeFile;
  return {
    edgePath: firstFile(edgePath) ?? edgePath,
    vertexPath: options.vertices ?? firstFile(vertexFile),
    properties,
  };
}

/** `NAME.key` without the name, which has no dots in LDBC's files. */
function withoutName(key: string): string {
  return key.slice(key.indexOf(".") + 1);
}

function firstFile(path: string): string | undefined {
  return [path, `${path}.gz`].find((file) => existsSync(file));
}
