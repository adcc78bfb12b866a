/**
 * The answering half of a link: hands what another node asks to the local shards, and sends their answers back.
 *
 * To the workers of this node the other node is one more client thread: a {@link ClientPlane} of its own, with a bridge to every
 * worker. So credit, queues, deadlines, cancellation and lost workers are what they are for any client: a request that finds no credit
 * waits in a bounded queue, in order, and beyond its bound is refused with `ERR_OVERLOADED`.
 *
 * Divergence: envelopes are written anew and not copied, as every word that a shard reads follows from the request or from this host's
 * clock and topology; the words that name the sender's thread do not cross.
 *
 * Invariant: every request frame is answered by exactly one reply or failure frame of the same connection, unless it was cancelled.
 */
import { ShardloomError } from "../errors.ts";
import type { Payload, PendingRequest, ReplyFrame, ReplySink } from "../routing/requester.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { TopologySource } from "../topology/topology-source.ts";
import { checkEnvelope, ENVELOPE_OK, envelopeVshard, envelopeWord } from "../wire/envelope.ts";
import {
  ENVELOPE_BYTES,
  NO_DEADLINE_MS,
  WORD_DEADLINE,
  WORD_EPOCH,
  WORD_TENANT,
  WORD_TYPE,
  WORD_VSHARD,
} from "../wire/envelope-layout.ts";
import { encodeError } from "../wire/error-codec.ts";
import {
  createFrame,
  FLAG_IN_DOUBT,
  FLAG_REJECTED,
  frameOf,
  LINK_FRAME,
  LINK_HEADER_BYTES,
  type LinkFrame,
} from "../wire/link-frame.ts";
import { ClientPlane } from "./client-plane.ts";
import type { ControlClient } from "./control-types.ts";

/** What the answering half works with. */
export interface LinkAnswersOptions {
  readonly peer: string;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly topology: TopologySource;
}

/** A local shard as the peer is told of it. */
interface LocalShard {
  readonly incarnation: number;
  readonly lost: ShardloomError | undefined;
}

const BODY_WORD = LINK_HEADER_BYTES >> 2;
/** Stacks stay on the node that they are of. */
const NO_STACK = { stack: false } as const;

/** What one node answers to one other. */
export class LinkAnswers implements ControlClient {
  readonly #options: LinkAnswersOptions;
  readonly #plane: ClientPlane;
  readonly #shards: Map<number, LocalShard> = new Map();
  readonly #open: Map<number, Answer> = new Map();
  #send: ((frame: LinkFrame) => void) | undefined;
  /** Outcomes of tells that the peer was not told yet. */
  #toldInRing = 0;
  #toldRefused = 0;
  #telling = false;

  constructor(options: LinkAnswersOptions) {
    this.#options = options;
    const { peer, clock, scheduler, topology } = options;
    this.#plane = new ClientPlane({ name: `node:${peer}`, clock, scheduler, topology, spinLimitUs: 0 });
  }

  get name(): string {
    return this.#plane.name;
  }

  get block(): SharedArrayBuffer {
    return this.#plane.block;
  }

  attach(shard: number, bridge: SharedArrayBuffer, block: SharedArrayBuffer, incarnation: number): void {
    this.#plane.attach(shard, bridge, block);
    this.#shards.set(shard, { incarnation, lost: undefined });
    this.#tellShard(shard);
  }

  lose(shard: number, error: ShardloomError): void {
    this.#plane.lose(shard, error);
    this.#shards.set(shard, { incarnation: this.#shards.get(shard)?.incarnation ?? 0, lost: error });
    this.#tellShard(shard);
  }

  watch(onDamaged: (shard: number) => void): void {
    this.#plane.watch(onDamaged);
  }

