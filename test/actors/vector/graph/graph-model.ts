/** Best-first search as the papers write it: two heaps (here sorted arrays), one vertex after the other. */

/** What the model knows of a vertex; `free` and `deleted` ones may be led to. */
export interface ModelVertex {
  readonly neighbours: readonly number[];
  /** The degree word was out of range. */
  readonly badDegree: boolean;
  readonly free: boolean;
  readonly deleted: boolean;
  readonly partition: number;
}

export interface ModelOptions {
  readonly ef: number;
  readonly entries: readonly number[];
  readonly admits: (vertex: number) => boolean;
  readonly limitDistances: number;
  /** Results of another search, nearest first, at most `ef`. */
  readonly known: readonly Scored[];
}

export interface ModelResult {
  readonly found: readonly { readonly distance: number; readonly vertex: number }[];
  readonly distances: number;
  readonly expansions: number;
  readonly damaged: number;
  readonly dangling: number;
  readonly stopped: boolean;
  readonly reads: readonly number[];
}

export type Scored = { distance: number; vertex: number };

export const before = (a: Scored, b: Scored): boolean =>
  a.distance < b.distance || (a.distance === b.distance && a.vertex < b.vertex);

/** Algorithm 2 of Malkov & Yashunin, with ties broken by vertex. */
export function modelSearch(
  vertexOf: (vertex: number) => ModelVertex | undefined,
  distanceOf: (vertex: number) => number,
  partitions: number,
  options: ModelOptions,
): ModelResult {
  const visited = new Set<number>(options.known.map(({ vertex }) => vertex));
  const candidates: Scored[] = [];
  const results: Scored[] = [...options.known];
  const reads = new Array<number>(partitions).fill(0);
  let [distances, expansions, damaged, dangling, stopped] = [0, 0, 0, 0, false];

  const insert = (list: Scored[], entry: Scored): void => {
    const at = list.findIndex((other) => before(entry, other));
    list.splice(at < 0 ? list.length : at, 0, entry);
  };
  const visit = (vertex: number): void => {
    const known = vertexOf(vertex);
    if (known === undefined) {
      damaged++;
      return;
    }
    if (visited.has(vertex)) return;
    visited.add(vertex);
    distances++;
    reads[known.partition] = (reads[known.partition] as number) + 1;
    const entry = { distance: distanceOf(vertex), vertex };
    const worst = results[options.ef - 1];
    if (worst !== undefined && !before(entry, worst)) return;
    if (Number.isNaN(entry.distance)) damaged++;
    else if (known.free) dangling++;
    else {
      insert(candidates, entry);
      if (known.deleted || !options.admits(vertex)) return;
      insert(results, entry);
      if (results.length > options.ef) results.pop();
    }
  };

  for (const entry of options.entries) visit(entry);
  for (;;) {
    const next = candidates[0];
    const worst = results[options.ef - 1];
    if (next === undefined || (worst !== undefined && before(worst, next))) break;
    if (options.limitDistances > 0 && distances >= options.limitDistances) {
      stopped = true;
      break;
    }
    candidates.shift();
    expansions++;
    const known = vertexOf(next.vertex) as ModelVertex;
    if (known.badDegree) damaged++;
    for (const neighbour of known.neighbours) visit(neighbour);
  }
  return { found: results, distances, expansions, damaged, dangling, stopped, reads };
}
