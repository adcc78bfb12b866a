/**
 * An actor on the thread that receives, and who asks it: frames, envelopes and the actor system as nodes use them, without the rings to a worker
 * and back.
 *
 * Invariant: every ask is answered once, by the bytes that were asked with, or the bench fails.
 */
import { type ActorSystem, createActorSystem } from "../../src/actor/actor-system.ts";
import type { Delivery, ReplySink } from "../../src/actor/delivery.ts";
import { ShardloomError } from "../../src/errors.ts";
import { systemRuntime } from "../../src/runtime/runtime.ts";
import type { ConnectionHandler, NodeConnection } from "../../src/transport/transport.ts";
import {
  ActorMessage,
  type ActorMessageView,
  encodeKey,
  KeyReader,
  readActorMessage,
} from "../../src/wire/actor-codec.ts";
import { checkEnvelope, ENVELOPE_OK, writeEnvelope } from "../../src/wire/envelope.ts";
import { ENVELOPE_BYTES, NO_DEADLINE_MS } from "../../src/wire/envelope-layout.ts";
import {
  createFrame,
  LINK_FRAME,
  LINK_HEADER_BYTES,
  type LinkFrame,
  type LinkHeader,
  openFrame,
  sealFrame,
} from "../../src/wire/link-frame.ts";
import { ACTOR_ASK } from "../../src/wire/message-types.ts";
import { createValueCodec } from "../../src/wire/value-codec.ts";
import { mirror } from "./wire-actors.ts";

const ORIGIN = { node: 0, shard: 0, incarnation: 1 };
const BODY = LINK_HEADER_BYTES + ENVELOPE_BYTES;
/** Message type of a request for bulk: this many frames of {@link BULK_BYTES}. */
const BULK = 0x7fff;
export const BULK_BYTES: number = 64 * 1024;

function frameWith(header: LinkHeader, payloadBytes: number): LinkFrame {
  const frame = createFrame(header, ENVELOPE_BYTES + payloadBytes);
  const { type = 0, call = 0 } = header;
  writeEnvelope(frame.words, LINK_HEADER_BYTES, ORIGIN, type, 0, 1, call, 0, 0, 1, NO_DEADLINE_MS, 0, payloadBytes);
  return frame;
}

/** The receiving side: an actor system on this thread, whose replies go back over the connection. */
export function serveActor(connection: NodeConnection): ConnectionHandler {
  const codec = createValueCodec();
  const sink: ReplySink = {
    value: (_, call, value) => {
      const length = codec.prepare(value);
      const frame = frameWith({ kind: LINK_FRAME.REPLY, type: ACTOR_ASK, call }, length);
      codec.copyPrepared(frame.bytes, BODY);
      connection.send(sealFrame(frame, connection.isChecked));
    },
    error: (_, __, error) => connection.close(error),
  };
  const send = (): never => {
    throw new Error("this actor asks nobody");
  };
  const system: ActorSystem = createActorSystem({
    ...systemRuntime,
    definitions: [mirror],
    send: { ask: send, tell: send },
    codec,
  });
  const keys = new KeyReader();
  const view: ActorMessageView = { actor: 0, handler: 0, key: "", valueOffset: 0, valueLength: 0 };
  const block = new Uint8Array(BULK_BYTES).fill(7);
  return {
    onOpen: () => undefined,
    onDatagram: () => undefined,
    onClose: () => undefined,
    onFrame: (received) => {
      const frame = openFrame(received, true);
      if (frame.type === BULK) {
        sendBulk(connection, frame.call, block).catch((error: unknown) => connection.close(ShardloomError.from(error)));
        return;
      }
      const { bytes, words, bodyBytes } = frame;
      const isSound =
        checkEnvelope(words, LINK_HEADER_BYTES, bodyBytes) === ENVELOPE_OK &&
        readActorMessage(view, keys, bytes, words, BODY, bodyBytes - ENVELOPE_BYTES);
      if (!isSound) throw new Error("the request is damaged");
      const delivery: Delivery = {
        actorName: mirror.name,
        key: view.key,
        handler: "echo",
        bytes,
        byteOffset: view.valueOffset,
        byteLength: view.valueLength,
        ask: true,
        deadlineAtMs: 0,
        senderId: 1,
        requestToken: frame.call,
      };
      system.deliver(delivery, sink);
    },
  };
}

/** Blocks that are made in one turn: the bare sender makes one and waits until it has left. */
const BLOCKS_A_TURN = 4;

/** Long replies, each made when its time comes and sealed as a shard's reply is. */
async function sendBulk(connection: NodeConnection, count: number, block: Uint8Array): Promise<void> {
  for (let at = 0; at < count; at++) {
    const frame = frameWith({ kind: LINK_FRAME.REPLY, type: BULK, call: at }, BULK_BYTES);
    frame.bytes.set(block, BODY);
    connection.send(sealFrame(frame, connection.isChecked));
    if (at % BLOCKS_A_TURN === BLOCKS_A_TURN - 1) await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The asking side of a connection. */
export class Asker implements ConnectionHandler {
  connection!: NodeConnection;
  readonly opened: Promise<void>;
  readonly #codec = createValueCodec();
  readonly #message = new ActorMessage(this.#codec);
  readonly #key = encodeKey("m");
  readonly #open: Map<number, (answer: Uint8Array) => void> = new Map();
  #calls = 0;
  #bulk: { left: number; done: () => void } | undefined;
  #resolve!: () => void;
  #reject!: (error: ShardloomError) => void;

  constructor() {
    this.opened = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  echo(body: Uint8Array): Promise<Uint8Array> {
    const call = ++this.#calls;
    const message = this.#message.set(0, 0, this.#key, body);
    const frame = frameWith({ kind: LINK_FRAME.REQUEST, type: ACTOR_ASK, call }, message.byteLength);
    message.write({ bytes: frame.bytes, i32: frame.words }, BODY);
    this.connection.send(sealFrame(frame, this.connection.isChecked));
    return new Promise((resolve) => this.#open.set(call, resolve));
  }

  /** Resolves when so many long replies have come. */
  bulk(count: number): Promise<void> {
    const frame = frameWith({ kind: LINK_FRAME.REQUEST, type: BULK, call: count }, 0);
    this.connection.send(sealFrame(frame, this.connection.isChecked));
    return new Promise((done) => {
      this.#bulk = { left: count, done };
    });
  }

  onOpen(): void {
    this.#resolve();
  }

  onDatagram(): void {
    // Heartbeats of nodes only.
  }

  onClose(error: ShardloomError): void {
    this.#reject(error);
  }

  onFrame(received: Uint8Array): void {
    const frame = openFrame(received, true);
    if (frame.type === BULK) {
      const bulk = this.#bulk;
      if (bulk === undefined || frame.bodyBytes !== ENVELOPE_BYTES + BULK_BYTES || frame.bytes[BODY] !== 7)
        throw new Error("a long reply is not what was sent");
      if (--bulk.left === 0) bulk.done();
      return;
    }
    if (checkEnvelope(frame.words, LINK_HEADER_BYTES, frame.bodyBytes) !== ENVELOPE_OK)
      throw new Error("the reply is damaged");
    const settle = this.#open.get(frame.call);
    this.#open.delete(frame.call);
    settle?.(this.#codec.decode(frame.bytes, BODY, frame.bodyBytes - ENVELOPE_BYTES) as Uint8Array);
  }
}
