/**
 * Does again what a shard's log says: effects in their order, and each restore that has ended, whole.
 *
 * Invariant: a restore is applied when its end is read, from a second reading of its stretch of the log; one without an end changes nothing.
 * Effects on collections that are not open were dropped with them.
 */
import { ShardloomError } from "../../src/errors.ts";
import { LOG_ENTRY, type ShardLog, type ShardLogEntry } from "../../src/store/log.ts";
import type { ReceivedEffect, ReplicatedEngine } from "../engine.ts";
import type { VshardStates } from "./vshard-states.ts";

/** Bytes of frames that are read at a time. */
const READ_BYTES: number = 4 * 1024 * 1024;

/** What is replayed into. */
export interface ReplayTarget {
  readonly log: ShardLog;
  readonly states: VshardStates;
  readonly engines: readonly ReplicatedEngine[];
}

/**
 * Replays a log from a position to its end.
 *
 * @returns entries that were applied
 * @throws {ShardloomError} `ERR_CORRUPT` where the log is damaged.
 */
export async function replay(target: ReplayTarget, from: number): Promise<number> {
  const { log, states } = target;
  let applied = 0;
  for await (const { entry, position } of entriesOf(log, from, log.head)) {
    if (entry.kind === LOG_ENTRY.EFFECT) applied += applyEntry(target.engines, entry);
    if (entry.kind === LOG_ENTRY.RESTORE_END) {
      const begun = states.begunAt(entry.vshard);
      if (begun !== undefined) applied += await restore(target, entry.vshard, begun, position);
    }
    states.note(entry, position);
  }
  return applied;
}

/** Only notes what the log says, for whoever has the content already. */
export async function noteLog(log: ShardLog, states: VshardStates, from: number): Promise<void> {
  for await (const { entry, position } of entriesOf(log, from, log.head)) states.note(entry, position);
}

async function restore(target: ReplayTarget, vshard: number, begun: number, ended: number): Promise<number> {
  const { log, engines } = target;
  let applied = 0;
  for (const engine of engines) engine.beginRestore(vshard);
  for await (const { entry } of entriesOf(log, begun, ended)) {
    if (entry.vshard !== vshard) continue;
    if (entry.kind === LOG_ENTRY.RESTORE_PART || entry.kind === LOG_ENTRY.EFFECT) applied += applyEntry(engines, entry);
  }
  for (const engine of engines) engine.endRestore(vshard);
  return applied;
}

async function* entriesOf(
  log: ShardLog,
  from: number,
  to: number,
): AsyncGenerator<{ readonly entry: ShardLogEntry; readonly position: number }> {
  for (let next = from; next <= to; ) {
    const frames = await log.read(next, READ_BYTES);
    if (frames.length === 0) {
      throw new ShardloomError("ERR_CORRUPT", `Cannot replay log as it must have position ${next}: it ends before`, {
        details: { position: next, head: to },
      });
    }
    for (const { position, entries } of frames) {
      if (position > to) return;
      for (const entry of entries) yield { entry, position };
      next = position + 1;
    }
  }
}

function applyEntry(engines: readonly ReplicatedEngine[], { vshard, type, collection, body }: ShardLogEntry): number {
  if (body.length === 0) return 0; // only its LSN counts
  applyEffect(engines, vshard, type, collection, body);
  return 1;
}

/** Applies an effect from a file. One on a collection that is not open does nothing: it was dropped later. */
export function applyEffect(
  engines: readonly ReplicatedEngine[],
  vshard: number,
  type: number,
  collection: number,
  body: Uint8Array,
): void {
  const engine = engines.find(({ types }) => types.includes(type));
  if (engine === undefined)
    throw new ShardloomError("ERR_UNKNOWN_MESSAGE", `Cannot apply effect as type ${type} has no engine`, {
      details: { type, vshard },
    });
  if (!engine.has(collection)) return;
  engine.apply(effectOf(vshard, type, collection, body));
}

/** Views of the buffer that effects were last read from: most come from one. */
let views: { bytes: Uint8Array; i32: Int32Array; f32: Float32Array; f64: Float64Array } | undefined;

function effectOf(vshard: number, type: number, collection: number, body: Uint8Array): ReceivedEffect {
  const aligned = body.byteOffset % 8 === 0 ? body : body.slice();
  const { buffer } = aligned;
  if (views?.bytes.buffer !== buffer) {
    views = {
      bytes: new Uint8Array(buffer),
      i32: new Int32Array(buffer, 0, buffer.byteLength >>> 2),
      f32: new Float32Array(buffer, 0, buffer.byteLength >>> 2),
      f64: new Float64Array(buffer, 0, buffer.byteLength >>> 3),
    };
  }
  return { ...views, vshard, type, collection, offset: aligned.byteOffset, length: aligned.length };
}
