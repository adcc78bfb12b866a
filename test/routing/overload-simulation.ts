/**
 * An open-loop client and shards with a fixed service time in virtual time, for the tests of admission.
 *
 * Invariant: a run is a function of its parameters: arrivals come from a seeded generator, and events of one time run in the order
 * in which they were made. The shards are as bad as can be: they serve everything that reaches them, in order, also what nobody
 * waits for any more.
 */
import { AdmissionController } from "../../src/routing/admission.ts";
import type { AdmissionOptions } from "../../src/routing/admission-options.ts";
import { createManualClock } from "../../src/runtime/clock.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";

export interface Phase {
  readonly durationMs: number;
  /** Requests a second of each tenant. */
  readonly rates: readonly number[];
  /** @default 500 */
  readonly serviceUs?: number;
}

export interface SimulationParameters {
  readonly shards: number;
  readonly phases: readonly Phase[];
  readonly deadlineMs: number;
  readonly seed: number;
  /** Replies and admissions happen at multiples of this time, as in a client whose event loop is busy. @default 0: at once */
  readonly turnMs?: number;
  readonly admission?: Partial<AdmissionOptions>;
}

export interface Sample {
  readonly tenant: number;
  readonly arrivedMs: number;
  endedMs: number;
  outcome: "open" | "good" | "refused" | "late" | "expired";
}

export interface SimulationResult {
  readonly samples: readonly Sample[];
  readonly maxQueued: number;
  readonly maxQueuedBytes: number;
  readonly maxInFlight: number;
  readonly stats: ReturnType<AdmissionController["stats"]>;
}

const TRANSPORT_MS = 0.05;
const REQUEST_BYTES = 1000;
/** Arrivals after which the state is looked at: a look takes longer than an arrival. */
const LOOK_EVERY = 8;

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** Time that moves from event to event. */
class EventLoop {
  readonly clock = createManualClock();
  readonly #heap: Event[] = [];
  #order = 0;
  readonly scheduler: Scheduler;

  constructor() {
    const after = (delayMs: number, callback: () => void): (() => void) => {
      let live = true;
      this.at(this.clock.nowMs() + delayMs, () => {
        if (live) callback();
      });
      return () => {
        live = false;
      };
    };
    this.scheduler = {
      defer: (callback) => void after(0, callback),
      turn: (callback) => void after(0, callback),
      after,
      timer: (delayMs, callback) => ({
        cancel: after(delayMs, callback),
        ref: () => undefined,
        unref: () => undefined,
      }),
    };
  }

  at(atMs: number, run: () => void): void {
    const heap = this.#heap;
    const event: Event = { atMs, order: this.#order++, run };
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(event, heap[parent] as Event)) break;
      heap[at] = heap[parent] as Event;
      at = parent;
    }
    heap[at] = event;
  }

  run(): void {
    for (let event = this.#pop(); event !== undefined; event = this.#pop()) {
      this.clock.setMs(event.atMs);
      event.run();
    }
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1] as Event, heap[child] as Event)) child++;
      if (!isBefore(heap[child] as Event, last)) break;
      heap[at] = heap[child] as Event;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** Runs all phases, and on until every request has ended. */
export function simulate(parameters: SimulationParameters): SimulationResult {
  const { shards, phases, deadlineMs, seed, turnMs = 0 } = parameters;
  const loop = new EventLoop();
  const { clock, scheduler } = loop;
  const random = createSeededRandom(seed);
  const admission = new AdmissionController({ clock, scheduler, shards, ...parameters.admission });
  const idleAtMs = Array.from({ length: shards }, () => 0);
  const samples: Sample[] = [];
  let maxQueued = 0;
  let maxQueuedBytes = 0;
  let maxInFlight = 0;
  const atTurn = (atMs: number): number => (turnMs === 0 ? atMs : Math.ceil(atMs / turnMs) * turnMs);

  const send = (slot: number, shard: number, sample: Sample, serviceUs: number): void => {
    const sentMs = clock.nowMs();
    let left = false;
    // The shard serves in order of arrival; transport is the same for all, so the order of sending is that of arrival.
    const startMs = Math.max(sentMs + TRANSPORT_MS, idleAtMs[shard] as number);
    idleAtMs[shard] = startMs + serviceUs / 1000;
    loop.at(atTurn(startMs + serviceUs / 1000 + TRANSPORT_MS), () => {
      if (left) return;
      left = true;
      sample.outcome = "good";
      sample.endedMs = clock.nowMs();
      admission.leave(slot, serviceUs, (startMs - sentMs) * 1000, true);
    });
    loop.at(sample.arrivedMs + deadlineMs, () => {
      if (left) return;
      left = true;
      sample.outcome = "late";
      sample.endedMs = clock.nowMs();
      admission.leave(slot, 0, 0, false);
    });
  };

  const arrive = (tenant: number, serviceUs: number): void => {
    const nowMs = clock.nowMs();
    const shard = random.u32() % shards;
    const sample: Sample = { tenant, arrivedMs: nowMs, endedMs: 0, outcome: "open" };
    samples.push(sample);
    admission.enter(shard, 1, tenant, REQUEST_BYTES, nowMs + deadlineMs, {
      onAdmitted: (slot) => send(slot, shard, sample, serviceUs),
      onFailure: (error) => {
        sample.outcome = error.code === "ERR_OVERLOADED" ? "refused" : "expired";
        sample.endedMs = clock.nowMs();
      },
    });
    if (samples.length % LOOK_EVERY !== 0) return;
    const { queued, queuedBytes, inFlight } = admission.stats();
    maxQueued = Math.max(maxQueued, queued);
    maxQueuedBytes = Math.max(maxQueuedBytes, queuedBytes);
    maxInFlight = Math.max(maxInFlight, inFlight);
  };

  let phaseStartMs = 0;
  for (const { durationMs, rates, serviceUs = 500 } of phases) {
    const endMs = phaseStartMs + durationMs;
    for (const [tenant, rate] of rates.entries()) {
      if (rate === 0) continue;
      const next = (fromMs: number): void => {
        const atMs = fromMs - (Math.log(1 - random.float()) * 1000) / rate;
        if (atMs >= endMs) return;
        loop.at(atMs, () => {
          arrive(tenant, serviceUs);
          next(atMs);
        });
      };
      loop.at(phaseStartMs, () => next(clock.nowMs()));
    }
    phaseStartMs = endMs;
  }
  loop.run();
  return { samples, maxQueued, maxQueuedBytes, maxInFlight, stats: admission.stats() };
}

/** Requests a second that ended well in a window of time. */
export function goodput({ samples }: SimulationResult, fromMs: number, toMs: number, tenant?: number): number {
  const good = samples.filter(
    (sample) =>
      sample.outcome === "good" &&
      sample.endedMs >= fromMs &&
      sample.endedMs < toMs &&
      (tenant === undefined || sample.tenant === tenant),
  );
  return (good.length / (toMs - fromMs)) * 1000;
}
