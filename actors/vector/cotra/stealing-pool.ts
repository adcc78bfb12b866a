/**
 * Where the distances of a shard's own vertices are computed: here, or by workers that have nothing else to do.
 *
 * Invariant: each task is completed once, whoever computes it. What is soon done is computed here; of more, the surplus is put up on this worker's
 * board, from where it takes back what nobody takes. One that was taken is waited for until the next tick, or the loss of its thief, and
 * is computed here then. Thieves need nothing but the node's memory: a task says where the records lie.
 * Source: the local queue with work stealing of CoTra. Divergence: across workers, since each has one thread.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import type { TaskBoard, TaskSlot } from "../../../native-bridge/task-board.ts";
import { TASK_BYTES, TASK_WORDS } from "../../../native-bridge/task-board.ts";
import type { GraphGeometry } from "../../../src/store/graph-layout.ts";
import type { PeerWorker } from "../../engine.ts";
import type { ArenaView } from "./arena-view.ts";
import type { ComputePool, ComputeTask } from "./compute-task.ts";
import type { RecordDistances } from "./record-distances.ts";

/** Distances that a worker keeps for itself, some ten microseconds of them: who takes over less reads codes for nothing. */
const KEPT_DISTANCES = 128;
/** Tasks that are put up from which on others are woken. */
const WAKE_AT = 4;

/** Words of a slot's head. */
const COUNT = 0;
const METRIC = 1;
const ELEMENT = 2;
const DIMENSIONS = 3;
const CODE_OFFSET = 4;
const CODE_BYTES = 5;

interface Pending {
  readonly task: ComputeTask;
  readonly view: ArenaView;
  readonly complete: (id: number, stolen: boolean) => void;
}

interface Posted extends Pending {
  readonly slot: TaskSlot;
}

export class StealingPool {
  /** Tasks that others computed for this worker, that it computed for others, and that it gave up waiting for. */
  readonly counters = { stolen: 0, taken: 0, abandoned: 0 };
  readonly #self: number;
  readonly #arena: Arena;
  readonly #distances: RecordDistances;
  readonly #board: TaskBoard;
  readonly #peers = new Map<number, PeerWorker>();
  #queue: Pending[] = [];
  #posted: Posted[] = [];
  readonly #records: Uint32Array = new Uint32Array(TASK_WORDS);
  readonly #computed: Float64Array = new Float64Array(TASK_WORDS);
  readonly #query: Uint8Array = new Uint8Array(TASK_BYTES);

  constructor(self: number, arena: Arena, distances: RecordDistances, board: TaskBoard) {
    this.#self = self;
    this.#arena = arena;
    this.#distances = distances;
    this.#board = board;
  }

  /** The pool of one collection. */
  poolOf(view: ArenaView, complete: (id: number, stolen: boolean) => void): ComputePool {
    return {
      submit: (task) => {
        if (task.vertices.length > TASK_WORDS || task.query.length > TASK_BYTES) {
          view.distances(task.query, task.vertices, task.vertices.length, task.distances);
          return true;
        }
        this.#queue.push({ task, view, complete });
        return false;
      },
    };
  }

  /** Tasks that are not completed. */
  get open(): number {
    return this.#queue.length + this.#posted.length;
  }

