/**
 * One shard's part of an order of several supersteps: between two of them the shards wait for each other, not for the coordinator.
 *
 * A shard that has done a superstep tells its peers so, with its part of the reductions. When all have told, each reduces the parts in the
 * order of the shards, as the coordinator would, and goes on: what two wake-ups and a third thread would cost is one message between threads
 * that are awake. The coordinator checks every superstep all the same, by the acknowledgements.
 *
 * Invariant: a shard begins superstep k + 1 when every shard has done k of this attempt. A peer that has heard of k from all may be done with
 * k + 1 before this shard has looked, and no further: two places a peer are enough.
 */
import { ShardloomError } from "../../src/errors.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { GRAPH_STEPPED } from "../../src/wire/message-types.ts";
import type { ShardAlgorithm } from "./algorithm.ts";
import { IN_HASTE } from "./graph-jobs.ts";
import { encodeBody, payloadOf } from "./graph-messages.ts";
import type { Outlet } from "./outgoing.ts";
import type {
  BeginRequest,
  Stepped,
  SuperstepAck,
  SuperstepOrder,
  SuperstepRequest,
  UntimedAck,
} from "./run-messages.ts";
import { reducedSums } from "./run-totals.ts";

/**
 * How long a shard that has done a superstep stays awake for the others, in ms: at first, and at most. Longer after each wait that has ended
 * so, and less long after one that has not: then it may have held the core that another needs. Never longer than the superstep took.
 */
const HASTE = { first: 2, most: 4, longer: 2, shorter: 0.7 };

/** What a series is made of. */
export interface SeriesParts {
  readonly run: {
    readonly superstep: (request: SuperstepRequest) => Generator<boolean, UntimedAck>;
  };
  readonly algorithm: Pick<ShardAlgorithm, "aggregates">;
  readonly request: Pick<BeginRequest, "collection" | "run" | "attempt" | "shards">;
  readonly outlet: Omit<Outlet, "own" | "rowsOf">;
  readonly nowMs: () => number;
}

interface Told {
  readonly superstep: number;
  readonly sums: readonly number[];
}

export class SuperstepSeries {
  readonly #parts: SeriesParts;
  #hasteMs = HASTE.first;
  /** What each shard has told of even and of odd supersteps last, this one too. */
  readonly #told: readonly [(Told | undefined)[], (Told | undefined)[]];

  constructor(parts: SeriesParts) {
    this.#parts = parts;
    const nobody = parts.request.shards.map(() => undefined);
    this.#told = [[...nobody], [...nobody]];
  }

  /** A peer has done a superstep. What is of another attempt is for nobody. @throws {ShardloomError} `ERR_CORRUPT`. */
  take({ attempt, source, superstep, sums }: Stepped): void {
    const { algorithm, request } = this.#parts;
    if (attempt !== request.attempt) return;
    const told = this.#toldOf(superstep);
    const isPeer = Number.isInteger(superstep) && Number.isInteger(source) && source >= 0 && source < told.length;
    if (!isPeer || !Array.isArray(sums) || sums.length !== algorithm.aggregates.length) {
      const reason = "Cannot take a peer's superstep as it is not one of this run's shards, or has other reductions";
      throw new ShardloomError("ERR_CORRUPT", reason, { details: { source, superstep } });
    }
    told[source] = { superstep, sums };
  }

  /** Does what is ordered. Yields false while it waits, or that it does so in haste. */
  *run(order: SuperstepOrder): Generator<boolean | typeof IN_HASTE, readonly SuperstepAck[]> {
    const acks: SuperstepAck[] = [];
    let { before } = order;
    for (let at = 0; at < order.count; at++) {
      const superstep = order.superstep + at;
      const isLast = at === order.count - 1;
      const ack = yield* this.#timed({ ...order, superstep, before, save: isLast && order.save });
      acks.push(ack);
      if (isLast) break;
      yield* this.#tell(superstep, ack.sums);
      const told = this.#toldOf(superstep);
      yield* this.#wait(ack.elapsedUs / 1000, () => told.every((shard) => shard?.superstep === superstep));
      before = reducedSums(this.#parts.algorithm.aggregates, told as readonly Told[]);
      if (order.until !== undefined && (before[order.until.sum] as number) < order.until.below) break;
    }
    return acks;
  }

  #toldOf(superstep: number): (Told | undefined)[] {
    return this.#told[(superstep & 1) as 0 | 1];
  }

  /** @param mostMs How long it stays awake at most; where time does not go on by itself it does not. */
  *#wait(mostMs: number, isOver: () => boolean): Generator<boolean | typeof IN_HASTE> {
    const { nowMs } = this.#parts;
    const untilMs = nowMs() + Math.min(this.#hasteMs, mostMs);
    let lastMs = Number.NEGATIVE_INFINITY;
    let waits = 0;
    let isAwake = true;
    for (; !isOver(); waits++) {
      const timeMs = nowMs();
      isAwake &&= timeMs > lastMs && timeMs < untilMs;
      yield isAwake ? IN_HASTE : false;
      lastMs = timeMs;
    }
    if (waits > 0) this.#hasteMs = Math.min(HASTE.most, (isAwake ? HASTE.longer : HASTE.shorter) * this.#hasteMs);
  }

  *#timed(request: SuperstepRequest): Generator<boolean, SuperstepAck> {
    const { run, nowMs } = this.#parts;
    const work = run.superstep(request);
    const beganMs = nowMs();
    let workedMs = 0;
    try {
      for (let fromMs = beganMs; ; fromMs = nowMs()) {
        const step = work.next();
        const toMs = nowMs();
        workedMs += toMs - fromMs;
        if (step.done === true)
          return {
            ...step.value,
            serviceUs: Math.ceil(workedMs * 1000),
            elapsedUs: Math.ceil((toMs - beganMs) * 1000),
          };
        yield step.value;
      }
    } finally {
      work.return(undefined as never); // also when nobody waits any more
    }
  }

  *#tell(superstep: number, sums: readonly number[]): Generator<boolean> {
    const { outlet, request } = this.#parts;
    const { collection, run, attempt } = request;
    const { shard } = outlet;
    this.#toldOf(superstep)[shard] = { superstep, sums };
    const payload = payloadOf(
      encodeBody({ collection, run, attempt, superstep, source: shard, sums } satisfies Stepped),
    );
    for (let peer = 0; peer < request.shards.length; peer++) {
      const requester = peer === shard ? undefined : outlet.requester(peer);
      // One without a worker is not waited for long: the coordinator sees that the run is not whole.
      if (requester?.lost === false)
        requester.tell(GRAPH_STEPPED, VSHARD_LISTED, PRIORITY.NORMAL, payload)?.catch(() => undefined);
      while (requester?.congested === true && !requester.lost) yield true;
    }
    yield true; // they go out before this thread sleeps
  }
}
