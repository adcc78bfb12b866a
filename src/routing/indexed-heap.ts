/**
 * A binary heap whose nodes know their place, so that any of them can move or leave in O(log n).
 *
 * Invariant: `node.place` is the node's index in the heap, or -1 when it is in none; a node is in one heap at most. No node
 * comes before its parent under `isBefore`, given that whoever changes a node's key calls `moved`.
 */

/** What a heap keeps of itself in a node. */
export interface HeapNode {
  place: number;
}

/** A heap of nodes whose first comes before all others. */
export class IndexedHeap<T extends HeapNode> {
  readonly #nodes: T[] = [];
  readonly #isBefore: (a: T, b: T) => boolean;

  constructor(isBefore: (a: T, b: T) => boolean) {
    this.#isBefore = isBefore;
  }

  get size(): number {
    return this.#nodes.length;
  }

  get first(): T | undefined {
    return this.#nodes[0];
  }

  /** All nodes, in no order that means anything. */
  get nodes(): readonly T[] {
    return this.#nodes;
  }

  push(node: T): void {
    node.place = this.#nodes.length;
    this.#nodes.push(node);
    this.#siftUp(node);
  }

  remove(node: T): void {
    const { place } = node;
    const last = this.#nodes.pop() as T;
    node.place = -1;
    if (last === node) return;
    this.#nodes[place] = last;
    last.place = place;
    this.moved(last);
  }

  /** Restores the order after a change of the node's key. */
  moved(node: T): void {
    this.#siftUp(node);
    this.#siftDown(node);
  }

  #siftUp(node: T): void {
    const nodes = this.#nodes;
    let at = node.place;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = nodes[parent] as T;
      if (!this.#isBefore(node, above)) break;
      nodes[at] = above;
      above.place = at;
      at = parent;
    }
    nodes[at] = node;
    node.place = at;
  }

  #siftDown(node: T): void {
    const nodes = this.#nodes;
    let at = node.place;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= nodes.length) break;
      const right = nodes[child + 1];
      if (right !== undefined && this.#isBefore(right, nodes[child] as T)) child++;
      const below = nodes[child] as T;
      if (!this.#isBefore(below, node)) break;
      nodes[at] = below;
      below.place = at;
      at = child;
    }
    nodes[at] = node;
    node.place = at;
  }
}
