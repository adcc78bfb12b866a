/**
 * Exhaustive search over the states of a program: every order of conflicting accesses, each state once.
 *
 * Invariant: when it ends complete, every schedule within the bound leads through states that were judged. A thread goes on by
 * itself while nobody can notice; only accesses to words that several threads use, one writing, are points of choice. Which
 * words these are is found on the way: when one more shows up, the search starts anew with it, so the last pass knows them all.
 * States have no cycles, as a thread's history is part of them.
 * Source: Clarke, Grumberg and Peled, "Model Checking", ch. 10 (ample sets); Musuvathi and Qadeer, "Iterative context
 * bounding", PLDI'07 (preemptions). Divergence: with a bound on preemptions they are counted at points of choice only.
 */
import { type Exploration, FLUSH, MOVE_KINDS, type Place, STEP, TIME_OUT } from "./exploration.ts";
import { mix } from "./machine.ts";
import { StateSet } from "./state-set.ts";
import type { TreeNode } from "./thread-tree.ts";

export interface SearchOutcome {
  readonly schedules: number;
  readonly states: number;
  readonly complete: boolean;
  readonly violation: string | undefined;
}

interface Frame {
  readonly place: Place;
  readonly choices: readonly number[];
  readonly last: number;
  readonly preemptions: number;
  readonly fingerprint: readonly [number, number, number];
  next: number;
  /** Ways from here to an end that were covered. */
  ways: number;
}

/** Marks a state whose ways are still being counted; it cannot be met again before they are. */
const OPEN = -1;

/** Searches until a violation, the bound, or the end. On a violation the exploration stands at it. */
export function searchExhaustively<S>(exploration: Exploration<S>): SearchOutcome {
  const start = exploration.place();
  for (;;) {
    const known = exploration.conflicts.size;
    const outcome = new Pass(exploration).run();
    const grown = exploration.conflicts.size !== known;
    if (!grown) return outcome;
    exploration.restore(start);
  }
}

class Pass<S> {
  readonly #exploration: Exploration<S>;
  readonly #states = new StateSet();
  readonly #stack: Frame[] = [];
  readonly #conflicts: number;
  #cut = false;
  #walks = 0;
  /** Thread of the last access, −1 at the start. */
  #last = -1;
  #preemptions = 0;
  #ways = 0;

  constructor(exploration: Exploration<S>) {
    this.#exploration = exploration;
    this.#conflicts = exploration.conflicts.size;
  }

  run(): SearchOutcome {
    const { program, conflicts, threads } = this.#exploration;
    for (let thread = 0; thread < threads; thread++) this.#settle(thread);
    let violation = this.#enter();
    while (violation === undefined && this.#stack.length > 0 && conflicts.size === this.#conflicts) {
      const frame = this.#stack.at(-1) as Frame;
      const choice = frame.choices[frame.next++];
      if (choice === undefined) this.#leave(frame);
      else if (this.#walks >= program.maxSchedules) {
        this.#cut = true;
        break;
      } else violation = this.#take(frame, choice);
    }
    const complete = !this.#cut && this.#stack.length === 0;
    const schedules = this.#stack.length === 0 ? this.#ways : this.#stack.reduce((sum, { ways }) => sum + ways, 0);
    return {
      schedules: Math.max(schedules, violation === undefined ? 0 : 1),
      states: this.#states.size,
      complete,
      violation,
    };
  }

