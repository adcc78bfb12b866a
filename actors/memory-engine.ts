/**
 * Answers reads of registered memory for those who cannot reach it: threads of other processes.
 *
 * Invariant: each range ends in the status, and gives the bytes, that a verb on this thread would. No byte of a range whose status is not SUCCESS goes
 * out, and none of what was in the reply's memory before: bytes are read into memory of this engine first.
 * Any worker of a node answers for all of the node's memory, whoever has registered a region. One thread only.
 */
import { NEEDS_RMW_CHECK } from "../native-bridge/cell.ts";
import { VERSION_HIGH, VERSION_LOW } from "../native-bridge/cell-layout.ts";
import { RegionAccess } from "../native-bridge/region-access.ts";
import { ACCESS } from "../native-bridge/region-layout.ts";
import { STATUS } from "../native-bridge/status.ts";
import { Verbs } from "../native-bridge/verbs.ts";
import { ShardloomError } from "../src/errors.ts";
import { MEMORY_READ } from "../src/wire/message-types.ts";
import type { Engine, EngineContext, EngineReply, EngineRequest } from "./engine.ts";
import {
  MAX_READ_REPLY_BYTES,
  padded,
  type ReadPart,
  readReadRequest,
  readReplyBytes,
  type WantedPart,
  writeReadReply,
} from "./memory-messages.ts";

/** Reads of a cell that changes meanwhile; each is many attempts of the verbs. */
const ATTEMPTS = 8;

export function createMemoryEngine({ arena }: Pick<EngineContext, "arena">): Engine {
  const verbs = new Verbs(arena);
  const access = new RegionAccess(arena, NEEDS_RMW_CHECK);
  const { i32 } = arena;
  let scratch = new Uint8Array(0);

  /** @param room Bytes that the part may have. */
  function readPart({ ref, from, take }: WantedPart, offset: number, room: number): ReadPart {
    const length = Math.min(take, room);
    const ended = (status: number, high = 0, low = 0): ReadPart => {
      return { status, high, low, offset, length: status === STATUS.SUCCESS ? length : 0 };
    };
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const resolved = access.resolve(ref, ACCESS.READ);
      if (resolved !== STATUS.SUCCESS) return ended(resolved);
      if (from + take > ref.length) return ended(STATUS.OUT_OF_BOUNDS);
      const { cell } = access;
      const high = cell === 0 ? 0 : Atomics.load(i32, cell + VERSION_HIGH);
      const low = cell === 0 ? 0 : Atomics.load(i32, cell + VERSION_LOW);
      const status = verbs.read({ ...ref, address: ref.address + from, length }, scratch, offset);
      if (status !== STATUS.SUCCESS) return ended(status);
      // The verb has read one version; it is the one that was noted if that is there still.
      const same = Atomics.load(i32, cell + VERSION_LOW) === low && Atomics.load(i32, cell + VERSION_HIGH) === high;
      if (cell === 0 || (same && (low & 1) === 0)) return ended(status, high, low);
    }
    return ended(STATUS.RETRY_EXCEEDED);
  }

  function read(request: EngineRequest, reply: EngineReply): void {
    const { parts, mostBytes } = readReadRequest(request);
    const most = Math.min(mostBytes, reply.limitBytes, MAX_READ_REPLY_BYTES);
    const headBytes = readReplyBytes(parts.length);
    if (headBytes + 8 > most)
      throw new ShardloomError("ERR_RECORD_TOO_LARGE", `Cannot read ${parts.length} ranges as ${most} bytes must do`, {
        details: { ranges: parts.length, mostBytes: most },
      });
    const room = (most - headBytes) & ~7;
    if (scratch.length < room) scratch = new Uint8Array(room);
    let end = 0;
    const read = parts.map((part) => {
      const done = readPart(part, end, room - end);
      scratch.fill(0, end + done.length, end + padded(done.length));
      end += padded(done.length);
      return done;
    });
    reply.claim(headBytes + end);
    writeReadReply(reply, reply.offset, read, scratch, end);
  }

  return { handlers: new Map([[MEMORY_READ, read]]), close: () => undefined };
}
