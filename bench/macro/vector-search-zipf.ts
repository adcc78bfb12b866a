/** Streams of queries of which some places are asked for far more often than others (bench `vector-search`, G3). */
import { createSeededRandom } from "../../src/runtime/random.ts";

/**
 * Draws queries: the place first, by Zipf's law with exponent 1 over the places in a random order, then one of its queries.
 *
 * @param placeOf Place of a query.
 */
export function zipfOrder(queries: number, placeOf: (query: number) => number, length: number, seed: number): number[] {
  const random = createSeededRandom(seed);
  const byPlace = new Map<number, number[]>();
  for (let query = 0; query < queries; query++) {
    const list = byPlace.get(placeOf(query)) ?? [];
    list.push(query);
    byPlace.set(placeOf(query), list);
  }
  const places = [...byPlace.values()];
  for (let at = places.length - 1; at > 0; at--) {
    const other = random.u32() % (at + 1);
    [places[at], places[other]] = [places[other] as number[], places[at] as number[]];
  }
  const total = places.reduce((sum, _, rank) => sum + 1 / (rank + 1), 0);
  return Array.from({ length }, () => {
    let left = random.float() * total;
    let rank = 0;
    for (left -= 1; left > 0 && rank < places.length - 1; left -= 1 / (rank + 1)) rank++;
    const own = places[rank] as number[];
    return own[random.u32() % own.length] as number;
  });
}
