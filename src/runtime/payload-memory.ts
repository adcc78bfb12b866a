/**
 * Memory for what is sent and received: short payloads share slabs, as memory of its own costs more than most of them.
 *
 * Invariant: nobody else has these bytes, and they begin at a multiple of 8 of their buffer, with room up to the next one. What keeps a short payload
 * keeps its slab.
 */

/** Payloads up to this length share memory with others. */
const SHARED_BYTES = 2 * 1024;
const SLAB_BYTES = 32 * 1024;

let slab: ArrayBuffer = new ArrayBuffer(0);
let used = 0;

/** Memory of so many bytes, all of which the caller writes: it may not be zero. */
export function payloadMemory(length: number): Uint8Array<ArrayBuffer> {
  const whole = (length + 7) & ~7;
  if (length > SHARED_BYTES) return new Uint8Array(Buffer.allocUnsafeSlow(whole).buffer, 0, length);
  if (used + whole > slab.byteLength) {
    slab = new ArrayBuffer(SLAB_BYTES);
    used = 0;
  }
  const memory = new Uint8Array(slab, used, length);
  used += whole;
  return memory;
}

/** A copy in such memory. */
export function payloadCopy(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const copy = payloadMemory(bytes.length);
  copy.set(bytes);
  return copy;
}
