/**
 * Shards behind a coordinator that sends nothing: requests and replies in their own bytes, answered by text engines.
 *
 * Invariant: what is asked for goes to the shard that `shardOf` names for each vshard; what is refused in a phase is refused to every page.
 */
import { expect } from "vitest";
import type { ReadOptions } from "../../../actors/call-options.ts";
import type { Coordinator } from "../../../actors/coordinator.ts";
import type { ReadQuery, ReadResult, ReadScope } from "../../../actors/planned-read.ts";
import type { TextCollectionParts } from "../../../actors/text/client-collection.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { plainOutcome, summarize } from "../../../src/routing/gather.ts";
import type { PlanTarget } from "../../../src/routing/plan.ts";
import type { Payload, ReplyFrame } from "../../../src/routing/requester.ts";
import { REFUSAL, routedReplyBytes, writeRoutedReply } from "../../../src/wire/routed-codec.ts";
import { wireMemory } from "../vector/support.ts";
import { type TextBed, VSHARDS } from "./support.ts";

export const ALL: readonly number[] = Array.from({ length: VSHARDS }, (_, vshard) => vshard);

interface Asked {
  readonly type: number;
  readonly vshards: readonly number[];
  readonly options: ReadOptions;
}

export class FakeShards {
  readonly snapshot: { readonly shards: number; readonly topologyEpoch: number };
  readonly asked: Asked[] = [];
  readonly beds: readonly TextBed[];
  /** The shard that is asked for each vshard. */
  shardOf: (vshard: number) => number;
  /** vshards that are refused, by message type. */
  readonly refused: Map<number, readonly number[]> = new Map();
  /** The clock; every read takes 100 ms. */
  #nowMs = 1_000;
  readonly #smallReplies: boolean;

  constructor(beds: readonly TextBed[], shardOf: (vshard: number) => number, smallReplies = false) {
    this.beds = beds;
    this.shardOf = shardOf;
    this.snapshot = { shards: beds.length, topologyEpoch: 1 };
    this.#smallReplies = smallReplies;
  }

  /** What a collection over them is made of. */
  parts(): TextCollectionParts {
    const [{ options, analyser }] = this.beds as [TextBed];
    const coordinator = this as unknown as Coordinator;
    return { name: "texts", collectionId: 1, options, analyser, coordinator, assertOpen: () => undefined };
  }

  nowMs(): number {
    return this.#nowMs;
  }

  deadlineAtMs({ timeoutMs = 1_000 }: ReadOptions): number {
    return this.#nowMs + timeoutMs;
  }

  read<T>(scope: ReadScope, query: ReadQuery<T>, options: ReadOptions): Promise<ReadResult<T>> {
    if (scope.kind !== "scatter") throw new Error("a search is for many vshards");
    const wanted = Array.from(scope.vshards ?? ALL);
    this.asked.push({ type: query.type, vshards: wanted, options });
    this.#nowMs += 100;
    const targets = this.beds.map((_, shard) => {
      const vshards = Uint16Array.from(wanted.filter((vshard) => this.shardOf(vshard) === shard));
      return { shard, vshards, whole: false };
    });
    const parts = targets.filter(({ vshards }) => vshards.length > 0).map((target) => this.#part(query, target));
    const completeness = summarize(parts.map(({ outcome }) => outcome));
    return Promise.resolve({ answers: parts.map(({ answer }) => answer), completeness, stalenessMs: 0 });
  }

  readOn<T>(
    target: PlanTarget,
    type: number,
    body: Payload,
    decode: (frame: ReplyFrame, offset: number, length: number) => T,
  ): Promise<T> {
    // What was refused before is refused again, and a page must be complete.
    for (const vshard of target.vshards) expect(this.refused.get(type) ?? []).not.toContain(vshard);
    const { frame, prefixBytes } = this.#answer(type, body, target);
    return Promise.resolve(decode(frame, prefixBytes, frame.length - prefixBytes));
  }

  #part<T>(query: ReadQuery<T>, target: PlanTarget) {
    const { frame, prefixBytes, missing } = this.#answer(query.type, query.body(target), target);
    const answer = query.decode(frame, prefixBytes, frame.length - prefixBytes, target, target);
    const error = missing > 0 ? new ShardloomError("ERR_STALE_REPLICA", "Cannot answer for all") : undefined;
    const vshards = target.vshards.length;
    const outcome = { ...plainOutcome(target.shard, query.count(answer), error), vshards };
    return { answer, outcome: { ...outcome, vshardsAnswered: vshards - missing } };
  }

  #answer(type: number, body: Payload, { shard, vshards }: PlanTarget) {
    const refused = [...vshards].filter((vshard) => this.refused.get(type)?.includes(vshard) === true);
    const mask = new Uint8Array(VSHARDS);
    for (const vshard of vshards) if (!refused.includes(vshard)) mask[vshard] = 1;
    const bed = this.beds[shard] as TextBed;
    const write: Payload["write"] = (memory, offset) => body.write(memory, offset);
    bed.replyLimitBytes = this.#smallReplies ? 300 : 2 ** 20;
    const reply = bed.call(type, body.byteLength, write, (m, o, length) => m.bytes.slice(o, o + length), mask);
    const prefixBytes = routedReplyBytes(refused.length, 0);
    const memory = wireMemory(prefixBytes + reply.length);
    const list = refused.map((vshard) => ({ vshard, reason: REFUSAL.SYNCING }));
    writeRoutedReply(memory, 0, list, undefined);
    memory.bytes.set(reply, prefixBytes);
    const frame: ReplyFrame = { ...memory, offset: 0, length: prefixBytes + reply.length, serviceUs: 0, queueUs: 0 };
    return { frame, prefixBytes, missing: refused.length };
  }
}
