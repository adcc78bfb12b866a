/**
 * Tick barriers as their users see them: opened by name, from any thread of the cluster or on one thread alone.
 *
 * The name decides which shard hosts a barrier (hash → vshard → owner). All handles of one thread on one barrier share a session,
 * so that their members' arrivals share messages.
 *
 * Invariant: closing a handle takes out exactly the members that were used through it. When the host is lost, every wait
 * and call of every handle ends with `ERR_BARRIER` (`details.reason` "host-lost"), and opening the name again makes a new
 * barrier, at the tick that its options say.
 */
import type {
  ArriveOptions,
  BarrierState,
  OpenBarrierOptions,
  PhaseResult,
  TickBarrier,
} from "../../src/actor/tick-barrier.ts";
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import {
  assertSameBarrier,
  type ResolvedBarrierOptions,
  resolveBarrierOptions,
} from "../../src/routing/barrier-options.ts";
import { onceAborted } from "../../src/runtime/abort.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import { ownerOf, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import { hashString } from "../../src/topology/stable-hash.ts";
import { checkSignal } from "../call-options.ts";
import type { Coordinator } from "../coordinator.ts";
import { BarrierHost } from "./barrier-host.ts";
import { type BarrierLink, type Hosting, LONGEST_WAIT_MS, LocalLink, RemoteLink } from "./barrier-link.ts";
import { BarrierSession } from "./barrier-session.ts";

const MAX_NAME_LENGTH = 256;

/** What the barriers of one thread work with. */
export interface BarrierCatalogOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly coordinator: Coordinator;
  /**
   * The thread as the shards know it, so that they notice when it is gone: `client:<name>` or `shard:<number>#<incarnation>`.
   */
  readonly origin: string;
  /** @default the coordinator's `requestTimeoutMs` */
  readonly waitTimeoutMs: number;
  /** On a shard's thread: its own barriers. */
  readonly local?: { readonly shard: number; readonly host: BarrierHost; readonly tenure: Hosting };
}

/** The barriers that one thread has open. */
export class BarrierCatalog {
  readonly #options: BarrierCatalogOptions;
  readonly #sessions: Map<string, Promise<BarrierSession>> = new Map();

  constructor(options: BarrierCatalogOptions) {
    this.#options = options;
  }

