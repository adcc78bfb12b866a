/**
 * The shard actor: checks every envelope, dispatches it by message type, and ends every ask in exactly one outcome.
 *
 * Invariant: a request that reaches `onRequest` gets exactly one reply, a result or a typed error, unless it is a tell;
 * what cannot be delivered is counted. A request of another epoch, for another shard, or past its deadline never
 * reaches a handler.
 */
import type { BridgeServer } from "../native-bridge/bridge.ts";
import type { ActorSystem } from "../src/actor/actor-system.ts";
import type { Delivery, ReplySink } from "../src/actor/delivery.ts";
import { ShardloomError } from "../src/errors.ts";
import type { Clock } from "../src/runtime/clock.ts";
import { encodeSnapshot } from "../src/topology/snapshot.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { type ActorMessageView, KeyReader, readActorMessage } from "../src/wire/actor-codec.ts";
import {
  checkEnvelope,
  ENVELOPE_FAULTS,
  ENVELOPE_OK,
  envelopeType,
  envelopeVshard,
  envelopeWord,
} from "../src/wire/envelope.ts";
import {
  ENVELOPE_BYTES,
  FLAG_REPLY,
  NO_DEADLINE_MS,
  VSHARD_LISTED,
  WORD_DEADLINE,
  WORD_EPOCH,
  WORD_SENT_AT,
} from "../src/wire/envelope-layout.ts";
import {
  ACTOR_ASK,
  ACTOR_TELL,
  assertHandled,
  isRouted,
  messageTypeName,
  RUNTIME_CANCEL,
  RUNTIME_PING,
} from "../src/wire/message-types.ts";
import type { ValueCodec } from "../src/wire/value-codec.ts";
import type { Engine, EngineHandler } from "./engine.ts";
import { PlannedRequests, type PlannedRequestsOptions } from "./planned-requests.ts";
import { RingReply } from "./ring-reply.ts";
import { ShardRequest } from "./shard-request.ts";
import type { Tenure } from "./tenure.ts";

/** Engine time after which replies go out at once, not with those of the requests behind them; each sending wakes the client. */
const HOLD_REPLIES_US = 1_000;

/** What a shard is made of. */
export interface ShardOptions extends PlannedRequestsOptions {
  readonly shard: number;
  readonly incarnation: number;
  readonly topology: TopologySource;
  readonly clock: Clock;
  readonly codec: ValueCodec;
  readonly engines: readonly Engine[];
  readonly actors: ActorSystem;
  /** Whether it still hosts the actors and barriers that messages are for. */
  readonly tenure: Pick<Tenure, "assertHosting">;
  /** Actor and handler names by index, as agreed at the handshake. */
  readonly actorTable: readonly { readonly name: string; readonly handlers: readonly string[] }[];
  /** Called after a reply was written outside `onRequest`. */
  readonly onDirty: () => void;
}

/** Counters of one shard; they only grow. */
export interface ShardCounters {
  handled: number;
  failed: number;
  expired: number;
  corrupt: number;
  /** Refused because they were planned with another topology. */
  stale: number;
}

/** An ask whose answer did not come within its delivery. */
interface OpenAsk {
  readonly server: BridgeServer;
  readonly slot: number;
  readonly sequence: number;
  /** How long it had waited when it was delivered. */
  readonly waitedUs: number;
}

/** One object for all deliveries: the actor system keeps none. */
type MutableDelivery = { -readonly [K in keyof Delivery]: Delivery[K] };

