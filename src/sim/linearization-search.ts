/**
 * Searches an order of overlapping operations that a sequential object would have answered in the same way.
 *
 * Invariant: the search says "none" only when every order was ruled out, and "found" only with an order; when it meets its limit it
 * says neither. It runs in a loop, so that a history's length costs memory and no stack.
 *
 * Source: Wing and Gong, "Testing and verifying concurrent objects", 1993, in the form of Lowe, "Testing for linearizability", 2017:
 * a linked list of begins and ends from which linearised operations are lifted, and a set of configurations seen.
 * Divergence: what changes no state is linearised as soon as it can be (an order with it later is an order with it there, too), so
 * that only the rest is searched. Operations may be possible (FATE.POSSIBLE): those with an end are passed over where it would block,
 * those without one stand in a list of their own and are tried last, as most of them have not happened.
 */
import { ConfigSet, LinearizedSet, MAX_WORDS } from "./config-set.ts";
import { type CompiledPart, FATE, type ModelOperation } from "./model.ts";

/** What a search found. Operations are numbers of the part that was searched. */
export interface SearchResult {
  readonly verdict: "found" | "none" | "undecided";
  /** Configurations visited. */
  readonly states: number;
  /** The order, when found; operations that did not take effect are left out. */
  readonly order: readonly number[];
  /** The state after `order`. */
  readonly last: number;
  /** When none: the operation with the earliest end such that no order reaches beyond that end. */
  readonly stuck: number;
}

/** Searches; ends undecided after `maxStates` configurations. */
export function searchOrder(
  operations: readonly ModelOperation[],
  part: CompiledPart,
  maxStates: number,
): SearchResult {
  return new Search(operations, part).run(maxStates);
}

class Search {
  readonly #part: CompiledPart;
  /** Number of the part's operation, by number here: first those with an end, then the others, each by begin. */
  readonly #source: Int32Array;
  readonly #fates: Uint8Array;
  readonly #done: LinearizedSet;
  // The list: node 0 is both ends of it, others are begins and ends of operations with an end, in order of time.
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  /** The operation that begins there, `~operation` where one ends. */
  readonly #operationAt: Int32Array;
  readonly #times: Float64Array;
  readonly #begin: Int32Array;
  readonly #end: Int32Array;
  /** Operations without an end, chained by equal effect: the first of each chain that is not linearised, -1 for none. */
  readonly #heads: Int32Array;
  readonly #chainOf: Int32Array;
  readonly #chainNext: Int32Array;
  readonly #starts: Float64Array;
  readonly #bounded: number;
  // What was linearised, in order: `~operation` where it was passed over, and the state before.
  readonly #stack: Int32Array;
  readonly #before: Int32Array;
  #depth = 0;
  #state: number;
  /** Operations in the list. */
  #waiting: number;

  constructor(operations: readonly ModelOperation[], part: CompiledPart) {
    this.#part = part;
    const { source, bounded } = arrange(operations, part);
    const count = source.length;
    this.#source = source;
    this.#bounded = bounded;
    this.#waiting = bounded;
    this.#state = part.initial;
    this.#done = new LinearizedSet(count, bounded);
    this.#fates = Uint8Array.from(source, (operation) => part.fates[operation] as number);
    this.#starts = Float64Array.from(source, (operation) => (operations[operation] as ModelOperation).start);
    this.#stack = new Int32Array(count);
    this.#before = new Int32Array(count);
    const nodes = 2 * bounded + 1;
    this.#next = Int32Array.from({ length: nodes }, (_, node) => (node + 1) % nodes);
    this.#prev = Int32Array.from({ length: nodes }, (_, node) => (node + nodes - 1) % nodes);
    this.#operationAt = new Int32Array(nodes);
    this.#times = new Float64Array(nodes);
    this.#begin = new Int32Array(bounded);
    this.#end = new Int32Array(bounded);
    this.#placeNodes();
    this.#chainNext = new Int32Array(count).fill(-1);
    this.#chainOf = new Int32Array(count).fill(-1);
    this.#heads = Int32Array.from(this.#chain());
  }

