/**
 * One program being explored: its memory, the trees of its threads, where each thread stands, and the way there.
 *
 * Invariant: `moves` performed from the start lead to the present state, so it can be replayed by anyone; `restore` goes back
 * to any earlier state. Words that more than one thread touches, one of them writing, are in `conflicts` as soon as any run
 * of the code has shown it: what does not touch them cannot be seen by another thread.
 */
import { ShardloomError } from "../../errors.ts";
import { describeError, type ResolvedProgram } from "./explore-types.ts";
import { BLOCKED, Machine, nameOf } from "./machine.ts";
import { type Answer, concernsWaiting, drainsStores, ELEMENT_BYTES, isWrite, type Operation } from "./operation.ts";
import { SteppingGlobals } from "./stepping-globals.ts";
import type { Stepper } from "./stepping-view.ts";
import { type Continuation, LEAVE, ThreadTree, type TreeNode } from "./thread-tree.ts";

/** What a scheduler can do with a thread; a move is `thread * MOVE_KINDS + kind`. */
export const STEP = 0;
export const FLUSH = 1;
export const TIME_OUT = 2;
export const MOVE_KINDS = 3;

/** A state to come back to. */
export interface Place {
  readonly mark: number;
  readonly nodes: readonly TreeNode[];
  readonly moves: number;
}

export interface ExplorationOptions {
  /** Notes for each access where in the code it is. */
  readonly keepSites?: boolean;
  /** What the machine uses in place of a shared buffer. */
  readonly substitute?: (memory: SharedArrayBuffer) => SharedArrayBuffer;
}

export class Exploration<S> {
  readonly program: ResolvedProgram<S>;
  readonly machine: Machine;
  readonly threads: number;
  /** Where each thread stands. */
  readonly nodes: TreeNode[] = [];
  readonly moves: number[] = [];
  readonly conflicts: Set<number> = new Set();
  /** Accesses performed. */
  steps = 0;
  /** Operations of the longest thread known, summed over the threads. */
  longest = 0;
  readonly #trees: ThreadTree[];
  readonly #speculations: Continuation[];
  readonly #shared: S;
  readonly #numbers = new Map<SharedArrayBuffer, number>();
  /** For each word, bit `t` if thread t reads it and bit `t + 8` if it writes it. */
  readonly #users = new Map<number, number>();
  readonly #depths: number[];
  readonly #checker: SteppingGlobals;

