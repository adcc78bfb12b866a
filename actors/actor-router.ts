/**
 * Routes asks and tells to virtual actors: key → vshard → owning shard, in one hop and with no coordinator in between.
 *
 * One per thread. On a client thread every actor is remote; on a worker those of its own shard are delivered on the spot
 * and the rest go over the mesh. Messages are encoded in both cases, so that no actor ever shares an object with
 * another.
 *
 * Invariant: sender and receiver agree on actors and handlers by index, from the table that workers tell at the handshake.
 */

import { ACCEPTED, type ActorSend, type AskOptions } from "../src/actor/actor-ref.ts";
import type { ActorSystem } from "../src/actor/actor-system.ts";
import type { ReplySink } from "../src/actor/delivery.ts";
import { ShardloomError } from "../src/errors.ts";
import type { ReplyFrame } from "../src/routing/requester.ts";
import type { Scheduler, Timer } from "../src/runtime/scheduler.ts";
import { ownerOf, type TopologySnapshot, vshardOfActor } from "../src/topology/snapshot.ts";
import { ActorMessage, encodeKey } from "../src/wire/actor-codec.ts";
import { PRIORITY } from "../src/wire/envelope-layout.ts";
import { ACTOR_ASK, ACTOR_TELL } from "../src/wire/message-types.ts";
import type { ValueCodec } from "../src/wire/value-codec.ts";
import { onAbort } from "./call-options.ts";
import type { Coordinator } from "./coordinator.ts";
import type { Tenure } from "./tenure.ts";

/** Registered actors in table order. */
export type ActorTable = readonly { readonly name: string; readonly handlers: readonly string[] }[];

/** The shard on this thread, when there is one. */
export interface LocalActors {
  readonly shard: number;
  readonly system: ActorSystem;
  readonly tenure: Pick<Tenure, "assertHosting">;
  readonly scheduler: Scheduler;
}

/** What a router needs from its thread. */
export interface ActorRouterOptions {
  readonly coordinator: Coordinator;
  readonly codec: ValueCodec;
  readonly table: ActorTable;
  readonly local?: () => LocalActors;
}

/** Sender id of messages that this thread sends to its own actors. */
const LOCAL_SENDER = 1;
/** How long local messages may chain before the event loop gets a turn. */
const CHAIN_LIMIT_MS = 2;
const EMPTY = new Uint8Array(0);
/** Routes remembered per actor name. A reference is used many times; hashing its key each time would cost more than the send. */
const ROUTE_LIMIT = 4096;

/** Where the messages to one actor go. */
interface Route {
  readonly vshard: number;
  readonly shard: number;
  readonly key: Uint8Array;
}

interface KnownActor {
  readonly index: number;
  readonly handlers: ReadonlyMap<string, number>;
  readonly routes: Map<string, Route>;
}

/** One handler of one actor. */
interface Target {
  readonly actorName: string;
  readonly key: string;
  readonly handlerName: string;
  readonly actor: number;
  readonly handler: number;
  readonly route: Route;
}

const NO_TARGET: Target = {
  actorName: "",
  key: "",
  handlerName: "",
  actor: -1,
  handler: -1,
  route: { vshard: -1, shard: -1, key: EMPTY },
};

/** Sends to actors wherever they live. */
export class ActorRouter implements ActorSend {
  readonly #options: ActorRouterOptions;
  readonly #actors: Map<string, KnownActor> = new Map();
  readonly #open: Map<number, LocalAsk> = new Map();
  readonly #sink: ReplySink;
  readonly #message: ActorMessage;
  readonly #decode: (frame: ReplyFrame) => unknown;
  #last: Target = NO_TARGET;
  /** The topology that all remembered routes are of. */
  #snapshot: TopologySnapshot | undefined;
  #token = 0;

  /** When the present chain of local messages began; negative while there is none. */
  #chainStartMs = -1;
  readonly #putOff: (() => void)[] = [];