  #take(frame: Frame, choice: number): string | undefined {
    const exploration = this.#exploration;
    const thread = Math.trunc(choice / MOVE_KINDS);
    this.#preemptions = frame.preemptions;
    this.#last = frame.last;
    if (choice % MOVE_KINDS === STEP) {
      const left = frame.last * MOVE_KINDS + STEP;
      if (thread !== frame.last && frame.choices.includes(left)) this.#preemptions++;
      this.#last = thread;
      if (this.#preemptions > exploration.program.preemptions) {
        this.#cut = true;
        return undefined;
      }
    }
    exploration.move(choice);
    this.#flushUnseen(thread);
    this.#settle(thread);
    return this.#enter();
  }

  /** Judges the state just reached, and opens it if it is new and has choices. */
  #enter(): string | undefined {
    const exploration = this.#exploration;
    const fingerprint = this.#fingerprint();
    const known = this.#states.get(...fingerprint);
    const choices = Number.isNaN(known) ? this.#choices() : [];
    if (Number.isNaN(known)) {
      const violation = this.#judge(choices);
      if (violation !== undefined) return violation;
    }
    if (choices.length === 0) {
      const ways = Number.isNaN(known) ? 1 : known;
      if (Number.isNaN(known)) this.#states.set(...fingerprint, 1);
      this.#walks++;
      this.#back(ways);
      return undefined;
    }
    this.#states.set(...fingerprint, OPEN);
    this.#stack.push({
      place: exploration.place(),
      choices,
      last: this.#last,
      preemptions: this.#preemptions,
      fingerprint,
      next: 0,
      ways: 0,
    });
    return undefined;
  }

  #judge(choices: readonly number[]): string | undefined {
    const { nodes, program } = this.#exploration;
    const ended = nodes.some(({ outcome, depth }) => outcome !== undefined || depth >= program.maxAccesses);
    return choices.length === 0 || ended ? this.#exploration.verdict() : undefined;
  }

  #leave(frame: Frame): void {
    this.#states.set(...frame.fingerprint, frame.ways);
    this.#stack.pop();
    this.#back(frame.ways);
  }

  /** Returns to the state before the last choice. */
  #back(ways: number): void {
    const parent = this.#stack.at(-1);
    if (parent === undefined) {
      this.#ways = ways;
      return;
    }
    parent.ways += ways;
    this.#exploration.restore(parent.place);
  }

  /** Lets a thread go on as long as nobody can notice. */
  #settle(thread: number): void {
    const exploration = this.#exploration;
    const step = thread * MOVE_KINDS + STEP;
    for (;;) {
      const node = exploration.nodes[thread] as TreeNode;
      if (node.operation === undefined || node.depth >= exploration.program.maxAccesses) return;
      if (exploration.isVisible(node) || !exploration.canMove(step)) return;
      exploration.move(step);
      this.#flushUnseen(thread);
    }
  }

  /** Makes stores visible that nobody looks at. */
  #flushUnseen(thread: number): void {
    const { machine } = this.#exploration;
    while (machine.bufferedOf(thread) > 0 && !this.#exploration.isVisibleStore(machine.oldestOf(thread)))
      this.#exploration.move(thread * MOVE_KINDS + FLUSH);
  }

  /** The thread that ran last first: its code has run ahead already. */
  #choices(): number[] {
    const choices: number[] = [];
    const { threads, nodes, program } = this.#exploration;
    if (nodes.some(({ operation, depth }) => operation !== undefined && depth >= program.maxAccesses)) return choices;
    for (let turn = 0; turn < threads; turn++) {
      const thread = (Math.max(0, this.#last) + turn) % threads;
      for (const kind of [STEP, FLUSH, TIME_OUT]) {
        const move = thread * MOVE_KINDS + kind;
        if (this.#exploration.canMove(move)) choices.push(move);
      }
    }
    return choices;
  }

  #fingerprint(): [number, number, number] {
    const { machine, nodes, program } = this.#exploration;
    const bounded = program.preemptions !== Number.POSITIVE_INFINITY;
    const lanes: [number, number, number] = [0, 0, 0];
    for (let lane = 0; lane < 3; lane++) {
      let hash = mix(machine.hash[lane] as number, machine.waitersHash(lane), lane);
      for (const [thread, node] of nodes.entries()) {
        hash = mix(hash, node.id, lane);
        hash = mix(hash, machine.flushedOf(thread), lane);
      }
      if (bounded) hash = mix(hash, this.#preemptions * 8 + this.#last, lane);
      lanes[lane] = hash;
    }
    return lanes;
  }
}
