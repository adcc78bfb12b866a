/**
 * One life of a cluster that is to be killed: says what it has found, then writes until it dies. See test/support/kill-nine.ts.
 */
import { writeSync } from "node:fs";
import {
  Cluster,
  type ClusterOptions,
  ShardloomError,
  type TextCollection,
  type VectorCollection,
} from "../../src/index.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import {
  type Batch,
  batchWord,
  COMMON,
  DIMENSIONS,
  type Found,
  idWord,
  KEYS,
  type Kind,
  type Life,
  type Line,
  textOf,
  vectorOf,
} from "../support/kill-nine.ts";

/** Writers of each kind; each has the ids that leave its number when divided by so many. */
const WRITERS = 3;
const MOST_IDS = 48;
/** Documents that are searched for one by one after a start. */
const SAMPLES = 12;
/** Nothing here is about time: a machine under load is waited for. */
const PATIENCE_MS = 60_000;
const NATS_LEASE_MS = 1_500;
const NATS_CALL_MS = 2_000;

const life = JSON.parse(process.argv[2] ?? "") as Life;
const random = createSeededRandom(life.seed);
let lastBatch = life.firstBatch - 1;

const kept: ClusterOptions =
  life.nats === undefined
    ? { ...(life.directory === undefined ? {} : { directory: life.directory }), durability: life.durability }
    : { nats: { servers: [life.nats], timeoutMs: NATS_CALL_MS } };
const cluster = await Cluster.start({
  ...kept,
  replicationFactor: life.replicationFactor,
  snapshotBytes: life.snapshotBytes,
  workers: 2,
  vshards: 16,
  memoryBytes: 128 * 1024 * 1024,
  requestTimeoutMs: life.patienceMs ?? PATIENCE_MS,
  startTimeoutMs: PATIENCE_MS,
  // Failover has its own tests: here every death is the whole process's, and in NATS the next one waits for the lease.
  leaseMs: life.nats === undefined ? PATIENCE_MS : NATS_LEASE_MS,
  suspectMs: 30_000,
  maxHandlerMs: PATIENCE_MS,
});
const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", scanRows: 20 });
const notes = await cluster.text("notes", { fields: ["body"] });
say({ type: "found", found: await look() });
for (let writer = 0; writer < WRITERS; writer++) {
  void write("vectors", writer, createSeededRandom(random.u32()));
  void write("texts", writer, createSeededRandom(random.u32()));
}

/** Goes through the pipe before it returns: what was said is known, whatever happens then. */
function say(line: Line): void {
  writeSync(1, `${JSON.stringify(line)}\n`);
}

async function write(kind: Kind, writer: number, chance: Random): Promise<void> {
  const own = Array.from({ length: KEYS / WRITERS }, (_, at) => at * WRITERS + writer);
  for (;;) {
    const ids = [
      ...new Set(Array.from({ length: 1 + (chance.u32() % MOST_IDS) }, () => own[chance.u32() % own.length] as number)),
    ];
    const batch = {
      batch: ++lastBatch,
      kind,
      deletes: chance.float() < 0.2,
      ids,
      shards: ids.map((id) => cluster.shardOfId(id)),
    };
    say({ type: "begin", batch });
    try {
      await send(batch);
    } catch (error) {
      // In doubt, as are all later batches of this writer: it writes no more.
      say({ type: "failed", batch: batch.batch, code: ShardloomError.from(error).code });
      return;
    }
    say({ type: "acknowledged", batch: batch.batch });
  }
}

async function send({ batch, kind, deletes, ids }: Batch): Promise<void> {
  if (kind === "vectors") {
    if (deletes) await docs.delete(ids);
    else
      await docs.upsert(
        ids.map((id) => ({ id, vector: vectorOf(id, batch), payload: { batch, filling: fillingOf(batch) } })),
      );
  } else if (deletes) await notes.delete(ids);
  else await notes.upsert(ids.map((id) => ({ id, fields: { body: textOf(id, batch) }, payload: { batch } })));
}

/** Now and then a batch that no disk takes in one piece. */
function fillingOf(batch: number): string {
  return "x".repeat(batch % 7 === 0 ? 4_000 : 0);
}