/** Dispatches the requests of one worker. */
export class Shard {
  readonly counters: ShardCounters = { handled: 0, failed: 0, expired: 0, corrupt: 0, stale: 0 };
  readonly #options: ShardOptions;
  readonly #handlers: Map<number, EngineHandler> = new Map();
  readonly #reply: RingReply;
  readonly #request: ShardRequest = new ShardRequest();
  readonly #planned: PlannedRequests;
  readonly #asks: Map<number, OpenAsk> = new Map();
  readonly #keys: KeyReader = new KeyReader();
  readonly #delivery: MutableDelivery = {
    actorName: "",
    key: "",
    handler: "",
    bytes: undefined,
    byteOffset: 0,
    byteLength: 0,
    ask: false,
    deadlineAtMs: 0,
    nowMs: 0,
    senderId: 0,
    requestToken: 0,
  };
  /** The ask that is being delivered: most are answered before `deliver` returns, and then cost no entry in a table. */
  #currentToken = 0;
  #currentServer!: BridgeServer;
  #currentSlot = -1;
  #currentSequence = 0;
  /** Time of the last look at the clock, and how long the request at hand had waited then. */
  #nowMs = 0;
  #waitedUs = 0;
  readonly #message: ActorMessageView = { actor: 0, handler: 0, key: "", valueOffset: 0, valueLength: 0 };
  readonly #sink: ReplySink;
  #token = 0;
  /** Engine time since replies were last sent early. */
  #heldUs = 0;

  constructor(options: ShardOptions) {
    this.#options = options;
    this.#planned = new PlannedRequests(options);
    for (const engine of options.engines)
      for (const [type, handler] of engine.handlers) this.#handlers.set(type, handler);
    this.#handlers.set(RUNTIME_PING, (_, reply) => reply.claim(0));
    assertHandled(new Set([...this.#handlers.keys(), ACTOR_ASK, ACTOR_TELL, RUNTIME_CANCEL]));
    this.#reply = new RingReply(
      { node: 0, shard: options.shard, incarnation: options.incarnation },
      options.topology,
      options.onDirty,
    );
    this.#sink = {
      value: (_, token, value) => this.#answerValue(token, value),
      error: (_, token, error) => this.#answerError(token, error),
      isCancelled: (_, token) => {
        if (token === this.#currentToken)
          return this.#currentServer.isCancelled(this.#currentSlot, this.#currentSequence);
        const ask = this.#asks.get(token);
        return ask?.server.isCancelled(ask.slot, ask.sequence) ?? true;
      },
    };
  }

  /** Handles one record of a request ring. */
  onRequest(server: BridgeServer, type: number, offset: number, length: number, slot: number, sequence: number): void {
    const { i32 } = server.requests;
    try {
      const deadlineAtMs = this.#check(i32, type, offset, length);
      if (type === RUNTIME_CANCEL) {
        this.#cancel(server, offset + ENVELOPE_BYTES, length - ENVELOPE_BYTES);
      } else if (type === ACTOR_ASK || type === ACTOR_TELL) {
        this.#deliver(server, type, offset + ENVELOPE_BYTES, length - ENVELOPE_BYTES, slot, sequence, deadlineAtMs);
      } else {
        this.#dispatch(server, type, offset + ENVELOPE_BYTES, length - ENVELOPE_BYTES, slot, sequence, deadlineAtMs);
      }
      this.counters.handled++;
    } catch (error) {
      if (ShardloomError.is(error) && error.code === "ERR_STALE_EPOCH") {
        this.counters.stale++;
        if (slot >= 0)
          this.#reply.stale(server, type, slot, sequence, encodeSnapshot(this.#options.topology.current()));
        return;
      }
      this.counters.failed++;
      if (slot >= 0) this.#fail(server, type, slot, sequence, error);
    }
  }

  /** @returns the absolute deadline of an envelope that may be handled, 0 when it has none */
  #check(i32: Int32Array, type: number, offset: number, length: number): number {
    const { shard, topology, clock } = this.#options;
    const fault = checkEnvelope(i32, offset, length);
    if (fault !== ENVELOPE_OK || envelopeType(i32, offset) !== type) {
      this.counters.corrupt++;
      const reason = fault === ENVELOPE_OK ? "of another type than its record" : (ENVELOPE_FAULTS[fault] as string);
      throw new ShardloomError("ERR_CORRUPT", `Cannot handle envelope as it is ${reason}`, {
        details: { length, fault },
      });
    }
    const snapshot = topology.current();
    // Whatever states have changed since, a plan that knows where the copies are is good.
    const epoch = envelopeWord(i32, offset, WORD_EPOCH);
    if (isRouted(type) && (epoch < snapshot.mapEpoch || epoch > snapshot.topologyEpoch))
      throw staleEpoch(type, epoch, snapshot.topologyEpoch);
    // An actor message names one vshard: whoever owns it now may take the message, whatever else has changed since.
    const vshard = envelopeVshard(i32, offset);
    if (vshard !== VSHARD_LISTED && snapshot.owners[vshard] !== shard)
      throw staleEpoch(type, epoch, snapshot.topologyEpoch);
    if (vshard !== VSHARD_LISTED && !isRouted(type) && type !== RUNTIME_CANCEL) this.#options.tenure.assertHosting();
    return this.#deadline(i32, type, offset, clock);
  }

  #deadline(i32: Int32Array, type: number, offset: number, clock: Clock): number {
    const left = envelopeWord(i32, offset, WORD_DEADLINE);
    if (left === NO_DEADLINE_MS) return 0;
    this.#nowMs = clock.nowMs();
    const waitedUs = (((this.#nowMs * 1000) % 0x1_0000_0000) - envelopeWord(i32, offset, WORD_SENT_AT)) >>> 0;
    // A sender's clock may read a few microseconds ahead of ours, which wraps to a huge wait.
    this.#waitedUs = waitedUs > 0x8000_0000 ? 0 : waitedUs;
    const waitedMs = this.#waitedUs / 1000;
    const remainingMs = left - waitedMs;
    if (remainingMs <= 0) {
      this.counters.expired++;
      throw new ShardloomError(
        "ERR_TIMEOUT",
        `Cannot start ${messageTypeName(type)} as its deadline passed while it waited`,
        { details: { waitedMs } },
      );
    }
    return this.#nowMs + remainingMs;
  }

  #dispatch(
    server: BridgeServer,
    type: number,
    offset: number,
    length: number,
    slot: number,
    sequence: number,
    deadlineAtMs: number,
  ): void {
    const handler = this.#handlers.get(type);
    if (handler === undefined) {
      throw new ShardloomError(
        "ERR_UNKNOWN_MESSAGE",
        `Cannot handle message as type ${messageTypeName(type)} has no handler`,
        { details: { type } },
      );
    }
    const request = this.#request.fill(server.requests, offset, length);
    const reply = this.#reply;
    reply.begin(server, type, slot, sequence, FLAG_REPLY);
    const startedUs = this.#options.clock.nowUs();
    try {
      if (isRouted(type)) this.#planned.handle(handler, type, request, reply, deadlineAtMs);
      else handler(request, reply);
    } catch (error) {
      reply.abort();
      throw error;
    }
    const serviceUs = this.#options.clock.nowUs() - startedUs;
    if (slot >= 0) reply.end(serviceUs, this.#waitedUs);
    this.#heldUs += serviceUs;
    if (this.#heldUs < HOLD_REPLIES_US) return;
    this.#heldUs = 0;
    server.flush();
  }

  #deliver(
    server: BridgeServer,
    type: number,
    offset: number,
    length: number,
    slot: number,
    sequence: number,
    deadlineAtMs: number,
  ): void {
    const { bytes, i32 } = server.requests;
    const message = this.#message;
    if (!readActorMessage(message, this.#keys, bytes, i32, offset, length)) {
      this.counters.corrupt++;
      throw new ShardloomError("ERR_CORRUPT", "Cannot deliver message as its body is malformed", {
        details: { length },
      });
    }
    const entry = this.#options.actorTable[message.actor];
    const handler = entry?.handlers[message.handler];
    if (entry === undefined || handler === undefined) {
      throw new ShardloomError(
        "ERR_UNKNOWN_ACTOR",
        `Cannot deliver message as actor ${message.actor} has no handler ${message.handler}`,
      );
    }
    const ask = type === ACTOR_ASK && slot >= 0;
    const token = ask ? this.#nextToken() : 0;
    const delivery = this.#delivery;
    delivery.actorName = entry.name;
    delivery.key = message.key;
    delivery.handler = handler;
    delivery.bytes = bytes;
    delivery.byteOffset = message.valueOffset;
    delivery.byteLength = message.valueLength;
    delivery.ask = ask;
    delivery.deadlineAtMs = ask ? deadlineAtMs : 0;
    delivery.nowMs = this.#nowMs;
    delivery.requestToken = token;
    this.#currentToken = token;
    this.#currentServer = server;
    this.#currentSlot = slot;
    this.#currentSequence = sequence;
    this.#options.actors.deliver(delivery, this.#sink);
    if (this.#currentToken !== 0) this.#asks.set(token, { server, slot, sequence, waitedUs: this.#waitedUs });
    this.#currentToken = 0;
  }

  /** The sender has given an ask up: a handler that runs it sees its signal fire. */
  #cancel(server: BridgeServer, offset: number, length: number): void {
    if (length < 8)
      throw new ShardloomError("ERR_CORRUPT", "Cannot cancel as the body is malformed", { details: { length } });
    const { i32 } = server.requests;
    const slot = i32[offset >> 2];
    const sequence = i32[(offset >> 2) + 1];
    for (const [token, ask] of this.#asks) {
      if (ask.server === server && ask.slot === slot && ask.sequence === sequence)
        this.#options.actors.cancel(0, token);
    }
  }

  /** Never 0, which stands for none. */
  #nextToken(): number {
    this.#token = this.#token === 0x3fffffff ? 1 : this.#token + 1;
    return this.#token;
  }

  #answerValue(token: number, value: unknown): void {
    const { codec, onDirty } = this.#options;
    if (token === this.#currentToken) {
      const byteLength = codec.prepare(value);
      this.#claimAnswer(this.#currentServer, this.#currentSlot, this.#currentSequence, byteLength, this.#waitedUs);
      this.#currentToken = 0;
      return;
    }
    const ask = this.#asks.get(token);
    if (ask === undefined) return;
    const byteLength = codec.prepare(value);
    this.#claimAnswer(ask.server, ask.slot, ask.sequence, byteLength, ask.waitedUs);
    this.#asks.delete(token);
    onDirty();
  }

  /** Writes the prepared answer in place. When it does not fit, the ask stays open for the error. */
  #claimAnswer(server: BridgeServer, slot: number, sequence: number, byteLength: number, waitedUs: number): void {
    const reply = this.#reply;
    reply.begin(server, ACTOR_ASK, slot, sequence, FLAG_REPLY);
    reply.claim(byteLength);
    this.#options.codec.copyPrepared(reply.bytes, reply.offset);
    reply.end(0, waitedUs);
  }

  #answerError(token: number, error: ShardloomError): void {
    if (token === this.#currentToken) {
      this.#currentToken = 0;
      this.#fail(this.#currentServer, ACTOR_ASK, this.#currentSlot, this.#currentSequence, error);
      return;
    }
    const ask = this.#asks.get(token);
    if (ask === undefined) return;
    this.#asks.delete(token);
    this.#fail(ask.server, ACTOR_ASK, ask.slot, ask.sequence, error);
    this.#options.onDirty();
  }

  #fail(server: BridgeServer, type: number, slot: number, sequence: number, error: unknown): void {
    this.#reply.fail(server, type, slot, sequence, error);
  }
}

function staleEpoch(type: number, epoch: number, topologyEpoch: number): ShardloomError {
  return new ShardloomError(
    "ERR_STALE_EPOCH",
    `Cannot handle ${messageTypeName(type)} as it must be planned with topology epoch ${topologyEpoch}: current value is ${epoch}`,
    { details: { topologyEpoch, epoch } },
  );
}
