/**
 * Shards and origins of collaborative searches in one thread, over a network whose delays, orders, duplicates and losses are drawn
 * from a seed.
 *
 * The delay of a message depends on the seed, its link and its rank among the link's messages that are no tokens, so that a run whose
 * tokens are withheld has the same schedule: what such a run finds when nothing moves any more is what no search may miss.
 * Time is counted in rounds: in one, everything due is delivered and every shard makes one step.
 */
import type { ComputePool } from "../../../../actors/vector/cotra/compute-task.ts";
import { decodeMessage, encodeMessage, MESSAGE, STOP_REPORT } from "../../../../actors/vector/cotra/cotra-messages.ts";
import { CotraOrigin, type CotraOutcome, type CotraQuery } from "../../../../actors/vector/cotra/cotra-origin.ts";
import { CotraShard } from "../../../../actors/vector/cotra/cotra-shard.ts";
import type { GraphView } from "../../../../actors/vector/cotra/graph-view.ts";

export interface DriverOptions {
  readonly views: readonly GraphView[];
  readonly seed: number;
  /** Longest delay of a message in rounds; 1 = all arrive in the next round. */
  readonly maxDelay: number;
  /** Whether messages of one link keep their order. */
  readonly fifo: boolean;
  /** Share of messages that arrive twice. */
  readonly duplicates?: number;
  /** Share of rounds that a shard sits out. */
  readonly stalls?: number;
  readonly withholdTokens?: boolean;
  readonly poolOf?: (shard: number) => ComputePool;
  readonly graceMs?: number;
}

interface InFlight {
  readonly from: number;
  readonly to: number;
  readonly bytes: Uint8Array;
  readonly due: number;
  readonly order: number;
}

export class Driver {
  readonly shards: CotraShard[];
  readonly origin: CotraOrigin;
  readonly crashed: Set<number> = new Set();
  round = 0;
  /** Called for each message as it is sent. */
  onSend: ((from: number, to: number, bytes: Uint8Array) => void) | undefined;
  readonly #options: DriverOptions;
  #flying: InFlight[] = [];
  readonly #ranks = new Map<number, number>();
  readonly #lastDue = new Map<number, number>();
  #order = 0;

  constructor(options: DriverOptions) {
    this.#options = options;
    const { views } = options;
    const now = (): number => this.round;
    this.shards = views.map((view, self) => {
      const compute = options.poolOf?.(self);
      return new CotraShard({
        view,
        now,
        send: (to, bytes) => this.#send(self, to, bytes),
        ...(compute !== undefined && { compute }),
      });
    });
    const self = views.length;
    this.origin = new CotraOrigin({
      self,
      shards: views.length,
      partitionOf: (vertex) => (views[0] as GraphView).partitionOf(vertex),
      now,
      send: (to, bytes) => this.#send(self, to, bytes),
      ...(options.graceMs !== undefined && { graceMs: options.graceMs }),
    });
  }

  get flying(): number {
    return this.#flying.length;
  }

