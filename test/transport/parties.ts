/**
 * What tests of sessions record: everything that a session, its streams and its datagrams tell, in order.
 *
 * Invariant: a call from inside a call into the session is an error, as `session.ts` promises that there is none.
 */
import type { Session, SessionHandler, Stream, StreamHandler } from "../../src/transport/session.ts";

/** What one side of a stream was told. */
export class StreamRecord implements StreamHandler {
  stream!: Stream;
  readonly chunks: Uint8Array[] = [];
  bytes = 0;
  drains = 0;
  ended = false;
  resetCode: number | undefined;
  /** Calls after the end or the reset, or from inside of a call. */
  readonly faults: string[] = [];
  #inside = false;
  readonly #onChunk: ((chunk: Uint8Array, record: StreamRecord) => void) | undefined;
  readonly #onEnd: ((record: StreamRecord) => void) | undefined;

  constructor(onChunk?: (chunk: Uint8Array, record: StreamRecord) => void, onEnd?: (record: StreamRecord) => void) {
    this.#onChunk = onChunk;
    this.#onEnd = onEnd;
  }

  /** Runs a call into the stream. */
  call<T>(run: (stream: Stream) => T): T {
    this.#inside = true;
    try {
      return run(this.stream);
    } finally {
      this.#inside = false;
    }
  }

  onChunk(chunk: Uint8Array): void {
    this.#check("onChunk", this.ended);
    this.bytes += chunk.length;
    if (this.#onChunk === undefined) this.chunks.push(chunk);
    else this.#onChunk(chunk, this);
  }

  onDrain(): void {
    this.#check("onDrain", false);
    this.drains++;
  }

  onEnd(): void {
    this.#check("onEnd", this.ended);
    this.ended = true;
    this.#onEnd?.(this);
  }

  onReset(code: number): void {
    this.#check("onReset", false);
    this.resetCode = code;
  }

  get content(): Uint8Array {
    return Buffer.concat(this.chunks);
  }

  #check(name: string, isLate: boolean): void {
    if (isLate || this.resetCode !== undefined) this.faults.push(`${name} after the end`);
    if (this.#inside) this.faults.push(`${name} from inside of a call`);
  }
}

/** Takes every stream and datagram of a session. */
export class SessionRecord implements SessionHandler {
  session!: Session;
  readonly streams: StreamRecord[] = [];
  readonly datagrams: Uint8Array[] = [];
  readonly #take: ((stream: Stream) => StreamRecord | undefined) | undefined;

  constructor(take?: (stream: Stream) => StreamRecord | undefined) {
    this.#take = take;
  }

  onStream(stream: Stream): StreamHandler | undefined {
    const record = this.#take === undefined ? new StreamRecord() : this.#take(stream);
    if (record === undefined) return undefined;
    record.stream = stream;
    this.streams.push(record);
    return record;
  }

  onDatagram(bytes: Uint8Array): void {
    this.datagrams.push(bytes);
  }

  get faults(): string[] {
    return this.streams.flatMap(({ faults }) => faults);
  }
}

/** Gives back what comes, and ends when the peer does. */
export function echo(): StreamRecord {
  return new StreamRecord(
    (chunk, { stream }) => void stream.write(chunk),
    ({ stream }) => stream.end(),
  );
}

/** Opens a stream with a record of what it is told. */
export function open(
  session: Session,
  kind: "openBidirectional" | "openUnidirectional",
  record = new StreamRecord(),
): StreamRecord {
  record.stream = session[kind](record);
  return record;
}

/** Bytes that differ from each other in any order and place. */
export function patterned(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let word = (seed + 1) * 0x9e3779b1;
  for (let at = 0; at < length; at++) {
    word = Math.imul(word ^ (word >>> 15), 0x2c1b3c6d) + at;
    bytes[at] = word >>> 24;
  }
  return bytes;
}
