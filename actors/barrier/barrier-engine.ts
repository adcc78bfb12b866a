/**
 * The barrier engine of one shard: the message handlers over its barriers.
 *
 * Invariant: every ask ends once. An arrival whose phase is not complete is answered later, when it is or when the tick fails;
 * one that completes its phase is answered last, after those it releases, as only one reply may be open at a time.
 */
import { ShardloomError } from "../../src/errors.ts";
import { type ResolvedBarrierOptions, resolveBarrierOptions } from "../../src/routing/barrier-options.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import { errorFromValue } from "../../src/wire/error-codec.ts";
import {
  BARRIER_ADVANCE,
  BARRIER_ARRIVE,
  BARRIER_CLOSE,
  BARRIER_JOIN,
  BARRIER_LEAVE,
  BARRIER_OPEN,
  BARRIER_POISON,
  BARRIER_STATE,
} from "../../src/wire/message-types.ts";
import type { Engine, EngineHandler, EngineReply, EngineRequest, HeldReply } from "../engine.ts";
import { BarrierHost, type BarrierWait } from "./barrier-host.ts";
import {
  ARRIVE_REPLY_BYTES,
  type ReceivedArrivals,
  readArrive,
  readFields,
  replyBody,
  writeArriveReply,
} from "./barrier-messages.ts";

/** What the engine works with. */
export interface BarrierEngineOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly randomU32: () => number;
}

/** The engine, and what the shard's own actors and its control plane use directly. */
export interface BarrierEngine extends Engine {
  readonly host: BarrierHost;
}

/** Creates the engine of one shard, on that shard's thread. Its barriers end with the thread. */
export function createBarrierEngine(options: BarrierEngineOptions): BarrierEngine {
  const { clock, scheduler, randomU32 } = options;
  const host = new BarrierHost({ clock, scheduler, firstId: randomU32() });
  const arrivals: ReceivedArrivals = { barrier: 0, session: 0, phase: 0, count: 0, tick: 0, from: 0 };
  const handlers: [number, EngineHandler][] = [
    [BARRIER_ARRIVE, (request, reply) => arrive(host, arrivals, request, reply)],
    ...Object.entries(HANDLERS).map(([type, handle]): [number, EngineHandler] => [
      Number(type),
      (request, reply) => replyBody(reply, handle(host, request)),
    ]),
  ];
  return {
    host,
    handlers: new Map(handlers),
    close: () => host.closeAll(new ShardloomError("ERR_CLOSED", "Cannot wait at barrier as its shard is closed")),
  };
}

/** Everything but arrivals: a plain value in, a plain value out. */
const HANDLERS: Readonly<Record<number, (host: BarrierHost, request: EngineRequest) => unknown>> = {
  [BARRIER_OPEN]: (host, request) => {
    const { name, origin, options } = readFields<{
      readonly name: string;
      readonly origin: string;
      readonly options?: ResolvedBarrierOptions;
    }>(request, { name: "string", origin: "string", options: "object|undefined" });
    return host.open(name, options === undefined ? undefined : received(options), origin);
  },
  [BARRIER_CLOSE]: (host, request) => {
    const { barrier, session } = readFields<Addressed>(request, ADDRESSED);
    return host.close(barrier, session);
  },
  [BARRIER_JOIN]: (host, request) => {
    const { barrier, session, member } = readFields<Addressed & { readonly member: string }>(request, {
      ...ADDRESSED,
      member: "string",
    });
    return host.join(barrier, session, member);
  },
  [BARRIER_LEAVE]: (host, request) => {
    const { barrier, member, lost } = readFields<Addressed & { readonly member: string; readonly lost?: unknown }>(
      request,
      { ...ADDRESSED, member: "string", lost: "any" },
    );
    return lost === undefined ? host.leave(barrier, member) : host.lose(barrier, member, errorFromValue(lost));
  },
  [BARRIER_ADVANCE]: (host, request) => {
    const { barrier, from } = readFields<Addressed & { readonly from: number }>(request, {
      ...ADDRESSED,
      from: "number",
    });
    return host.advance(barrier, from);
  },
  [BARRIER_POISON]: (host, request) => {
    const { barrier, cause, member } = readFields<
      Addressed & { readonly cause: unknown; readonly member: string | undefined }
    >(request, { ...ADDRESSED, cause: "any", member: "string|undefined" });
    host.poison(barrier, errorFromValue(cause), member);
    return undefined;
  },
  [BARRIER_STATE]: (host, request) => host.state(readFields<Addressed>(request, ADDRESSED).barrier),
};

interface Addressed {
  readonly barrier: number;
  readonly session: number;
}
const ADDRESSED = { barrier: "number", session: "number" } as const;

/** Options that came over the wire, checked again. */
function received(options: ResolvedBarrierOptions): ResolvedBarrierOptions {
  const { quorum, deadlineMs, phaseDeadlineMs, ...rest } = options;
  return resolveBarrierOptions({
    ...rest,
    ...(quorum === 0 ? {} : { quorum }),
    ...(deadlineMs === Number.POSITIVE_INFINITY ? {} : { deadlineMs }),
    ...(phaseDeadlineMs === Number.POSITIVE_INFINITY ? {} : { phaseDeadlineMs }),
  });
}

function arrive(host: BarrierHost, arrivals: ReceivedArrivals, request: EngineRequest, reply: EngineReply): void {
  readArrive(request, arrivals);
  const { barrier, session, tick, phase, from, count } = arrivals;
  if (!host.arrive(barrier, session, tick, phase, request.i32, from, count)) {
    const held = reply.hold();
    if (held !== undefined) host.wait(barrier, tick, phase, new HeldWait(held));
    return;
  }
  const arrived = host.arrivedAt(barrier, tick, phase);
  const members = host.membersAt(barrier, tick, phase);
  reply.claim(ARRIVE_REPLY_BYTES);
  writeArriveReply(reply, reply.offset, tick, phase, arrived, members);
}

/** A thread that waits in a reply. */
class HeldWait implements BarrierWait {
  readonly #held: HeldReply;

  constructor(held: HeldReply) {
    this.#held = held;
  }

  get abandoned(): boolean {
    return this.#held.cancelled;
  }

  released(tick: number, phase: number, arrived: number, members: number): void {
    this.#held.send(ARRIVE_REPLY_BYTES, (memory, offset) =>
      writeArriveReply(memory, offset, tick, phase, arrived, members),
    );
  }

  failed(error: ShardloomError): void {
    this.#held.fail(error);
  }
}
