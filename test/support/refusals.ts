/** What calls are refused with, and bytes that somebody has changed on the way. */

import { ShardloomError } from "../../src/errors.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";

/** Code that a call throws or rejects with; undefined when it does neither. Anything but a ShardloomError passes through. */
export async function refusalOf(call: () => unknown): Promise<string | undefined> {
  try {
    await call();
    return undefined;
  } catch (error) {
    if (ShardloomError.is(error)) return error.code;
    throw error;
  }
}

/** So many rounds in the suite, fifty times as many in long runs. */
export function rounds(count: number): number {
  return process.env["SHARDLOOM_LONG"] === "1" ? 50 * count : count;
}

/** So many copies of the bytes, each with one to four bytes changed, cut out or doubled. The seed of the run chooses. */
export function* damagedCopies(bytes: Uint8Array, count: number): Generator<Uint8Array> {
  const random = createSeededRandom(Number(process.env["SEED"] ?? 1));
  const below = (limit: number): number => Math.floor(random.float() * limit);
  for (let copy = 0; copy < count; copy++) {
    const damaged = [...bytes];
    for (let change = below(4); change >= 0; change--) {
      const at = below(damaged.length);
      const value = damaged[at] as number;
      const kind = below(4);
      if (kind === 0) damaged[at] = value ^ (1 << below(8));
      else if (kind === 1) damaged[at] = below(256);
      else if (kind === 2) damaged.splice(at, 1 + below(8));
      else damaged.splice(at, 0, value);
    }
    yield Uint8Array.from(damaged);
  }
}
