/**
 * The duty loop of one data-plane worker: drain the rings, answer, let the event loop turn when it must, park.
 *
 * Invariant: the loop parks only after it has announced itself on its doorbell and found every ring empty, so no
 * message published before or after is missed. It parks in `Atomics.waitAsync` while there is open asynchronous work
 * (handlers in flight, timers, sockets), as only then may the event loop have something to run, and otherwise in slices of
 * `Atomics.wait` of at most {@link PARK_SLICE_MS}, each followed by one turn of the event loop for control messages. After
 * {@link PARK_SLICES} slices without work it parks in `Atomics.waitAsync` too, where an idle worker uses no CPU.
 *
 * Thread: everything here runs on the worker's own thread.
 */
import type { BridgeServer } from "../../native-bridge/bridge.ts";
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import type { AdaptiveSpin } from "../../native-bridge/idle-strategy.ts";
import { RING_POISONED } from "../../native-bridge/spsc-ring.ts";
import type { Requester } from "../routing/requester.ts";
import type { Clock } from "../runtime/clock.ts";
import { nextTurn, type Scheduler, type Timer } from "../runtime/scheduler.ts";
import type { WorkerBlock } from "./worker-block.ts";

/** Messages taken from one ring before the next ring has its turn. */
const DRAIN_LIMIT = 64;
/** Longest stretch of work without a turn of the event loop, and the same while handlers wait for something. */
const TURN_LIMIT_MS = 5;
const TURN_LIMIT_ASYNC_MS = 1;
/** Rounds without news, each after a microtask, before a worker with open handlers spins: they may have gone on to send. */
const QUIET_ROUNDS = 3;
const MICROTASK: Promise<void> = Promise.resolve();
/** How often the heartbeat says that the worker is still at work, and the sweeps run. */
const BEAT_MS = 1;
/** Longest sleep in `Atomics.wait`; control messages wait at most this long. */
const PARK_SLICE_MS = 20;
/** Slices without work after which a worker parks in `Atomics.waitAsync`: a timed wake-up costs some 100 us of CPU each. */
const PARK_SLICES = 5;
/** Background work (indexing) done between two looks at the rings. */
const BACKGROUND_BUDGET_MS = 4;
/** And while answers wait for what the event loop brings. */
const BACKGROUND_ASYNC_MS = 1;

/** Receives one request from a ring; the memory is valid only during the call. */
export type RequestHandler = (
  server: BridgeServer,
  type: number,
  offset: number,
  lengthBytes: number,
  slot: number,
  sequence: number,
) => void;

/** What the loop needs from the shard that runs on it. */
export interface DataPlaneOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly block: WorkerBlock;
  readonly spin: AdaptiveSpin;
  readonly onRequest: RequestHandler;
  /** Handlers that have been started and have not settled. */
  readonly pendingAsync: () => number;
  /** Whether the event loop holds timers, sockets or the like. Called only before parking. */
  readonly openResources: () => boolean;
  /** One bounded slice of periodic work (passivation, deadlines). */
  readonly sweep: (nowMs: number) => void;
  /** One slice of background work; true when more is left. */
  readonly background: (budgetMs: number) => boolean;
  /** A turn of work that goes on by messages between shards, after each round of them; true when anything was done. */
  readonly turn: (nowMs: number) => boolean;
  /** When `turn` is due at the latest; infinity: when a message comes. Called only before parking. */
  readonly dueAtMs: () => number;
}

/** Both directions between this worker and one peer. */
export interface PeerLink {
  /** Requests of the peer to this worker. */
  readonly server?: BridgeServer;
  /** Requests of this worker to the peer. */
  readonly requester?: Requester;
}

