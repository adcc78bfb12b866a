/**
 * What one logical thread does, as a tree: a node is the operation it is about to perform, an edge an answer to it.
 *
 * Invariant: a body is a function of the answers it gets, so a node stands for the thread at that point, and its code runs
 * only to find nodes that are not known yet: from the start, the answers on the way repeated and nothing performed again. A
 * body that does something else when the same answers are repeated is an error, as is one that swallows the exception by
 * which it is left in the middle. Whatever a body changes outside of shared memory must therefore be made inside it.
 * Source: stateless search by re-execution (Godefroid, VeriSoft, POPL'97). Divergence: re-execution fills a cache, so
 * that a search over states touches the code once for each behaviour of a thread and not once for each schedule.
 */
import { invalidArgument, ShardloomError } from "../../errors.ts";
import { type Answer, describeOperation, type Operation, sameOperation } from "./operation.ts";
import { SteppingGlobals } from "./stepping-globals.ts";
import { type ModelledWait, modelledWaitOf, type Stepper } from "./stepping-view.ts";

/** How a body ended. */
export type Outcome = { readonly value: unknown } | { readonly error: unknown };

export interface TreeNode {
  readonly id: number;
  /** Operations before this one. */
  readonly depth: number;
  readonly parent: TreeNode | undefined;
  /** The answer that led here from the parent. */
  readonly answer: Answer;
  /** What the thread does next; undefined when it has ended. */
  readonly operation: Operation | undefined;
  /** Word that the operation touches first, over all buffers. */
  readonly word: number;
  readonly outcome: Outcome | undefined;
  /** Where in the code, if sites are kept. */
  readonly site: string | undefined;
  readonly children: Map<Answer, TreeNode>;
}

/** What a body is given besides what `setup` returned. */
export interface ThreadHandle {
  /** a, b, c … */
  readonly name: string;
  /**
   * Suspends this logical thread until a wait of `Atomics.waitAsync` is over, then runs what was chained to its promise.
   * Stands for `await`, which a body cannot use, as it runs synchronously.
   */
  await(promise: unknown): void;
}

export interface TreeOptions {
  readonly name: string;
  readonly body: (thread: ThreadHandle) => unknown;
  /** Numbers a shared buffer, and adds it to the memory when it is new. */
  readonly bufferOf: (memory: SharedArrayBuffer) => number;
  readonly wordOf: (operation: Operation) => number;
  /** Told of each node once, when it is found. */
  readonly onNode: (node: TreeNode) => void;
  /** Operations after which a body counts as endless. */
  readonly maxAccesses: number;
  readonly keepSites: boolean;
}

/** Answers an operation beyond the known part of a tree, or `LEAVE` when the thread cannot go on now. */
export type Continuation = (operation: Operation) => Answer | typeof LEAVE;
export const LEAVE: unique symbol = Symbol("leave");

/** Thrown through a body to leave it; nothing may catch it for good. */
const UNWINDING: Error = new Error("the explorer leaves this thread here; code under test must let this error pass");
const NEGATIVE_ZERO = "-0";

export class ThreadTree {
  readonly #options: TreeOptions;
  readonly #globals: SteppingGlobals;
  #nodes = 0;
  #first: TreeNode | undefined = undefined;
  // Of the run that is going on:
  #path: TreeNode[] = [];
  #answers: Answer[] = [];
  #at = 0;
  #current: TreeNode | undefined = undefined;
  #lastAnswer: Answer = undefined;
  #continuation: Continuation = () => LEAVE;
  #unwinding = false;
  #failure: ShardloomError | undefined = undefined;
  #tickets = 0;

  constructor(options: TreeOptions) {
    this.#options = options;
    const stepper: Stepper = {
      bufferOf: options.bufferOf,
      step: (operation) => this.#step(operation),
      nextTicket: () => this.#tickets++,
    };
    this.#globals = new SteppingGlobals(stepper);
  }

  /** Runs the body from the start as far as `continuation` goes. @returns the first node */
  start(continuation: Continuation): TreeNode {
    return this.#run([], [], continuation);
  }

  /** The node that an answer leads to; the body runs when it is new, and goes on as far as `continuation` answers. */
  child(node: TreeNode, answer: Answer, continuation: Continuation): TreeNode {
    const known = node.children.get(keyOf(answer));
    if (known !== undefined) return known;
    const path: TreeNode[] = [node];
    const answers: Answer[] = [answer];
    for (let child = node; child.parent !== undefined; child = child.parent) {
      path.push(child.parent);
      answers.push(child.answer);
    }
    return this.#run(path.reverse(), answers.reverse(), continuation);
  }

