/**
 * Requests of planned types: takes the prefix off, checks every vshard that it names, and sees to it that the answer to a write waits
 * for the copies that it is to wait for.
 *
 * Invariant: a handler runs at most once per request. A write of which any vshard is refused writes nothing at all, and its reply has no
 * body; a read is answered for the vshards that are left.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import { vshardOfHash } from "../src/topology/snapshot.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { isRoutedWrite, messageTypeName } from "../src/wire/message-types.ts";
import { CONSISTENCY, type LsnList, RoutedReader } from "../src/wire/routed-codec.ts";
import type { EngineHandler, HeldReply } from "./engine.ts";
import type { IdempotencyTable } from "./replication/idempotency-table.ts";
import { KeyedEffects } from "./replication/keyed-effects.ts";
import { NO_LOG, PendingWrite, type ReplicatedWrites } from "./replication/replicated-write.ts";
import type { VshardGate } from "./replication/vshard-gate.ts";
import type { RingReply, RoutedPrefix } from "./ring-reply.ts";
import { DraftReply, type ShardRequest } from "./shard-request.ts";

/** What planned requests need of their shard. */
export interface PlannedRequestsOptions {
  readonly topology: TopologySource;
  /** Which vshards of a planned request this shard answers for. */
  readonly gate: VshardGate;
  /** Where the effects of writes go; undefined: nothing is replicated. */
  readonly writes?: ReplicatedWrites | undefined;
  /** Keys of writes that were done; undefined: writes may have none. */
  readonly keys?: IdempotencyTable | undefined;
  readonly nowMs?: () => number;
  /** Why nothing can be answered for: what the shard had is damaged. */
  readonly damage?: ShardloomError | undefined;
}

/** Stands before the answer when nothing was refused. */
const COMPLETE: RoutedPrefix = { refused: [], written: undefined };

export class PlannedRequests {
  readonly #options: PlannedRequestsOptions;
  readonly #routed: RoutedReader = new RoutedReader();
  readonly #draft: DraftReply = new DraftReply();

  constructor(options: PlannedRequestsOptions) {
    this.#options = options;
  }