  constructor(program: ResolvedProgram<S>, options: ExplorationOptions = {}) {
    this.program = program;
    this.threads = program.threads.length;
    this.machine = new Machine(program.memory, this.threads + 1);
    this.#shared = program.setup();
    this.#depths = program.threads.map(() => 0);
    const bufferOf = (memory: SharedArrayBuffer): number => {
      const number = this.#numbers.get(memory) ?? this.machine.addBuffer(options.substitute?.(memory) ?? memory);
      this.#numbers.set(memory, number);
      return number;
    };
    this.#trees = program.threads.map(
      (body, thread) =>
        new ThreadTree({
          name: nameOf(thread),
          body: (handle) => body(this.#shared, handle),
          bufferOf,
          wordOf: (operation) => this.machine.wordOf(operation),
          onNode: (node) => this.#noteUse(thread, node),
          maxAccesses: program.maxAccesses,
          keepSites: options.keepSites ?? false,
        }),
    );
    this.#speculations = program.threads.map((_, thread) => (operation) => this.#speculate(thread, operation));
    const stepper: Stepper = { bufferOf, step: (operation) => this.#stepOfCheck(operation), nextTicket: () => 0 };
    this.#checker = new SteppingGlobals(stepper, false);
    for (const [thread, tree] of this.#trees.entries()) {
      const mark = this.machine.mark();
      this.nodes[thread] = tree.start(this.#speculations[thread] as Continuation);
      this.machine.rollback(mark);
    }
  }

  /** Performs a move that {@link canMove}. */
  move(move: number): void {
    const thread = Math.trunc(move / MOVE_KINDS);
    const kind = move % MOVE_KINDS;
    this.moves.push(move);
    if (kind === FLUSH) this.machine.flush(thread);
    else if (kind === TIME_OUT) this.machine.timeOut(thread);
    else this.#step(thread);
  }

  canMove(move: number): boolean {
    const thread = Math.trunc(move / MOVE_KINDS);
    const kind = move % MOVE_KINDS;
    if (kind === FLUSH) return this.machine.bufferedOf(thread) > 0;
    if (kind === TIME_OUT) return this.program.timeouts && this.machine.canTimeOut(thread);
    const { operation } = this.nodes[thread] as TreeNode;
    return operation !== undefined && this.machine.canPerform(thread, operation);
  }

  place(): Place {
    return { mark: this.machine.mark(), nodes: [...this.nodes], moves: this.moves.length };
  }

  restore({ mark, nodes, moves }: Place): void {
    this.machine.rollback(mark);
    this.moves.length = moves;
    for (const [thread, node] of nodes.entries()) this.nodes[thread] = node;
  }

  /** Whether another thread can notice the next operation, or it the other's. */
  isVisible({ operation, word }: TreeNode): boolean {
    if (operation === undefined || operation.kind === "fence") return false;
    if (concernsWaiting(operation)) return true;
    if (operation.kind === "store" && this.program.memory === "tso") return false; // its flush is what can be noticed
    return this.conflicts.has(word) || (ELEMENT_BYTES[operation.view] === 8 && this.conflicts.has(word + 1));
  }

  /** Whether another thread can notice the flush of a buffered store. */
  isVisibleStore(store: Operation): boolean {
    const word = this.machine.wordOf(store);
    return this.conflicts.has(word) || (ELEMENT_BYTES[store.view] === 8 && this.conflicts.has(word + 1));
  }

  /** What is wrong with the present state, when nothing more can happen or a thread is endless; undefined if nothing. */
  verdict(): string | undefined {
    const { maxAccesses } = this.program;
    for (const [thread, { operation, outcome, depth }] of this.nodes.entries()) {
      const name = `thread ${nameOf(thread)}`;
      if (depth >= maxAccesses && operation !== undefined) return `${name} did not end within ${maxAccesses} accesses`;
      if (outcome !== undefined && "error" in outcome) return `${name} threw ${describeError(outcome.error)}`;
    }
    if (!this.isFinal()) return undefined;
    const blocked = this.nodes.flatMap(({ operation }, thread) => (operation === undefined ? [] : [nameOf(thread)]));
    if (blocked.length > 0) return `deadlock: ${this.machine.describeWaiters()} and nobody will wake it`;
    return this.#check();
  }

  /** Whether a thread has thrown, or does not end. */
  hasFailed(): boolean {
    return this.nodes.some(
      ({ operation, outcome, depth }) =>
        (outcome !== undefined && "error" in outcome) || (operation !== undefined && depth >= this.program.maxAccesses),
    );
  }

  /** Whether no move is possible. */
  isFinal(): boolean {
    for (let move = 0; move < this.threads * MOVE_KINDS; move++) if (this.canMove(move)) return false;
    return true;
  }

  #step(thread: number): void {
    const node = this.nodes[thread] as TreeNode;
    const answer = this.machine.perform(thread, node.operation as Operation);
    this.steps++;
    if (answer !== BLOCKED) this.nodes[thread] = this.#childOf(thread, node, answer);
  }

  #childOf(thread: number, node: TreeNode, answer: Answer): TreeNode {
    const mark = this.machine.mark();
    const child = (this.#trees[thread] as ThreadTree).child(node, answer, this.#speculations[thread] as Continuation);
    this.machine.rollback(mark);
    return child;
  }

  /** Goes on as if the thread were alone from here: the search looks there first, so this saves it a run for each access. */
  #speculate(thread: number, operation: Operation): Answer | typeof LEAVE {
    const { machine } = this;
    if (drainsStores(operation)) while (machine.bufferedOf(thread) > 0) machine.flush(thread);
    if (!machine.canPerform(thread, operation)) return LEAVE;
    const answer = machine.perform(thread, operation);
    return answer === BLOCKED ? LEAVE : answer;
  }

  #noteUse(thread: number, { operation, word, depth }: TreeNode): void {
    if (depth > (this.#depths[thread] as number)) {
      this.longest += depth - (this.#depths[thread] as number);
      this.#depths[thread] = depth;
    }
    if (operation === undefined || word < 0) return;
    const use = (isWrite(operation) ? 0x101 : 1) << thread;
    this.#noteWord(word, use);
    if (ELEMENT_BYTES[operation.view] === 8) this.#noteWord(word + 1, use);
  }

  #noteWord(word: number, use: number): void {
    const users = (this.#users.get(word) ?? 0) | use;
    this.#users.set(word, users);
    const touching = users & 0xff;
    if (users >>> 8 !== 0 && (touching & (touching - 1)) !== 0) this.conflicts.add(word);
  }

  #check(): string | undefined {
    const results = this.nodes.map(({ outcome }) => (outcome as { readonly value: unknown }).value);
    const mark = this.machine.mark();
    try {
      this.#checker.run(() => this.program.check({ shared: this.#shared, results }));
      return undefined;
    } catch (error) {
      return describeError(error);
    } finally {
      this.machine.rollback(mark);
    }
  }

  #stepOfCheck(operation: Operation): Answer {
    const answer = this.machine.perform(this.threads, operation);
    while (this.machine.bufferedOf(this.threads) > 0) this.machine.flush(this.threads);
    if (answer === BLOCKED)
      throw new ShardloomError("ERR_INVALID_ARGUMENT", "Cannot wait in a check of explored schedules");
    return answer;
  }
}
