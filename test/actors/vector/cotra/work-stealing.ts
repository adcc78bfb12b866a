/**
 * Workers of one node that take over each other's tasks: the model of the hook in compute-task.ts, in one thread.
 *
 * Each round a worker computes a number of distances: first of its own queue, oldest first; when that is empty, of the longest queue of
 * another, newest first. A thief reads the codes one-sidedly through its own view; where the owner exposes none, it gives the task back.
 */
import type { ComputePool, ComputeTask } from "../../../../actors/vector/cotra/compute-task.ts";
import type { CotraShard } from "../../../../actors/vector/cotra/cotra-shard.ts";
import { type GraphView, NOT_EXPOSED } from "../../../../actors/vector/cotra/graph-view.ts";

export interface WorkersOptions {
  readonly views: readonly GraphView[];
  /** Distances that a worker computes in a round. */
  readonly capacity: number;
  readonly steal: boolean;
  /** Told when a worker takes a foreign task: whether it dies with it. */
  readonly diesWith?: (task: ComputeTask) => boolean;
}

export class Workers {
  /** Distances that each worker computed, for whomever. */
  readonly computed: number[];
  stolen = 0;
  /** Tasks that died with their thief, or that it could not read. */
  abandoned = 0;
  readonly #options: WorkersOptions;
  readonly #queues: ComputeTask[][];
  /** Distances that a worker computed ahead of its capacity. */
  readonly #debt: number[];

  constructor(options: WorkersOptions) {
    this.#options = options;
    this.#queues = options.views.map(() => []);
    this.#debt = options.views.map(() => 0);
    this.computed = options.views.map(() => 0);
  }

  poolOf(shard: number): ComputePool {
    return {
      submit: (task) => {
        this.#queues[shard]?.push(task);
        return false;
      },
    };
  }

  /** One round of work. @returns Whether anything is left or was done. */
  advance(shards: readonly CotraShard[]): boolean {
    let moved = false;
    shards.forEach((_, worker) => {
      let left = this.#options.capacity - (this.#debt[worker] as number);
      for (let task = left > 0 ? this.#take(worker) : undefined; task !== undefined; ) {
        moved = true;
        left -= this.#compute(worker, task, shards[task.partition] as CotraShard);
        task = left > 0 ? this.#take(worker) : undefined;
      }
      this.#debt[worker] = Math.max(0, -left);
    });
    return moved || this.#debt.some((debt) => debt > 0) || this.#queues.some((queue) => queue.length > 0);
  }

  #take(worker: number): ComputeTask | undefined {
    const own = this.#queues[worker]?.shift();
    if (own !== undefined || !this.#options.steal) return own;
    const longest = this.#queues.reduce((a, b) => (b.length > a.length ? b : a));
    return longest.pop();
  }

  #compute(worker: number, task: ComputeTask, owner: CotraShard): number {
    const foreign = task.partition !== worker;
    if (foreign) this.stolen++;
    const { query, partition, vertices, distances } = task;
    const count = vertices.length;
    const view = this.#options.views[worker] as GraphView;
    const dies = foreign && this.#options.diesWith?.(task) === true;
    if (dies || (foreign && view.pull(query, partition, vertices, count, distances) === NOT_EXPOSED)) {
      this.abandoned++;
      owner.complete(task.id, false);
      return 0;
    }
    if (!foreign) view.distances(query, vertices, count, distances);
    this.computed[worker] = (this.computed[worker] as number) + count;
    owner.complete(task.id, true);
    return count;
  }
}
