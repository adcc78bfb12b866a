/**
 * The request at hand, as its handler sees it: one object for all requests of a shard, refilled before each call.
 *
 * Invariant: of a planned request the handler sees the body only; what stands before it was checked before the handler runs.
 */
import type { EngineReply, EngineRequest, HeldReply, WireMemory, WriteEffects } from "./engine.ts";
import type { VshardGate } from "./replication/vshard-gate.ts";

export class ShardRequest implements EngineRequest {
  bytes: Uint8Array = new Uint8Array();
  i32: Int32Array = new Int32Array();
  f32: Float32Array = new Float32Array();
  f64: Float64Array = new Float64Array();
  offset = 0;
  length = 0;
  effects: WriteEffects | undefined;
  /** The gate that has admitted the request; undefined when it was not planned. */
  #gate: VshardGate | undefined;

  get vshards(): Uint8Array | undefined {
    return this.#gate?.accepted();
  }

  get partial(): boolean {
    return this.#gate !== undefined && this.#gate.refused.length > 0;
  }

  fill(memory: WireMemory, offset: number, length: number): this {
    this.bytes = memory.bytes;
    this.i32 = memory.i32;
    this.f32 = memory.f32;
    this.f64 = memory.f64;
    this.offset = offset;
    this.length = length;
    this.effects = undefined;
    this.#gate = undefined;
    return this;
  }

  /** Takes the prefix off a request that the gate has admitted. */
  admitted(gate: VshardGate, prefixBytes: number): void {
    this.#gate = gate;
    this.offset += prefixBytes;
    this.length -= prefixBytes;
  }
}

const FIRST_DRAFT_BYTES = 256;

/** A reply in private memory, to be sent later. One draft at a time: `take` copies it. */
export class DraftReply implements EngineReply {
  bytes: Uint8Array = new Uint8Array();
  i32: Int32Array = new Int32Array();
  f32: Float32Array = new Float32Array();
  f64: Float64Array = new Float64Array();
  readonly offset = 0;
  limitBytes = 0;
  #length = 0;
  #later: (() => HeldReply | undefined) | undefined;

  /** @param later What `hold` gives. @default nothing: replicated writes are answered when copies have them, their handlers do not hold */
  begin(limitBytes: number, later?: () => HeldReply | undefined): this {
    this.limitBytes = limitBytes;
    this.#length = 0;
    this.#later = later;
    return this;
  }

  claim(lengthBytes: number): void {
    this.#length = lengthBytes;
    if (lengthBytes <= this.bytes.length && this.bytes.length > 0) return;
    const buffer = new ArrayBuffer(Math.max(FIRST_DRAFT_BYTES, (lengthBytes + 7) & ~7));
    this.bytes = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.f32 = new Float32Array(buffer);
    this.f64 = new Float64Array(buffer);
  }

  hold(): HeldReply | undefined {
    return this.#later?.();
  }

  /** A copy of what was written. */
  take(): Uint8Array {
    return this.bytes.slice(0, this.#length);
  }
}
