/**
 * Traps on every way out of a simulated world: real time, real chance, real waiting, real I/O.
 *
 * Invariant: once armed, such a call throws `ERR_SIMULATION_ESCAPE` with its name and the place it was made from, and is told to
 * {@link Traps.onCall}, so that the run fails even where the error is swallowed. The traps stand before any other module of ours is loaded, so that nobody keeps an
 * untrapped function; what Node itself calls for its own purposes, to load a module say, passes.
 * Source: turmoil and madsim replace the platform's functions when they are linked; here they are replaced at run time, also for what has
 * imported them already (`syncBuiltinESMExports`).
 */
import { createRequire, isBuiltin, syncBuiltinESMExports } from "node:module";
import { promisify } from "node:util";
import { ShardloomError } from "../errors.ts";
import { DATE_TRAPS, type EscapeKind, GETTER_TRAPS, GLOBAL_TRAPS, IMPORT_CALL, MODULE_TRAPS } from "./trap-table.ts";

/** `open`: nothing is refused. `loading`: modules may read files and the time while they are loaded. `armed`: everything is refused. */
export type TrapPhase = "open" | "loading" | "armed";

/** What was called, and from where. */
export interface TrappedCall {
  readonly call: string;
  /** First frame outside of the simulator: "file:///.../x.js:12:3", or "" when there is none. */
  readonly site: string;
}

type Callable = (...args: unknown[]) => unknown;

const LOADING_MAY: ReadonlySet<EscapeKind> = new Set(["time", "files"]);
/** Functions that hang on functions. */
const HIDDEN: ReadonlySet<string | symbol> = new Set([promisify.custom, "native", "bigint", "rss"]);
/** Frames kept of the stack of a trapped call. */
const STACK_FRAMES = 50;

/** Sets all traps; nothing is refused until {@link Traps.enter}. Call before importing anything else. */
export function installTraps(): Traps {
  return new Traps();
}

/** The traps of this thread. */
export class Traps {
  #phase: TrapPhase = "open";
  /** Is told of every refused call, before the error is thrown: the caller may swallow that. */
  onCall: (call: TrappedCall) => void = () => undefined;
  readonly #undo: (() => void)[] = [];

  constructor() {
    for (const [kind, path, names] of GLOBAL_TRAPS) {
      const owner = path === "" ? globalThis : memberAt(path);
      if (owner === undefined) continue;
      for (const name of names) this.#replace(owner, name, kind, path === "" ? name : `${path}.${name}`);
    }
    this.#undo.push(replaceDate(() => this.#check("time", "Date")));
    for (const [path, names] of GETTER_TRAPS)
      for (const name of names)
        this.#replaceGetter(path, name, (value) => {
          this.#check("time", `${path}.${name}`);
          return value;
        });
    for (const [path, names] of DATE_TRAPS) for (const name of names) this.#replaceFormat(path, name);
    const load = createRequire(import.meta.url);
    for (const { kind, module, names, except = [] } of MODULE_TRAPS) {
      const exported = loadQuietly(load, `node:${module}`);
      if (exported === undefined) continue;
      const all = names === "all" ? Object.keys(exported).filter((name) => !except.includes(name)) : names;
      for (const path of all) {
        const [name = path, within] = path.split(".").reverse();
        const owner = within === undefined ? exported : (Reflect.get(exported, within) as object | undefined);
        if (owner !== undefined) this.#replace(owner, name, kind, `${module}.${path}`);
      }
    }
    syncBuiltinESMExports();
  }

  /** What is refused from now on. */
  enter(phase: TrapPhase): void {
    this.#phase = phase;
  }

  /** Puts everything back. */
  remove(): void {
    for (const act of this.#undo.reverse()) act();
    syncBuiltinESMExports();
  }

  #check(kind: EscapeKind, call: string): void {
    if (this.#phase === "open" || (this.#phase === "loading" && LOADING_MAY.has(kind))) return;
    const { byNode, byImport, site } = callSite();
    if (byNode && !byImport) return;
    this.#refuse(byImport ? IMPORT_CALL : call, site);
  }

  #refuse(call: string, site: string): never {
    this.onCall({ call, site });
    const place = site === "" ? "an unknown place" : site;
    throw new ShardloomError(
      "ERR_SIMULATION_ESCAPE",
      `Cannot call ${call} as everything in a simulated world must come from its seed: called at ${place}`,
      { details: { call, site } },
    );
  }

  #trapped(kind: EscapeKind, call: string, real: Callable): Callable {
    return new Proxy(real, {
      apply: (target, self, args) => {
        this.#check(kind, call);
        return Reflect.apply(target, self, args);
      },
      construct: (target, args, newTarget) => {
        this.#check(kind, call);
        return Reflect.construct(target, args, newTarget) as object;
      },
      get: (target, property) => {
        const value: unknown = Reflect.get(target, property);
        if (typeof value !== "function" || !HIDDEN.has(property)) return value;
        return this.#trapped(kind, `${call}.${String(property)}`, value as Callable);
      },
    });
  }

  /** Replaces what reading a property gives. @param change Is given what would be read */
  #replaceGetter(path: string, name: string, change: (value: unknown) => unknown): void {
    const owner = memberAt(path);
    const before = owner === undefined ? undefined : Object.getOwnPropertyDescriptor(owner, name);
    if (owner === undefined || before === undefined || before.configurable !== true) return;
    const { enumerable = false } = before;
    const get = function (this: unknown): unknown {
      return change(before.get === undefined ? before.value : (before.get.call(this) as unknown));
    };
    Object.defineProperty(owner, name, { get, configurable: true, enumerable });
    this.#undo.push(() => Object.defineProperty(owner, name, before));
  }

  /** A function that formats a date that is given; without one it would read the clock. */
  #replaceFormat(path: string, name: string): void {
    const formatters = new WeakMap<object, Callable>();
    const owner = memberAt(path);
    const descriptor = owner === undefined ? undefined : Object.getOwnPropertyDescriptor(owner, name);
    const guarded = (real: Callable): Callable => {
      const known = formatters.get(real);
      if (known !== undefined) return known;
      const check = (): void => this.#check("time", `${path}.${name}`);
      const made = function (this: unknown, ...args: unknown[]): unknown {
        if (args[0] === undefined) check();
        return Reflect.apply(real, this, args);
      };
      formatters.set(real, made);
      return made;
    };
    if (descriptor !== undefined) this.#replaceGetter(path, name, (value) => guarded(value as Callable));
  }

  /** Replaces one function of an object, also an inherited one. */
  #replace(owner: object, name: string, kind: EscapeKind, call: string): void {
    const real: unknown = Reflect.get(owner, name);
    if (typeof real !== "function") return;
    const before = Object.getOwnPropertyDescriptor(owner, name);
    if (before?.configurable === false && before.writable !== true) return;
    const { configurable = true, enumerable = false } = before ?? {};
    const value = this.#trapped(kind, call, real as Callable);
    Object.defineProperty(owner, name, { value, writable: true, configurable, enumerable });
    this.#undo.push(() => {
      if (before === undefined) Reflect.deleteProperty(owner, name);
      else Object.defineProperty(owner, name, before);
    });
  }
}

