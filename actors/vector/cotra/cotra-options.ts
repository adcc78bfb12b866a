/**
 * The settings of a collaborative search, their defaults and checks, and their form of a byte each inside a start message.
 *
 * Invariant: all primaries of one query work by the same settings, since the origin sends them along. Settings change how much is computed
 * and moved, never the guarantee of the result.
 * Source: the constants of CoTra (CAND_GROUP_SIZE, SYNC_BAR, INLINE_DEG_BAR). Divergence: the defaults are tuned on training vectors of
 * MNIST (60,000), where a whole search is 15 to 40 expansions and every one ahead of the bound is a large share of it.
 */
import { invalidArgument } from "../../../src/errors.ts";

/** How a search trades computations for rounds and bytes. */
export interface CotraSettings {
  /** Candidates expanded a step before the first sync message came in, in [1, 255]. @default 1 */
  readonly firstGroup?: number;
  /** Candidates expanded a step afterwards, in [1, 255]: more means fewer rounds and more computations. @default 2 */
  readonly group?: number;
  /** Steps between two sync messages, in [1, 255]. @default 2 */
  readonly syncEvery?: number;
  /**
   * Neighbours on one partition without a primary that are read one-sidedly before its owner is sent the query and pushed to, in [0, 255].
   * A first push costs about as much as reading one code, later ones little: as in renting skis, read first and buy when it goes on.
   * @default 1; 0 for a query that takes fewer bytes in a message than a code has
   */
  readonly pullDegree?: number;
  /** Neighbours that are read rather than pushed once the owner holds the query, in [0, 255]. @default 0 */
  readonly pullDegreeKnown?: number;
  /** Candidates that may be expanded while an owner's answer is awaited, in [0, 255]. @default 4 */
  readonly patience?: number;
  /** A shard with more than `primaryShare / M` of the entry vertices is primary, M the number of shards; > 0. @default 1 */
  readonly primaryShare?: number;
}

export type ResolvedSettings = Required<CotraSettings>;

/** Bytes of the settings that shards need, inside a start message. */
export const SETTINGS_BYTES = 6;

const DEFAULTS: ResolvedSettings = {
  firstGroup: 1,
  group: 2,
  syncEvery: 2,
  pullDegree: 1,
  pullDegreeKnown: 0,
  patience: 4,
  primaryShare: 1,
};

/**
 * Fills the defaults and checks every setting.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the first setting that is out of its range.
 */
export function resolveSettings(settings: CotraSettings = {}): ResolvedSettings {
  const resolved = { ...DEFAULTS, ...settings };
  const { primaryShare, ...bytes } = resolved;
  for (const [name, value] of Object.entries(bytes)) {
    const least = name === "pullDegree" || name === "pullDegreeKnown" || name === "patience" ? 0 : 1;
    if (!Number.isInteger(value) || value < least || value > 255)
      throw invalidArgument("search", name, `an integer in [${least}, 255]`, value);
  }
  if (!(primaryShare > 0)) throw invalidArgument("search", "primaryShare", "a positive number", primaryShare);
  return resolved;
}

/** The settings as bytes, `primaryShare` left out: only the origin needs it. */
export function settingsToBytes(settings: ResolvedSettings): Uint8Array {
  const { firstGroup, group, syncEvery, pullDegree, pullDegreeKnown, patience } = settings;
  return Uint8Array.of(firstGroup, group, syncEvery, pullDegree, pullDegreeKnown, patience);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when a peer sent settings that are out of range. */
export function settingsFromBytes(bytes: Uint8Array): ResolvedSettings {
  const [firstGroup, group, syncEvery, pullDegree, pullDegreeKnown, patience] = bytes as unknown as number[];
  return resolveSettings({
    firstGroup: firstGroup as number,
    group: group as number,
    syncEvery: syncEvery as number,
    pullDegree: pullDegree as number,
    pullDegreeKnown: pullDegreeKnown as number,
    patience: patience as number,
  });
}
