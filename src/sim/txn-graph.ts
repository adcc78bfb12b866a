/**
 * A graph of transactions with edges of several kinds, its strongly connected components, and short cycles in them.
 *
 * Invariant: edges never change once {@link TxnGraph.freeze} has laid them out; all walks are loops over typed arrays, so that a
 * graph's size costs memory and no stack. An edge from a transaction to itself is no edge.
 *
 * Source: Tarjan, "Depth-first search and linear graph algorithms", 1972.
 */

/** Kinds of edges, as bits of a mask. */
export const EDGE = {
  /** Wrote what the other overwrote. */
  WW: 1,
  /** Wrote what the other read. */
  WR: 2,
  /** Read what the other overwrote. */
  RW: 4,
  /** Had ended when the other began. */
  RT: 8,
} as const;

/** One edge of a cycle; `key` and `element` are what it is about, -1 for time. */
export interface Edge {
  readonly from: number;
  readonly to: number;
  readonly kind: number;
  readonly key: number;
  readonly element: number;
}

/** Fields of an edge in the list: from, to, kind, key, element. */
const FIELDS = 5;
/** Searches for the shortest cycle begin at so many nodes at most. */
const CYCLE_STARTS = 32;

export class TxnGraph {
  readonly nodes: number;
  #list: Int32Array = new Int32Array(FIELDS << 10);
  #edges = 0;
  /** Edges of a node: `#order[#first[node] .. #first[node + 1]]` are their places in the list. */
  #first: Int32Array = new Int32Array(0);
  #order: Int32Array = new Int32Array(0);
  // Of breadth-first searches: the search that reached a node last, and by which edge.
  readonly #reachedIn: Int32Array;
  readonly #reachedBy: Int32Array;
  readonly #queue: Int32Array;
  #search = 0;
  /** Nodes that all searches have visited. */
  visited = 0;

  constructor(nodes: number) {
    this.nodes = nodes;
    this.#reachedIn = new Int32Array(nodes);
    this.#reachedBy = new Int32Array(nodes);
    this.#queue = new Int32Array(nodes);
  }

  get edges(): number {
    return this.#edges;
  }

