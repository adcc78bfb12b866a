/**
 * A set of vertex keys that may be larger than a JavaScript `Set`, which holds at most 2^24 values.
 *
 * Invariant: a key is in the one part that its hash names. The hash is of this set alone and is stored nowhere.
 * Cost: about 40 bytes a key.
 */
import type { VertexKey } from "../vertex-key.ts";

const PARTS = 64;

export class KeySet {
  readonly #parts: readonly Set<VertexKey>[] = Array.from({ length: PARTS }, () => new Set<VertexKey>());
  #size = 0;

  /** Keys in the set. */
  get size(): number {
    return this.#size;
  }

  has(key: VertexKey): boolean {
    return this.#part(key).has(key);
  }

  /** Whether the key was new. */
  add(key: VertexKey): boolean {
    const part = this.#part(key);
    const before = part.size;
    part.add(key);
    if (part.size === before) return false;
    this.#size++;
    return true;
  }

  clear(): void {
    for (const part of this.#parts) part.clear();
    this.#size = 0;
  }

  #part(key: VertexKey): Set<VertexKey> {
    return this.#parts[(typeof key === "number" ? key : hashOf(key)) % PARTS] as Set<VertexKey>;
  }
}

/** The last characters differ most among keys that were numbered. */
function hashOf(key: string): number {
  let hash = key.length;
  for (let at = Math.max(0, key.length - 8); at < key.length; at++) hash = (hash * 31 + key.charCodeAt(at)) & 0xffffff;
  return hash;
}