/** The duty loop of one worker. */
export class DataPlane {
  readonly #options: DataPlaneOptions;
  readonly #links: Map<string, PeerLink> = new Map();
  #servers: BridgeServer[] = [];
  #drainers: ((type: number, offset: number, length: number, slot: number, sequence: number) => void)[] = [];
  #requesters: Requester[] = [];
  #quiescing = false;
  #stopping = false;
  #damaged = false;
  #inLoop = false;
  #flushScheduled = false;
  #idleSlices = 0;
  #beatAtMs = 0;
  /** Parked in `waitAsync`: handlers may go on meanwhile, and ask peers. */
  #asleep = false;
  #timer: Timer | undefined;
  readonly #hasWork: () => boolean = () => this.#pollable();
  readonly #flushLater: () => void = () => {
    this.#flushScheduled = false;
    this.#flush();
    if (this.#asleep) this.#watchDeadlines();
  };

  constructor(options: DataPlaneOptions) {
    this.#options = options;
  }

  /** Adds or replaces the link to a peer. */
  attach(peer: string, link: PeerLink): void {
    this.#links.set(peer, link);
    this.#relink();
  }

  /** Forgets a peer; the caller has failed its requester. */
  detach(peer: string): PeerLink | undefined {
    const link = this.#links.get(peer);
    this.#links.delete(peer);
    this.#relink();
    return link;
  }

