/** The actors of the benches `ask` and `start`, loaded into their clusters by URL. */
import type { ActorContext } from "../../src/actor/context.ts";
import { type ActorDefinition, defineActor } from "../../src/index.ts";

/** Counts and sums what it is told, so that a bench can prove that every message came. */
export interface SinkState {
  count: number;
  sum: number;
}

/** What {@link sink} has received. */
export interface SinkTotals {
  readonly count: number;
  readonly sum: number;
}

/** Answers at once, or takes 64-byte messages. */
export const sink: ActorDefinition<
  SinkState,
  {
    echo: (state: SinkState, value: number) => number;
    take: (state: SinkState, body: Uint8Array) => void;
    totals: (state: SinkState) => SinkTotals;
  }
> = defineActor({
  name: "sink",
  init: (): SinkState => ({ count: 0, sum: 0 }),
  handlers: {
    echo(_: SinkState, value: number): number {
      return value;
    },
    take(state: SinkState, body: Uint8Array): void {
      state.count++;
      state.sum += (body[0] as number) + (body[63] as number);
    },
    totals(state: SinkState): SinkTotals {
      return { count: state.count, sum: state.sum };
    },
  },
});

/** One burst of tells from one worker to another. */
export interface PumpOrder {
  readonly key: string;
  readonly messages: number;
}

/** Messages after which a sender awaits the last one, to keep to the receiver's pace. */
export const PACE = 256;

/** Tells from its own worker, and says how long it took until the receiver had them all. */
export const pump: ActorDefinition<
  object,
  {
    run: (
      state: object,
      order: PumpOrder,
      context: ActorContext,
    ) => Promise<{ readonly elapsedMs: number } & SinkTotals>;
  }
> = defineActor({
  name: "pump",
  init: (): object => ({}),
  handlers: {
    async run(
      _: object,
      order: PumpOrder,
      context: ActorContext,
    ): Promise<{ readonly elapsedMs: number } & SinkTotals> {
      const target = context.actor(sink, order.key);
      const body = new Uint8Array(64).fill(1);
      const started = performance.now();
      for (let at = 0; at < order.messages; at++) {
        const accepted = target.tell.take(body);
        if (at % PACE === PACE - 1) await accepted;
      }
      const totals = await target.totals();
      return { elapsedMs: performance.now() - started, ...totals };
    },
  },
});

/** Rests as soon as it is idle for 50 ms. */
export const sleeper: ActorDefinition<
  { value: number },
  { touch: (state: { value: number }, value: number) => void; heap: () => number }
> = defineActor({
  name: "sleeper",
  init: () => ({ value: 0 }),
  handlers: {
    touch(state: { value: number }, value: number): void {
      state.value = value;
    },
    /** Heap of this worker after a full collection, in bytes. Needs `--expose-gc`. */
    heap(): number {
      const { gc } = globalThis as { gc?: () => void };
      if (gc === undefined) throw new Error("Cannot measure heap without --expose-gc");
      for (let round = 0; round < 3; round++) gc();
      return process.memoryUsage().heapUsed;
    },
  },
  options: { idleAfterMs: 50 },
});

/** As {@link sleeper}, but it stays. */
export const resident: ActorDefinition<
  { value: number },
  { touch: (state: { value: number }, value: number) => void; heap: () => number }
> = defineActor({
  ...sleeper.spec,
  name: "resident",
  options: { idleAfterMs: Number.POSITIVE_INFINITY },
});
