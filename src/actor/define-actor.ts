/**
 * What an actor is: a name, how its state begins, and one handler per message.
 *
 * Invariant: a definition is checked once, here, and never changes; whatever makes it invalid is a typed error at the line
 * that defines it, not at the first message. References are typed by inference from it (`actor-ref.ts`), without generated
 * code, so two threads that load the same module agree on the types.
 * Source: Orleans' virtual actors (turn-based, activated by the first message). Divergence: handlers get their state as an
 * argument and may change it in place; there is no class to extend.
 */

import { invalidArgument } from "../errors.ts";
import { type ActorOptions, type ResolvedActorOptions, resolveActorOptions } from "./actor-options.ts";
import type { ActorContext } from "./context.ts";

/**
 * Handles one message. Runs alone in its actor: the next message waits until what it returned has settled.
 * What it throws fails the message, and `options.restart.decide` says what becomes of the actor.
 */
// biome-ignore lint/suspicious/noExplicitAny: the message type is inferred from each handler, and only `any` admits them all.
export type Handler<S> = (state: S, message: any, context: ActorContext) => unknown;

/** Any handler, where its state does not matter. */
// biome-ignore lint/suspicious/noExplicitAny: a handler is contravariant in its state; only `any` stands for all of them.
export type AnyHandler = Handler<any>;

/** Handlers by message name. */
export type Handlers<S> = Readonly<Record<string, Handler<S>>>;

/**
 * Why `onStop` runs: the system closes, the state was given up after a failure, the restart budget is spent, the host was told
 * to stop this actor, or it has moved: another shard is the primary of its vshard now, where the next message finds a fresh state.
 */
export type StopReason = "closed" | "restart" | "escalated" | "stopped" | "moved";

/** What {@link defineActor} takes. */
export interface ActorSpec<S, H extends Handlers<S>> {
  /** Letters, digits, `-` and `_`, starting with a letter, at most 64. The same on every thread and node. */
  readonly name: string;
  /** Makes the state of a new activation, also after passivation and after a restart. */
  readonly init: (context: ActorContext) => S | Promise<S>;
  readonly handlers: H;
  /** Runs after `init`, before the first message. */
  readonly onStart?: (state: S, context: ActorContext) => void | Promise<void>;
  /** Runs before the state is dropped, unless by passivation. */
  readonly onStop?: (state: S, context: ActorContext, reason: StopReason) => void | Promise<void>;
  /** Runs before an idle activation is dropped. Messages that arrive meanwhile find a fresh state after it. */
  readonly onPassivate?: (state: S, context: ActorContext) => void | Promise<void>;
  readonly options?: ActorOptions;
}

const BRAND: unique symbol = Symbol.for("shardloom.actor");

/** A checked definition. */
export interface ActorDefinition<S, H extends Handlers<S>> {
  readonly name: string;
  readonly spec: ActorSpec<S, H>;
  readonly handlerNames: readonly (keyof H & string)[];
  readonly options: ResolvedActorOptions;
}

/** Any definition, where its types do not matter. */
// biome-ignore lint/suspicious/noExplicitAny: a definition is invariant in its state; only `any` stands for all of them.
export type AnyActorDefinition = ActorDefinition<any, any>;

const ACTOR_NAME = /^[A-Za-z][A-Za-z0-9_-]{0,63}$/;
const HANDLER_NAME = /^[A-Za-z][A-Za-z0-9_]{0,63}$/;

/** Names that a reference has itself, or that make `await` and conversions call it. */
const RESERVED: ReadonlySet<string> = new Set([
  ...Object.getOwnPropertyNames(Object.prototype),
  ...["ask", "tell", "actorName", "key", "then", "catch", "finally", "toJSON", "prototype", "arguments", "caller"],
]);

/**
 * Defines an actor.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if a name, a handler or an option is not valid.
 *
 * @example A counter
 * const counter = defineActor({
 *   name: "counter",
 *   init: () => ({ total: 0 }),
 *   handlers: {
 *     add(state, amount: number) {
 *       state.total += amount;
 *       return state.total;
 *     },
 *   },
 * });
 */
export function defineActor<S, H extends Handlers<S>>(spec: ActorSpec<S, H>): ActorDefinition<S, H> {
  const action = "define actor";
  if (typeof spec !== "object" || spec === null) throw invalidArgument(action, "spec", "an object", spec);
  if (typeof spec.name !== "string" || !ACTOR_NAME.test(spec.name)) {
    throw invalidArgument(action, "name", "letters, digits, - and _, starting with a letter, at most 64", spec.name);
  }
  for (const hook of ["onStart", "onStop", "onPassivate"] as const) {
    if (spec[hook] !== undefined) requireFunction(action, hook, spec[hook]);
  }
  requireFunction(action, "init", spec.init);
  const definition = {
    name: spec.name,
    spec: Object.freeze({ ...spec, handlers: Object.freeze({ ...spec.handlers }) }),
    handlerNames: checkHandlers(action, spec.handlers),
    options: resolveActorOptions(spec.options),
  };
  Object.defineProperty(definition, BRAND, { value: true });
  return Object.freeze(definition);
}

/** Whether a value is a definition, also one made by another copy of the package. */
export function isActorDefinition(value: unknown): value is AnyActorDefinition {
  return typeof value === "object" && value !== null && (value as Record<symbol, unknown>)[BRAND] === true;
}

function checkHandlers<H extends object>(action: string, handlers: H): readonly (keyof H & string)[] {
  if (typeof handlers !== "object" || handlers === null)
    throw invalidArgument(action, "handlers", "an object of functions", handlers);
  const names = Object.keys(handlers) as (keyof H & string)[];
  if (names.length === 0) throw invalidArgument(action, "handlers", "an object with at least one function", handlers);
  for (const name of names) {
    if (!HANDLER_NAME.test(name))
      throw invalidArgument(action, "handler name", "an identifier of at most 64 characters", name);
    if (RESERVED.has(name)) throw invalidArgument(action, "handler name", "other than the reserved names", name);
    requireFunction(action, `handlers.${name}`, handlers[name]);
  }
  return Object.freeze(names);
}

function requireFunction(action: string, name: string, value: unknown): void {
  if (typeof value !== "function") throw invalidArgument(action, name, "a function", value);
}