  /** Replies or requests were written outside the loop (an asynchronous handler finished): they go out this turn. */
  readonly dirty: () => void = () => {
    if (this.#inLoop || this.#flushScheduled) return;
    this.#flushScheduled = true;
    this.#options.scheduler.defer(this.#flushLater);
  };

  /** The worker is about to stop: no more background work, but requests are still answered. */
  quiesce(): void {
    this.#quiescing = true;
  }

  /** Lets the loop end once its rings are empty, whatever handlers are still open. */
  stop(): void {
    this.#quiescing = true;
    this.#stopping = true;
    this.#options.block.bell.ring();
  }

  /** A ring that this worker reads is damaged: the loop ends, as only new rings help, which a successor gets. */
  readonly damaged: () => void = () => {
    this.#damaged = true;
  };

  /** Runs until stopped, retired or damaged. @returns which of them */
  async run(): Promise<"stopped" | "retired" | "damaged"> {
    const { clock, block, scheduler, background, pendingAsync, spin } = this.#options;
    let lastTurnMs = clock.nowMs();
    let waiting = false;
    let quiet = 0;
    for (;;) {
      if (block.retired) return "retired";
      const nowMs = clock.nowMs();
      const open = pendingAsync() > 0;
      const work = this.#duty(nowMs);
      if (this.#damaged) return "damaged";
      block.advance();
      if (work > 0) {
        this.#idleSlices = 0;
        if (waiting) spin.woke();
        waiting = false;
      }
      if (nowMs - lastTurnMs > (open ? TURN_LIMIT_ASYNC_MS : TURN_LIMIT_MS)) {
        await nextTurn(scheduler);
        lastTurnMs = clock.nowMs();
        continue;
      }
      if (open || pendingAsync() > 0) {
        quiet = work > 0 ? 0 : quiet + 1;
        if (quiet < QUIET_ROUNDS) {
          await MICROTASK; // handlers whose answers have come go on
          continue;
        }
      }
      if (work > 0 || (!this.#quiescing && background(open ? BACKGROUND_ASYNC_MS : BACKGROUND_BUDGET_MS))) continue;
      if (this.#stopping && !this.#pollable()) return "stopped";
      if (block.retired) return "retired";
      if (!waiting && spin.spin(this.#hasWork)) continue;
      waiting = true;
      if (await this.#park()) lastTurnMs = clock.nowMs();
    }
  }

  #duty(nowMs: number): number {
    const { block } = this.#options;
    this.#inLoop = true;
    let work = 0;
    const beat = nowMs - this.#beatAtMs >= BEAT_MS;
    if (beat) block.heartbeat.enter(HEARTBEAT.JS, nowMs);
    try {
      const servers = this.#servers;
      for (let at = 0; at < servers.length; at++) {
        const handled = (servers[at] as BridgeServer).drainRequests(this.#drainers[at] as never, DRAIN_LIMIT);
        if (handled > 0) work += handled;
        else if (handled === RING_POISONED) this.#damaged = true;
      }
      for (const requester of this.#requesters) work += requester.drain(DRAIN_LIMIT);
      if (this.#options.turn(nowMs)) work++;
    } finally {
      this.#inLoop = false;
      this.#flush();
    }
    // What is only due now and then comes after the answers have gone.
    if (beat) this.#sweep(nowMs);
    return work;
  }

  #sweep(nowMs: number): void {
    this.#beatAtMs = nowMs;
    this.#lookForDamage();
    for (const requester of this.#requesters) requester.sweep(nowMs);
    this.#options.sweep(nowMs);
  }

  /** Sleeps until rung. @returns whether the event loop had a turn */
  async #park(): Promise<boolean> {
    const { block, clock, scheduler, pendingAsync, openResources } = this.#options;
    const ticket = block.bell.prepareWait();
    if (this.#pollable() || this.#madeRoom() || this.#lookForDamage() || this.#stopping || block.retired) {
      block.bell.cancelWait();
      await nextTurn(scheduler);
      return true;
    }
    block.heartbeat.enter(HEARTBEAT.IDLE, clock.nowMs());
    this.#beatAtMs = 0;
    if (this.#idleSlices >= PARK_SLICES || pendingAsync() > 0 || openResources()) {
      const woken = block.bell.waitAsync(ticket);
      if (woken === undefined) {
        await nextTurn(scheduler);
        return true;
      }
      this.#watchDeadlines();
      this.#asleep = true;
      await woken;
      this.#asleep = false;
      this.#timer?.cancel();
      return true;
    }
    this.#idleSlices++;
    block.bell.wait(ticket, PARK_SLICE_MS);
    if (this.#pollable()) return false;
    await nextTurn(scheduler);
    return true;
  }

  /** The second look after announcing: room may have been made between the refusal and the announcement. */
  #madeRoom(): boolean {
    let sent = 0;
    for (const requester of this.#requesters) sent += requester.sendQueued();
    if (sent > 0) this.#flush();
    return sent > 0;
  }

  /** Before each sleep and now and then: a damaged ring is silent, so nobody hears of it otherwise. */
  #lookForDamage(): boolean {
    for (const requester of this.#requesters) requester.lookForDamage();
    for (const { requests } of this.#servers) if (requests.isDamaged()) this.#damaged = true;
    return this.#damaged;
  }

  /** While asleep in `waitAsync` nobody sweeps: a timer rings the bell at the earliest deadline. */
  #watchDeadlines(): void {
    let earliest = this.#options.dueAtMs();
    for (const requester of this.#requesters) {
      if (requester.pending > 0 && requester.earliestDeadlineMs < earliest) earliest = requester.earliestDeadlineMs;
    }
    this.#timer?.cancel();
    if (earliest === Number.POSITIVE_INFINITY) return;
    const { clock, scheduler, block } = this.#options;
    this.#timer = scheduler.timer(Math.max(0, earliest - clock.nowMs()), () => block.bell.ring());
  }

  #pollable(): boolean {
    for (const server of this.#servers) if (!server.requests.isEmpty() || server.canMoveOverflow()) return true;
    for (const requester of this.#requesters) if (requester.hasReply()) return true;
    return false;
  }

  #flush(): void {
    for (const server of this.#servers) server.flush();
    for (const requester of this.#requesters) requester.flush();
  }

  #relink(): void {
    const links = [...this.#links.values()];
    this.#servers = links.flatMap((link) => (link.server === undefined ? [] : [link.server]));
    this.#requesters = links.flatMap((link) => (link.requester === undefined ? [] : [link.requester]));
    const { onRequest, block } = this.#options;
    this.#drainers = this.#servers.map((server) => (type, offset, length, slot, sequence) => {
      block.advance();
      onRequest(server, type, offset, length, slot, sequence);
    });
  }
}