  constructor(options: ActorRouterOptions) {
    this.#options = options;
    const { codec } = options;
    for (const [index, { name, handlers }] of options.table.entries()) {
      this.#actors.set(name, {
        index,
        handlers: new Map(handlers.map((handler, at) => [handler, at])),
        routes: new Map(),
      });
    }
    this.#message = new ActorMessage(codec);
    this.#decode = (frame) => codec.decode(frame.bytes, frame.offset, frame.length);
    this.#sink = {
      value: (_, token, value) => this.#settle(token, (ask) => ask.resolve(codec.decode(codec.encode(value)))),
      error: (_, token, error) => this.#settle(token, (ask) => ask.reject(error)),
    };
  }

  /** @throws {ShardloomError} `ERR_UNKNOWN_ACTOR` when no worker hosts an actor of that name. */
  assertKnown(actorName: string): void {
    this.#actor(actorName);
  }

  // Not async: that would put three more microtasks between the answer and the caller. Every failure is a rejection.
  ask(
    actorName: string,
    key: string,
    handler: string,
    message: unknown,
    options: AskOptions | undefined,
  ): Promise<unknown> {
    try {
      const { coordinator } = this.#options;
      const target = this.#find(actorName, key, handler);
      const { route } = target;
      const local = this.#options.local?.();
      if (local?.shard === route.shard)
        return this.#askLocal(local, actorName, key, handler, this.#encode(message), options);
      const payload = this.#message.set(target.actor, target.handler, route.key, message);
      return coordinator.ask(route.shard, ACTOR_ASK, route.vshard, payload, this.#decode, options);
    } catch (error) {
      return Promise.reject(ShardloomError.from(error));
    }
  }

  tell(actorName: string, key: string, handler: string, message: unknown): Promise<void> {
    try {
      const { coordinator } = this.#options;
      const target = this.#find(actorName, key, handler);
      const { route } = target;
      const local = this.#options.local?.();
      if (local?.shard === route.shard) {
        return this.#tellLocal(local, actorName, key, handler, this.#encode(message));
      }
      const payload = this.#message.set(target.actor, target.handler, route.key, message);
      return coordinator.requester(route.shard).tell(ACTOR_TELL, route.vshard, PRIORITY.NORMAL, payload) ?? ACCEPTED;
    } catch (error) {
      return Promise.reject(ShardloomError.from(error));
    }
  }

  /** Looks a receiver up, and remembers it: messages come in runs. */
  #find(actorName: string, key: string, handler: string): Target {
    const { snapshot } = this.#options.coordinator;
    if (snapshot !== this.#snapshot) this.#forget(snapshot);
    const last = this.#last;
    if (key === last.key && handler === last.handlerName && actorName === last.actorName) return last;
    const known = this.#actor(actorName);
    const handlerIndex = this.#handler(known, actorName, handler);
    const route = known.routes.get(key) ?? this.#route(known, actorName, key);
    this.#last = { actorName, key, handlerName: handler, actor: known.index, handler: handlerIndex, route };
    return this.#last;
  }

  #forget(snapshot: TopologySnapshot): void {
    this.#snapshot = snapshot;
    this.#last = NO_TARGET;
    for (const { routes } of this.#actors.values()) routes.clear();
  }

  #encode(message: unknown): Uint8Array {
    return message === undefined ? EMPTY : this.#options.codec.encode(message);
  }

  #actor(actorName: string): KnownActor {
    const actor = this.#actors.get(actorName);
    if (actor !== undefined) return actor;
    const known = [...this.#actors.keys()].join(", ");
    throw new ShardloomError(
      "ERR_UNKNOWN_ACTOR",
      `Cannot refer to actor ${JSON.stringify(actorName)} as it must be one of the cluster's actors (${known || "none"})`,
      {
        details: { actorName },
      },
    );
  }

  #handler(actor: KnownActor, actorName: string, handler: string): number {
    const index = actor.handlers.get(handler);
    if (index !== undefined) return index;
    throw new ShardloomError(
      "ERR_UNKNOWN_ACTOR",
      `Cannot send to actor ${actorName} as it has no handler ${JSON.stringify(handler)}`,
      {
        details: { actorName, handler },
      },
    );
  }

  #route(actor: KnownActor, actorName: string, key: string): Route {
    const { snapshot } = this.#options.coordinator;
    const vshard = vshardOfActor(snapshot, actorName, key);
    const route: Route = { vshard, shard: ownerOf(snapshot, vshard), key: encodeKey(key) };
    if (actor.routes.size >= ROUTE_LIMIT) actor.routes.clear();
    actor.routes.set(key, route);
    return route;
  }

  #askLocal(
    local: LocalActors,
    actorName: string,
    key: string,
    handler: string,
    value: Uint8Array,
    options: AskOptions | undefined,
  ): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const signal = options?.signal;
      if (signal?.aborted === true)
        throw new ShardloomError("ERR_ABORTED", "Cannot finish call as its signal was aborted", {
          cause: signal.reason,
        });
      const { coordinator } = this.#options;
      const deadlineAtMs = coordinator.deadlineAtMs(options);
      const token = ++this.#token;
      const giveUp = (error: ShardloomError): void => {
        local.system.cancel(LOCAL_SENDER, token);
        this.#settle(token, (ask) => ask.reject(error));
      };
      const timer = local.scheduler.timer(Math.max(0, deadlineAtMs - coordinator.nowMs()), () =>
        giveUp(
          new ShardloomError("ERR_TIMEOUT", `Cannot finish ${actorName}.${handler} before its deadline`, {
            details: { actorName, key, handler },
          }),
        ),
      );
      const unlisten = signal === undefined ? (): void => undefined : onAbort(signal, giveUp);
      this.#open.set(token, { resolve, reject, timer, unlisten });
      this.#inTurn(local, () => {
        const refused = refusalOf(local);
        if (refused !== undefined) this.#settle(token, (ask) => ask.reject(refused));
        else this.#deliver(local, actorName, key, handler, value, true, deadlineAtMs, token);
      });
    });
  }

  #tellLocal(local: LocalActors, actorName: string, key: string, handler: string, value: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#inTurn(local, () => {
        const refused = refusalOf(local);
        if (refused !== undefined) reject(refused);
        else if (this.#deliver(local, actorName, key, handler, value, false, 0, 0)) resolve();
        else
          reject(
            new ShardloomError("ERR_OVERLOADED", `Cannot tell ${actorName} as its mailbox is full`, {
              details: { actorName, key },
            }),
          );
      });
    });
  }

  /**
   * Delivers now, or, when local messages have chained in microtasks for {@link CHAIN_LIMIT_MS}, after the event loop has
   * turned: a chain of local asks must not hold rings, timers and I/O back. Nothing overtakes what was put off.
   */
  #inTurn(local: LocalActors, deliver: () => void): void {
    const nowMs = this.#options.coordinator.nowMs();
    if (this.#chainStartMs < 0) {
      this.#chainStartMs = nowMs;
      local.scheduler.turn(() => this.#turned());
    }
    if (this.#putOff.length === 0 && nowMs - this.#chainStartMs < CHAIN_LIMIT_MS) deliver();
    else this.#putOff.push(deliver);
  }

  #turned(): void {
    this.#chainStartMs = -1;
    for (const deliver of this.#putOff.splice(0)) deliver();
  }

  #deliver(
    local: LocalActors,
    actorName: string,
    key: string,
    handler: string,
    bytes: Uint8Array,
    ask: boolean,
    deadlineAtMs: number,
    requestToken: number,
  ): boolean {
    return local.system.deliver(
      {
        actorName,
        key,
        handler,
        bytes,
        byteOffset: 0,
        byteLength: bytes.length,
        ask,
        deadlineAtMs,
        senderId: LOCAL_SENDER,
        requestToken,
      },
      this.#sink,
    );
  }

  #settle(token: number, act: (ask: LocalAsk) => void): void {
    const ask = this.#open.get(token);
    if (ask === undefined) return;
    act(ask);
    this.#open.delete(token);
    ask.timer.cancel();
    ask.unlisten();
  }
}

interface LocalAsk {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: ShardloomError) => void;
  readonly timer: Timer;
  readonly unlisten: () => void;
}

/** Why nothing may be delivered on this thread now. */
function refusalOf({ tenure }: LocalActors): ShardloomError | undefined {
  try {
    tenure.assertHosting();
    return undefined;
  } catch (error) {
    return ShardloomError.from(error);
  }
}
