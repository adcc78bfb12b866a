/**
 * The coordinator: takes one topology snapshot, plans who answers, sends one envelope per shard, gathers typed answers.
 *
 * An actor without I/O of its own: requesters, clock, topology and randomness come in as parameters, so that the same code runs
 * on any client thread, on workers, and in a simulated world.
 *
 * Invariant: every call ends under one absolute deadline, made once when the call begins, and in exactly one outcome.
 */
import { invalidArgument, type ShardloomError } from "../src/errors.ts";
import { type AdmissionController, NO_SLOT } from "../src/routing/admission.ts";
import type { CallDefaults } from "../src/routing/call-defaults.ts";
import { Executor } from "../src/routing/executor.ts";
import { quorumOf } from "../src/routing/gather.ts";
import { checkReadOptions, type LagSource, type Plan, type PlanTarget, type ReadRules } from "../src/routing/plan.ts";
import { Planner } from "../src/routing/planner.ts";
import { ReplicaLoads } from "../src/routing/replica-loads.ts";
import type { Payload, ReplyFrame, ReplySink, Requester, RequestHeader } from "../src/routing/requester.ts";
import type { Clock } from "../src/runtime/clock.ts";
import type { Random } from "../src/runtime/random.ts";
import { type Cancel, nextTurn, type Scheduler, sleep } from "../src/runtime/scheduler.ts";
import { MAX_KEY_ENTRY_BYTES } from "../src/store/idempotent-effect.ts";
import { isRemoved, shardsOf, type TopologySnapshot } from "../src/topology/snapshot.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import {
  MAX_KEY_PREFIX_BYTES,
  ROUTED_HEADER_BYTES,
  type RoutedKey,
  readRoutedReply,
} from "../src/wire/routed-codec.ts";
import { AdmittedRequest, type SendTerms } from "./admitted-request.ts";
import { AskCall } from "./ask-call.ts";
import {
  abortError,
  acksOf,
  type CallOptions,
  checkedSession,
  checkedTenant,
  checkedTimeout,
  checkSignal,
  encodeKey,
  limitsOf,
  onAbort,
  priorityOf,
  type ReadOptions,
  type WriteOptions,
} from "./call-options.ts";
import { repeatKeyed, repeatUndone } from "./keyed-call.ts";
import {
  explain,
  PlannedRead,
  type ReadContext,
  type ReadQuery,
  type ReadResult,
  type ReadScope,
  stated,
} from "./planned-read.ts";
import { maxPrefixBytes, RoutedPayload, readComplete, readPrefix, writePrefix } from "./routed-payload.ts";
import { createRouterCounters, type RouterCounters, type RouterStats, routerStats } from "./router-stats.ts";

/** What a coordinator works with. */
export interface CoordinatorOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly topology: TopologySource;
  readonly requester: (shard: number) => Requester;
  readonly defaults: CallDefaults;
  /** What holds requests back when there are more than the shards can serve. @default nothing, as on workers */
  readonly admission?: AdmissionController;
  /** What is known of the copies' progress. @default nothing: only primaries are known to be fresh */
  readonly lag?: LagSource | undefined;
  /** The shard on this thread, for `prefer-local`. @default none */
  readonly localShard?: number;
}

/** What a key may take of a request, or of what it becomes on its way to copies. */
const MAX_KEY_OVERHEAD_BYTES: number = Math.max(MAX_KEY_PREFIX_BYTES, MAX_KEY_ENTRY_BYTES);

