/**
 * Reads of the registered memory of a shard, wherever it is: by the verbs where it is this process's, else by messages to the shard's worker.
 *
 * Invariant: a read ends in the same status by either way, and says by which. After any other status than SUCCESS its target is as it was, or zero.
 * A range of a cell is of one version, also where it took several messages. What is no matter of the memory (nobody answers, no time is left)
 * rejects, and says nothing of any range.
 * Source: RDMA READ; where there is no network card that could, a message to who has the memory, as FaRM and Storm do when a one-sided read fails.
 * Divergence: atomics and writes do not go by message.
 */
import type { Completion } from "../native-bridge/completion-queue.ts";
import type { RegionRef } from "../native-bridge/region-layout.ts";
import { STATUS, statusName } from "../native-bridge/status.ts";
import type { Verbs } from "../native-bridge/verbs.ts";
import type { LocalView } from "../native-bridge/word-copy.ts";
import { OPCODE, type WorkRequest } from "../native-bridge/work-request.ts";
import { ShardloomError } from "../src/errors.ts";
import type { Payload, ReplyFrame } from "../src/routing/requester.ts";
import { VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import { MEMORY_READ } from "../src/wire/message-types.ts";
import type { CallOptions } from "./call-options.ts";
import type { Coordinator } from "./coordinator.ts";
import {
  LEAST_READ_REPLY_BYTES,
  MAX_RANGES,
  MAX_READ_REPLY_BYTES,
  padded,
  READ_ENTRY_BYTES,
  READ_HEADER_BYTES,
  READ_RANGE_BYTES,
  readReadReply,
  readRequestBytes,
  type WantedPart,
  writeReadRequest,
} from "./memory-messages.ts";

/** How memory was read: in place, or by its shard's worker. */
export type ReadWay = "one-sided" | "message";

/** How one read ended. */
export interface ShardRead {
  /** One of STATUS; bytes are in the target after SUCCESS alone. */
  readonly status: number;
  readonly by: ReadWay;
}

/** How a list of reads ended. */
export interface ShardReads {
  /** In the order of the requests. */
  readonly completions: readonly Completion[];
  /** `message` when any of them took one. */
  readonly by: ReadWay;
  readonly messages: number;
}

/** What a reader is made from. */
export interface ShardReaderParts {
  readonly shard: number;
  /** For memory of this process; undefined: it is another's. */
  readonly verbs: Verbs | undefined;
  readonly coordinator: Coordinator;
}

/** One range on its way by message. */
interface Range {
  readonly ref: RegionRef;
  /** Where it is to be, as far as there is room. @default memory of its own */
  readonly target: { readonly room: Uint8Array | undefined } | undefined;
  got: Uint8Array | undefined;
  from: number;
  high: number;
  low: number;
  restarts: number;
  status: number | undefined;
}

/** Beginnings of a range whose cell changes between its parts. */
const RESTARTS = 8;

export class ShardReader {
  readonly shard: number;
  readonly #parts: ShardReaderParts;
  /** What replies may have: less where one did not fit. */
  #mostBytes = MAX_READ_REPLY_BYTES;

  constructor(parts: ShardReaderParts) {
    this.shard = parts.shard;
    this.#parts = parts;
  }

  /** How this thread reads the shard's memory. A cell that is being written at every attempt is asked for by message all the same. */
  get by(): ReadWay {
    return this.#parts.verbs === undefined ? "message" : "one-sided";
  }

  /**
   * Copies a range out, as `Verbs.read` does.
   *
   * @param targetOffset In elements of `target`.
   * @throws {ShardloomError} What calls end in: `ERR_TIMEOUT`, `ERR_WORKER_LOST`, `ERR_UNAVAILABLE`, `ERR_ABORTED` ….
   */
  async read(
    ref: RegionRef,
    target: LocalView,
    targetOffset: number = 0,
    options: CallOptions = {},
  ): Promise<ShardRead> {
    const request = { id: 0, opcode: OPCODE.READ, ref, local: target, localOffset: targetOffset };
    const { completions, by } = await this.post([request], options);
    return { status: completions[0]?.status ?? STATUS.INVALID_REQUEST, by };
  }

  /**
   * The bytes of a range.
   *
   * @throws {ShardloomError} `ERR_REGION_ACCESS` with the status and the reference in `details`; and as {@link read}.
   */
  async bytes(ref: RegionRef, options: CallOptions = {}): Promise<Uint8Array> {
    const range = this.#rangeOf(ref, undefined);
    if (this.#parts.verbs !== undefined) {
      // Nothing is read, but the reference is looked at: its length may be any.
      const looked = this.#parts.verbs.beginInPlace(ref);
      range.status = looked === STATUS.RETRY_EXCEEDED ? undefined : looked;
      if (looked === STATUS.SUCCESS) {
        range.got = new Uint8Array(ref.length);
        range.status = undecided(this.#parts.verbs.read(ref, range.got));
      }
    }
    const messages = await this.#ask(range.status === undefined ? [range] : [], options);
    if (range.status === STATUS.SUCCESS && range.got !== undefined) return range.got;
    throw accessError(this.shard, ref, range.status ?? STATUS.INVALID_REQUEST, messages > 0 ? "message" : "one-sided");
  }

  /** A list of reads; by message they go together, as many to a message as fit. What is no READ ends in INVALID_REQUEST. */
  async post(requests: readonly WorkRequest[], options: CallOptions = {}): Promise<ShardReads> {
    const { verbs } = this.#parts;
    const asked: Range[] = [];
    const ends = requests.map((request): { readonly status: number } | Range => {
      if (!isRead(request)) return { status: STATUS.INVALID_REQUEST };
      const { ref, local, localOffset = 0 } = request;
      const status = verbs === undefined ? undefined : undecided(verbs.read(ref, local, localOffset));
      if (status !== undefined) return { status };
      const range = this.#rangeOf(ref, { room: roomIn(local, localOffset) });
      asked.push(range);
      return range;
    });
    const messages = await this.#ask(asked, options);
    const completions = ends.map(({ status = STATUS.INVALID_REQUEST }, at): Completion => {
      const { id, opcode, ref } = (requests[at] ?? {}) as WorkRequest;
      return { id, opcode, status, byteLength: status === STATUS.SUCCESS ? ref.length : 0, value: 0 };
    });
    return { completions, by: messages > 0 ? "message" : "one-sided", messages };
  }

  #rangeOf(ref: RegionRef, target: Range["target"]): Range {
    return { ref: { ...ref }, target, got: undefined, from: 0, high: 0, low: 0, restarts: 0, status: undefined };
  }

  /** Asks until every range has a status. @returns how many messages that took */
  async #ask(ranges: readonly Range[], options: CallOptions): Promise<number> {
    const { coordinator } = this.#parts;
    const deadlineAtMs = coordinator.deadlineAtMs(options);
    let messages = 0;
    for (let open = ranges; open.length > 0; open = open.filter(({ status }) => status === undefined)) {
      const timeoutMs = Math.max(0.001, deadlineAtMs - coordinator.nowMs());
      const list = this.#nextList(open);
      const wanted = list.map(({ part }) => part);
      const body = { parts: wanted, mostBytes: this.#mostBytes };
      const payload: Payload = {
        byteLength: readRequestBytes(wanted.length),
        write: (target, offset) => writeReadRequest(target, offset, body),
      };
      const take = (frame: ReplyFrame): void => {
        for (const [at, read] of readReadReply(frame, wanted).entries()) {
          const { range, part } = list[at] as { range: Range; part: WantedPart };
          if (at === 0 && read.status === STATUS.SUCCESS && read.length === 0 && part.take > 0) throw noProgress();
          takePart(range, part, read.status, read, frame.bytes.subarray(read.offset, read.offset + read.length));
        }
      };
      messages++;
      try {
        await coordinator.ask(this.shard, MEMORY_READ, VSHARD_LISTED, payload, take, { ...options, timeoutMs });
      } catch (error) {
        if (!this.#fitsLess(error)) throw error;
      }
    }
    return messages;
  }

  /** The next part of each range, as far as one message has room. */
  #nextList(open: readonly Range[]): { readonly range: Range; readonly part: WantedPart }[] {
    const { maxPayloadBytes } = this.#parts.coordinator.requester(this.shard);
    const most = Math.min(MAX_RANGES, Math.floor((maxPayloadBytes - READ_HEADER_BYTES) / READ_RANGE_BYTES));
    const list: { readonly range: Range; readonly part: WantedPart }[] = [];
    let room = this.#mostBytes - READ_HEADER_BYTES;
    for (const range of open) {
      room -= READ_ENTRY_BYTES;
      if (list.length === most || room < 8) break;
      // What is no length is refused there, and what has no place here is not fetched.
      const isWanted = range.ref.length >>> 0 === range.ref.length && hasRoom(range);
      const left = isWanted ? range.ref.length - range.from : 0;
      const take = Math.min(left, room & ~7);
      list.push({ range, part: { ref: range.ref, from: range.from, take } });
      room -= padded(take);
    }
    return list;
  }

  /** Whether less may do, after a reply did not fit a ring on its way. */
  #fitsLess(error: unknown): boolean {
    const isTooLarge = ShardloomError.is(error) && error.code === "ERR_RECORD_TOO_LARGE";
    if (!isTooLarge || this.#mostBytes <= LEAST_READ_REPLY_BYTES) return false;
    this.#mostBytes = Math.max(LEAST_READ_REPLY_BYTES, this.#mostBytes >>> 1);
    return true;
  }
}

/** Takes a part of a range, which ends with its last one. Parts of two versions are no state that the cell ever had. */
function takePart(
  range: Range,
  { ref, from }: WantedPart,
  status: number,
  version: { readonly high: number; readonly low: number },
  bytes: Uint8Array,
): void {
  if (status !== STATUS.SUCCESS) {
    range.status = status;
    return;
  }
  if (!hasRoom(range)) {
    range.status = STATUS.LOCAL_LENGTH_ERROR;
    return;
  }
  const { high, low } = version;
  if (from > 0 && (range.high !== high || range.low !== low)) {
    range.from = 0;
    if (++range.restarts > RESTARTS) range.status = STATUS.RETRY_EXCEEDED;
    return;
  }
  range.got ??= new Uint8Array(ref.length);
  range.high = high;
  range.low = low;
  range.got.set(bytes, from);
  range.from = from + bytes.length;
  if (range.from < ref.length) return;
  range.status = STATUS.SUCCESS;
  range.target?.room?.set(range.got);
}

function hasRoom({ ref, target }: Range): boolean {
  return target === undefined || (target.room?.length ?? -1) >= ref.length;
}

/** A cell that is being written at every attempt is asked for: its owner's worker does not write while it answers. */
function undecided(status: number): number | undefined {
  return status === STATUS.RETRY_EXCEEDED ? undefined : status;
}

function isRead(request: WorkRequest | null | undefined): request is WorkRequest & { readonly local: LocalView } {
  if (typeof request !== "object" || request === null || request.opcode !== OPCODE.READ) return false;
  const { ref, local } = request;
  return typeof ref === "object" && ref !== null && ArrayBuffer.isView(local) && !(local instanceof DataView);
}

/** What a view has from an element on; undefined where that is none. */
function roomIn(local: LocalView, offset: number): Uint8Array | undefined {
  const at = offset * local.BYTES_PER_ELEMENT;
  if (offset >>> 0 !== offset || at > local.byteLength) return undefined;
  return new Uint8Array(local.buffer, local.byteOffset + at, local.byteLength - at);
}

function accessError(shard: number, { address, rkey, length }: RegionRef, status: number, by: ReadWay): ShardloomError {
  return new ShardloomError(
    "ERR_REGION_ACCESS",
    `Cannot read ${length} bytes at ${address} of shard ${shard} as their key must open them: status is ${statusName(status)}`,
    { details: { shard, status: statusName(status), address, rkey, length, by } },
  );
}

function noProgress(): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    "Cannot read on as a reply must have bytes of the first range that it was asked for",
  );
}
