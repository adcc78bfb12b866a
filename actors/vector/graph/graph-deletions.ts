/**
 * Deleted vertices of a partition on their way to being free: they wait for passes of repair, then rest for a grace time.
 *
 * Invariant: a vertex is handed out for freeing only once every partition has ended a pass that began after it was added, and for
 * being taken only `graceMs` after that. Owner thread only.
 */
import type { GraphRoot } from "./graph-root.ts";

/** Deleted together, and freed together once the passes have ended. */
interface Deletion {
  readonly vertices: number[];
  readonly passes: ReadonlyMap<number, number>;
}

interface Resting {
  readonly vertices: readonly number[];
  readonly sinceMs: number;
}

/** Milliseconds that a freed slot rests, unless a partition is told otherwise: longer than searches take that may still hold its id. */
export const GRACE_MS = 1000;
/** Deleted vertices that wait for one set of passes. */
const DELETION_BATCH = 4096;

export class GraphDeletions {
  readonly #root: GraphRoot;
  readonly #nowMs: () => number;
  readonly #graceMs: number;
  #waiting: Deletion[] = [];
  #resting: Resting[] = [];

  constructor(root: GraphRoot, nowMs: () => number, graceMs: number) {
    this.#root = root;
    this.#nowMs = nowMs;
    this.#graceMs = graceMs;
  }

  /** Vertices that wait for passes. */
  get count(): number {
    return this.#waiting.reduce((sum, { vertices }) => sum + vertices.length, 0);
  }

  add(vertices: readonly number[]): void {
    const passes = this.#root.passesToAwait();
    const last = this.#waiting.at(-1);
    const same = last !== undefined && last.vertices.length < DELETION_BATCH && samePasses(last.passes, passes);
    if (same) for (const vertex of vertices) last.vertices.push(vertex);
    else if (vertices.length > 0) this.#waiting.push({ vertices: [...vertices], passes });
  }

  /** The next vertices whose passes have ended; from now on they rest. */
  takeEnded(): readonly number[] | undefined {
    const [oldest] = this.#waiting;
    if (oldest === undefined || !this.#root.passesEnded(oldest.passes)) return undefined;
    this.#waiting.shift();
    this.rest(oldest.vertices);
    return oldest.vertices;
  }

  rest(vertices: readonly number[]): void {
    this.#resting.push({ vertices, sinceMs: this.#nowMs() });
  }

  /** The next vertices that have rested. */
  takeRested(): readonly number[] | undefined {
    const [oldest] = this.#resting;
    if (oldest === undefined || this.#nowMs() - oldest.sinceMs < this.#graceMs) return undefined;
    this.#resting.shift();
    return oldest.vertices;
  }

  clear(): void {
    this.#waiting = [];
    this.#resting = [];
  }
}

function samePasses(a: ReadonlyMap<number, number>, b: ReadonlyMap<number, number>): boolean {
  if (a.size !== b.size) return false;
  for (const [partition, pass] of a) if (b.get(partition) !== pass) return false;
  return true;
}
