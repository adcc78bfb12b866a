/** Logs of shards as copies write them, from engines on this thread. */
import type { ReplicatedEngine, WireMemory, WriteEffects } from "../../../actors/engine.ts";
import { readCountReply, readUpsertReply } from "../../../actors/text/text-replies.ts";
import {
  idsRequestBytes,
  upsertRequestBytes,
  writeIdsRequest,
  writeUpsertRequest,
} from "../../../actors/vector/vector-requests.ts";
import { LOG_ENTRY, type LogEntryKind, type LogFrame, type ShardLogEntry } from "../../../src/store/log.ts";
import { hashId } from "../../../src/topology/stable-hash.ts";
import { TEXT_DELETE, TEXT_UPSERT, VECTOR_DELETE, VECTOR_UPSERT } from "../../../src/wire/message-types.ts";
import { randomDocument, TextBed } from "../text/support.ts";
import { Bed, toItem, wireMemory } from "../vector/support.ts";

export interface Told {
  readonly vshard: number;
  readonly type: number;
  readonly collection: number;
  readonly body: Uint8Array;
}

/** An engine and random writes to it. */
export interface Subject {
  readonly replicated: ReplicatedEngine;
  /** One random upsert or delete. @returns its effects */
  write(random: () => number): readonly Told[];
}

const IDS = 150;
export const ALL_VSHARDS: readonly number[] = Array.from({ length: 64 }, (_, vshard) => vshard);

function someIds(random: () => number): number[] {
  const count = 1 + Math.floor(random() * 20);
  return [...new Set(Array.from({ length: count }, () => Math.floor(random() * IDS)))];
}

class Tape implements WriteEffects {
  readonly maxBodyBytes: number;
  readonly told: Told[] = [];

  constructor(maxBodyBytes: number) {
    this.maxBodyBytes = maxBodyBytes;
  }

  add(vshard: number, type: number, collection: number, body: Uint8Array): void {
    this.told.push({ vshard, type, collection, body });
  }

  touch(): void {
    // Every vshard is here.
  }

  publish(): void {
    // Effects are logged when the write is done.
  }
}

export function vectorSubject(): Subject {
  const bed = new Bed();
  bed.open({ dimensions: 3, metric: "l2" });
  const send = (type: number, bytes: number, fill: (m: WireMemory, offset: number) => void, limit: number) => {
    const memory = wireMemory(bytes + 64);
    fill(memory, 16);
    const tape = new Tape(limit);
    bed.send(type, { ...memory, offset: 16, length: bytes, effects: tape }, () => undefined);
    return tape.told;
  };
  return {
    replicated: bed.engine.replicated as ReplicatedEngine,
    write(random) {
      const ids = someIds(random).map((id) => (id % 3 === 0 ? `name-${id}` : id));
      const limit = random() < 0.5 ? 1 << 20 : 200;
      if (random() < 0.3)
        return send(
          VECTOR_DELETE,
          idsRequestBytes(ids),
          (m, o) => writeIdsRequest(m, o, 1, ids, ids.map(hashId)),
          limit,
        );
      const items = ids.map((id) =>
        toItem({ id, vector: [random(), random(), 1], ...(random() < 0.5 ? { payload: { n: random() } } : {}) }),
      );
      return send(VECTOR_UPSERT, upsertRequestBytes(3, items), (m, o) => writeUpsertRequest(m, o, 1, 3, items), limit);
    },
  };
}

export function textSubject(): Subject {
  const bed = new TextBed({ fields: { title: 2, body: 1 }, positions: true });
  const send = (
    type: number,
    request: { bytes: number; write: (m: WireMemory, offset: number) => void },
    read: (m: WireMemory, offset: number, length: number) => unknown,
    limit: number,
  ) => {
    const memory = wireMemory(request.bytes + 64);
    request.write(memory, 16);
    const tape = new Tape(limit);
    bed.send(type, { ...memory, offset: 16, length: request.bytes, effects: tape }, read);
    return tape.told;
  };
  return {
    replicated: bed.engine.replicated,
    write(random) {
      const ids = someIds(random);
      const limit = random() < 0.5 ? 1 << 20 : 300;
      if (random() < 0.3) return send(TEXT_DELETE, bed.idsRequest(ids), readCountReply, limit);
      const documents = ids.map((id) => randomDocument(random, id, ["body", "title"]));
      return send(TEXT_UPSERT, bed.upsertRequest(documents), readUpsertReply, limit);
    },
  };
}

