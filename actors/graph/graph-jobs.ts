/**
 * Work of one shard that goes on in slices, between messages: each job is a generator whose reply is held until it ends.
 *
 * Invariant: a job ends once: in its answer, in what it threw, or because nobody waits for it any more; then its generator is closed too.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { EngineReply, HeldReply } from "../engine.ts";
import { sendBody } from "./graph-messages.ts";

/** What work yields that waits for a message which is about to come: the thread is not to sleep. */
export const IN_HASTE = "in haste";

/** Work that goes on in slices; it yields whether it has more to do now, or waits for a message. */
export type SlicedWork = Generator<boolean | typeof IN_HASTE, unknown>;

/** What a job is for. */
export interface JobOwner {
  readonly collection: number;
  /** 0: it is of no run. */
  readonly run: number;
}

interface Job extends JobOwner {
  readonly held: HeldReply | undefined;
  readonly work: SlicedWork;
  /** When it was taken on, and what its slices have taken, in ms. */
  readonly takenMs: number;
  queuedMs: number | undefined;
  workedMs: number;
}

export class GraphJobs {
  readonly #nowMs: () => number;
  #jobs: Job[] = [];
  /** Whether any waits in haste since {@link work} was called. */
  #inHaste = false;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  start(owner: JobOwner, reply: EngineReply, work: SlicedWork): void {
    const takenMs = this.#nowMs();
    this.#jobs.push({ ...owner, held: reply.hold(), work, takenMs, queuedMs: undefined, workedMs: 0 });
  }

  /** Goes on with all of them, in turns. @returns whether anything was done, or is about to be */
  work(budgetMs: number): boolean {
    if (this.#jobs.length === 0) return false;
    const endMs = this.#nowMs() + budgetMs;
    let worked = false;
    this.#inHaste = false;
    for (let more = true; more && this.#nowMs() < endMs; worked ||= more) {
      more = false;
      for (const job of [...this.#jobs]) more = this.#goOn(job) || more;
    }
    return worked || this.#inHaste; // also when nothing is left: what was written goes out before the thread sleeps
  }

  /** Ends what nobody waits for any more. */
  endCancelled(): void {
    for (const job of this.#jobs) if (job.held?.cancelled === true) this.#goOn(job);
  }

  /** Ends those that are meant, with a failure. */
  giveUp(which: (job: JobOwner) => boolean, failure: ShardloomError): void {
    for (const job of this.#jobs.filter(which)) {
      this.#end(job);
      job.work.return(undefined);
      job.held?.fail(failure);
    }
  }

  /** The shard is closed: what they work on is left as it is. */
  close(): void {
    const failure = new ShardloomError("ERR_CLOSED", "Cannot go on as the shard is closed");
    for (const { held } of this.#jobs) held?.fail(failure);
    this.#jobs = [];
  }

  /** One slice. @returns whether there is more to do now */
  #goOn(job: Job): boolean {
    try {
      if (job.held?.cancelled === true) {
        this.#end(job);
        job.work.return(undefined);
        job.held.fail(new ShardloomError("ERR_ABORTED", "Cannot go on as the caller has given up"));
        return true;
      }
      const beganMs = this.#nowMs();
      job.queuedMs ??= beganMs - job.takenMs;
      const step = job.work.next();
      job.workedMs += this.#nowMs() - beganMs;
      if (step.done !== true) {
        if (step.value === IN_HASTE) this.#inHaste = true;
        return step.value === true;
      }
      this.#end(job);
      const times = { serviceUs: Math.ceil(job.workedMs * 1000), queueUs: Math.floor(job.queuedMs * 1000) };
      sendBody(job.held, step.value, times);
    } catch (error) {
      this.#end(job);
      job.held?.fail(error);
    }
    return true;
  }

  #end(job: Job): void {
    this.#jobs = this.#jobs.filter((other) => other !== job);
  }
}
