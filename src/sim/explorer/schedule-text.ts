/**
 * Schedules as text: `tso:a12A3b4` is twelve accesses of thread a, three of its stores made visible, four accesses of thread b.
 *
 * Invariant: parsing what was formatted gives the same moves and memory model.
 *
 * Grammar: model ":" (letter ["!"] [count])*; a small letter is an access, with `!` the time of a wait running out, a capital
 * letter a flush.
 */
import { invalidArgument } from "../../errors.ts";
import { FLUSH, MOVE_KINDS, STEP, TIME_OUT } from "./exploration.ts";
import type { MemoryModel } from "./machine.ts";
import { nameOf } from "./machine.ts";

export function formatSchedule(model: MemoryModel, moves: readonly number[]): string {
  const parts: string[] = [];
  for (let at = 0; at < moves.length; ) {
    let end = at;
    while (moves[end] === moves[at]) end++;
    parts.push(tokenOf(moves[at] as number), end - at === 1 ? "" : `${end - at}`);
    at = end;
  }
  return `${model}:${parts.join("")}`;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for text that is no schedule of so many threads. */
export function parseSchedule(
  text: string,
  threads: number,
): { readonly model: MemoryModel; readonly moves: number[] } {
  const match = typeof text === "string" ? /^(sc|tso):((?:(?:[a-h]!?|[A-H])\d{0,9})*)$/.exec(text) : null;
  if (match === null)
    throw invalidArgument("replay schedule", "schedule", 'of the form "sc:a12b3" or "tso:a2A1b4"', text);
  const moves: number[] = [];
  for (const [, letter = "", late, count] of (match[2] as string).matchAll(/([a-hA-H])(!?)(\d*)/g)) {
    const small = letter.toLowerCase();
    const thread = small.charCodeAt(0) - 97;
    const kind = small !== letter ? FLUSH : late === "!" ? TIME_OUT : STEP;
    if (thread >= threads) throw invalidArgument("replay schedule", "schedule", `of ${threads} threads`, text);
    for (let left = count === "" ? 1 : Number(count); left > 0; left--) moves.push(thread * MOVE_KINDS + kind);
  }
  return { model: match[1] as MemoryModel, moves };
}

function tokenOf(move: number): string {
  const name = nameOf(Math.trunc(move / MOVE_KINDS));
  const kind = move % MOVE_KINDS;
  return kind === FLUSH ? name.toUpperCase() : kind === TIME_OUT ? `${name}!` : name;
}
