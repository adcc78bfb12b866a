/**
 * Delta debugging: cuts a list down to a part that still fails and of which nothing single can be left out.
 *
 * Invariant: what is returned is the input or a list that `fails` has found failing; the order of its items is the input's, and the candidates
 * are asked for in an order that depends on the answers alone.
 * Source: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002, section 3.
 * **Divergence**: the empty list is tried first, as many failures need no fault at all; single parts are tried as halves only; after a complement
 * failed, the pass goes on at the same place instead of starting again, and the last pass is repeated until it finds nothing (the same
 * 1-minimality, about half the runs).
 */

/** Runs candidates in order, perhaps several at once. @returns the index of the first that fails, or -1 */
export type FirstFailing<T> = (candidates: Iterable<readonly T[]>) => Promise<number>;

/**
 * Minimises a failing list.
 *
 * Cost: between O(log n) runs, where one item decides, and O(n^2).
 *
 * @returns A 1-minimal list: each of its parts with one item less passes, unless `firstFailing` stopped answering truly.
 */
export async function ddmin<T>(items: readonly T[], firstFailing: FirstFailing<T>): Promise<readonly T[]> {
  if (items.length === 0 || (await firstFailing([[]])) === 0) return [];
  let current = items;
  let chunks = 2;
  while (current.length > 1) {
    const parts = split(current, chunks);
    const subset = chunks === 2 ? await firstFailing(parts) : -1;
    if (subset >= 0) {
      current = parts[subset] as readonly T[];
      chunks = 2;
      continue;
    }
    const kept = chunks === 2 ? parts : await dropParts(parts, firstFailing);
    const removed = kept.length < parts.length;
    current = kept.flat();
    if (chunks >= current.length && !removed) return current;
    // At the finest grain what was kept may have become superfluous: once more. Coarser passes go on with finer parts.
    chunks = Math.min(current.length, removed && parts.every((part) => part.length === 1) ? chunks : chunks * 2);
  }
  return current;
}

/** Leaves out one part after the other, keeping those without which the rest no longer fails. */
async function dropParts<T>(
  parts: readonly (readonly T[])[],
  firstFailing: FirstFailing<T>,
): Promise<readonly (readonly T[])[]> {
  let kept = parts;
  let at = 0;
  while (at < kept.length && kept.length > 1) {
    const found = await firstFailing(complements(kept, at));
    if (found < 0) return kept;
    kept = [...kept.slice(0, at + found), ...kept.slice(at + found + 1)];
    at += found;
  }
  return kept;
}

/** All parts but one, for each from `start` on; made when asked for, as most are not. */
function* complements<T>(parts: readonly (readonly T[])[], start: number): Generator<readonly T[]> {
  for (let left = start; left < parts.length; left++) yield parts.flatMap((part, at) => (at === left ? [] : part));
}

function split<T>(items: readonly T[], count: number): (readonly T[])[] {
  const parts: (readonly T[])[] = [];
  for (let part = 0; part < count; part++) {
    const [from, to] = [part, part + 1].map((edge) => Math.floor((edge * items.length) / count)) as [number, number];
    if (to > from) parts.push(items.slice(from, to));
  }
  return parts;
}

/**
 * The shortest beginning of a list that fails, by bisection: right where longer beginnings fail too, and checked in any case.
 *
 * @returns The whole list when no shorter beginning was found failing.
 */
export async function shortestPrefix<T>(items: readonly T[], firstFailing: FirstFailing<T>): Promise<readonly T[]> {
  let passes = 0;
  let fails = items.length;
  while (fails - passes > 1) {
    const middle = (passes + fails) >> 1;
    if ((await firstFailing([items.slice(0, middle)])) === 0) fails = middle;
    else passes = middle;
  }
  return items.slice(0, fails);
}