  #placeNodes(): void {
    const bounded = this.#bounded;
    const events = Array.from({ length: 2 * bounded }, (_, event) => event);
    const times = Float64Array.from(events, (event) =>
      event < bounded
        ? (this.#starts[event] as number)
        : (this.#part.ends[this.#source[event - bounded] as number] as number),
    );
    events.sort((a, b) => (times[a] as number) - (times[b] as number));
    for (const [at, event] of events.entries()) {
      const isEnd = event >= bounded;
      const operation = isEnd ? event - bounded : event;
      (isEnd ? this.#end : this.#begin)[operation] = at + 1;
      this.#operationAt[at + 1] = isEnd ? ~operation : operation;
      this.#times[at + 1] = times[event] as number;
    }
  }

  /** Chains operations without an end. @returns the first of each chain */
  #chain(): number[] {
    const heads: number[] = [];
    const lastOf = new Map<number, number>();
    for (let operation = this.#bounded; operation < this.#source.length; operation++) {
      const source = this.#source[operation] as number;
      const before = lastOf.get(this.#part.twins[source] as number);
      if (before === undefined) this.#chainOf[operation] = heads.push(operation) - 1;
      else {
        this.#chainNext[before] = operation;
        this.#chainOf[operation] = this.#chainOf[before] as number;
      }
      lastOf.set(source, operation);
    }
    return heads;
  }

  run(maxStates: number): SearchResult {
    const seen = new ConfigSet();
    const result = (verdict: SearchResult["verdict"]): SearchResult => this.#result(verdict, seen.size, stuckNode);
    let stuckNode = 0;
    this.#linearizeObservers();
    let node = this.#next[0] as number;
    /** Next chain to try, once all that begins before the first end was tried. */
    let chain = 0;
    while (this.#waiting > 0) {
      const code = this.#operationAt[node] as number;
      const isEnd = code < 0;
      const isChain = isEnd && chain < this.#heads.length;
      const isTaken = isChain ? this.#tryChain(chain++, this.#times[node] as number) : this.#tryNode(code);
      if (isTaken && seen.add(this.#done, this.#state)) {
        if (seen.size > maxStates || seen.words > MAX_WORDS) return result("undecided");
        node = this.#next[0] as number;
        chain = 0;
      } else if (isTaken || (isEnd && !isChain)) {
        // Nothing else can be next here: go back to the last choice, and on behind it.
        if (!isTaken && node > stuckNode) stuckNode = node;
        const last = this.#backtrack();
        if (last < 0) return result("none");
        node = last < this.#bounded ? (this.#next[this.#begin[last] as number] as number) : this.#firstEnd();
        chain = last < this.#bounded ? 0 : (this.#chainOf[last] as number) + 1;
      } else if (!isEnd) {
        node = this.#next[node] as number;
      }
    }
    return result("found");
  }

  /** Takes the operation that begins at a node, or passes over the one that ends there if it need not have happened. */
  #tryNode(code: number): boolean {
    if (code >= 0) return this.#tryTake(code);
    return this.#fates[~code] === FATE.POSSIBLE && this.#passOver(~code);
  }

  /** Linearises an operation here, if the object allows it, and all observers after it. */
  #tryTake(operation: number): boolean {
    if (this.#fates[operation] === FATE.OBSERVER) return false;
    const after = this.#part.step(this.#state, this.#source[operation] as number);
    if (after < 0) return false;
    this.#push(operation, operation, after);
    this.#linearizeObservers();
    return true;
  }

  /** Linearises the first operation that is left of a chain, if it begins before a time. */
  #tryChain(chain: number, time: number): boolean {
    const operation = this.#heads[chain] as number;
    return operation >= 0 && (this.#starts[operation] as number) < time && this.#tryTake(operation);
  }

  /** Decides that an operation whose end is next has never taken effect. */
  #passOver(operation: number): boolean {
    this.#push(operation, ~operation, this.#state);
    this.#linearizeObservers();
    return true;
  }

  #firstEnd(): number {
    let node = this.#next[0] as number;
    while ((this.#operationAt[node] as number) >= 0) node = this.#next[node] as number;
    return node;
  }

  #linearizeObservers(): void {
    const next = this.#next;
    let node = next[0] as number;
    while (node !== 0) {
      const operation = this.#operationAt[node] as number;
      if (operation < 0) return;
      if (this.#fates[operation] === FATE.OBSERVER) {
        const after = this.#part.step(this.#state, this.#source[operation] as number);
        if (after >= 0) {
          const before = this.#prev[node] as number;
          this.#push(operation, operation, after);
          node = next[before] as number;
          continue;
        }
      }
      node = next[node] as number;
    }
  }

  #push(operation: number, code: number, after: number): void {
    this.#stack[this.#depth] = code;
    this.#before[this.#depth++] = this.#state;
    this.#state = after;
    this.#done.add(operation);
    if (operation >= this.#bounded) {
      this.#heads[this.#chainOf[operation] as number] = this.#chainNext[operation] as number;
      return;
    }
    this.#lift(this.#begin[operation] as number);
    this.#lift(this.#end[operation] as number);
    this.#waiting--;
  }