  add(from: number, to: number, kind: number, key = -1, element = -1): void {
    if (from === to) return;
    const at = this.#edges++ * FIELDS;
    if (at + FIELDS > this.#list.length) {
      const larger = new Int32Array(this.#list.length * 2);
      larger.set(this.#list);
      this.#list = larger;
    }
    const list = this.#list;
    list[at] = from;
    list[at + 1] = to;
    list[at + 2] = kind;
    list[at + 3] = key;
    list[at + 4] = element;
  }

  /** Lays edges out by node. Called once, after the last {@link add}. */
  freeze(): void {
    const first = new Int32Array(this.nodes + 2);
    const order = new Int32Array(this.#edges);
    const list = this.#list;
    for (let edge = 0; edge < this.#edges; edge++) {
      const slot = (list[edge * FIELDS] as number) + 2;
      first[slot] = (first[slot] as number) + 1;
    }
    for (let node = 2; node < first.length; node++) first[node] = (first[node] as number) + (first[node - 1] as number);
    for (let edge = 0; edge < this.#edges; edge++) {
      const slot = (list[edge * FIELDS] as number) + 1;
      order[first[slot] as number] = edge;
      first[slot] = (first[slot] as number) + 1;
    }
    this.#first = first;
    this.#order = order;
  }

  edgeAt(edge: number): Edge {
    const [from, to, kind, key, element] = this.#list.subarray(edge * FIELDS, (edge + 1) * FIELDS);
    return { from: from ?? -1, to: to ?? -1, kind: kind ?? 0, key: key ?? -1, element: element ?? -1 };
  }

  /** Edges of given kinds between nodes of one component. */
  edgesIn(component: readonly number[], componentOf: Int32Array, mask: number): number[] {
    const found: number[] = [];
    for (const node of component)
      for (let i = this.#first[node] as number; i < (this.#first[node + 1] as number); i++) {
        const edge = this.#order[i] as number;
        const to = this.#list[edge * FIELDS + 1] as number;
        if (((this.#list[edge * FIELDS + 2] as number) & mask) !== 0 && componentOf[to] === componentOf[node])
          found.push(edge);
      }
    return found;
  }

  /**
   * Components with more than one node, over edges of a mask, among nodes for which `within` has one value.
   *
   * @param componentOf filled in: a number for each node, equal within a component
   */
  components(mask: number, among: readonly number[], within: Int32Array, componentOf: Int32Array): number[][] {
    const walk = new TarjanWalk(this.nodes);
    const found: number[][] = [];
    for (const root of among) if (walk.index[root] === 0) this.#walkFrom(root, mask, within, walk, componentOf, found);
    return found;
  }

  #walkFrom(
    root: number,
    mask: number,
    within: Int32Array,
    walk: TarjanWalk,
    componentOf: Int32Array,
    found: number[][],
  ): void {
    const { index, low, next, path, stack, onStack } = walk;
    let depth = 0;
    path[depth++] = root;
    while (depth > 0) {
      const node = path[depth - 1] as number;
      if (index[node] === 0) {
        index[node] = low[node] = ++walk.counter;
        next[node] = this.#first[node] as number;
        stack[walk.height++] = node;
        onStack[node] = 1;
      }
      const at = next[node] as number;
      if (at < (this.#first[node + 1] as number)) {
        next[node] = at + 1;
        const edge = (this.#order[at] as number) * FIELDS;
        const to = this.#list[edge + 1] as number;
        if (((this.#list[edge + 2] as number) & mask) === 0 || within[to] !== within[root]) continue;
        if (index[to] === 0) path[depth++] = to;
        else if (onStack[to] === 1) low[node] = Math.min(low[node] as number, index[to] as number);
        continue;
      }
      depth--;
      if (depth > 0) {
        const parent = path[depth - 1] as number;
        low[parent] = Math.min(low[parent] as number, low[node] as number);
      }
      if (low[node] === index[node]) popComponent(node, walk, componentOf, found);
    }
  }

  /** The shortest way over edges of a mask between nodes of one component, as edges; undefined without one. */
  findWay(from: number, to: number, mask: number, componentOf: Int32Array): number[] | undefined {
    const search = ++this.#search;
    const queue = this.#queue;
    let head = 0;
    let tail = 0;
    queue[tail++] = from;
    if (from !== to) this.#reachedIn[from] = search;
    while (head < tail) {
      const node = queue[head++] as number;
      for (let i = this.#first[node] as number; i < (this.#first[node + 1] as number); i++) {
        const edge = this.#order[i] as number;
        const target = this.#list[edge * FIELDS + 1] as number;
        if (((this.#list[edge * FIELDS + 2] as number) & mask) === 0) continue;
        if (componentOf[target] !== componentOf[from] || this.#reachedIn[target] === search) continue;
        this.#reachedIn[target] = search;
        this.#reachedBy[target] = edge;
        if (target === to) {
          this.visited += tail;
          return this.#wayBack(from, to);
        }
        queue[tail++] = target;
      }
    }
    this.visited += tail;
    return undefined;
  }

  #wayBack(from: number, to: number): number[] {
    const way: number[] = [];
    for (let node = to; ; ) {
      const edge = this.#reachedBy[node] as number;
      way.push(edge);
      node = this.#list[edge * FIELDS] as number;
      if (node === from) return way.reverse();
    }
  }

  /** The shortest cycle through any of the first nodes of a component. */
  shortCycle(component: readonly number[], mask: number, componentOf: Int32Array): number[] {
    let best: number[] = [];
    for (const node of component.slice(0, CYCLE_STARTS)) {
      const way = this.findWay(node, node, mask, componentOf);
      if (way !== undefined && (best.length === 0 || way.length < best.length)) best = way;
    }
    return best;
  }
}

/** What Tarjan's walk keeps of every node. */
class TarjanWalk {
  readonly index: Int32Array;
  readonly low: Int32Array;
  readonly next: Int32Array;
  readonly path: Int32Array;
  readonly stack: Int32Array;
  readonly onStack: Uint8Array;
  counter = 0;
  height = 0;

  constructor(nodes: number) {
    this.index = new Int32Array(nodes);
    this.low = new Int32Array(nodes);
    this.next = new Int32Array(nodes);
    this.path = new Int32Array(nodes);
    this.stack = new Int32Array(nodes);
    this.onStack = new Uint8Array(nodes);
  }
}

function popComponent(root: number, walk: TarjanWalk, componentOf: Int32Array, found: number[][]): void {
  const members: number[] = [];
  for (;;) {
    const node = walk.stack[--walk.height] as number;
    walk.onStack[node] = 0;
    componentOf[node] = root + 1;
    members.push(node);
    if (node === root) break;
  }
  if (members.length > 1) found.push(members.reverse());
}
