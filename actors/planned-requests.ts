/**
 * Requests of planned types: takes the prefix off, checks every vshard that it names, and sees to it that the answer to a write waits
 * for the copies that it is to wait for.
 *
 * Invariant: a handler runs at most once per request. A write of which any vshard is refused writes nothing at all, and its reply has no
 * body; a read is answered for the vshards that are left.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { isRoutedWrite, messageTypeName } from "../src/wire/message-types.ts";
import { CONSISTENCY, RoutedReader } from "../src/wire/routed-codec.ts";
import type { EngineHandler } from "./engine.ts";
import type { ReplicatedWrites } from "./replication/replicated-write.ts";
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
    const { gate } = this.#options;
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
    reply.route(refused.length === 0 ? COMPLETE : { refused, written: undefined });
    if (!write) handler(request, reply);
    else if (refused.length === 0) this.#write(handler, request, reply, routed.acks, deadlineAtMs);
  }

  #write(handler: EngineHandler, request: ShardRequest, reply: RingReply, acks: number, deadlineAtMs: number): void {
    const { writes, topology } = this.#options;
    const { replicationFactor } = topology.current();
    if (acks > replicationFactor)
      throw invalidArgument("write", "acks", `at most the ${replicationFactor} copies of a vshard`, acks);
    if (writes === undefined || replicationFactor === 1) {
      handler(request, reply);
      return;
    }
    const pending = writes.begin(acks, deadlineAtMs);
    request.effects = pending;
    reply.route(pending);
    handler(request, this.#draft.begin(reply.limitBytes));
    const body = this.#draft.take();
    if (acks > 1 && pending.written !== undefined) {
      writes.commit(pending, reply.hold(), body);
      return;
    }
    writes.commit(pending, undefined, undefined); // before the claim, which may fail: the write has happened
    reply.claim(body.length);
    reply.bytes.set(body, reply.offset);
  }
}
