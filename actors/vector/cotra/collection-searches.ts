/**
 * The collaborative searches of one collection on one shard: those that clients asked it for, as their origin, and its part in those of all.
 *
 * Invariant: every search that was asked for is answered once: with its outcome, or an error. So many run at once, more wait, and beyond
 * that they are refused. One that its caller has given up is called off at the next tick. Messages to this shard itself go through a queue.
 */

import { ShardloomError } from "../../../src/errors.ts";
import type { HeldReply } from "../../engine.ts";
import type { ArenaView } from "./arena-view.ts";
import { type CollaborateRequest, outcomeBytes, writeOutcome } from "./collaborate-codec.ts";
import { MESSAGE } from "./cotra-messages.ts";
import { CotraOrigin, type CotraOutcome } from "./cotra-origin.ts";
import type { CotraOutbox } from "./cotra-outbox.ts";
import { CotraShard } from "./cotra-shard.ts";
import { NavigationSample, type SharedGraph } from "./navigation-sample.ts";
import type { StealingPool } from "./stealing-pool.ts";

/** Searches that one origin runs at once, and that wait for their turn. */
const MAX_RUNNING = 64;
const MAX_WAITING = 4096;
/** Of the header of a message. */
const ORIGIN_BYTE = 4;
const SERIAL_BYTE = 8;

/** What the searches of a collection work with. */
export interface CollectionSearchesOptions {
  readonly collection: number;
  readonly view: ArenaView;
  /** The graph, as the collection knows it now. */
  readonly graph: () => SharedGraph | undefined;
  readonly nowMs: () => number;
  readonly firstSerial: number;
  readonly outbox: CotraOutbox;
  readonly pool: StealingPool | undefined;
}

interface Asked {
  readonly request: CollaborateRequest;
  readonly held: HeldReply;
  readonly deadlineMs: number;
}

export class CollectionSearches {
  readonly shard: CotraShard;
  readonly origin: CotraOrigin;
  readonly #options: CollectionSearchesOptions;
  readonly #navigation: NavigationSample;
  readonly #running = new Map<number, HeldReply>();
  #waiting: Asked[] = [];
  #inbox: Uint8Array[] = [];
  /** Messages that could not be sent: their searches are to end. */
  #unsent: Uint8Array[] = [];

  constructor(options: CollectionSearchesOptions) {
    this.#options = options;
    const { view, nowMs, firstSerial, pool } = options;
    const { self } = view;
    this.#navigation = new NavigationSample(options);
    const send = (to: number, bytes: Uint8Array): void => this.#send(to, bytes);
    const compute = pool?.poolOf(view, (id, stolen) => this.shard.complete(id, true, stolen));
    this.shard = new CotraShard({ view, now: nowMs, send, ...(compute !== undefined && { compute }) });
    const partitionOf = (vertex: number): number => view.partitionOf(vertex);
    this.origin = new CotraOrigin({
      self,
      get shards() {
        return view.partitions;
      },
      partitionOf,
      now: nowMs,
      send,
      firstSerial,
    });
  }

  /** Searches that are not over here. */
  get open(): number {
    return this.shard.searches + this.#running.size + this.#waiting.length + this.#inbox.length;
  }

  /** Runs a search, or has it wait. */
  ask(request: CollaborateRequest, held: HeldReply): void {
    const asked = { request, held, deadlineMs: this.#options.nowMs() + request.timeoutMs };
    if (this.#running.size < MAX_RUNNING) this.#start(asked);
    else if (this.#waiting.length < MAX_WAITING) this.#waiting.push(asked);
    else held.fail(overloaded());
  }

  /** Takes a message of a peer. @throws {ShardloomError} `ERR_CORRUPT`. */
  receive(bytes: Uint8Array): void {
    if (bytes[0] === MESSAGE.RESULT) this.origin.receive(bytes);
    else this.shard.receive(bytes);
  }

  /** One step of everything that runs here. @param mayStep False while what it sends would only wait. @returns Whether anything was done */
  turn(mayStep: boolean): boolean {
    this.#options.view.refresh();
    this.#endUnsent();
    const inbox = this.#inbox;
    if (inbox.length > 0) this.#inbox = [];
    for (const bytes of inbox) this.receive(bytes);
    const stepped = mayStep && this.shard.step();
    while (this.#running.size < MAX_RUNNING && this.#waiting.length > 0) this.#start(this.#waiting.shift() as Asked);
    return stepped || inbox.length > 0 || this.#inbox.length > 0;
  }

  /** Ends what is overdue or not wanted any more. */
  tick(): void {
    const now = this.#options.nowMs();
    for (const [serial, held] of this.#running) if (held.cancelled) this.origin.cancel(serial);
    this.#waiting = this.#waiting.filter(({ held, deadlineMs }) => {
      const over = held.cancelled || now >= deadlineMs;
      if (over) held.fail(new ShardloomError("ERR_TIMEOUT", "Cannot search before the deadline as others come first"));
      return !over;
    });
    this.origin.tick();
    this.shard.tick();
  }

  peerLost(peer: number): void {
    this.origin.peerLost(peer);
    this.shard.peerLost(peer);
  }

  peerBack(peer: number): void {
    this.origin.peerBack(peer);
    this.shard.peerBack(peer);
  }

  /** Ends everything with an error. */
  close(error: ShardloomError): void {
    for (const held of this.#running.values()) held.fail(error);
    for (const { held } of this.#waiting.splice(0)) held.fail(error);
    this.#running.clear();
  }

  #start({ request, held, deadlineMs }: Asked): void {
    const { view, nowMs } = this.#options;
    const { query, k, ef } = request;
    if (!view.refresh() || query.byteLength !== view.codeBytes) {
      held.fail(new ShardloomError("ERR_UNAVAILABLE", "Cannot search as this shard knows no graph for such queries"));
      return;
    }
    const entries = this.#navigation.entries(query);
    const { computed, bytes } = this.#navigation;
    let over = false;
    const serial = this.origin.search({ query, entries, k, ef, timeoutMs: deadlineMs - nowMs() }, (outcome) => {
      over = true;
      this.#running.delete(serial);
      outcome.tally.computations += computed;
      outcome.tally.bytes += bytes;
      answer(held, outcome);
    });
    if (!over) this.#running.set(serial, held);
  }

  #send(to: number, bytes: Uint8Array): void {
    const { view, outbox, collection } = this.#options;
    if (to === view.self) this.#inbox.push(bytes);
    else if (!outbox.add(to, collection, bytes)) this.#unsent.push(bytes);
  }

  #endUnsent(): void {
    if (this.#unsent.length === 0) return;
    for (const bytes of this.#unsent.splice(0)) {
      const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      const origin = header.getUint16(ORIGIN_BYTE, true);
      const serial = header.getUint32(SERIAL_BYTE, true);
      if (origin === this.#options.view.self) this.origin.cancel(serial, "ERR_OVERLOADED");
      else this.shard.giveUp(origin, serial);
    }
  }
}

function answer(held: HeldReply, outcome: CotraOutcome): void {
  held.send(outcomeBytes(outcome), (memory, offset) => writeOutcome(memory, offset, outcome));
}

function overloaded(): ShardloomError {
  return new ShardloomError(
    "ERR_OVERLOADED",
    `Cannot search as at most ${MAX_WAITING} collaborative searches may wait on a shard`,
    { details: { limit: MAX_WAITING } },
  );
}
