/**
 * The two heaps of a best-first search: candidates, nearest first, and the best found, farthest first and of bounded size.
 *
 * Invariant: both order by `(distance, vertex)`, a total order, so that what a search finds never depends on the order of arrival of
 * equal distances. Distances are finite float32, since that is what messages carry.
 */

/** Whether the first pair comes before the second. */
function isBefore(distanceA: number, vertexA: number, distanceB: number, vertexB: number): boolean {
  return distanceA < distanceB || (distanceA === distanceB && vertexA < vertexB);
}

/** A binary heap of pairs in two typed arrays; `sign` 1 = nearest first, −1 = farthest first. */
class PairHeap {
  protected vertices: Int32Array;
  protected keys: Float32Array;
  protected count = 0;
  readonly #sign: 1 | -1;

  protected constructor(capacity: number, sign: 1 | -1) {
    this.vertices = new Int32Array(capacity);
    this.keys = new Float32Array(capacity);
    this.#sign = sign;
  }

  get size(): number {
    return this.count;
  }

  /** Vertex of the first pair; the heap must not be empty. */
  get firstVertex(): number {
    return this.vertices[0] as number;
  }

  /** Distance of the first pair, infinity when there is none. */
  get firstDistance(): number {
    return this.count === 0 ? Number.POSITIVE_INFINITY : (this.keys[0] as number);
  }

  /** Removes the first pair. */
  pop(): void {
    this.count--;
    if (this.count > 0) this.#siftDown(this.vertices[this.count] as number, this.keys[this.count] as number);
  }

  protected insert(vertex: number, distance: number): void {
    if (this.count === this.vertices.length) this.#grow();
    let at = this.count++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#precedes(vertex, distance, parent)) break;
      this.#put(at, this.vertices[parent] as number, this.keys[parent] as number);
      at = parent;
    }
    this.#put(at, vertex, distance);
  }

  protected replaceFirst(vertex: number, distance: number): void {
    this.#siftDown(vertex, distance);
  }

  #siftDown(vertex: number, distance: number): void {
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.count) break;
      if (child + 1 < this.count) {
        const right = child + 1;
        if (this.#precedes(this.vertices[right] as number, this.keys[right] as number, child)) child = right;
      }
      if (this.#precedes(vertex, distance, child)) break;
      this.#put(at, this.vertices[child] as number, this.keys[child] as number);
      at = child;
    }
    this.#put(at, vertex, distance);
  }

  #precedes(vertex: number, distance: number, at: number): boolean {
    const otherVertex = this.vertices[at] as number;
    const otherDistance = this.keys[at] as number;
    return this.#sign === 1
      ? isBefore(distance, vertex, otherDistance, otherVertex)
      : isBefore(otherDistance, otherVertex, distance, vertex);
  }

  #put(at: number, vertex: number, distance: number): void {
    this.vertices[at] = vertex;
    this.keys[at] = distance;
  }

  #grow(): void {
    const { vertices, keys } = this;
    this.vertices = new Int32Array(vertices.length * 2);
    this.vertices.set(vertices);
    this.keys = new Float32Array(keys.length * 2);
    this.keys.set(keys);
  }
}

/** Vertices to expand, nearest first. */
export class CandidateHeap extends PairHeap {
  constructor() {
    super(64, 1);
  }

  push(vertex: number, distance: number): void {
    this.insert(vertex, distance);
  }
}

/** The best `capacity` vertices. */
export class TopHeap extends PairHeap {
  readonly #capacity: number;

  constructor(capacity: number) {
    super(capacity, -1);
    this.#capacity = capacity;
  }

  /** Distance beyond which nothing gets in: that of the last when the heap is full, infinity before. */
  get bound(): number {
    return this.count < this.#capacity ? Number.POSITIVE_INFINITY : this.firstDistance;
  }

  /** Takes a pair in when it is among the best. */
  offer(vertex: number, distance: number): void {
    if (this.count < this.#capacity) this.insert(vertex, distance);
    else if (isBefore(distance, vertex, this.firstDistance, this.firstVertex)) this.replaceFirst(vertex, distance);
  }

  /** The best `most` pairs, nearest first. */
  nearest(most: number): { vertex: number; distance: number }[] {
    const pairs = Array.from({ length: this.count }, (_, at) => ({
      vertex: this.vertices[at] as number,
      distance: this.keys[at] as number,
    }));
    pairs.sort((a, b) => a.distance - b.distance || a.vertex - b.vertex);
    return pairs.slice(0, most);
  }
}