  #run(path: TreeNode[], answers: Answer[], continuation: Continuation): TreeNode {
    this.#path = path;
    this.#answers = answers;
    this.#at = 0;
    this.#current = undefined;
    this.#lastAnswer = undefined;
    this.#continuation = continuation;
    this.#unwinding = false;
    this.#tickets = 0;
    const outcome = this.#globals.run(() => this.#execute());
    const failure = this.#globals.trapped ?? this.#failure;
    if (failure !== undefined) throw failure;
    if (!this.#unwinding) {
      if (this.#at < path.length) throw this.#notRepeatable(path[this.#at] as TreeNode, "its end");
      this.#add(undefined, outcome);
    } else if (!("error" in outcome)) {
      throw invalidArgument(
        "explore schedules",
        `thread ${this.#options.name}`,
        "code that lets unknown errors pass",
        "a body that swallows them",
      );
    }
    return this.#found(path, answers);
  }

  #found(path: readonly TreeNode[], answers: readonly Answer[]): TreeNode {
    const last = path.at(-1);
    const found = last === undefined ? this.#first : last.children.get(keyOf(answers.at(-1)));
    if (found === undefined) throw new ShardloomError("ERR_INTERNAL", "The explorer did not find the node it ran for");
    return found;
  }

  #execute(): Outcome {
    const { name, body } = this.#options;
    try {
      return { value: body({ name, await: (promise) => this.#await(promise) }) };
    } catch (error) {
      return { error };
    }
  }

  #step(operation: Operation): Answer {
    if (this.#unwinding) throw UNWINDING;
    const repeated = this.#path[this.#at];
    if (repeated !== undefined) {
      if (repeated.operation === undefined || !sameOperation(repeated.operation, operation))
        throw this.#fail(this.#notRepeatable(repeated, describeOperation(operation)));
      return this.#answers[this.#at++];
    }
    const node = this.#add(operation, undefined);
    if (node.depth >= this.#options.maxAccesses) throw this.#leave();
    const answer = this.#continuation(operation);
    if (answer === LEAVE) throw this.#leave();
    if (typeof answer === "number" && Number.isNaN(answer)) {
      throw this.#fail(
        invalidArgument(
          "explore schedules",
          "a float in shared memory",
          "a number, as JavaScript does not keep the bits of a NaN",
          answer,
        ),
      );
    }
    this.#lastAnswer = answer;
    return answer;
  }

  #add(operation: Operation | undefined, outcome: Outcome | undefined): TreeNode {
    const parent = this.#current ?? this.#path.at(-1);
    const answer = this.#current === undefined ? this.#answers.at(-1) : this.#lastAnswer;
    const node: TreeNode = {
      id: this.#nodes++,
      depth: parent === undefined ? 0 : parent.depth + 1,
      parent,
      answer,
      operation,
      word: operation === undefined ? -1 : this.#options.wordOf(operation),
      outcome,
      site: this.#options.keepSites ? siteOf(new Error().stack) : undefined,
      children: new Map(),
    };
    if (parent === undefined) this.#first = node;
    else parent.children.set(keyOf(answer), node);
    this.#current = node;
    this.#options.onNode(node);
    return node;
  }

  #await(promise: unknown): void {
    const wait: ModelledWait | undefined = modelledWaitOf(promise);
    if (wait === undefined)
      throw invalidArgument("await in a thread's body", "promise", "one that Atomics.waitAsync gave", promise);
    const operation: Operation = { ...AWAIT, value: wait.ticket };
    let value: unknown = this.#step(operation);
    for (const callback of wait.callbacks) value = callback(value);
  }

  #leave(): Error {
    this.#unwinding = true;
    return UNWINDING;
  }

  #fail(failure: ShardloomError): Error {
    this.#unwinding = true;
    this.#failure = failure;
    return failure;
  }

  #notRepeatable(expected: TreeNode, found: string): ShardloomError {
    const before = expected.operation === undefined ? "its end" : describeOperation(expected.operation);
    return invalidArgument(
      "explore schedules",
      `thread ${this.#options.name}`,
      `a function of what it reads (access ${expected.depth} was ${before})`,
      found,
    );
  }
}

const AWAIT: Operation = {
  kind: "await",
  view: "Int32Array",
  buffer: 0,
  offset: 0,
  value: 0,
  expected: 0,
  timeoutMs: Number.POSITIVE_INFINITY,
};

/** Maps take 0 and -0 for one key. */
function keyOf(answer: Answer): Answer {
  return Object.is(answer, -0) ? NEGATIVE_ZERO : answer;
}

/** `file.js:12` of the first frame outside the explorer. */
function siteOf(stack: string | undefined): string | undefined {
  const frames = (stack ?? "").split("\n").slice(1);
  const frame = frames.find((line) => !line.includes("/sim/explorer/") && !line.includes("<anonymous>"));
  return /([^/\\]+:\d+):\d+\)?$/.exec(frame ?? "")?.[1];
}