  /** One round. @returns Whether anything moved or is under way. */
  advance(): boolean {
    this.round++;
    const due = this.#flying.filter((message) => message.due <= this.round);
    this.#flying = this.#flying.filter((message) => message.due > this.round);
    due.sort((a, b) => a.due - b.due || a.order - b.order);
    for (const message of due) this.#deliver(message);
    let moved = due.length > 0 || this.#flying.length > 0;
    const stalls = this.#options.stalls ?? 0;
    this.shards.forEach((shard, self) => {
      if (this.crashed.has(self)) return;
      if (stalls > 0 && chance(this.#options.seed, 7, self, this.round) < stalls) {
        moved = true;
        return;
      }
      if (shard.step()) moved = true;
      shard.tick();
    });
    this.origin.tick();
    return moved;
  }

  /** Runs one search to its end. @throws When it has not ended after `maxRounds`. */
  run(query: CotraQuery, maxRounds = 100_000): CotraOutcome {
    let outcome: CotraOutcome | undefined;
    this.origin.search(query, (ended) => {
      if (outcome !== undefined) throw new Error("a search ended twice");
      outcome = ended;
    });
    const end = this.round + maxRounds;
    while (outcome === undefined) {
      this.advance();
      if (this.round > end) throw new Error(`no end after ${maxRounds} rounds`);
    }
    return outcome;
  }

  /** Until nothing moves and nothing is under way. @throws When that does not happen. */
  settle(maxRounds = 100_000): void {
    for (let round = 0; this.advance(); round++) if (round > maxRounds) throw new Error("it never comes to rest");
  }

  /** With tokens withheld: until nothing moves, then the leader is asked for what it knows. */
  drain(query: CotraQuery): CotraOutcome {
    let outcome: CotraOutcome | undefined;
    let leader: number | undefined;
    this.onSend = (_from, _to, bytes) => {
      const message = decodeMessage(bytes);
      if (message.type === MESSAGE.START) leader = message.leader;
    };
    const serial = this.origin.search(query, (ended) => {
      outcome = ended;
    });
    this.settle();
    if (outcome === undefined && leader !== undefined) {
      const self = this.shards.length;
      const stop = { type: MESSAGE.STOP, flags: STOP_REPORT, from: self, origin: self, serial, sequence: 0 } as const;
      this.#send(self, leader, encodeMessage(stop));
      this.settle();
    }
    if (outcome === undefined) throw new Error("nothing found");
    return outcome;
  }

  /** Kills a shard: what it sent may still arrive, what is sent to it does not. */
  crash(shard: number): void {
    this.crashed.add(shard);
    this.#flying = this.#flying.filter(({ to }) => to !== shard);
  }

  /** Tells one peer that another is lost. */
  report(peer: number, lost: number): void {
    if (peer === this.shards.length) this.origin.peerLost(lost);
    else if (!this.crashed.has(peer)) this.shards[peer]?.peerLost(lost);
  }

  #deliver({ to, bytes }: InFlight): void {
    if (this.crashed.has(to)) return;
    if (to === this.shards.length) this.origin.receive(bytes);
    else this.shards[to]?.receive(bytes);
  }

  #send(from: number, to: number, bytes: Uint8Array): void {
    this.onSend?.(from, to, bytes);
    if (this.crashed.has(to)) return;
    const { seed, maxDelay, fifo, duplicates = 0, withholdTokens = false } = this.#options;
    const token = bytes[0] === MESSAGE.TOKEN;
    if (token && withholdTokens) return;
    const link = from * 65_536 + to + (token ? 2 ** 33 : 0);
    const rank = this.#ranks.get(link) ?? 0;
    this.#ranks.set(link, rank + 1);
    const delay = 1 + Math.floor(chance(seed, 1, link % 2 ** 31, rank) * maxDelay);
    let due = this.round + delay;
    if (fifo) {
      due = Math.max(due, this.#lastDue.get(link) ?? 0);
      this.#lastDue.set(link, due);
    }
    this.#flying.push({ from, to, bytes, due, order: this.#order++ });
    if (duplicates > 0 && chance(seed, 2, link % 2 ** 31, rank) < duplicates) {
      const again = due + 1 + Math.floor(chance(seed, 3, link % 2 ** 31, rank) * 2 * maxDelay);
      this.#flying.push({ from, to, bytes, due: again, order: this.#order++ });
    }
  }
}

/** A number in [0, 1) that depends on its arguments alone. */
export function chance(seed: number, kind: number, a: number, b: number): number {
  let word = seed | 0;
  for (const part of [kind, a, b]) {
    word = Math.imul(word ^ part, 0x9e3779b1);
    word = Math.imul(word ^ (word >>> 15), 0x85ebca6b);
    word ^= word >>> 13;
  }
  return (Math.imul(word ^ (word >>> 16), 0xc2b2ae35) >>> 0) / 2 ** 32;
}
