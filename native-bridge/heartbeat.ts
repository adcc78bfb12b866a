/**
 * Heartbeat: what one worker is doing and since when, read by its peers from memory without disturbing it.
 *
 * ```
 *  int32 sequence (odd = being changed) | int32 state | float64 since (ms)
 * ```
 *
 * Invariant: one writer, the worker itself (its supervisor writes DEAD once the thread has exited). State and time are read
 * as a pair. A worker that is busy is told from one that hangs by how long it has been in one handler, never by silence.
 * Source: DESIGN.md, "Busy, hung, dead".
 */
import { invalidArgument } from "../src/errors.ts";

export const HEARTBEAT_BYTES = 64;

/** What a worker can be doing. */
export const HEARTBEAT = {
  /** Waiting for messages. */
  IDLE: 0,
  /** In JavaScript: one handler, or one slice of background work. */
  JS: 1,
  /** Inside a native call, which must not be interrupted. */
  NATIVE: 2,
  /** The thread has exited. */
  DEAD: 3,
} as const;

export type HeartbeatState = (typeof HEARTBEAT)[keyof typeof HEARTBEAT];

/** How long each state may last. */
export interface HeartbeatLimits {
  /** JavaScript beyond this is hung. Milliseconds. */
  readonly maxHandlerMs: number;
  /** A native call beyond this is overdue. Milliseconds. */
  readonly maxNativeMs: number;
}

export interface HeartbeatReading {
  readonly state: HeartbeatState;
  /** When the state was entered, on the clock of whoever called `enter`. */
  readonly sinceMs: number;
  /** State changes so far, modulo 2^31: progress, even when the state is the same again. */
  readonly beats: number;
}

const SEQUENCE = 0;
const STATE = 1;
const SINCE = 1;
const READ_ATTEMPTS = 1000;

/** One worker's heartbeat; all state is in the buffer. */
export class Heartbeat {
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;

  /** @param byteOffset Multiple of 8; {@link HEARTBEAT_BYTES} bytes from there belong to it. Zero memory is `IDLE since 0`. */
  constructor(buffer: SharedArrayBuffer, byteOffset: number = 0) {
    if (!(buffer instanceof SharedArrayBuffer))
      throw invalidArgument("open heartbeat", "buffer", "a SharedArrayBuffer", buffer);
    if (
      !Number.isInteger(byteOffset) ||
      byteOffset < 0 ||
      byteOffset % 8 !== 0 ||
      byteOffset + HEARTBEAT_BYTES > buffer.byteLength
    ) {
      throw invalidArgument("open heartbeat", "byteOffset", "a multiple of 8 inside the buffer", byteOffset);
    }
    this.#i32 = new Int32Array(buffer, byteOffset, 2);
    this.#f64 = new Float64Array(buffer, byteOffset, 2);
  }

  /** Enters a state. Called by the worker itself; no allocation. */
  enter(state: HeartbeatState, nowMs: number): void {
    const sequence = (this.#i32[SEQUENCE] as number) | 1;
    Atomics.store(this.#i32, SEQUENCE, sequence); // readers retry from here
    this.#i32[STATE] = state;
    this.#f64[SINCE] = nowMs;
    Atomics.store(this.#i32, SEQUENCE, (sequence + 1) | 0); // publishes
  }

  /** The state, from any thread. A worker killed inside `enter` leaves the pair odd; it is then returned as it is. */
  read(): HeartbeatReading {
    let before = 0;
    let state = 0;
    let sinceMs = 0;
    for (let attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
      before = Atomics.load(this.#i32, SEQUENCE); // acquires
      state = this.#i32[STATE] as number;
      sinceMs = this.#f64[SINCE] as number;
      if ((before & 1) === 0 && Atomics.add(this.#i32, SEQUENCE, 0) === before) break;
    }
    return { state: state as HeartbeatState, sinceMs, beats: before >>> 1 };
  }

  /**
   * What a peer should think of the worker at `nowMs` on the same clock. A clock that went back counts as no time passed.
   * Times equal to a limit are still within it.
   */
  classify(nowMs: number, limits: HeartbeatLimits): "idle" | "busy" | "hung" | "native-overdue" | "dead" {
    const { state, sinceMs } = this.read();
    const ageMs = Math.max(0, nowMs - sinceMs);
    switch (state) {
      case HEARTBEAT.IDLE:
        return "idle";
      case HEARTBEAT.JS:
        return ageMs > limits.maxHandlerMs ? "hung" : "busy";
      case HEARTBEAT.NATIVE:
        return ageMs > limits.maxNativeMs ? "native-overdue" : "busy";
      default:
        return "dead";
    }
  }
}