export function entry(kind: LogEntryKind, vshard: number, lsn: number, told?: Told, key = ""): ShardLogEntry {
  return {
    kind,
    vshard,
    lsn,
    leaseEpoch: 0,
    type: told?.type ?? 0,
    collection: told?.collection ?? 0,
    body: told?.body ?? new Uint8Array(0),
    idempotencyKey: key,
    result: key === "" ? new Uint8Array(0) : Uint8Array.of(lsn),
  };
}

/** Applies a told effect to an engine, at an offset that is not 0. */
export function applyTold(engine: ReplicatedEngine, { vshard, type, collection, body }: Told): void {
  const memory = wireMemory(body.length + 32);
  memory.bytes.set(body, 24);
  engine.apply({ ...memory, vshard, type, collection, offset: 24, length: body.length });
}

/** Does to an engine what an entry says. */
export function replay(engine: ReplicatedEngine, { kind, vshard, type, collection, body }: ShardLogEntry): void {
  if (kind === LOG_ENTRY.RESTORE_BEGIN) engine.beginRestore(vshard);
  else if (kind === LOG_ENTRY.RESTORE_END) engine.endRestore(vshard);
  else applyTold(engine, { vshard, type, collection, body });
}

/** The log of a shard whose vshards are written to, and now and then restored from another copy. */
export class RandomLog {
  readonly frames: LogFrame[] = [];
  restores = 0;
  readonly #random: () => number;
  readonly #primary: Subject;
  readonly #other: Subject;
  readonly #lsns: Map<number, number> = new Map();
  /** Entries of a restore that are still to come. */
  #restore: ShardLogEntry[] = [];

  constructor(random: () => number, make: () => Subject) {
    this.#random = random;
    this.#primary = make();
    this.#other = make();
  }

  grow(): LogFrame {
    const random = this.#random;
    const entries: ShardLogEntry[] = [];
    const isRestoring = this.#restore[0]?.vshard;
    for (const told of this.#primary.write(random)) {
      if (told.vshard === isRestoring) continue; // entries mean nothing while rows are being filled in
      const key = random() < 0.1 ? `key ${this.frames.length}.${entries.length}` : "";
      entries.push(entry(LOG_ENTRY.EFFECT, told.vshard, this.#next(told.vshard), told, key));
    }
    this.#other.write(random);
    if (isRestoring === undefined && random() < 0.4) this.#begin(Math.floor(random() * 16));
    entries.push(...this.#restore.splice(0, Math.floor(random() * 3)));
    if (entries.length === 0) return this.grow();
    const frame = { position: this.frames.length + 1, entries };
    this.frames.push(frame);
    return frame;
  }

  /** A restore that is on its way ends. */
  end(): void {
    if (this.#restore.length > 0)
      this.frames.push({ position: this.frames.length + 1, entries: this.#restore.splice(0) });
  }

  #begin(vshard: number): void {
    this.restores++;
    const part = this.#other.replicated.snapshot(vshard, 100);
    this.#restore.push(entry(LOG_ENTRY.RESTORE_BEGIN, vshard, -1));
    for (let next = part(); next !== undefined; next = part())
      this.#restore.push(entry(LOG_ENTRY.RESTORE_PART, vshard, 0, { ...next, vshard }));
    this.#restore.push(entry(LOG_ENTRY.RESTORE_END, vshard, this.#next(vshard)));
  }

  #next(vshard: number): number {
    const lsn = (this.#lsns.get(vshard) ?? 0) + 1;
    this.#lsns.set(vshard, lsn);
    return lsn;
  }
}

export function hashesOf(engine: ReplicatedEngine): (bigint | undefined)[] {
  return ALL_VSHARDS.map((vshard) => engine.contentHash?.(vshard));
}
