/**
 * The schedule explorer: runs production code of shared memory as logical threads under every interleaving of its accesses.
 *
 * Invariant: what is reported as a violation is a real execution of the code in the given memory model, and its schedule
 * repeats it; what is reported as complete leaves no schedule out. Programs that the explorer cannot judge (bodies that read a
 * clock, keep state outside, or touch shared memory past it) are refused with a typed error before anything is explored.
 * Source: CHESS (Musuvathi et al., OSDI'08), VeriSoft, loom. Divergence: states are cached, see `thread-tree.ts`.
 */
import { invalidArgument } from "../../errors.ts";
import { searchExhaustively } from "./exhaustive.ts";
import { Exploration, FLUSH, MOVE_KINDS, STEP, TIME_OUT } from "./exploration.ts";
import {
  type ExploredProgram,
  type ExploreOptions,
  type ExploreResult,
  type ResolvedProgram,
  resolveExploreOptions,
  type Violation,
} from "./explore-types.ts";
import { nameOf } from "./machine.ts";
import { type Answer, describeOperation, type Operation, sameOperation } from "./operation.ts";
import { searchRandomly } from "./random-schedules.ts";
import { formatSchedule, parseSchedule } from "./schedule-text.ts";
import type { TreeNode } from "./thread-tree.ts";

export type { ExploredProgram, ExploreOptions, ExploreResult, ThreadHandle, Violation } from "./explore-types.ts";

/**
 * Explores the schedules of a program until one is wrong or the bound is reached. Synchronous; globals are replaced while
 * bodies run, so nothing else may run on this thread meanwhile, and nothing can.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for bad options and for bodies that cannot be explored.
 *
 * @example Two increments that lose one
 * const program = {
 *   setup: () => ({ memory: new SharedArrayBuffer(4) }),
 *   threads: [increment, increment], // ({ memory }) => { const words = new Int32Array(memory); words[0] = words[0] + 1; }
 *   check: ({ shared }) => assert.equal(new Int32Array(shared.memory)[0], 2),
 * };
 * explore(program).violation?.schedule; // "sc:ab2a", for replaySchedule(program, …)
 */
export function explore<S>(options: ExploreOptions<S>): ExploreResult {
  const program = resolveExploreOptions(options);
  for (let thread = 0; thread < program.threads.length; thread++) checkIsolation(program, thread);
  const exploration = new Exploration(program);
  const outcome =
    program.pct === undefined ? searchExhaustively(exploration) : searchRandomly(exploration, program.pct);
  const { schedules, states, complete } = outcome;
  const base = { schedules, states, complete: complete && outcome.violation === undefined, steps: exploration.steps };
  if (outcome.violation === undefined) return base;
  return { ...base, violation: { ...replay(program, exploration.moves), message: outcome.violation } };
}

/**
 * Runs one schedule, as a violation names it.
 *
 * @returns A result with `schedules: 1`, and the violation if the schedule ends in one.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a schedule that the program cannot follow.
 */
export function replaySchedule<S>(program: ExploredProgram<S>, schedule: string): ExploreResult {
  const resolved = resolveExploreOptions(program);
  const { model, moves } = parseSchedule(schedule, resolved.threads.length);
  const { message, ...run } = replay({ ...resolved, memory: model }, moves);
  const base = { schedules: 1, states: 0, complete: false, steps: moves.length };
  return message === undefined ? base : { ...base, violation: { ...run, message } };
}

interface Replay extends Omit<Violation, "message"> {
  readonly message: string | undefined;
}

function replay<S>(program: ResolvedProgram<S>, moves: readonly number[]): Replay {
  const exploration = new Exploration(program, { keepSites: true });
  const lines: { readonly text: string; readonly isShared: () => boolean }[] = [];
  const schedule = formatSchedule(program.memory, moves);
  for (const move of moves) {
    if (!exploration.canMove(move))
      throw invalidArgument("replay schedule", "schedule", "one that the program can follow", schedule);
    const thread = Math.trunc(move / MOVE_KINDS);
    const node = exploration.nodes[thread] as TreeNode;
    const oldest = move % MOVE_KINDS === FLUSH ? exploration.machine.oldestOf(thread) : undefined;
    exploration.move(move);
    const after = exploration.nodes[thread] as TreeNode;
    const isShared = (): boolean =>
      oldest === undefined ? isTold(exploration, node) : exploration.isVisibleStore(oldest);
    lines.push({ text: lineOf(thread, move % MOVE_KINDS, node, after, oldest), isShared });
  }
  const trace = lines.filter(({ isShared }) => isShared()).map(({ text }) => text);
  return { schedule, trace, message: exploration.verdict() };
}

/** Stores count where they are made, too, not only where they become visible. */
function isTold<S>(exploration: Exploration<S>, node: TreeNode): boolean {
  const { operation } = node;
  if (operation?.kind === "store") return exploration.isVisibleStore(operation);
  return operation?.kind === "fence" || exploration.isVisible(node);
}

function lineOf(thread: number, kind: number, before: TreeNode, after: TreeNode, flushed?: Operation): string {
  const indent = "    ".repeat(thread);
  const name = nameOf(thread);
  if (kind === TIME_OUT) return `${indent}${name}      its wait times out`;
  if (flushed !== undefined) return `${indent}${name}      visible now: ${describeOperation(flushed)}`;
  const operation = before.operation as Operation;
  const site = before.site === undefined ? "" : `   ${before.site}`;
  const answer = kind === STEP && after !== before ? answerText(operation, after.answer) : "  sleeps";
  return `${indent}${name} ${String(before.depth).padEnd(4)} ${describeOperation(operation)}${answer}${site}`;
}

function answerText({ kind }: Operation, answer: Answer): string {
  return kind === "store" || kind === "fence" || kind === "Atomics.store" ? "" : ` = ${answer}`;
}

const FILLER = 0xa5a5a5a5 | 0;
/** The real class, also while bodies run. */
const Words = Int32Array;

/**
 * Runs a body alone twice: over the memory, and over a copy of it while the memory itself holds rubbish. What differs, or
 * changes the rubbish, did not go through views made inside the body, or is no function of the memory.
 */
function checkIsolation<S>(program: ResolvedProgram<S>, thread: number): void {
  const originals: SharedArrayBuffer[] = [];
  const alone: ResolvedProgram<S> = {
    ...program,
    threads: [program.threads[thread] as (typeof program.threads)[number]],
  };
  const substitute = (memory: SharedArrayBuffer): SharedArrayBuffer => {
    originals.push(memory);
    const copy = memory.slice(0);
    new Words(memory).fill(FILLER);
    return copy;
  };
  const apart = pathOf(new Exploration(alone, { substitute }));
  const usual = pathOf(new Exploration(alone));
  const differs = apart.findIndex((operation, at) => usual[at] === undefined || !sameOperation(operation, usual[at]));
  const touched = originals.some((memory) => new Words(memory).some((word) => word !== FILLER));
  if (!touched && differs < 0 && apart.length === usual.length) return;
  throw invalidArgument(
    "explore schedules",
    `thread ${nameOf(thread)}`,
    "a function of shared memory that uses only views made inside it, over memory that setup makes the same each time",
    touched ? "a body that writes past the explorer" : `a body that differs at access ${differs}`,
  );
}

function pathOf<S>(exploration: Exploration<S>): Operation[] {
  const path: Operation[] = [];
  let node = exploration.nodes[0];
  while (node?.operation !== undefined) {
    path.push(node.operation);
    node = [...node.children.values()][0];
  }
  return path;
}
