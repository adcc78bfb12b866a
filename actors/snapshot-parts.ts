/**
 * What a vshard holds, over all engines of its shard.
 *
 * Invariant: as of one engine's snapshot: what changes while the parts are taken may be missed or told too old.
 */
import type { ReplicatedEngine, SnapshotPart } from "./engine.ts";

/** The parts of all engines, one after the other; undefined after the last. */
export function partsOf(
  engines: readonly ReplicatedEngine[],
  vshard: number,
  maxBodyBytes: number,
): () => SnapshotPart | undefined {
  const sources = engines.map((engine) => engine.snapshot(vshard, maxBodyBytes));
  return () => {
    for (let source = sources[0]; source !== undefined; source = sources[0]) {
      const part = source();
      if (part !== undefined) return part;
      sources.shift();
    }
    return undefined;
  };
}
