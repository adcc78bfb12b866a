/**
 * Where a request to one shard ends: the promise of who asked.
 *
 * Invariant: it settles once, and a slot of admission that it holds goes back when it does.
 */
import { ShardloomError } from "../src/errors.ts";
import { type AdmissionController, NO_SLOT } from "../src/routing/admission.ts";
import type { ReplyFrame, ReplySink } from "../src/routing/requester.ts";
import { saysOverloaded } from "./admitted-request.ts";

export class AskCall<T> implements ReplySink {
  unlisten: (() => void) | undefined = undefined;
  ended = false;
  readonly #resolve: (answer: T) => void;
  readonly #reject: (error: ShardloomError) => void;
  readonly #decode: (frame: ReplyFrame) => T;
  /** Admission that it holds a slot of, until it ends. */
  #admission: AdmissionController | undefined = undefined;
  #slot: number = NO_SLOT;

  constructor(resolve: (answer: T) => void, reject: (error: ShardloomError) => void, decode: (frame: ReplyFrame) => T) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#decode = decode;
  }

  /** Takes over a slot of admission, which goes back when the call ends. */
  hold(admission: AdmissionController, slot: number): void {
    this.#admission = admission;
    this.#slot = slot;
  }

  /** Gives the slot back: the request has not left. */
  release(): void {
    const admission = this.#admission;
    this.#admission = undefined;
    admission?.leave(this.#slot, 0, 0, false);
  }

  onReply(frame: ReplyFrame): void {
    this.#admission?.leave(this.#slot, frame.serviceUs, frame.queueUs, true);
    this.ended = true;
    this.unlisten?.();
    try {
      this.#resolve(this.#decode(frame));
    } catch (error) {
      this.#reject(ShardloomError.from(error, "ERR_CORRUPT"));
    }
  }

  onFailure(error: ShardloomError): void {
    this.#admission?.leave(this.#slot, 0, 0, !saysOverloaded(error));
    this.ended = true;
    this.unlisten?.();
    this.#reject(error);
  }
}
