/**
 * Drives the ticks of a set of actors: for every phase, every actor runs the phase's handler, and the barrier counts them.
 *
 * Each actor is one member of the barrier. It arrives when its handler has answered; when the handler fails, it is lost, and
 * the barrier's loss policy says what becomes of the tick. It joins again at once, for the next tick.
 *
 * Invariant: a handler runs once per actor and tick, after every phase before it is complete. A tick that `run` has begun is
 * either reported complete or failed with an error, never both.
 */
import type { AskOptions } from "../../src/actor/actor-ref.ts";
import type { PhaseResult, TickBarrier } from "../../src/actor/tick-barrier.ts";
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { type Clock, systemClock } from "../../src/runtime/clock.ts";

/** What a phase's handler gets as its message. */
export interface TickMessage {
  readonly tick: number;
  readonly phase: string;
}

/** What went wrong with one member, in one phase. */
export interface TickError {
  readonly member: string;
  readonly error: ShardloomError;
}

/** One phase of a tick that is done. */
export interface PhaseReport {
  readonly name: string;
  readonly tookMs: number;
  /** Members that had arrived when it was complete, of the whole barrier. */
  readonly arrived: number;
  /** Actors of this driver that were lost in it. */
  readonly lost: readonly string[];
  readonly errors: readonly TickError[];
}

/** A tick that is done. */
export interface TickReport {
  readonly tick: number;
  readonly phases: readonly PhaseReport[];
}

/** Options of {@link drive}. */
export interface DriveOptions {
  /** Measures the phases. @default the machine's */
  readonly clock?: Clock;
  /** Handler that each phase runs, by phase. @default the handler of the phase's name */
  readonly handlers?: Readonly<Record<string, string>>;
  /** How long an actor may take for one phase, in ms. @default that of every ask */
  readonly timeoutMs?: number;
}

/** Runs ticks over one set of actors. */
export interface TickDriver {
  /** Runs the tick that the barrier is at; one that has failed is passed first. One at a time. @throws {ShardloomError} `ERR_BARRIER` and those of `TickBarrier.arrive` */
  runTick(): Promise<TickReport>;
}

/** A reference made with `cluster.actor` or `context.actor`. */
export interface DrivenActor {
  readonly actorName: string;
  readonly key: string;
}

type Handler = (this: DrivenActor, message: TickMessage, options?: AskOptions) => Promise<unknown>;

/** The name under which an actor is a member. */
export function memberOf({ actorName, key }: DrivenActor): string {
  return `${actorName}/${key}`;
}

/**
 * Joins every actor to the barrier and gives the driver of their ticks. Several drivers may share a barrier, on any threads.
 *
 * @param actors At least one, each once.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when there are none, or one has no handler for a phase.
 */
export async function drive(
  barrier: TickBarrier,
  actors: readonly DrivenActor[],
  options: DriveOptions = {},
): Promise<TickDriver> {
  if (actors.length === 0) throw invalidArgument("drive barrier", "actors", "at least one reference", actors.length);
  const members = new Map(actors.map((ref) => [memberOf(ref), ref]));
  if (members.size < actors.length)
    throw invalidArgument("drive barrier", "actors", "distinct references", actors.length - members.size);
  const handlers = barrier.phases.map((phase) => options.handlers?.[phase] ?? phase);
  for (const ref of actors) for (const handler of handlers) handlerOf(ref, handler);
  await Promise.all([...members.keys()].map((member) => barrier.join(member)));
  return new Driver(barrier, members, handlers, options);
}

class Driver implements TickDriver {
  readonly #barrier: TickBarrier;
  readonly #members: ReadonlyMap<string, DrivenActor>;
  readonly #handlers: readonly string[];
  readonly #options: DriveOptions;
  /** First tick that each member belongs to again, after a loss. */
  readonly #from: Map<string, number> = new Map();
  #running = false;

  constructor(
    barrier: TickBarrier,
    members: ReadonlyMap<string, DrivenActor>,
    handlers: readonly string[],
    options: DriveOptions,
  ) {
    this.#barrier = barrier;
    this.#members = members;
    this.#handlers = handlers;
    this.#options = options;
  }

  async runTick(): Promise<TickReport> {
    if (this.#running)
      throw invalidArgument("run tick", "driver", "done with its last tick", `tick ${this.#barrier.tick}`);
    this.#running = true;
    try {
      return await this.#runTick();
    } finally {
      this.#running = false;
    }
  }

  async #runTick(): Promise<TickReport> {
    const barrier = this.#barrier;
    const { status, tick: at } = await barrier.state();
    const tick = status === "failed" || status === "complete" ? await barrier.advanceTick(at) : at;
    const phases: PhaseReport[] = [];
    for (const [index, name] of barrier.phases.entries())
      phases.push(await this.#runPhase(tick, name, this.#handlers[index] as string));
    return { tick, phases };
  }

  async #runPhase(tick: number, phase: string, handler: string): Promise<PhaseReport> {
    const { clock = systemClock } = this.#options;
    const startedMs = clock.nowMs();
    const lost: string[] = [];
    const errors: TickError[] = [];
    const done = await new Promise<PhaseResult>((resolve, reject) => {
      let open = 0;
      let last: ShardloomError | undefined;
      const ended = (error: ShardloomError | undefined): void => {
        last = error ?? last;
        // After the last one: when the phase was complete this comes too late to matter.
        if (--open === 0) reject(last ?? allLost(tick, phase, errors));
      };
      for (const [member, ref] of this.#members) {
        if ((this.#from.get(member) ?? 0) > tick) continue;
        open++;
        this.#runMember(member, ref, { tick, phase }, handler, lost, errors).then(
          (result) => {
            if (result === undefined) ended(undefined);
            else resolve(result);
          },
          (thrown: unknown) => {
            const error = ShardloomError.from(thrown);
            if (error.code === "ERR_BARRIER") reject(error);
            errors.push({ member, error });
            ended(error);
          },
        );
      }
      if (open === 0) reject(allLost(tick, phase, errors));
    });
    return {
      name: phase,
      tookMs: clock.nowMs() - startedMs,
      arrived: done.arrived,
      lost: [...lost],
      errors: [...errors],
    };
  }

  /** @returns undefined when the actor was lost and the tick goes on without it */
  async #runMember(
    member: string,
    ref: DrivenActor,
    message: TickMessage,
    handler: string,
    lost: string[],
    errors: TickError[],
  ): Promise<PhaseResult | undefined> {
    const { timeoutMs } = this.#options;
    try {
      await handlerOf(ref, handler).call(ref, message, timeoutMs === undefined ? undefined : { timeoutMs });
    } catch (caught) {
      const error = ShardloomError.from(caught);
      lost.push(member);
      errors.push({ member, error });
      this.#from.set(member, message.tick + 1);
      const left = this.#barrier.lose(member, error);
      await left;
      this.#from.set(member, await this.#barrier.join(member));
      return undefined;
    }
    return this.#barrier.arrive(member, message.phase, { round: message.tick });
  }
}

function allLost(tick: number, phase: string, errors: readonly TickError[]): ShardloomError {
  return new ShardloomError("ERR_BARRIER", `Cannot run tick ${tick} as every actor of it was lost`, {
    details: { tick, phase, reason: "lost" },
    cause: errors[0]?.error,
  });
}

function handlerOf(ref: DrivenActor, handler: string): Handler {
  const method = (ref as unknown as Record<string, unknown>)[handler];
  if (typeof method === "function") return method as Handler;
  throw invalidArgument(`drive actor ${ref.actorName}`, "handler", "one that it has", handler);
}