  /** Computes what waits, and takes in what others have computed. @returns Whether there was anything */
  run(): boolean {
    if (this.#queue.length === 0 && this.#posted.length === 0) return false;
    const own = this.#queue;
    this.#queue = [];
    const surplus = this.#peers.size > 0 ? this.#post(own) : 0;
    if (surplus >= WAKE_AT) for (const { bell } of this.#peers.values()) bell.ring();
    let worked = own.length > 0;
    for (const pending of own) this.#compute(pending);
    // From the end: those that thieves look at last.
    const posted = this.#posted;
    this.#posted = [];
    for (const one of posted) {
      if (this.#board.takeBack(one.slot)) this.#compute(one);
      else if (!this.#collect(one)) {
        this.#posted.push(one);
        continue;
      }
      worked = true;
    }
    return worked;
  }

  /** Takes over one task of another worker. @returns Whether there was one */
  steal(): boolean {
    for (const { board, bell } of this.#peers.values()) {
      const slot = board.mayHaveTasks ? board.take(this.#self) : undefined;
      if (slot === undefined) continue;
      this.#computeFor(slot);
      this.counters.taken++;
      if (board.done(slot, this.#self)) bell.ring();
      return true;
    }
    return false;
  }

  /** Computes what is still on its way at other workers: they may be held, or dead. */
  tick(): void {
    const posted = this.#posted;
    this.#posted = [];
    for (const one of posted) {
      if (!this.#board.abandon(one.slot)) {
        this.#posted.push(one);
        continue;
      }
      this.counters.abandoned++;
      this.#compute(one);
    }
  }

  peerLost(peer: number): void {
    this.#peers.delete(peer);
    this.tick();
    this.#board.freeAbandoned(peer);
  }

  peerBack(peer: number, there: PeerWorker): void {
    this.#peers.set(peer, there);
  }

  /** Puts up what can be. `own` keeps the rest. @returns How many */
  #post(own: Pending[]): number {
    let posted = 0;
    let distances = own.reduce((sum, { task }) => sum + task.vertices.length, 0);
    while (distances > KEPT_DISTANCES && own.length > 1) {
      const slot = this.#board.free();
      const geometry = own.at(-1)?.view.geometry;
      if (slot === undefined || geometry === undefined) break;
      const pending = own.pop() as Pending;
      distances -= pending.task.vertices.length;
      this.#fill(slot, geometry, pending);
      this.#board.put(slot);
      this.#posted.push({ ...pending, slot });
      posted++;
    }
    return posted;
  }

  #fill(slot: TaskSlot, geometry: GraphGeometry, { task, view }: Pending): void {
    const { vertices, query } = task;
    const { head } = slot;
    head[COUNT] = vertices.length;
    head[METRIC] = geometry.metric;
    head[ELEMENT] = geometry.element;
    head[DIMENSIONS] = geometry.dimensions;
    head[CODE_OFFSET] = geometry.codeOffset;
    head[CODE_BYTES] = geometry.codeBytes;
    for (let at = 0; at < vertices.length; at++) slot.in[at] = view.usedRecordOf(vertices[at] as number);
    slot.bytes.set(query);
  }

  #compute({ task, view, complete }: Pending): void {
    view.distances(task.query, task.vertices, task.vertices.length, task.distances);
    complete(task.id, false);
  }

  #collect({ slot, task, complete }: Posted): boolean {
    if (!this.#board.isDone(slot)) return false;
    task.distances.set(slot.out.subarray(0, task.vertices.length));
    this.#board.release(slot);
    this.counters.stolen++;
    complete(task.id, true);
    return true;
  }

  /** Whatever a slot holds: nothing outside of the arena is read. */
  #computeFor(slot: TaskSlot): void {
    const [count = 0, metric = 0, element = 0, dimensions = 0, codeOffset = 0, codeBytes = 0] = slot.head;
    const end = this.#arena.capacityBytes - codeOffset - codeBytes;
    const places: number[] = [];
    for (let at = 0; at < Math.min(count, TASK_WORDS); at++) {
      const record = slot.in[at] as number;
      slot.out[at] = Number.NaN;
      if (record === 0 || record > end || codeBytes > TASK_BYTES || dimensions > codeBytes * 8) continue;
      this.#records[places.length] = record;
      places.push(at);
    }
    this.#query.set(slot.bytes);
    const shape = { metric, element, dimensions, codeOffset, codeBytes };
    const query = this.#query.subarray(0, codeBytes);
    this.#distances.compute(shape, query, this.#records, places.length, this.#computed);
    for (const [at, place] of places.entries()) slot.out[place] = this.#computed[at] as number;
  }
}