/** A built-in module, without the warning that it is an experiment; undefined where this platform has none. */
function loadQuietly(load: NodeJS.Require, name: string): object | undefined {
  if (!isBuiltin(name)) return undefined;
  const platform = memberAt("process") as { emitWarning: (...args: unknown[]) => void };
  const { emitWarning } = platform;
  platform.emitWarning = () => undefined;
  try {
    return load(name) as object;
  } catch {
    return undefined; // a platform that was built without it
  } finally {
    platform.emitWarning = emitWarning;
  }
}

/** An object by its path from the global one; undefined where this platform has none. */
function memberAt(path: string): object | undefined {
  let at: unknown = globalThis;
  for (const part of path.split(".")) at = (at as Record<string, unknown> | undefined)?.[part];
  return at as object | undefined;
}

/** `Date` that refuses to read the clock; dates that are given are values. @returns puts the real one back */
function replaceDate(check: () => void): () => void {
  const Real = Date;
  const Trapped: DateConstructor = new Proxy(Real, {
    apply: () => {
      check();
      return Real();
    },
    construct: (target, args, newTarget) => {
      if (args.length === 0) check();
      return Reflect.construct(target, args, newTarget === Trapped ? Real : newTarget) as object;
    },
    get: (target, property) => {
      const value: unknown = Reflect.get(target, property);
      if (property !== "now") return value;
      return () => {
        check();
        return Real.now();
      };
    },
  });
  const define = (date: DateConstructor): void => {
    Object.defineProperty(globalThis, "Date", { value: date, writable: true, configurable: true, enumerable: false });
    Object.defineProperty(Real.prototype, "constructor", {
      value: date,
      writable: true,
      configurable: true,
      enumerable: false,
    });
  };
  define(Trapped);
  return () => define(Real);
}

/** Where the trapped call was made: the first frame outside of this file, and the first outside of Node. */
function callSite(): { readonly byNode: boolean; readonly byImport: boolean; readonly site: string } {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = STACK_FRAMES;
  const { stack = "" } = new Error("where");
  Error.stackTraceLimit = limit;
  const frames = stack
    .split("\n")
    .flatMap((line) => /^\s*at (?:.*\()?((?:file:|node:|\/|[A-Za-z]:\\)[^()]*?:\d+:\d+)\)?$/.exec(line)?.[1] ?? []);
  const outside = frames.filter((frame) => !HERE.test(frame) && !PROMISIFIED.test(frame));
  const site = outside.find((frame) => !frame.startsWith("node:")) ?? "";
  const [caller = ""] = outside;
  return { byNode: caller.startsWith("node:"), byImport: IMPORT.test(caller), site };
}

/** This file, as frames name it, with source maps or without. */
const HERE = /\/sim\/traps\.[jt]s:/;
/** What `promisify` puts between a caller and what he calls. */
const PROMISIFIED = /^node:internal\/util:/;
/** The loader reads the text of a module that was not loaded before, in real time. */
const IMPORT = /^node:internal\/modules\/esm\/load:/;
