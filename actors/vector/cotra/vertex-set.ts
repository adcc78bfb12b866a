/**
 * A set of vertex ids of one query: open addressing in an `Int32Array`, no allocation while it has room.
 *
 * Invariant: at most half of the slots are taken, so that a probe ends. Ids are stored plus one, so 0 is an empty slot; ids are in
 * `[0, 2^31 − 1)`.
 */

const LEAST_SLOTS = 256;

/** A growing set of non-negative int32. */
export class VertexSet {
  #slots: Int32Array = new Int32Array(LEAST_SLOTS);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  has(vertex: number): boolean {
    return this.#slots[this.#find(vertex)] !== 0;
  }

  /** @returns Whether the vertex is new. */
  add(vertex: number): boolean {
    const at = this.#find(vertex);
    if (this.#slots[at] !== 0) return false;
    this.#slots[at] = vertex + 1;
    if (++this.#size * 2 > this.#slots.length) this.#grow();
    return true;
  }

  #find(vertex: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    let at = (Math.imul(vertex, 0x9e3779b1) >>> 7) & mask;
    while (slots[at] !== 0 && slots[at] !== vertex + 1) at = (at + 1) & mask;
    return at;
  }

  #grow(): void {
    const old = this.#slots;
    this.#slots = new Int32Array(old.length * 2);
    for (const stored of old) if (stored !== 0) this.#slots[this.#find(stored - 1)] = stored;
  }
}