  /** A connection is there: tells it of all shards. */
  opened(send: (frame: LinkFrame) => void): void {
    this.#send = send;
    this.#toldInRing = 0;
    this.#toldRefused = 0;
    for (const shard of this.#shards.keys()) this.#tellShard(shard);
  }

  /** The connection is lost: nobody waits for the answers. */
  closed(error: ShardloomError): void {
    this.#send = undefined;
    for (const answer of [...this.#open.values()]) this.#drop(answer, error);
  }

  close(): void {
    this.#send = undefined;
    this.#open.clear();
    this.#plane.close();
  }

  /** The peer asks. @throws {ShardloomError} `ERR_CORRUPT` */
  onRequest(frame: LinkFrame): void {
    const { shard, type, words } = frame;
    this.#check(frame);
    const answer = new Answer(this, frame);
    this.#open.set(frame.call, answer);
    try {
      const { clock, topology } = this.#options;
      const nowMs = clock.nowMs();
      const leftMs = envelopeWord(words, LINK_HEADER_BYTES, WORD_DEADLINE);
      const { mapVersion, topologyEpoch } = topology.current();
      // 0 is older than every map: the shard refuses it as planned with another one.
      const known = envelopeWord(words, LINK_HEADER_BYTES, WORD_EPOCH) === mapVersion;
      answer.pending = this.#plane
        .requester(shard)
        .request(
          type,
          envelopeVshard(words, LINK_HEADER_BYTES),
          priorityOf(words),
          leftMs === NO_DEADLINE_MS ? Number.POSITIVE_INFINITY : nowMs + leftMs,
          payloadOf(frame),
          answer,
          nowMs,
          {
            topologyEpoch: known ? topologyEpoch : 0,
            attempt: envelopeWord(words, LINK_HEADER_BYTES, WORD_VSHARD) & 0xffff,
            tenant: envelopeWord(words, LINK_HEADER_BYTES, WORD_TENANT),
          },
        );
    } catch (error) {
      this.fail(answer, error, FLAG_REJECTED);
    }
  }

  /** The peer tells. @throws {ShardloomError} `ERR_CORRUPT` */
  onTell(frame: LinkFrame): void {
    const { shard, type, words } = frame;
    this.#check(frame);
    const send = this.#send;
    // The peer counts what became of it; of a tell nobody is given an error.
    const refused = (): void => this.#noteTold(false, send);
    try {
      const vshard = envelopeVshard(words, LINK_HEADER_BYTES);
      const waiting = this.#plane.requester(shard).tell(type, vshard, priorityOf(words), payloadOf(frame));
      if (waiting === undefined) this.#noteTold(true, send);
      else waiting.then(() => this.#noteTold(true, send), refused);
    } catch {
      refused();
    }
  }

  /** The peer gives a request up. */
  onCancel({ call }: LinkFrame): void {
    const answer = this.#open.get(call);
    if (answer !== undefined)
      this.#drop(answer, new ShardloomError("ERR_ABORTED", "Cannot finish request as its caller has given it up"));
  }

  /** Sends a shard's reply as it stands in the ring. */
  reply(answer: Answer, { bytes, offset, length }: ReplyFrame): void {
    if (!this.#open.delete(answer.call)) return;
    const { type, call } = answer;
    const body = bytes.subarray(offset - ENVELOPE_BYTES, offset + length);
    this.#send?.(frameOf({ kind: LINK_FRAME.REPLY, type, call }, body));
  }

  /** Sends the error that a request has ended with. */
  fail(answer: Answer, error: unknown, flags: number = this.#flagsOf(answer, error)): void {
    if (!this.#open.delete(answer.call)) return;
    const { type, call } = answer;
    this.#send?.(frameOf({ kind: LINK_FRAME.FAILURE, flags, type, call }, encodeError(error, NO_STACK)));
  }

  #flagsOf({ pending, shard }: Answer, error: unknown): number {
    if (pending !== undefined && pending.slot < 0) return FLAG_REJECTED;
    // A deadline that passes here ends a request that a worker may have begun; whose deadline it was cannot be told apart.
    const isDeadline = ShardloomError.is(error) && error.code === "ERR_TIMEOUT";
    return isDeadline || this.#plane.requester(shard).lost ? FLAG_IN_DOUBT : 0;
  }

  /** Ends a request whose answer nobody waits for. */
  #drop(answer: Answer, error: ShardloomError): void {
    this.#open.delete(answer.call);
    const { pending, shard } = answer;
    if (pending === undefined) return;
    // A requester that has been replaced has failed what it held.
    if (pending.state !== "settled") this.#plane.requester(shard).cancel(pending, error);
  }

  #check({ words, bodyBytes, shard }: LinkFrame): void {
    const fault = checkEnvelope(words, LINK_HEADER_BYTES, bodyBytes);
    if (fault === ENVELOPE_OK && this.#shards.has(shard)) return;
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot take request as it must have an envelope and a shard of this node`,
      {
        details: { fault, shard },
      },
    );
  }

  #tellShard(shard: number): void {
    const { incarnation, lost } = this.#shards.get(shard) as LocalShard;
    if (lost === undefined) this.#send?.(createFrame({ kind: LINK_FRAME.SHARD_UP, shard, incarnation }, 0));
    else this.#send?.(frameOf({ kind: LINK_FRAME.SHARD_LOST, shard, incarnation }, encodeError(lost, NO_STACK)));
  }

  /** Counts the outcome of a tell for the connection that it came over; outcomes of one turn go together. */
  #noteTold(inRing: boolean, send: ((frame: LinkFrame) => void) | undefined): void {
    if (send === undefined || send !== this.#send) return;
    if (inRing) this.#toldInRing++;
    else this.#toldRefused++;
    if (this.#telling) return;
    this.#telling = true;
    this.#options.scheduler.turn(() => {
      this.#telling = false;
      if (this.#send === undefined || this.#toldInRing + this.#toldRefused === 0) return;
      const frame = createFrame({ kind: LINK_FRAME.TOLD }, 8);
      frame.words[BODY_WORD] = this.#toldInRing;
      frame.words[BODY_WORD + 1] = this.#toldRefused;
      this.#toldInRing = 0;
      this.#toldRefused = 0;
      this.#send(frame);
    });
  }
}

/** A request of the peer that a local shard works on. */
class Answer implements ReplySink {
  readonly call: number;
  readonly type: number;
  readonly shard: number;
  pending: PendingRequest | undefined;
  readonly #answers: LinkAnswers;

  constructor(answers: LinkAnswers, { call, type, shard }: LinkFrame) {
    this.#answers = answers;
    this.call = call;
    this.type = type;
    this.shard = shard;
  }

  onReply(frame: ReplyFrame): void {
    this.#answers.reply(this, frame);
  }

  onFailure(error: ShardloomError): void {
    this.#answers.fail(this, error);
  }
}

/** What follows the envelope. The frame's memory is ours: it may wait for room as it is. */
function payloadOf({ bytes, bodyBytes }: LinkFrame): Payload {
  const from = LINK_HEADER_BYTES + ENVELOPE_BYTES;
  return {
    byteLength: bodyBytes - ENVELOPE_BYTES,
    write: (target, offset) => target.bytes.set(bytes.subarray(from), offset),
  };
}

function priorityOf(words: Int32Array): number {
  return envelopeWord(words, LINK_HEADER_BYTES, WORD_TYPE) >>> 24;
}