/** Plans and sends on behalf of one thread. */
export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #loads: ReplicaLoads;
  readonly #planner: Planner;
  readonly #executor: Executor;
  readonly #counters: RouterCounters = createRouterCounters();

  constructor(options: CoordinatorOptions) {
    const { clock, scheduler, random, lag, localShard } = options;
    this.#options = options;
    this.#loads = new ReplicaLoads(options.topology.current().shards);
    const loads = this.#loads;
    this.#planner = new Planner({ random, clock, loads, lag, localShard });
    this.#executor = new Executor({ clock, scheduler, random, loads });
  }

  /** The newest topology; take it once and plan with it whole. */
  get snapshot(): TopologySnapshot {
    return this.#options.topology.current();
  }

  /** All shards that are not removed, in order. */
  get shards(): number[] {
    return shardsOf(this.snapshot);
  }

  /** The time on which deadlines are made. */
  nowMs(): number {
    return this.#options.clock.nowMs();
  }

  /** Resolves after a while; after none, when the event loop has turned once. */
  pause(delayMs: number): Promise<void> {
    return delayMs === 0 ? nextTurn(this.#options.scheduler) : sleep(this.#options.scheduler, delayMs);
  }

  /** Calls back once after a while, unless it is taken back. */
  after(delayMs: number, callback: () => void): Cancel {
    return this.#options.scheduler.after(delayMs, callback);
  }

  /** The absolute deadline of a call that begins now. */
  deadlineAtMs(options: CallOptions | undefined): number {
    return this.nowMs() + this.#timeoutMs(options);
  }

  #timeoutMs(options: CallOptions | undefined): number {
    checkSignal(options?.signal);
    return checkedTimeout(options?.timeoutMs ?? this.#options.defaults.requestTimeoutMs);
  }

  /** The requester of a shard's current worker. */
  requester(shard: number): Requester {
    return this.#options.requester(shard);
  }

  /** The largest body that every planned message to any shard may have. */
  get maxBodyBytes(): number {
    return this.#leastPayloadBytes() - maxPrefixBytes(this.snapshot);
  }

  /** The largest body that a write to any shard may have, with a key or without: its prefix lists no vshards. */
  get maxWriteBytes(): number {
    return this.#leastPayloadBytes() - ROUTED_HEADER_BYTES - MAX_KEY_OVERHEAD_BYTES;
  }

  #leastPayloadBytes(): number {
    let least = Number.POSITIVE_INFINITY;
    const { snapshot } = this;
    for (let shard = 0; shard < snapshot.shards; shard++)
      if (!isRemoved(snapshot, shard)) least = Math.min(least, this.requester(shard).maxPayloadBytes);
    return least;
  }

  /**
   * Sends one request to one shard; every failure is a rejection. `decode` runs while the reply is in place.
   *
   * @param internalPriority Of work that keeps itself in bounds, as loads and administration do: it passes admission by.
   */
  ask<T>(
    shard: number,
    type: number,
    vshard: number,
    payload: Payload,
    decode: (frame: ReplyFrame) => T,
    options: CallOptions | undefined,
    internalPriority?: number,
    header?: RequestHeader,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const nowMs = this.#options.clock.nowMs();
      const signal = options?.signal;
      if (signal?.aborted === true) throw abortError(signal);
      const deadlineAtMs = nowMs + this.#timeoutMs(options);
      const call = new AskCall(resolve, reject, decode);
      const { admission, requester } = this.#options;
      const priority = internalPriority ?? priorityOf(options?.priority);
      const admits = admission !== undefined && internalPriority === undefined;
      const sent = header ?? (internalPriority === undefined ? this.#tenantHeader(options) : undefined);
      const slot = admits ? admission.tryEnter(shard, priority, sent?.tenant ?? 0, payload.byteLength) : NO_SLOT;
      // Nobody is to be waited for, as nearly always: no object but the call itself.
      if (!admits || slot !== NO_SLOT) {
        if (slot !== NO_SLOT) call.hold(admission as AdmissionController, slot);
        try {
          const peer = requester(shard);
          const pending = peer.request(type, vshard, priority, deadlineAtMs, payload, call, nowMs, sent);
          if (signal !== undefined) call.unlisten = onAbort(signal, (error) => peer.cancel(pending, error));
        } catch (error) {
          call.release();
          throw error;
        }
        return;
      }
      const terms = { shard, type, vshard, priority, deadlineAtMs, header: sent };
      const request = new AdmittedRequest(admission, requester, terms, payload, call).start(nowMs);
      if (signal !== undefined && !call.ended) call.unlisten = onAbort(signal, (error) => request.cancel(error));
    });
  }

  /** Plans a read, sends it to the copies that the plan chose, and gathers their answers under one deadline. */
  async read<T>(scope: ReadScope, query: ReadQuery<T>, options: ReadOptions = {}): Promise<ReadResult<T>> {
    const { clock } = this.#options;
    const startedUs = clock.nowUs();
    const deadlineAtMs = startedUs / 1000 + this.#timeoutMs(options);
    const rules = this.rules(options);
    const plan = this.#plan(scope, rules);
    const plannedUs = clock.nowUs();
    this.#counters.reads[scope.kind]++;
    const read = new PlannedRead(this.#readContext(rules), query, plan, rules, options.session, {
      deadlineAtMs,
      policy: options.gather,
      unavailable: options.unavailable ?? "wait",
      limits: limitsOf(options),
      signal: options.signal,
      priority: priorityOf(options.priority),
      tenant: this.#tenant(options),
    });
    const gathered = stated(await this.#executor.execute(read));
    if (options.explain === undefined || options.explain === false) return gathered;
    const { stalenessMs, completeness } = gathered;
    const account = explain(plan, plannedUs - startedUs, clock.nowUs() - startedUs, stalenessMs, completeness);
    if (typeof options.explain === "function") options.explain(account);
    return { ...gathered, explain: account };
  }

  /** Asks one shard again for what it has answered before, under the same conditions: the next page of an answer. */
  readOn<T>(
    target: PlanTarget,
    type: number,
    body: Payload,
    decode: (frame: ReplyFrame, offset: number, length: number) => T,
    options: ReadOptions,
  ): Promise<T> {
    const rules = this.rules(options);
    const payload = new RoutedPayload(readPrefix(this.snapshot, rules, options.session, target), body);
    const read = (frame: ReplyFrame): T => readComplete(frame, (offset, length) => decode(frame, offset, length));
    return this.ask(target.shard, type, VSHARD_LISTED, payload, read, options);
  }

  /**
   * Checks what a read's options say, before anything is asked or read: for reads that go other ways than by a plan.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`
   */
  checkRead(options: ReadOptions): void {
    this.#timeoutMs(options);
    this.rules(options);
    limitsOf(options);
    priorityOf(options.priority);
    this.#tenant(options);
    if (options.gather !== undefined) quorumOf(this.shards.length, options.gather);
  }

  /**
   * Checks what a write's options say, before any of its requests.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`
   */
  checkWrite(options: WriteOptions): void {
    acksOf(options.acks ?? this.#options.defaults.acks, this.snapshot.replicationFactor);
    checkedSession(options.session);
    priorityOf(options.priority);
    this.#tenant(options);
    if (options.idempotencyKey !== undefined) encodeKey(options.idempotencyKey);
  }

  /**
   * Sends a write to the primary of its vshards and waits for the acknowledgements that are asked for. One with a key is repeated while
   * it is in doubt and there is time.
   *
   * @param snapshot The topology under which the write was grouped. `ERR_STALE_EPOCH` when the shard has another one by then:
   *   nothing was written (with a key: or it was, which will be known), and the caller groups again.
   * @param part Which part of its call it is, for the key: items of a vshard that are sent apart are different parts.
   */
  write<T>(
    snapshot: TopologySnapshot,
    shard: number,
    type: number,
    body: Payload,
    decode: (frame: ReplyFrame, offset: number, length: number) => T,
    options: WriteOptions = {},
    internalPriority?: number,
    part = 0,
  ): Promise<T> {
    const acks = acksOf(options.acks ?? this.#options.defaults.acks, snapshot.replicationFactor);
    const { session, idempotencyKey } = options;
    const key: RoutedKey | undefined =
      idempotencyKey === undefined ? undefined : { bytes: encodeKey(idempotencyKey), part };
    const payload = new RoutedPayload(writePrefix(acks, key), body);
    const header: RequestHeader = { topologyEpoch: snapshot.topologyEpoch, attempt: 0, tenant: this.#tenant(options) };
    const read = (frame: ReplyFrame): T => {
      const prefix = readRoutedReply(frame, frame.offset, frame.length);
      for (const [at, vshard] of prefix.written.vshards.entries())
        session?.merge(vshard, prefix.written.lsns[at] as number);
      return decode(frame, frame.offset + prefix.byteLength, frame.length - prefix.byteLength);
    };
    this.#counters.writes++;
    const send = (attempt: number, timed: CallOptions): Promise<T> =>
      this.ask(shard, type, VSHARD_LISTED, payload, read, timed, internalPriority, { ...header, attempt });
    const { clock, scheduler, random, topology } = this.#options;
    const deadlineAtMs = this.deadlineAtMs(options);
    if (key === undefined) return repeatUndone({ clock, scheduler }, deadlineAtMs, options, send);
    const { retries } = this.#executor;
    return repeatKeyed({ clock, scheduler, random, topology, retries }, snapshot, shard, deadlineAtMs, options, send);
  }

  /** Counters of everything that this thread has planned and sent. */
  stats(): RouterStats {
    return routerStats(this.#counters, this.#executor, this.#loads, this.snapshot);
  }

  /** Another worker serves a shard from now on: what was learnt of the last one's failures is forgotten. */
  workerReplaced(shard: number): void {
    this.#executor.breakers.reset(shard);
  }

  /** Ends what waits for its time; what is under way ends with its requester. */
  close(): void {
    this.#executor.close();
  }

  /** What a read with these options may be answered by: as the caller says, or the cluster. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
  rules(options: ReadOptions): ReadRules {
    const { consistency, strategy } = this.#options.defaults;
    return checkReadOptions({
      strategy: options.strategy ?? strategy,
      consistency: options.consistency ?? (options.session === undefined ? consistency : "session"),
      maxStalenessMs: options.maxStalenessMs,
      session: options.session,
      policy: options.unavailable ?? "wait",
    });
  }

  #plan(scope: ReadScope, rules: ReadRules): Plan {
    return this.#planner.plan({ ...scope, snapshot: this.snapshot, rules });
  }

  #tenant(options: CallOptions): number {
    const { tenant } = options;
    if (tenant === undefined) return 0;
    const { admission } = this.#options;
    if (admission !== undefined) return admission.tenant(checkedTenant(tenant));
    throw invalidArgument("make call", "tenant", "left out on a worker, whose calls are part of admitted ones", tenant);
  }

  #tenantHeader(options: CallOptions | undefined): RequestHeader | undefined {
    if (options?.tenant === undefined) return undefined;
    return { topologyEpoch: this.snapshot.topologyEpoch, attempt: 0, tenant: this.#tenant(options) };
  }

  #send(terms: SendTerms, payload: Payload, sink: ReplySink, nowMs: number): AdmittedRequest | Unadmitted {
    const { admission, requester } = this.#options;
    if (admission !== undefined) return new AdmittedRequest(admission, requester, terms, payload, sink).start(nowMs);
    const { shard, type, vshard, priority, deadlineAtMs, header } = terms;
    const peer = requester(shard);
    const pending = peer.request(type, vshard, priority, deadlineAtMs, payload, sink, nowMs, header);
    return { cancel: (error) => void peer.cancel(pending, error) };
  }

  #readContext(rules: ReadRules): ReadContext {
    return {
      send: (terms, payload, sink, nowMs) => this.#send(terms, payload, sink, nowMs),
      cancel: (request, error) => (request as AdmittedRequest | Unadmitted).cancel(error),
      replan: (vshards) => this.#plan({ kind: "scatter", vshards }, rules),
    };
  }
}

/** A request of a thread without admission. */
interface Unadmitted {
  readonly cancel: (error: ShardloomError) => void;
}
