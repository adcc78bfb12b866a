/**
 * Reads single rows one-sidedly, each between two checks of its cell's version and its region's key.
 *
 * Invariant: what a visit saw may be used only when `read` returned SUCCESS. Records lie in memory that compaction may free; a
 * row that pointed there has another version by then, so looking at them inside the row's validation is safe as long as
 * lengths are bounded first.
 * One thread only: it shares its verbs.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, USER0, USER1, USER2 } from "../../native-bridge/cell-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import type { Verbs } from "../../native-bridge/verbs.ts";
import {
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  RECORD_PAYLOAD_BYTES,
  RECORD_TOTAL,
  recordBytes,
} from "../../src/store/collection-layout.ts";
import { idLengthOf } from "../../src/store/id-codec.ts";
import type { MutableRef, ShardView } from "./shard-view.ts";
import type { StoredVector } from "./vector-replies.ts";

/** Status of a read of an id that no shard has, or of a free row. */
export const NOT_FOUND = -1;
/** Reads of one row before it counts as unreadable. */
export const ATTEMPTS = 64;
const TWO_32 = 2 ** 32;

export class RowReader {
  readonly arena: Arena;
  readonly verbs: Verbs;
  /** The row that was read last. */
  readonly ref: MutableRef = { address: 0, rkey: 0, length: 0 };

  constructor(arena: Arena, verbs: Verbs) {
    this.arena = arena;
    this.verbs = verbs;
  }

  /** Visits a used row between the two checks of its version. NOT_FOUND when it is free. */
  read(view: ShardView, row: number, visit: (cell: number, record: number) => void): number {
    const { ref } = this;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (!view.cellRef(row, ref)) return NOT_FOUND;
      const begun = this.verbs.beginInPlace(ref);
      if (begun === STATUS.RETRY_EXCEEDED) continue;
      if (begun !== STATUS.SUCCESS) return begun;
      const record = this.arena.u32[(ref.address >>> 2) + USER0] as number;
      const free = record === 0;
      if (!free && this.inside(record, RECORD_HEADER_BYTES)) visit(ref.address, record);
      const ended = this.verbs.endInPlace();
      if (ended === STATUS.SUCCESS) return free ? NOT_FOUND : STATUS.SUCCESS;
      if (ended !== STATUS.RETRY_EXCEEDED) return ended;
    }
    return STATUS.RETRY_EXCEEDED;
  }

  /** Version and, as asked, vector and payload of the row that is being visited. */
  copyStored(
    cell: number,
    record: number,
    dimensions: number,
    withVector: boolean,
    withPayload: boolean,
  ): StoredVector {
    const { u32, f32, bytes } = this.arena;
    const first = (cell + CELL_HEADER_BYTES) >>> 2;
    const idLength = idLengthOf(u32[(record >>> 2) + RECORD_ID_WORD] as number);
    const payloadAt = record + RECORD_HEADER_BYTES + idLength;
    const payloadBytes = u32[(record >>> 2) + RECORD_PAYLOAD_BYTES] as number;
    const whole = u32[(record >>> 2) + RECORD_TOTAL] === recordBytes(idLength, payloadBytes); // bounds what a torn length can cost
    const payload = withPayload && payloadBytes > 0 && whole && this.inside(payloadAt, payloadBytes);
    return {
      version: this.versionOf(cell),
      ...(withVector ? { vector: f32.slice(first, first + dimensions) } : {}),
      ...(payload ? { payload: bytes.slice(payloadAt, payloadAt + payloadBytes) } : {}),
    };
  }

  versionOf(cell: number): number {
    const { u32 } = this.arena;
    return (u32[(cell >>> 2) + USER2] as number) * TWO_32 + (u32[(cell >>> 2) + USER1] as number);
  }

  /** Whether a range that was read from memory lies in the arena. */
  inside(byteOffset: number, byteLength: number): boolean {
    return byteOffset + byteLength <= this.arena.capacityBytes;
  }
}
