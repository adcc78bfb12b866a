/**
 * A typed address of one virtual actor.
 *
 * Invariant: a reference holds a name, a key and a way to send, nothing of the actor; making one costs an object and sends
 * nothing, and it stays good across passivation, restart and migration. Its methods are made once per definition, on a shared
 * prototype, not by a Proxy: a misspelt message is a TypeError at the call and a type error before it.
 */

import { invalidArgument } from "../errors.ts";
import type { Priority } from "../wire/envelope-layout.ts";
import type { ActorDefinition, AnyActorDefinition } from "./define-actor.ts";

/** Limits on one ask. */
export interface AskOptions {
  /** How long to wait for the answer, in ms, in `(0, 2^31)`. @default the sender's */
  readonly timeoutMs?: number;
  /** Gives the message up: it does not start any more, or its `context.signal` fires. */
  readonly signal?: AbortSignal;
  /** How early the ask is shed when a client has more than the shards can serve. @default "normal" */
  readonly priority?: Priority;
  /** On whose behalf: tenants share what a shard can serve fairly when there is not enough for all. @default nobody's */
  readonly tenant?: string;
}

/** How references reach actors. One per thread, made by the plane; tests make their own. */
export interface ActorSend {
  /** Sends and resolves with the answer, or rejects with a ShardloomError. */
  ask(
    actorName: string,
    key: string,
    handler: string,
    message: unknown,
    options: AskOptions | undefined,
  ): Promise<unknown>;
  /**
   * Sends; resolves when the message has left for its shard, with {@link ACCEPTED} itself when it could leave at once.
   * Rejects with `ERR_OVERLOADED` when too many wait.
   */
  tell(actorName: string, key: string, handler: string, message: unknown): Promise<void>;
}

/** What `tell` returns when a message has left at once: one promise for all, as most do. */
export const ACCEPTED: Promise<void> = Promise.resolve();

type HandlersOf<D extends AnyActorDefinition> = D extends ActorDefinition<infer _S, infer H> ? H : never;

/** The message parameter of a handler, optional when the handler declares none or admits undefined. */
type MessageArguments<F> = F extends (...parameters: infer P) => unknown
  ? P extends readonly [unknown, infer M, ...unknown[]]
    ? undefined extends M
      ? [message?: M]
      : [message: M]
    : P extends readonly [unknown, (infer M)?, ...unknown[]]
      ? unknown extends M
        ? [message?: undefined]
        : [message?: M]
      : [message?: undefined]
  : never;

type AnswerOf<F> = F extends (...parameters: never[]) => infer R ? Awaited<R> : never;

/** Reference to an actor: each handler is a method that asks, and the same name under `tell` sends without an answer. */
export type ActorRef<D extends AnyActorDefinition> = {
  readonly [K in keyof HandlersOf<D> & string]: (
    ...parameters: [...MessageArguments<HandlersOf<D>[K]>, options?: AskOptions]
  ) => Promise<AnswerOf<HandlersOf<D>[K]>>;
} & {
  readonly actorName: string;
  readonly key: string;
  /**
   * Sends without awaiting an answer. The promise resolves when the message was accepted (awaiting it is how a fast sender
   * keeps to the receiver's pace) and rejects with `ERR_OVERLOADED` when it was refused. Leaving it alone is safe: a refusal
   * nobody awaits is counted, not thrown.
   */
  readonly tell: {
    readonly [K in keyof HandlersOf<D> & string]: (...parameters: MessageArguments<HandlersOf<D>[K]>) => Promise<void>;
  };
};

/** A reference whose definition is not known, as an actor's own `context.self`. */
export interface AnyActorRef {
  readonly actorName: string;
  readonly key: string;
  readonly tell: Readonly<Record<string, (message?: unknown) => Promise<void>>>;
}

/** Longest key, in UTF-16 units. */
export const MAX_KEY_LENGTH = 1024;

/**
 * Makes a reference.
 *
 * Cost: one object; `ref.tell` another one when first used.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if the key is empty or longer than 1024.
 */
export function createActorRef<D extends AnyActorDefinition>(definition: D, key: string, send: ActorSend): ActorRef<D> {
  if (typeof key !== "string" || key.length === 0 || key.length > MAX_KEY_LENGTH) {
    throw invalidArgument("refer to actor", "key", `a string of 1 to ${MAX_KEY_LENGTH} characters`, key);
  }
  return new (refClassOf(definition))(key, send) as unknown as ActorRef<D>;
}

/** Where a reference keeps its address, under symbols so that no handler name can meet them. */
const SEND = Symbol("send");
const TELL = Symbol("tell");

interface Address {
  readonly key: string;
  readonly [SEND]: ActorSend;
}
type RefClass = new (key: string, send: ActorSend) => Address;

const refClasses = new WeakMap<AnyActorDefinition, RefClass>();

function refClassOf(definition: AnyActorDefinition): RefClass {
  let made = refClasses.get(definition);
  if (made === undefined) {
    made = makeRefClass(definition);
    refClasses.set(definition, made);
  }
  return made;
}

function makeRefClass(definition: AnyActorDefinition): RefClass {
  const TellClass = makeTellClass(definition);
  class Ref implements Address {
    readonly key: string;
    readonly [SEND]: ActorSend;
    [TELL]: Address | undefined = undefined;
    constructor(key: string, send: ActorSend) {
      this.key = key;
      this[SEND] = send;
    }
    get actorName(): string {
      return definition.name;
    }
    get tell(): Address {
      this[TELL] ??= new TellClass(this.key, this[SEND]);
      return this[TELL];
    }
  }
  for (const handler of definition.handlerNames) {
    defineMethod(Ref.prototype, handler, function ask(this: Address, message?: unknown, options?: AskOptions) {
      return this[SEND].ask(definition.name, this.key, handler, message, options);
    });
  }
  return Ref;
}

function makeTellClass(definition: AnyActorDefinition): RefClass {
  class Tell implements Address {
    readonly key: string;
    readonly [SEND]: ActorSend;
    constructor(key: string, send: ActorSend) {
      this.key = key;
      this[SEND] = send;
    }
  }
  for (const handler of definition.handlerNames) {
    defineMethod(Tell.prototype, handler, function tell(this: Address, message?: unknown) {
      const accepted = this[SEND].tell(definition.name, this.key, handler, message);
      if (accepted !== ACCEPTED) accepted.catch(ignoreRefusal);
      return accepted;
    });
  }
  return Tell;
}

/** A refusal nobody awaits is not an unhandled rejection; whoever awaits the promise still gets it, and it is counted. */
function ignoreRefusal(): void {}

function defineMethod(
  prototype: object,
  name: string,
  method: (this: Address, ...parameters: never[]) => unknown,
): void {
  Object.defineProperty(prototype, name, { value: method, configurable: true, writable: true });
}
