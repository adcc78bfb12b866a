/** Vectors around centres that are the same in every run, as real ones are: what is searched, and what it is searched for. */
import { expect } from "vitest";
import type { VectorCollection, VectorHit } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";

export const DIMENSIONS = 16;
const CENTRES = 40;
const seed = Number(process.env["SEED"] ?? 1);

/** Shape: `Float32Array[count]` of {@link DIMENSIONS} components. */
export function clustered(count: number, random = createSeededRandom(seed)): Float32Array[] {
  const shape = createSeededRandom(7);
  const centres = Array.from({ length: CENTRES }, () => Array.from({ length: DIMENSIONS }, () => shape.float()));
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(random.float() * centres.length)] as number[];
    return Float32Array.from(centre, (x) => x + (random.float() - 0.5) * 0.5);
  });
}

/** Of the same kind, and none of those. */
export const queriesOf = (count: number): Float32Array[] => clustered(count, createSeededRandom(seed + 1));

/** How many of ten hits an exact search has too. All of them pass the filter, and those have its scores. */
export async function foundOf(
  docs: VectorCollection,
  query: Float32Array,
  hits: readonly VectorHit[],
  filter?: { readonly third: number },
): Promise<number> {
  const exact = await docs.search(query, { ...(filter && { filter }), by: "scatter", exact: true });
  const truth = new Map(exact.hits.map(({ id, score }) => [id, score]));
  expect(hits).toHaveLength(10);
  if (filter !== undefined) for (const { id } of hits) expect((id as number) % 3).toBe(filter.third);
  const found = hits.filter(({ id }) => truth.has(id));
  for (const { id, score } of found) expect(score).toBe(truth.get(id));
  return found.length;
}