async function look(): Promise<Found> {
  const problems: string[] = [];
  const vectors = await lookAtVectors(docs, problems);
  const texts = await lookAtTexts(notes, problems);
  if (life.replicationFactor > 1) {
    const { equal, differing, behind, silent } = await cluster.audit({ timeoutMs: PATIENCE_MS });
    if (!equal) problems.push(`audit: ${differing} copies differ, ${behind} are behind, ${silent} silent`);
  }
  return { vectors, texts, problems };
}

/** Documents by get; search of both sorts, and the count, must agree with them. */
async function lookAtVectors(collection: VectorCollection, problems: string[]): Promise<Record<string, number>> {
  const found = new Map<number, number>();
  const all = Array.from({ length: KEYS }, (_, id) => id);
  for (const document of await collection.getMany(all)) {
    if (document === undefined) continue;
    const [id, batch] = [document.id as number, document.payload?.["batch"] as number];
    found.set(id, batch);
    if (!sameVector(document.vector, vectorOf(id, batch))) problems.push(`vector ${id} is not that of batch ${batch}`);
  }
  const count = await collection.count();
  if (count !== found.size) problems.push(`count of vectors is ${count}, ids are ${found.size}`);
  await collection.indexed();
  for (const exact of [true, false]) {
    const { hits } = await collection.search(new Float32Array(DIMENSIONS), { k: KEYS, ef: KEYS, exact });
    compareHits(exact ? "exact search" : "index", hits, found, exact ? 1 : 0.95, problems);
    for (const [id, batch] of samples(found)) {
      const [hit] = (await collection.search(vectorOf(id, batch), { k: 1, exact, ef: 256 })).hits;
      if (hit?.id !== id || hit.score > 1e-6 || hit.payload?.["batch"] !== batch)
        problems.push(
          `${exact ? "exact" : "index"} search for vector ${id} of batch ${batch} gives ${String(hit?.id)}`,
        );
    }
  }
  return Object.fromEntries(found);
}

async function lookAtTexts(collection: TextCollection, problems: string[]): Promise<Record<string, number>> {
  const found = new Map<number, number>();
  const all = Array.from({ length: KEYS }, (_, id) => id);
  for (const document of await collection.getMany(all)) {
    if (document === undefined) continue;
    const [id, batch] = [document.id as number, document.payload?.["batch"] as number];
    found.set(id, batch);
    if (document.fields?.["body"] !== textOf(id, batch)) problems.push(`text ${id} is not that of batch ${batch}`);
  }
  const count = await collection.count();
  if (count !== found.size) problems.push(`count of texts is ${count}, ids are ${found.size}`);
  compareHits("text search", (await collection.search(COMMON, { k: KEYS })).hits, found, 1, problems);
  for (const [id, batch] of samples(found)) {
    const ofBatch = new Map([...found].filter(([, other]) => other === batch));
    compareHits(
      `search for batch ${batch}`,
      (await collection.search(batchWord(batch), { k: KEYS })).hits,
      ofBatch,
      1,
      problems,
    );
    compareHits(
      `search for text ${id}`,
      (await collection.search(idWord(id), { k: KEYS })).hits,
      new Map([[id, batch]]),
      1,
      problems,
    );
  }
  return Object.fromEntries(found);
}

interface Hit {
  readonly id: string | number;
  readonly payload?: Readonly<Record<string, unknown>>;
}

/** Every hit must be a document as it is, none twice; and so large a share of the documents must be among them. */
function compareHits(
  what: string,
  hits: readonly Hit[],
  found: ReadonlyMap<number, number>,
  share: number,
  problems: string[],
): void {
  const ids = new Set(hits.map(({ id }) => id));
  if (ids.size !== hits.length) problems.push(`${what} gives ids twice`);
  for (const { id, payload } of hits)
    if (payload?.["batch"] !== found.get(id as number))
      problems.push(
        `${what} gives ${id} of batch ${String(payload?.["batch"])}, which is of ${found.get(id as number)}`,
      );
  if (ids.size < share * found.size) problems.push(`${what} gives ${ids.size} of ${found.size} documents`);
}

function samples(found: ReadonlyMap<number, number>): [number, number][] {
  const all = [...found];
  return all.length === 0
    ? []
    : Array.from({ length: SAMPLES }, () => all[random.u32() % all.length] as [number, number]);
}

function sameVector(one: Float32Array | undefined, other: Float32Array): boolean {
  return one?.length === other.length && one.every((value, at) => value === other[at]);
}
