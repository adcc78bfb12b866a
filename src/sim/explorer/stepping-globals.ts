/**
 * Puts stepping views and `Atomics` in the place of the global ones while a body runs, and traps what is not repeatable.
 *
 * Invariant: bodies run synchronously, and the globals of before are back whenever `run` has returned or thrown, so that no other
 * code of the process ever sees the stepping ones. Clocks, chance and timers throw inside a body: a thread must be a function
 * of what it reads from shared memory.
 */
import { invalidArgument, type ShardloomError } from "../../errors.ts";
import { ELEMENT_BYTES, type ViewName } from "./operation.ts";
import { createSteppingAtomics, createSteppingView, type Stepper } from "./stepping-view.ts";

type Constructor = new (...parameters: unknown[]) => object;

/** Global functions, and members of global objects, that answer differently each time or act later. */
const UNREPEATABLE: readonly string[] = [
  "Date",
  "performance",
  "crypto",
  "setTimeout",
  "setInterval",
  "setImmediate",
  "queueMicrotask",
  "fetch",
];

export class SteppingGlobals {
  /** The first use of something unrepeatable, also when the code under test caught the error. */
  trapped: ShardloomError | undefined = undefined;
  readonly #replacements = new Map<string, unknown>();
  readonly #private = new WeakSet<object>();
  readonly #random: (() => number) | undefined;

  /** @param traps Whether clocks, chance and timers throw. */
  constructor(stepper: Stepper, traps: boolean = true) {
    const table = globalThis as unknown as Record<string, unknown>;
    const isPrivate = (memory: object): boolean => this.#private.has(memory);
    this.#replacements.set("Atomics", createSteppingAtomics(stepper, Atomics, isPrivate));
    for (const name of Object.keys(ELEMENT_BYTES) as ViewName[])
      this.#replacements.set(name, this.#viewClass(stepper, name, table[name] as Constructor));
    this.#replacements.set("SharedArrayBuffer", this.#bufferClass());
    this.#replacements.set("DataView", this.#dataViewClass());
    this.#random = traps ? () => this.#trap("Math.random") : undefined;
    for (const name of traps ? UNREPEATABLE : []) {
      const trap = (): never => this.#trap(name);
      const target = typeof table[name] === "function" ? (table[name] as object) : {};
      this.#replacements.set(name, new Proxy(target, { get: trap, apply: trap, construct: trap }));
    }
  }

  /** Runs `act` with the globals replaced. */
  run<T>(act: () => T): T {
    const table = globalThis as unknown as Record<string, unknown>;
    const before = new Map<string, PropertyDescriptor | undefined>();
    const maths = Math as { random: () => number };
    const { random } = maths;
    try {
      for (const [name, value] of this.#replacements) {
        before.set(name, Object.getOwnPropertyDescriptor(table, name));
        Object.defineProperty(table, name, { value, configurable: true, writable: true, enumerable: false });
      }
      maths.random = this.#random ?? random;
      return act();
    } finally {
      maths.random = random;
      for (const [name, descriptor] of before)
        if (descriptor !== undefined) Object.defineProperty(table, name, descriptor);
    }
  }

  #viewClass(stepper: Stepper, name: ViewName, real: Constructor): unknown {
    return new Proxy(real, {
      construct: (target, parameters: unknown[], newTarget) => {
        const [memory, offset, length] = parameters as [unknown, number | undefined, number | undefined];
        const derived = newTarget === undefined ? target : newTarget;
        if (!(memory instanceof SharedArrayBuffer) || this.#private.has(memory))
          return Reflect.construct(target, parameters, derived) as object;
        // The real constructor checks the range, over memory of that size that is never touched.
        const checkedView = Reflect.construct(target, parameters) as { readonly length: number };
        return createSteppingView(
          stepper,
          name,
          memory,
          offset ?? 0,
          length ?? checkedView.length,
          real.prototype as object,
        );
      },
    });
  }

  /** A buffer made inside a body is that thread's own. */
  #bufferClass(): unknown {
    return new Proxy(SharedArrayBuffer, {
      construct: (target, parameters, newTarget) => {
        const memory = Reflect.construct(target, parameters, newTarget) as object;
        this.#private.add(memory);
        return memory;
      },
    });
  }

  #dataViewClass(): unknown {
    return new Proxy(DataView, {
      construct: (target, parameters: unknown[]) => {
        if (parameters[0] instanceof SharedArrayBuffer)
          throw invalidArgument("step through shared memory", "a view", "a typed array", parameters[0]);
        return Reflect.construct(target, parameters) as object;
      },
    });
  }

  #trap(name: string): never {
    this.trapped ??= invalidArgument(
      "explore schedules",
      "a thread's body",
      "a function of the shared memory alone",
      `a body that uses ${name}`,
    );
    throw this.trapped;
  }
}
