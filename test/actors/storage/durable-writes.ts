/**
 * What scenes of durable shards share: their writes, of rows with numbers, and what one shard is opened with.
 *
 * Invariant: a write is settled once. It changes its rows when it is published, as an engine does.
 */
import type { Primary } from "../../../actors/replication/primary.ts";
import type { PendingWrite } from "../../../actors/replication/replicated-write.ts";
import type { ShardEngines } from "../../../actors/shard-engines.ts";
import type { ShardStorage } from "../../../src/plane/shard-task.ts";
import { bodyOf, EFFECT, type ToyEngine } from "../replication/world.ts";

export interface SceneWrite {
  readonly number: number;
  readonly keys: readonly number[];
  readonly deletes: boolean;
  state: "open" | "acknowledged" | "failed";
}

/** What a write is done with. */
export interface WriteTarget {
  readonly primary: Primary;
  readonly engine: ToyEngine;
  readonly vshards: number;
  readonly acks: number;
  readonly deadlineAtMs: number;
}

/** Publishes a write and changes its rows. @param onPublished Called in between. @throws {ShardloomError} when it is refused: nothing has happened */
export function publishWrite(target: WriteTarget, write: SceneWrite, onPublished: () => void): PendingWrite {
  const { primary, engine, vshards, acks, deadlineAtMs } = target;
  const pending = primary.begin(acks, deadlineAtMs);
  const effects = write.keys.map((key) => {
    const body = bodyOf([{ key, value: write.deletes ? Number.NaN : write.number, version: write.number }]);
    pending.add(key % vshards, EFFECT, 0, body);
    return { vshard: key % vshards, body };
  });
  pending.publish();
  onPublished();
  for (const { vshard, body } of effects) {
    const memory = { bytes: body, f64: new Float64Array(body.buffer) } as Parameters<ToyEngine["apply"]>[0];
    engine.apply({ ...memory, vshard, type: EFFECT, collection: 0, offset: 0, length: body.length });
  }
  return pending;
}

/** Whom a write's answer goes to. */
export function heldFor(write: SceneWrite): NonNullable<Parameters<Primary["commit"]>[1]> {
  const settle = (state: SceneWrite["state"]) => (): void => {
    if (write.state === "open") write.state = state;
  };
  return { cancelled: false, send: settle("acknowledged"), fail: settle("failed") };
}

/** Whoever waits for an answer has lost whom he asked. */
export function failOpen(writes: readonly SceneWrite[]): void {
  for (const write of writes) if (write.state === "open") write.state = "failed";
}

/** What a shard keeps, and how, in such a scene. */
export function sceneStorage(
  given: Pick<ShardStorage, "durability" | "snapshotBytes"> & Partial<ShardStorage>,
): ShardStorage {
  return {
    directory: "/data",
    snapshotBytesPerSecond: 1e9,
    collections: [],
    durable: new SharedArrayBuffer(8 * 256),
    loaded: new SharedArrayBuffer(4 * 256),
    ...given,
  };
}

/** One engine, as a shard has all of them. */
export function enginesOf(engine: ToyEngine): ShardEngines {
  return {
    all: [{ handlers: new Map(), replicated: engine, close: () => undefined }],
    saveIndexes: () => Promise.resolve(),
    loadIndexes: () => Promise.resolve([]),
  } as unknown as ShardEngines;
}