  /**
   * Opens a barrier, creating it when it is new and `options` are given.
   *
   * @throws {ShardloomError} `ERR_BARRIER` without options for a new name, `ERR_INVALID_ARGUMENT`, and those of every call.
   */
  readonly open = async (name: string, options?: OpenBarrierOptions): Promise<TickBarrier> => {
    if (typeof name !== "string" || name.length === 0 || name.length > MAX_NAME_LENGTH)
      throw invalidArgument("open barrier", "name", `a string of 1 to ${MAX_NAME_LENGTH} characters`, name);
    const waitTimeoutMs = checkWait(options?.waitTimeoutMs ?? this.#options.waitTimeoutMs);
    const resolved = options === undefined ? undefined : resolveBarrierOptions(options);
    const session = await this.#session(name, resolved);
    try {
      if (resolved !== undefined) assertSameBarrier(name, session.options, resolved);
    } catch (error) {
      await this.#release(session);
      throw error;
    }
    return new ClientBarrier(session, this.#options.scheduler, waitTimeoutMs, () => this.#release(session));
  };

  /** Tick of every barrier that this thread has open, by name, as it last heard of it. */
  async ticks(): Promise<Record<string, number>> {
    const ticks: Record<string, number> = {};
    for (const [name, opening] of this.#sessions) {
      const session = await opening.catch(() => undefined); // its opener has the error
      if (session !== undefined) ticks[name] = session.tick;
    }
    return ticks;
  }

  #session(name: string, resolved: ResolvedBarrierOptions | undefined): Promise<BarrierSession> {
    const open = this.#sessions.get(name);
    if (open !== undefined) {
      // It may have failed for want of options that this caller gives, or be closed by the time that it is open.
      const anew = (): Promise<BarrierSession> => this.#session(name, resolved);
      return open.then((session) => (this.#sessions.get(name) === open ? retain(session) : anew()), anew);
    }
    const { origin, scheduler } = this.#options;
    const forget = (): void => {
      if (this.#sessions.get(name) === opening) this.#sessions.delete(name);
    };
    const opening = (async (): Promise<BarrierSession> => {
      const link = this.#link(name);
      const opened = await link.open(name, resolved, origin);
      return new BarrierSession({ name, link, opened, scheduler, onEnded: forget });
    })();
    opening.catch(forget);
    this.#sessions.set(name, opening);
    return opening.then(retain);
  }

  #link(name: string): BarrierLink {
    const { coordinator, local } = this.#options;
    const { snapshot } = coordinator;
    const vshard = vshardOfBarrier(snapshot, name);
    const shard = ownerOf(snapshot, vshard);
    return local?.shard === shard
      ? new LocalLink(local.host, this.#options, local.tenure)
      : new RemoteLink(coordinator, shard, vshard, undefined);
  }

  async #release(session: BarrierSession): Promise<void> {
    if (--session.users === 0) await session.close();
  }
}

/** Keeps barriers and actors of one name on different shards. */
const BARRIER_SEED = 0x62617272;

/** The vshard of a barrier; its primary hosts the barrier. */
export function vshardOfBarrier(snapshot: TopologySnapshot, name: string): number {
  return hashString(name, BARRIER_SEED) & (snapshot.vshards - 1);
}

/** Options of a barrier on one thread. */
export interface LocalBarrierOptions extends OpenBarrierOptions {
  /** @default "local" */
  readonly name?: string;
}

/** Makes a barrier for the members of one thread, without a cluster. */
export async function openLocalBarrier(
  options: LocalBarrierOptions,
  parts: { readonly clock: Clock; readonly scheduler: Scheduler },
): Promise<TickBarrier> {
  const { name = "local" } = options;
  const waitTimeoutMs = checkWait(options.waitTimeoutMs ?? LONGEST_WAIT_MS);
  const link = new LocalLink(new BarrierHost({ ...parts, firstId: 1 }), parts);
  const opened = await link.open(name, resolveBarrierOptions(options), "here");
  const { scheduler } = parts;
  const session = new BarrierSession({ name, link, opened, scheduler, onEnded: () => undefined });
  return new ClientBarrier(retain(session), scheduler, waitTimeoutMs, () => session.close());
}

/** A handle on a session. */
class ClientBarrier implements TickBarrier {
  readonly #session: BarrierSession;
  readonly #scheduler: Scheduler;
  readonly #waitTimeoutMs: number;
  readonly #release: () => Promise<void>;
  /** Members that were used through this handle. */
  readonly #used: Set<string> = new Set();
  #closed: Promise<void> | undefined;

  constructor(session: BarrierSession, scheduler: Scheduler, waitTimeoutMs: number, release: () => Promise<void>) {
    this.#session = session;
    this.#scheduler = scheduler;
    this.#waitTimeoutMs = waitTimeoutMs;
    this.#release = release;
  }

  get name(): string {
    return this.#session.name;
  }

  get phases(): readonly string[] {
    return this.#session.options.phases;
  }

  get tick(): number {
    return this.#session.tick;
  }

  arrive(member: string, phase: string, options?: ArriveOptions): Promise<PhaseResult> {
    if (this.#closed !== undefined) return Promise.reject(this.#closedError());
    const waitMs = this.#waitTimeoutMs;
    if (options === undefined) return this.#session.arrive(this.#used, member, phase, waitMs, undefined);
    const { signal, timeoutMs = waitMs, round } = options;
    try {
      checkWait(timeoutMs);
      checkSignal(signal);
    } catch (error) {
      return Promise.reject(ShardloomError.from(error));
    }
    if (signal?.aborted === true) return Promise.reject(aborted(signal));
    const wait = this.#session.arrive(this.#used, member, phase, timeoutMs, round);
    const limited = signal !== undefined || options.timeoutMs !== undefined;
    return limited ? this.#limit(wait, timeoutMs, signal, phase) : wait;
  }

  async join(member: string): Promise<number> {
    return this.#open().join(this.#used, member);
  }

  async leave(member: string): Promise<boolean> {
    const session = this.#open();
    this.#used.delete(member);
    return session.leave(member);
  }

  async lose(member: string, cause: unknown): Promise<boolean> {
    const session = this.#open();
    this.#used.delete(member);
    return session.lose(member, cause);
  }

  async poison(cause: unknown, member?: string): Promise<void> {
    await this.#open().poison(cause, member);
  }

  async advanceTick(from?: number): Promise<number> {
    return this.#open().advance(from);
  }

  async currentTick(): Promise<number> {
    return (await this.#open().state()).tick;
  }

  async state(): Promise<BarrierState> {
    const { ids: _, ...state } = await this.#open().state();
    return state;
  }

  close(): Promise<void> {
    this.#closed ??= this.#leaveAll();
    return this.#closed;
  }

  async #leaveAll(): Promise<void> {
    const session = this.#session;
    // With the last handle of this thread its session ends, and takes all its members out.
    for (const member of session.users > 1 ? this.#used : []) {
      // What fails here has left with the host, or will be lost with this thread.
      await session.leave(member).catch(() => undefined);
    }
    await this.#release();
  }

  #limit(
    wait: Promise<PhaseResult>,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    phase: string,
  ): Promise<PhaseResult> {
    return new Promise((resolve, reject) => {
      const timer = this.#scheduler.timer(timeoutMs, () => {
        const message = `Cannot wait for phase ${JSON.stringify(phase)} of barrier ${JSON.stringify(this.name)} longer than ${timeoutMs} ms`;
        end(() =>
          reject(new ShardloomError("ERR_TIMEOUT", message, { details: { barrier: this.name, phase, timeoutMs } })),
        );
      });
      const end = (act: () => void): void => {
        timer.cancel();
        unlisten?.();
        act();
      };
      const unlisten = signal && onceAborted(signal, () => end(() => reject(aborted(signal))));
      wait.then(
        (result) => end(() => resolve(result)),
        (error: unknown) => end(() => reject(ShardloomError.from(error))),
      );
    });
  }

  #open(): BarrierSession {
    if (this.#closed !== undefined) throw this.#closedError();
    return this.#session;
  }

  #closedError(): ShardloomError {
    return new ShardloomError(
      "ERR_CLOSED",
      `Cannot use handle of barrier ${JSON.stringify(this.name)} as it is closed`,
    );
  }
}

function retain(session: BarrierSession): BarrierSession {
  session.users++;
  return session;
}

function checkWait(waitMs: number): number {
  if (waitMs > 0 && waitMs <= LONGEST_WAIT_MS) return waitMs;
  throw invalidArgument(
    "wait at barrier",
    "timeoutMs",
    `a number of milliseconds between 0 and ${LONGEST_WAIT_MS}`,
    waitMs,
  );
}

function aborted(signal: AbortSignal): ShardloomError {
  return new ShardloomError("ERR_ABORTED", "Cannot wait at barrier as the signal was aborted", {
    cause: signal.reason,
  });
}
