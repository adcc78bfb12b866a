/**
 * Ranked answers and the one total order over them.
 *
 * Invariant: the order is total over (score, id): the better score first, then numbers before strings, numbers by value and
 * strings by code unit, ascending in both directions. NaN has no place in it, so whoever takes answers in refuses it.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";

/** One ranked answer. */
export interface Ranked {
  readonly id: string | number;
  readonly score: number;
  /** Per-document version: of two answers with one id, the higher version stands. */
  readonly version: number;
}

/** A place in a ranking, whether or not an answer stands there. */
export type RankPosition = Pick<Ranked, "id" | "score">;

/** Whether small scores rank first (distances), or large ones. */
export type RankDirection = "ascending" | "descending";

/** What scores are multiplied with, so that smaller ranks first. */
export type RankSign = 1 | -1;

/** The total order over ids: numbers before strings. */
export function compareIds(a: string | number, b: string | number): number {
  if (typeof a === "number") {
    if (typeof b !== "number") return -1;
    return a < b ? -1 : a > b ? 1 : 0;
  }
  if (typeof b === "number") return 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The total order over answers: score, then id. */
export function compareRanked(a: RankPosition, b: RankPosition, sign: RankSign = 1): number {
  const x = sign * a.score;
  const y = sign * b.score;
  return x < y ? -1 : x > y ? 1 : compareIds(a.id, b.id);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless it is one of the two words. */
export function signOf(action: string, direction: RankDirection): RankSign {
  if (direction === "ascending") return 1;
  if (direction === "descending") return -1;
  throw invalidArgument(action, "direction", '"ascending" or "descending"', direction);
}

/**
 * Of two answers with one id: whether `a` stands and `b` falls. The higher version stands; of equal versions, the one that
 * ranks first.
 */
export function outranks(a: Ranked, b: Ranked, sign: RankSign): boolean {
  return a.version > b.version || (a.version === b.version && sign * a.score < sign * b.score);
}

/**
 * Checks one answer of a sorted list against the one before it.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when score, version or id is NaN, or the list is not sorted: an answer in the wrong
 *   order is a shard's bug and must not pass as a ranking.
 */
export function checkNext(entry: Ranked, previous: Ranked | undefined, sign: RankSign, list: number): void {
  const { id, score, version } = entry;
  if (Number.isNaN(score) || Number.isNaN(version) || Number.isNaN(id)) throw notANumber(entry, list);
  if (previous === undefined) return;
  const before = sign * previous.score;
  const now = sign * score;
  if (before < now || (before === now && compareIds(previous.id, id) <= 0)) return;
  throw new ShardloomError(
    "ERR_CORRUPT",
    `Cannot merge answers as list ${list} must be sorted by (score, id): it is not sorted at ${JSON.stringify(id)}`,
    { details: { list, id } },
  );
}

function notANumber(entry: Ranked, list: number): ShardloomError {
  const part = Number.isNaN(entry.score) ? "score" : Number.isNaN(entry.version) ? "version" : "id";
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot merge answers as the ${part} of ${JSON.stringify(entry.id)} is NaN in list ${list}`,
    { details: { list, part } },
  );
}
