/**
 * Which of some hashes are among others: how what was saved finds its documents again, wherever they lie now.
 *
 * Invariant: hashes are 64 bits as two words, low word first, and good: two different documents with one hash are not reckoned with.
 */

/**
 * @param have Shape: `Uint32Array[2 × places]`.
 * @param wanted Shape: `Uint32Array[2 × n]`.
 * @returns for each wanted hash the place that has it, −1 where none does. Cost: linear.
 */
export function matchHashes(have: Uint32Array, wanted: Uint32Array): Int32Array {
  const places = have.length >>> 1;
  const slots = new Int32Array(2 ** Math.ceil(Math.log2(2 * places + 1))); // place + 1; 0 = empty
  const mask = slots.length - 1;
  for (let place = 0; place < places; place++) {
    let slot = (have[2 * place] as number) & mask;
    while (slots[slot] !== 0) slot = (slot + 1) & mask;
    slots[slot] = place + 1;
  }
  const found = new Int32Array(wanted.length >>> 1).fill(-1);
  for (let at = 0; at < found.length; at++) {
    const low = wanted[2 * at] as number;
    const high = wanted[2 * at + 1] as number;
    for (let slot = low & mask; slots[slot] !== 0; slot = (slot + 1) & mask) {
      const place = (slots[slot] as number) - 1;
      if (have[2 * place] !== low || have[2 * place + 1] !== high) continue;
      found[at] = place;
      break;
    }
  }
  return found;
}