  /**
   * Takes back the last decision that had an alternative.
   *
   * @returns its operation, -1 when there is none
   */
  #backtrack(): number {
    while (this.#depth > 0) {
      const code = this.#stack[--this.#depth] as number;
      const operation = code < 0 ? ~code : code;
      this.#state = this.#before[this.#depth] as number;
      this.#done.remove(operation);
      if (operation >= this.#bounded) {
        this.#heads[this.#chainOf[operation] as number] = operation;
        return operation;
      }
      this.#unlift(this.#end[operation] as number);
      this.#unlift(this.#begin[operation] as number);
      this.#waiting++;
      if (code >= 0 && this.#fates[operation] !== FATE.OBSERVER) return operation;
    }
    return -1;
  }

  #lift(node: number): void {
    const before = this.#prev[node] as number;
    const after = this.#next[node] as number;
    this.#next[before] = after;
    this.#prev[after] = before;
  }

  #unlift(node: number): void {
    this.#next[this.#prev[node] as number] = node;
    this.#prev[this.#next[node] as number] = node;
  }

  #result(verdict: SearchResult["verdict"], states: number, stuckNode: number): SearchResult {
    const taken = verdict === "found" ? this.#stack.subarray(0, this.#depth).filter((code) => code >= 0) : [];
    return {
      verdict,
      states,
      order: Array.from(taken, (operation) => this.#source[operation] as number),
      last: this.#state,
      stuck: stuckNode === 0 ? -1 : (this.#source[~(this.#operationAt[stuckNode] as number)] as number),
    };
  }
}

/** Operations that take part: first those with an end, then those without, each in the order of their begin. */
function arrange(
  operations: readonly ModelOperation[],
  part: CompiledPart,
): { readonly source: Int32Array; readonly bounded: number } {
  const startOf = (operation: number): number => (operations[operation] as ModelOperation).start;
  const present = Array.from(operations.keys()).filter((operation) => part.fates[operation] !== FATE.ABSENT);
  const hasEnd = (operation: number): boolean => part.ends[operation] !== Number.POSITIVE_INFINITY;
  const bounded = present.filter(hasEnd).sort((a, b) => startOf(a) - startOf(b));
  const others = present.filter((operation) => !hasEnd(operation)).sort((a, b) => startOf(a) - startOf(b));
  return { source: Int32Array.from([...bounded, ...others]), bounded: bounded.length };
}