  /** @param deadlineAtMs When the caller gives up; 0: never. */
  handle(handler: EngineHandler, type: number, request: ShardRequest, reply: RingReply, deadlineAtMs: number): void {
    const { gate, damage } = this.#options;
    if (damage !== undefined) throw damage;
    const routed = this.#routed.open(request, request.offset, request.length);
    const write = routed.consistency === CONSISTENCY.WRITE;
    if (write !== isRoutedWrite(type)) {
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot handle ${messageTypeName(type)} as its consistency must be one of ${write ? "reads" : "writes"}`,
      );
    }
    gate.admit(routed);
    request.admitted(gate, routed.byteLength);
    const { refused } = gate;
    const { stalenessMs } = gate;
    const { writes, topology } = this.#options;
    const strong = routed.consistency === CONSISTENCY.STRONG;
    // What a session has seen it never misses again: it is told how new that was, and shown of a primary what its copies have, as a strong read is.
    const isSession = routed.consistency === CONSISTENCY.SESSION && topology.current().replicationFactor > 1;
    const shown = isSession ? gate.shown() : undefined;
    const isPlain = refused.length === 0 && stalenessMs === 0 && shown === undefined;
    reply.route(isPlain ? COMPLETE : { refused, written: shown, stalenessMs });
    const settled = isSession || (strong && (writes?.hasUnsettled === true || gate.isLeased));
    if (settled && writes !== undefined) this.#settledRead(handler, request, reply, deadlineAtMs, shown);
    else if (!write) {
      handler(request, reply);
      if (strong) gate.assertStill();
    } else if (refused.length === 0) this.#write(handler, type, request, reply, routed.acks, deadlineAtMs);
  }

  /**
   * Answers when what the answer shows has as many copies as its writes asked for: what a primary alone has may be gone with it, and
   * must not have been seen.
   *
   * @param shown LSNs that a session is told; undefined: the read is a strong one.
   */
  #settledRead(
    handler: EngineHandler,
    request: ShardRequest,
    reply: RingReply,
    deadlineAtMs: number,
    shown: LsnList | undefined,
  ): void {
    const { gate } = this.#options;
    const writes = this.#options.writes as ReplicatedWrites;
    const accepted = gate.accepted();
    let held: HeldReply | undefined;
    const draft = this.#draft.begin(reply.limitBytes, () => {
      const owed = reply.hold();
      held = owed;
      return owed && answeringWith(owed, (body) => this.#settle(accepted, owed, body, deadlineAtMs, shown));
    });
    handler(request, draft);
    if (held !== undefined) {
      if (shown === undefined) gate.noteRead();
      return;
    }
    const body = draft.take();
    if (shown === undefined) gate.assertStill();
    if (writes.isSettled(accepted)) {
      reply.claim(body.length);
      reply.bytes.set(body, reply.offset);
      return;
    }
    held = reply.hold();
    if (held !== undefined) writes.settle(accepted, held, body, deadlineAtMs);
  }

  /** Answers a read that took its time when what it shows has its copies. */
  #settle(
    accepted: Uint8Array | undefined,
    held: HeldReply,
    body: Uint8Array,
    deadlineAtMs: number,
    shown: LsnList | undefined,
  ): void {
    const { gate, writes } = this.#options;
    try {
      if (shown === undefined) gate.assertServing();
      else gate.showMore(shown);
    } catch (error) {
      held.fail(error);
      return;
    }
    writes?.settle(accepted, held, body, deadlineAtMs);
  }

  #write(
    handler: EngineHandler,
    type: number,
    request: ShardRequest,
    reply: RingReply,
    acks: number,
    deadlineAtMs: number,
  ): void {
    const { writes, topology } = this.#options;
    const { replicationFactor } = topology.current();
    if (acks > replicationFactor)
      throw invalidArgument("write", "acks", `at most the ${replicationFactor} copies of a vshard`, acks);
    const { idempotencyKey } = this.#routed;
    if (writes === undefined && idempotencyKey === "") {
      handler(request, reply);
      return;
    }
    const pending = writes?.begin(acks, deadlineAtMs) ?? new PendingWrite(NO_LOG, acks, deadlineAtMs);
    if (idempotencyKey !== "") pending.keyed = this.#keyed(type, request, pending);
    request.effects = pending;
    reply.route(pending);
    handler(request, this.#draft.begin(reply.limitBytes));
    pending.keyed?.end();
    const body = this.#draft.take();
    if (writes?.mustWait(pending) === true) {
      writes.commit(pending, reply.hold(), body);
      return;
    }
    writes?.commit(pending, undefined, undefined); // before the claim, which may fail: the write has happened
    reply.claim(body.length);
    reply.bytes.set(body, reply.offset);
  }

  #keyed(type: number, request: ShardRequest, pending: PendingWrite): KeyedEffects {
    const { keys: table, nowMs = (): number => 0, topology } = this.#options;
    const { idempotencyKey: key, part } = this.#routed;
    if (table === undefined) throw invalidArgument("write", "idempotencyKey", "absent, as this shard keeps none", key);
    if (request.length < 4)
      throw new ShardloomError("ERR_CORRUPT", "Cannot handle write as its body must name a collection");
    const collection = request.i32[request.offset >>> 2] as number;
    const snapshot = topology.current();
    return new KeyedEffects({
      table,
      name: { type, collection, part, key },
      nowMs,
      vshardOf: (hash) => vshardOfHash(snapshot, hash),
      assertWritable: (vshard) => pending.assertWritable(vshard),
    });
  }
}

/** A reply that is owed, whose body goes elsewhere first. */
function answeringWith(held: HeldReply, take: (body: Uint8Array) => void): HeldReply {
  return {
    get cancelled() {
      return held.cancelled;
    },
    send: (lengthBytes, write) => {
      const draft = new DraftReply().begin(lengthBytes);
      draft.claim(lengthBytes);
      write(draft, draft.offset);
      take(draft.take());
    },
    fail: (error) => held.fail(error),
  };
}
