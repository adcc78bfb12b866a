/**
 * One planned read: plan, execution, answers, and, when asked for, the account of all that.
 *
 * Invariant: one snapshot serves the whole plan; parts that a shard refuses as stale are planned once more with the newest one.
 */
import type { ShardloomError } from "../src/errors.ts";
import type { ExecutionCall, SentRequest } from "../src/routing/execution-call.ts";
import type { Completeness, Gathered } from "../src/routing/gather.ts";
import type { Decoded } from "../src/routing/part.ts";
import type { Plan, PlanTarget, ReadRules } from "../src/routing/plan.ts";
import type { Payload, ReplyFrame, ReplySink, RequestHeader } from "../src/routing/requester.ts";
import type { Session } from "../src/topology/session.ts";
import { VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import { REFUSAL, type RefusedVshard, readRoutedReply } from "../src/wire/routed-codec.ts";
import type { SendTerms } from "./admitted-request.ts";
import { RoutedPayload, readPrefix } from "./routed-payload.ts";
import type { SearchFallback } from "./search-fallback.ts";
import type { AskedShard } from "./shard-account.ts";

/** Which vshards a read is for: one, that of every item of a list, or all. */
export type ReadScope =
  | { readonly kind: "point"; readonly vshard: number }
  | { readonly kind: "batch"; readonly vshards: ArrayLike<number> }
  | { readonly kind: "scatter"; readonly vshards?: ArrayLike<number> };

/** Of the items of a list: one is a point, several are a batch, which stays grouped by shard. */
export function scopeOf(vshards: readonly number[]): ReadScope {
  const [vshard] = vshards;
  return vshard !== undefined && vshards.length === 1 ? { kind: "point", vshard } : { kind: "batch", vshards };
}

/** What a read asks of the shards. */
export interface ReadQuery<T> {
  readonly type: number;
  /** The body for one target; it has to follow from the shard and the vshards alone. */
  readonly body: (target: PlanTarget) => Payload;
  /**
   * Reads the body of an answer, `length` bytes at `offset` of the frame.
   *
   * @param target Who was asked for what.
   * @param answered The same without the vshards that were refused.
   */
  readonly decode: (frame: ReplyFrame, offset: number, length: number, target: PlanTarget, answered: PlanTarget) => T;
  /** Items in an answer, for the completeness record. */
  readonly count: (answer: T) => number;
}

/** A plan, as `explain` shows it. */
export interface ExplainedPlan {
  readonly kind: Plan["kind"];
  readonly topologyEpoch: number;
  /** Of a search for vectors: how the documents were found. */
  readonly strategy?: string;
  /** The rule by which it was chosen which copy of each vshard is asked; left out where none was, as a strategy asks shards or reads their memory. */
  readonly copies?: string;
  readonly consistency: string;
  readonly targets: readonly { readonly shard: number; readonly vshards: readonly number[]; readonly whole: boolean }[];
  readonly unavailable: readonly { readonly vshards: readonly number[]; readonly reason: string }[];
}

/** What a search took that shards did together. */
export interface Collaboration {
  /** Shards that searched; others were asked for distances only. */
  readonly shards: number;
  /** Distances computed, wherever; of these by one-sided reads of another shard's vectors. */
  readonly computations: number;
  readonly pulled: number;
  /** And of these by a worker that had nothing else to do. */
  readonly stolen: number;
  /** One-sided reads of another shard's lists of neighbours. */
  readonly listReads: number;
  /** Messages that asked a shard for distances; messages between shards of all kinds. */
  readonly pushes: number;
  readonly messages: number;
  /** Of these messages and of one-sided reads. */
  readonly bytes: number;
}

/** What was read for a search that was sent to some of the shards. */
export interface Reading {
  /** Vectors and centroids that were compared with the query, by whomever. */
  readonly codes: number;
  /** Exchanges with shards that had to follow one another, the searching thread's first not counted; and messages of all, this thread's included. */
  readonly rounds: number;
  readonly messages: number;
  /** Of requests and answers between shards. */
  readonly bytes: number;
}

/** How a shard found its part of an answer, and how many vectors it compared with the query by themselves. */
export interface ShardWay {
  readonly shard: number;
  readonly plan: "scan" | "index" | "filtered-scan" | "filtered-index";
  readonly scored: number;
}

/** What became of a read: its plan, each part's outcome, and where the time went. */
export interface Explanation {
  readonly plan: ExplainedPlan;
  /** Of a search: why it was not the strategy that was asked for. */
  readonly fallback?: SearchFallback;
  /** Making the plan, in us. */
  readonly planUs: number;
  /** From the call to the last answer, in us; what remains of a call is decoding and merging. */
  readonly totalUs: number;
  /** How far the answers may be behind, see {@link ReadResult.stalenessMs}. */
  readonly stalenessMs: number;
  /** One per planned part: shard, who served it, attempts, hedges, queue and service time, bytes. Of a search that shards did together: whom it asked, without times of handlers. */
  readonly outcomes: Completeness["outcomes"];
  /** By shard, what was asked for the rest of answers that did not fit one reply; left out when there was none. */
  readonly pages?: readonly AskedShard[];
  /** Sums over the outcomes and pages; bytes, those between shards too. */
  readonly attempts: number;
  readonly hedges: number;
  readonly bytes: number;
  /** Of a search that shards did together. */
  readonly collaboration?: Collaboration;
  /** Of a search that was sent to some of the shards. */
  readonly reading?: Reading;
  /** Of a search for vectors by `scatter`: how each shard that answered found its own. */
  readonly ways?: readonly ShardWay[];
}

/** Answers in the order of the plan's targets. */
export interface ReadResult<T> extends Gathered<T> {
  /**
   * How far the answers may be behind the primaries of what they are about, in ms, at the most: as each copy that answered knew it when it
   * began. 0: primaries answered, or copies that lacked nothing; infinity: a copy did not know.
   */
  readonly stalenessMs: number;
  readonly explain?: Explanation;
}

/** An answer, and how far it may be behind. */
export interface StatedAnswer<T> {
  readonly value: T;
  readonly stalenessMs: number;
}

/** What a planned read needs of its thread. */
export interface ReadContext {
  /** Sends one request through whatever stands before the shards. */
  readonly send: (terms: SendTerms, payload: Payload, sink: ReplySink, nowMs: number) => SentRequest;
  readonly cancel: (request: SentRequest, error: ShardloomError) => void;
  readonly replan: (vshards: Uint16Array) => Plan;
}

/** A read as the executor carries it out. */
export class PlannedRead<T> implements ExecutionCall<StatedAnswer<T>> {
  readonly plan: Plan;
  readonly deadlineAtMs: number;
  readonly idempotent = true;
  readonly policy: ExecutionCall<unknown>["policy"];
  readonly unavailable: ExecutionCall<unknown>["unavailable"];
  readonly priority: number;
  readonly tenant: number;
  readonly limits: ExecutionCall<unknown>["limits"];
  readonly signal: AbortSignal | undefined;
  readonly replan: (vshards: Uint16Array) => Plan;
  readonly #context: ReadContext;
  readonly #query: ReadQuery<T>;
  readonly #rules: ReadRules;
  readonly #session: Session | undefined;
  /** The newest plan; a retry under it carries its epoch. */
  #newest: Plan;

  constructor(
    context: ReadContext,
    query: ReadQuery<T>,
    plan: Plan,
    rules: ReadRules,
    session: Session | undefined,
    terms: Pick<ExecutionCall<unknown>, "deadlineAtMs" | "policy" | "unavailable" | "limits" | "signal"> & {
      readonly priority: number;
      readonly tenant: number;
    },
  ) {
    this.#context = context;
    this.#query = query;
    this.#rules = rules;
    this.#session = session;
    this.#newest = plan;
    this.plan = plan;
    this.deadlineAtMs = terms.deadlineAtMs;
    this.policy = terms.policy;
    this.unavailable = terms.unavailable;
    this.priority = terms.priority;
    this.tenant = terms.tenant;
    this.limits = terms.limits;
    this.signal = terms.signal;
    this.replan = (vshards) => {
      this.#newest = context.replan(vshards);
      return this.#newest;
    };
  }

  send(target: PlanTarget, header: RequestHeader, deadlineAtMs: number, sink: ReplySink, nowMs: number): SentRequest {
    const prefix = readPrefix(this.#newest.snapshot, this.#rules, this.#session, target);
    const payload = new RoutedPayload(prefix, this.#query.body(target));
    const { type } = this.#query;
    const { priority } = this;
    const terms = { shard: target.shard, type, vshard: VSHARD_LISTED, priority, deadlineAtMs, header };
    return this.#context.send(terms, payload, sink, nowMs);
  }

  cancel(_shard: number, request: SentRequest, error: ShardloomError): void {
    this.#context.cancel(request, error);
  }

  decode(frame: ReplyFrame, target: PlanTarget): Decoded<StatedAnswer<T>> {
    const prefix = readRoutedReply(frame, frame.offset, frame.length);
    const { byteLength, stalenessMs, written } = prefix;
    // Before the answer is used: what a session has been shown it never misses again.
    for (const [at, vshard] of written.vshards.entries()) this.#session?.merge(vshard, written.lsns[at] as number);
    const { decode, count } = this.#query;
    const { refused } = prefix;
    const answered = refused.length === 0 ? target : without(target, refused);
    const value = decode(frame, frame.offset + byteLength, frame.length - byteLength, target, answered);
    return { answer: { value, stalenessMs }, items: count(value), refused: refused.map(toRefused) };
  }
}

/** The answers of a gather, and the most that one of them may be behind. */
export function stated<T>({ answers, completeness }: Gathered<StatedAnswer<T>>): ReadResult<T> {
  let most = 0;
  for (const { stalenessMs } of answers) if (stalenessMs > most) most = stalenessMs;
  return { answers: answers.map(({ value }) => value), completeness, stalenessMs: most };
}

function without({ shard, vshards }: PlanTarget, refused: readonly RefusedVshard[]): PlanTarget {
  const left = new Set(refused.map(({ vshard }) => vshard));
  return { shard, vshards: vshards.filter((vshard) => !left.has(vshard)), whole: false };
}

/** A copy that is still being filled is one that is too old. */
function toRefused({ vshard, reason }: RefusedVshard): Decoded<unknown>["refused"][number] {
  if (reason === REFUSAL.NOT_OWNER) return { vshard, reason: "not-owner" };
  return { vshard, reason: reason === REFUSAL.BEHIND ? "behind" : "stale" };
}

/** The account of a read. */
export function explain(
  plan: Plan,
  planUs: number,
  totalUs: number,
  stalenessMs: number,
  { outcomes }: Completeness,
): Explanation {
  const sum = (of: (outcome: Completeness["outcomes"][number]) => number): number =>
    outcomes.reduce((total, outcome) => total + of(outcome), 0);
  return {
    plan: {
      kind: plan.kind,
      topologyEpoch: plan.snapshot.topologyEpoch,
      copies: plan.strategy,
      consistency: plan.consistency,
      targets: plan.targets.map(({ shard, vshards, whole }) => ({ shard, vshards: [...vshards], whole })),
      unavailable: plan.unavailable.map(({ vshards, reason }) => ({ vshards: [...vshards], reason })),
    },
    planUs,
    totalUs,
    stalenessMs,
    outcomes,
    attempts: sum((outcome) => outcome.attempts),
    hedges: sum((outcome) => outcome.hedges),
    bytes: sum((outcome) => outcome.bytes),
  };
}
