/** One of several threads that place, link, delete and search in one graph; see graph-threads.test.ts. */
import { parentPort, workerData } from "node:worker_threads";
import type { RegionRef } from "../../../../native-bridge/region-table.ts";
import { generator } from "../../../native-bridge/memory-support.ts";
import { clusters, Site } from "./graph-support.ts";

export interface GraphWorkerData {
  readonly memory: WebAssembly.Memory;
  readonly root: RegionRef;
  readonly rows: RegionRef;
  readonly owner: number;
  readonly seed: number;
  readonly role: "build" | "churn" | "search";
  /** Rows [from, to) are this thread's. */
  readonly from: number;
  readonly to: number;
  /** Word 0: number of threads that are ready; word 1: 1 when all must stop. */
  readonly control: SharedArrayBuffer;
}

const data = workerData as GraphWorkerData;
const control = new Int32Array(data.control);
const site = Site.open(data.memory, data.root, data.rows, data.owner);
const randomU32 = generator(data.seed + data.owner);
const nextVector = clusters(data.seed, site.rows.dimensions);
for (let skip = 0; skip < data.owner * 1000; skip++) randomU32();

/** Places and links the documents of its rows, as a shard does with those that wait. */
function build(): unknown {
  const partition = site.partition(data.owner - 1);
  const writer = site.writer();
  let linked = 0;
  for (let row = data.from; row < data.to; row++) {
    const vertex = site.take(partition, row);
    while (!writer.insert(vertex)) partition.repairLocks(); // another thread is at its neighbours
    partition.markLinked(vertex);
    linked++;
  }
  const { skippedEdges } = writer;
  writer.close();
  return { linked, skippedEdges };
}

/** Adds and deletes its documents without pause, and sweeps. */
function churn(): unknown {
  const partition = site.partition(data.owner - 1);
  const writer = site.writer();
  const vertexOf = new Map<number, number>();
  let [added, deleted, freed, steps] = [0, 0, 0, 0];
  let isTold = false;
  for (; Atomics.load(control, 1) === 0; steps++) {
    const row = data.from + (randomU32() % (data.to - data.from));
    const vertex = vertexOf.get(row);
    if (vertex === undefined) {
      site.rows.put(row, nextVector());
      const fresh = site.take(partition, row);
      if (writer.insert(fresh)) partition.markLinked(fresh);
      vertexOf.set(row, fresh);
      added++;
    } else {
      site.rows.remove(row);
      partition.delete(vertex);
      vertexOf.delete(row);
      deleted++;
    }
    if (steps % 50 === 49) {
      const before = partition.deletedCount;
      partition.sweep((each) => writer.repair(each), performance.now() + 5);
      partition.freeDeleted();
      freed += before - partition.deletedCount;
      if (!isTold && freed > 100) {
        isTold = true;
        Atomics.add(control, 3, 1);
      }
    }
    if (steps === 200) Atomics.add(control, 0, 1);
  }
  writer.close();
  return { added, deleted, freed, rows: [...vertexOf.keys()] };
}

/** Searches without pause. A document that is deleted while a search runs may be found; one that was deleted before must not. */
function search(): unknown {
  const search = site.search(data.owner);
  const faults: string[] = [];
  let [searches, hits, statuses] = [0, 0, 0];
  const total = data.to;
  const gone = new Map<number, number>();
  Atomics.add(control, 0, 1);
  while (Atomics.load(control, 1) === 0) {
    gone.clear();
    for (let row = 0; row < total; row++) {
      const incarnation = site.rows.freeIncarnation(row);
      if (incarnation !== undefined) gone.set(row, incarnation);
    }
    const vector = nextVector();
    const result = search.search(site.root.ref, { code: site.codeOf(vector), vector }, 10, { ef: 40 });
    searches++;
    Atomics.add(control, 2, 1);
    if (result.status !== 0) statuses++;
    let last = Number.NEGATIVE_INFINITY;
    for (const hit of result.hits) {
      hits++;
      const row = site.rows.rowOf(hit.address);
      // Gone before, and in the same incarnation as when it was hit: it was found after its deletion.
      if (gone.get(row) === hit.incarnation) faults.push(`row ${row} was deleted before the search that found it`);
      if (!(hit.distance >= last)) faults.push(`distances ${last}, ${hit.distance} are out of order`);
      last = hit.distance;
    }
    if (new Set(result.hits.map(({ address }) => address)).size !== result.hits.length)
      faults.push("a document was found twice");
  }
  return { searches, hits, statuses, faults: faults.slice(0, 10) };
}

const ROLES = { build, churn, search } as const;
parentPort?.postMessage(ROLES[data.role]());
