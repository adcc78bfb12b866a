/**
 * One request on its way through admission: at the door, in flight, ended.
 *
 * Invariant: its sink is called exactly once; a slot that it holds is given back exactly once, before the sink is called, so that
 * whoever waits is let in with what the answer says about the shard.
 */
import { ShardloomError } from "../src/errors.ts";
import { type AdmissionController, NO_SLOT } from "../src/routing/admission.ts";
import type { AdmissionTicket, AdmissionWaiter } from "../src/routing/admission-ticket.ts";
import type {
  Payload,
  PendingRequest,
  ReplyFrame,
  ReplySink,
  Requester,
  RequestHeader,
} from "../src/routing/requester.ts";

/** What a request is sent with. */
export interface SendTerms {
  readonly shard: number;
  readonly type: number;
  readonly vshard: number;
  readonly priority: number;
  readonly deadlineAtMs: number;
  readonly header: RequestHeader | undefined;
}

/** Whether an error says that a shard is overloaded: no answer came in time, or it refused. */
export function saysOverloaded({ code }: ShardloomError): boolean {
  return code === "ERR_TIMEOUT" || code === "ERR_OVERLOADED";
}

/** A request that admission lets in. */
export class AdmittedRequest implements ReplySink, AdmissionWaiter {
  readonly #admission: AdmissionController;
  readonly #requester: (shard: number) => Requester;
  readonly #terms: SendTerms;
  readonly #sink: ReplySink;
  #payload: Payload;
  #slot: number = NO_SLOT;
  #ticket: AdmissionTicket | undefined;
  #sent: Requester | undefined;
  #pending: PendingRequest | undefined;

  constructor(
    admission: AdmissionController,
    requester: (shard: number) => Requester,
    terms: SendTerms,
    payload: Payload,
    sink: ReplySink,
  ) {
    this.#admission = admission;
    this.#requester = requester;
    this.#terms = terms;
    this.#payload = payload;
    this.#sink = sink;
  }

  /** Sends at once when nobody is to be waited for, else queues. May throw what a requester throws. */
  start(nowMs: number): this {
    const { shard, priority, deadlineAtMs, header } = this.#terms;
    const tenant = header?.tenant ?? 0;
    const { byteLength } = this.#payload;
    const slot = this.#admission.tryEnter(shard, priority, tenant, byteLength);
    if (slot !== NO_SLOT) {
      this.#slot = slot;
      this.#send(nowMs);
      return this;
    }
    this.#payload = this.#payload.hold?.() ?? this.#payload;
    const ticket = this.#admission.enter(shard, priority, tenant, byteLength, deadlineAtMs, this);
    if (ticket.state === "queued") this.#ticket = ticket;
    return this;
  }

  /** Ends it with an error, wherever it is. */
  cancel(error: ShardloomError): void {
    if (this.#pending !== undefined) this.#sent?.cancel(this.#pending, error);
    else if (this.#ticket !== undefined) this.#admission.cancel(this.#ticket, error);
  }

  onAdmitted(slot: number): void {
    this.#ticket = undefined;
    this.#slot = slot;
    try {
      this.#send(undefined);
    } catch (error) {
      this.#sink.onFailure(ShardloomError.from(error));
    }
  }

  onReply(frame: ReplyFrame): void {
    this.#leave(frame.serviceUs, frame.queueUs, true);
    this.#sink.onReply(frame);
  }

  onFailure(error: ShardloomError): void {
    this.#ticket = undefined;
    this.#leave(0, 0, !saysOverloaded(error));
    this.#sink.onFailure(error);
  }

  #send(nowMs: number | undefined): void {
    const { shard, type, vshard, priority, deadlineAtMs, header } = this.#terms;
    try {
      this.#sent = this.#requester(shard);
      this.#pending = this.#sent.request(type, vshard, priority, deadlineAtMs, this.#payload, this, nowMs, header);
    } catch (error) {
      this.#leave(0, 0, false);
      throw error;
    }
  }

  #leave(serviceUs: number, queueUs: number, ok: boolean): void {
    if (this.#slot === NO_SLOT) return;
    const slot = this.#slot;
    this.#slot = NO_SLOT;
    this.#admission.leave(slot, serviceUs, queueUs, ok);
  }
}
