/**
 * Random schedules by priorities: probabilistic concurrency testing.
 *
 * Invariant: every access is a point of choice, and a schedule follows from the seed and its number alone. A bug of depth d in
 * a program of n threads and k accesses is found with a probability of at least 1 / (n k^(d-1)) a schedule.
 * Source: Burckhardt, Kothari, Musuvathi and Nagarakatti, "A Randomized Scheduler with Probabilistic Guarantees of Finding
 * Bugs", ASPLOS 2010. Divergence: under TSO the store buffer of a thread has a priority of its own, as a thread would;
 * k is the longest run known so far.
 */
import { createSeededRandom, type Random } from "../../runtime/random.ts";
import type { SearchOutcome } from "./exhaustive.ts";
import { type Exploration, MOVE_KINDS } from "./exploration.ts";
import type { PctStrategy } from "./explore-types.ts";

/** Runs schedules until one is wrong. On a violation the exploration stands at it. */
export function searchRandomly<S>(exploration: Exploration<S>, { depth, seed, schedules }: PctStrategy): SearchOutcome {
  const start = exploration.place();
  for (let number = 0; number < schedules; number++) {
    const violation = runOnce(exploration, depth, createSeededRandom(seed + Math.imul(number, 0x9e3779b1)));
    if (violation !== undefined) return { schedules: number + 1, states: 0, complete: false, violation };
    exploration.restore(start);
  }
  return { schedules, states: 0, complete: false, violation: undefined };
}

function runOnce<S>(exploration: Exploration<S>, depth: number, random: Random): string | undefined {
  const priorities = shuffled(exploration.threads * MOVE_KINDS, depth, random);
  const changes = new Map<number, number>();
  for (let change = depth - 1; change > 0; change--)
    changes.set(Math.floor(random.float() * Math.max(1, exploration.longest)), change);
  for (let step = 0; ; step++) {
    const move = best(exploration, priorities);
    if (move === undefined) return exploration.verdict();
    exploration.move(move);
    const violation = exploration.hasFailed() ? exploration.verdict() : undefined;
    if (violation !== undefined) return violation;
    const change = changes.get(step);
    if (change !== undefined) priorities[move] = depth - 1 - change;
  }
}

/** Distinct priorities, all of at least `least`. */
function shuffled(count: number, least: number, random: Random): number[] {
  const priorities = Array.from({ length: count }, (_, index) => least + index);
  for (let index = count - 1; index > 0; index--) {
    const other = Math.floor(random.float() * (index + 1));
    [priorities[index], priorities[other]] = [priorities[other] as number, priorities[index] as number];
  }
  return priorities;
}

function best<S>(exploration: Exploration<S>, priorities: readonly number[]): number | undefined {
  let found: number | undefined;
  for (let move = 0; move < priorities.length; move++) {
    const better = found === undefined || (priorities[move] as number) > (priorities[found] as number);
    if (better && exploration.canMove(move)) found = move;
  }
  return found;
}
