/** What tests of all shard logs share: frames by one number, and reading all that there is. */
import { expect } from "vitest";
import type { ShardloomError } from "../../src/errors.ts";
import type { LogFrame, ShardLog, ShardLogEntry } from "../../src/store/log.ts";
import { entryOf } from "./reader-entry.ts";

export { entryOf } from "./reader-entry.ts";

export const ALL: number = Number.MAX_SAFE_INTEGER;

/** The entries of a write: one, or three. */
export function framesOf(value: number, size: number): ShardLogEntry[] {
  return value % 4 === 0 ? [value, value + 1, value + 2].map((one) => entryOf(one, size)) : [entryOf(value, size)];
}

/** Everything that can be read, checked to follow each other. */
export async function framesIn(log: ShardLog, limitBytes: number = ALL): Promise<LogFrame[]> {
  const frames: LogFrame[] = [];
  for (let next = log.first; ; next = (frames.at(-1)?.position ?? 0) + 1) {
    const found = await log.read(next, limitBytes);
    if (found.length === 0) return frames;
    for (const frame of found) expect(frame.position).toBe(next + found.indexOf(frame));
    for (const { entries } of found) for (const { body } of entries) expect(body.byteOffset % 8).toBe(0);
    frames.push(...found);
  }
}

/** First values of what can be read. */
export async function valuesIn(log: ShardLog): Promise<number[]> {
  return (await framesIn(log)).map(({ entries }) => (entries[0]?.lsn ?? 0) - 1_000);
}

/** Code of what a call throws. */
export function codeOf(call: () => unknown): string | undefined {
  try {
    call();
    return undefined;
  } catch (error) {
    return (error as ShardloomError).code;
  }
}
