/**
 * The copies that a shard holds of other shards' vshards: takes entries and snapshots from their primaries and applies them.
 *
 * ```
 *  UNKNOWN ──snapshot begins──▶ RESTORING ──it ends──▶ REPLAYING ──its last LSN applied──▶ VALID
 *     any ──another snapshot begins──▶ RESTORING                      VALID ──next entry──▶ VALID
 * ```
 *
 * Invariant: entries are applied in the order of their LSNs, without gaps; what comes twice is applied once. Only a VALID copy says in
 * the replica table what it has applied, so a successor never trusts rows that were half filled. What a worker that died had applied of
 * the next entry stays with its rows: they are the primary's as well, and the entry is applied again. Of every copy it is known, also
 * while it is filled, which LSN no row of it is behind: so much a primary that has lost its memory gets from it.
 *
 * A shard may be primary of a vshard in one term and hold a copy in the next. What is known of a copy is of one term: then it is made out
 * anew. Whoever is heard in a newer map than is known here is believed, and from then on nobody with an older one is.
 */
import { ShardloomError } from "../../src/errors.ts";
import { encodeEndLsn, LOG_ENTRY, type LogEntryKind, type ShardLogEntry } from "../../src/store/log.ts";
import { nodeIncarnationOf } from "../../src/topology/member.ts";
import { holdsCopy, isGiven } from "../../src/topology/snapshot.ts";
import { REPLICA_APPEND, REPLICA_FETCH, REPLICA_SNAPSHOT, REPLICA_STATUS } from "../../src/wire/message-types.ts";
import type {
  EngineHandler,
  EngineReply,
  EngineRequest,
  HeldReply,
  ReceivedEffect,
  ReplicatedEngine,
  SnapshotPart,
} from "../engine.ts";
import { partsOf } from "../snapshot-parts.ts";
import type { CopiesOptions, OwnCopy } from "./copies-options.ts";
import { Fences, refused } from "./fences.ts";
import {
  answerCopies,
  answerFetched,
  COPY,
  type CopyState,
  type CopyStatus,
  copiesBytes,
  MESSAGE_OVERHEAD_BYTES,
  PART,
  type ReceivedChunk,
  type ReceivedEntry,
  readAppend,
  readAskedCopies,
  readFetch,
  readSnapshot,
  readSource,
  writeCopies,
} from "./replica-messages.ts";
import { notLogged } from "./waiting-answers.ts";

/** What a primary without memory is being given. */
interface Fetch {
  readonly transfer: number;
  readonly next: () => SnapshotPart | undefined;
  sequence: number;
}

/** An answer that waits for the log. */
interface WaitingAnswer {
  readonly position: number;
  readonly copies: readonly CopyStatus[];
  readonly held: HeldReply;
}

const EMPTY: Uint8Array = new Uint8Array(0);
/** What the log takes for an entry besides its body, about. */
const ENTRY_BYTES = 256;
const NOTHING = { leaseEpoch: 0, type: 0, collection: 0, body: EMPTY, idempotencyKey: "", result: EMPTY } as const;

interface Copy {
  state: CopyState;
  /** The last entry that was applied; while that is not known the LSN that no row is behind, or -1. */
  lsn: number;
  /** LSN from which a replaying copy is whole. */
  endLsn: number;
  transfer: number;
  sequence: number;
  /** Its rows are those of its LSN and of nothing later: what a worker that died left may be more. */
  exact: boolean;
  /** Term of the vshard that this is of. */
  term: number;
  /** The head of its primary when that asked last; -1: it has not. */
  head: number;
}

export class Copies {
  readonly handlers: ReadonlyMap<number, EngineHandler>;
  readonly #options: CopiesOptions;
  readonly #copies: Map<number, Copy> = new Map();
  readonly #engines: Map<number, ReplicatedEngine> = new Map();
  /** By vshard. */
  readonly #fetches: Map<number, Fetch> = new Map();
  #waiting: WaitingAnswer[] = [];
  /** Newest worker of each primary's shard that was heard of. */
  readonly #incarnations: Map<number, number> = new Map();
  readonly #fences: Fences;
  /** Vshards that have been level with their primary in this life, or had this one as it. */
  readonly #level: Set<number> = new Set();

  constructor(options: CopiesOptions) {
    this.#options = options;
    this.#fences = new Fences(options.shard);
    for (const engine of options.engines) for (const type of engine.types) this.#engines.set(type, engine);
    this.handlers = new Map<number, EngineHandler>([
      [REPLICA_APPEND, (request, reply) => this.#answer(reply, this.#append(request))],
      [REPLICA_STATUS, (request, reply) => this.#answer(reply, this.#status(request))],
      [REPLICA_SNAPSHOT, (request, reply) => this.#answer(reply, [this.#snapshot(request)])],
      [REPLICA_FETCH, (request, reply) => this.#fetch(request, reply)],
    ]);
    if (nodeIncarnationOf(options.incarnation) === 1) this.#claimEmpty();
  }

  /** A copy of a vshard that was never written to has all of it; in the first life of a node none was written to before. */
  #claimEmpty(): void {
    const { shard, topology, table } = this.#options;
    const snapshot = topology.current();
    if (snapshot.replicationFactor === 1) return;
    for (let vshard = 0; vshard < snapshot.vshards; vshard++) {
      if (!holdsCopy(snapshot, shard, vshard) || snapshot.owners[vshard] === shard) continue;
      if (isGiven(snapshot, shard, vshard)) continue; // it may have been written to before it was this shard's to hold
      const empty = table.recoverHead(vshard) === 0 && table.appliedLsn(vshard, shard) < 0;
      if (empty && !table.isSyncing(vshard, shard)) table.publishApplied(vshard, shard, 0, 0);
    }
  }

  /** The shard's log has come further, or has failed. */
  logChanged(): void {
    const { log } = this.#options;
    const { durable = 0, failure } = log ?? {};
    let done = 0;
    while (done < this.#waiting.length) {
      const { position, copies, held } = this.#waiting[done] as WaitingAnswer;
      if (position <= durable) held.send(copiesBytes(copies), (memory, offset) => writeCopies(memory, offset, copies));
      else if (failure !== undefined) held.fail(failure);
      else break;
      done++;
    }
    if (done > 0) this.#waiting = this.#waiting.slice(done);
  }

  /** Tells what copies have. A primary on another node is told so when it is durable here. */
  #answer(reply: EngineReply, copies: readonly CopyStatus[]): void {
    const { log, isRemote, loggedAt, shard } = this.#options;
    const counts = copies.filter(({ vshard }) => isRemote?.(vshard) === true);
    if (counts.some(({ vshard }) => loggedAt?.(vshard) === Number.POSITIVE_INFINITY)) throw notLogged(shard);
    const waits = log !== undefined && log.durable < log.head && counts.length > 0;
    const held = waits ? reply.hold() : undefined;
    if (held === undefined) answerCopies(reply, copies);
    else this.#waiting.push({ position: log?.head ?? 0, copies, held });
  }

  /** Throws what would keep the log from taking what a message brings, before anything is changed. */
  #assertRoom({ length }: EngineRequest): void {
    this.#options.log?.assertRoom(length + ENTRY_BYTES);
  }

  /** What this shard has of a vshard that is its own now: what it had as a copy, or as primary of an earlier term. */
  own(vshard: number): OwnCopy {
    const { table, shard, topology } = this.#options;
    const { exact, state, lsn } = this.#copy(vshard);
    this.#copies.delete(vshard);
    const floor = table.floorLsn(vshard, shard);
    const isFenced = this.#fences.isAhead(vshard, topology.current());
    return {
      lsn: floor,
      exact: exact && state === COPY.VALID && lsn === floor,
      isFenced,
      isUnsure: this.#isUnsure(vshard),
    };
  }

  /** All that was acknowledged of a vshard is here: by this shard as its primary, or as a copy. */
  noteLevel(vshard: number): void {
    this.#level.add(vshard);
  }

  #isUnsure(vshard: number): boolean {
    return this.#options.forgets === true && !this.#level.has(vshard);
  }

  #append(request: EngineRequest): CopyStatus[] {
    this.#assertSource(request);
    this.#assertRoom(request);
    const logged: ShardLogEntry[] = [];
    try {
      return this.#applyEntries(request, logged);
    } finally {
      // What was applied before one of them failed is applied. A primary of this node does not wait for it, as it has its own log.
      const lazy = !logged.some(({ vshard }) => this.#options.isRemote?.(vshard) === true);
      if (logged.length > 0) this.#options.log?.append(logged, { lazy });
    }
  }

  #applyEntries(request: EngineRequest, logged: ShardLogEntry[]): CopyStatus[] {
    const touched = new Set<number>();
    const stuck = new Set<number>();
    readAppend(request, (entry) => {
      const { vshard } = entry;
      this.#assertPrimary(request, vshard, APPEND_MAP);
      touched.add(vshard);
      if (!stuck.has(vshard) && !whenOpen(() => this.#applyNext(entry, logged))) stuck.add(vshard);
    });
    return Array.from(touched, (vshard) => this.#statusOf(vshard));
  }

  #applyNext(entry: ReceivedEntry, logged: ShardLogEntry[]): void {
    const { shard, table } = this.#options;
    const copy = this.#copy(entry.vshard);
    if ((copy.state !== COPY.VALID && copy.state !== COPY.REPLAYING) || entry.lsn !== copy.lsn + 1) return;
    if (entry.length > 0) this.#apply(entry); // nothing: its collection was dropped on the primary
    copy.lsn = entry.lsn;
    copy.exact = true;
    if (copy.lsn === copy.head) this.noteLevel(entry.vshard);
    if (this.#options.log !== undefined) logged.push(effectOf(entry, LOG_ENTRY.EFFECT, entry.lsn));
    if (copy.state === COPY.REPLAYING && copy.lsn >= copy.endLsn) copy.state = COPY.VALID;
    if (copy.state === COPY.VALID) table.publishApplied(entry.vshard, shard, copy.lsn, entry.atMs);
  }

  #status(request: EngineRequest): CopyStatus[] {
    this.#assertSource(request);
    const asked = readAskedCopies(request);
    this.#assertRoom(request);
    for (const { vshard } of asked) this.#assertPrimary(request, vshard, STATUS_MAP);
    for (const { vshard, from, to, head } of asked) {
      const copy = this.#copy(vshard);
      if (to > from && copy.state === COPY.VALID && copy.exact && copy.lsn === from) this.#rebase(vshard, copy, to);
      copy.head = head;
      if (copy.state === COPY.VALID && copy.lsn === head) this.noteLevel(vshard);
    }
    return asked.map(({ vshard }) => this.#statusOf(vshard));
  }

  /** What the copy has stands for another LSN from now on. */
  #rebase(vshard: number, copy: Copy, lsn: number): void {
    const { shard, table, log } = this.#options;
    copy.lsn = lsn;
    table.publishApplied(vshard, shard, lsn, Number.NEGATIVE_INFINITY);
    log?.append([{ ...NOTHING, kind: LOG_ENTRY.EFFECT, vshard, lsn }]);
  }

  #snapshot(request: EngineRequest): CopyStatus {
    this.#assertSource(request);
    const chunk = readSnapshot(request);
    this.#assertPrimary(request, chunk.vshard, SNAPSHOT_MAP);
    this.#assertRoom(request);
    const copy = this.#copy(chunk.vshard);
    if (chunk.part === PART.BEGIN) {
      this.#begin(copy, chunk);
    } else if (copy.state === COPY.RESTORING && copy.transfer === chunk.transfer && copy.sequence === chunk.sequence) {
      if (chunk.part !== PART.BODY) this.#end(copy, chunk);
      else if (!whenOpen(() => this.#apply(chunk))) return { vshard: chunk.vshard, state: COPY.UNKNOWN, lsn: 0 };
      else if (this.#options.log !== undefined) this.#options.log.append([effectOf(chunk, LOG_ENTRY.RESTORE_PART, 0)]);
    } else {
      // A part of a transfer that this worker knows nothing of: the primary begins again.
      return { vshard: chunk.vshard, state: COPY.UNKNOWN, lsn: 0 };
    }
    copy.sequence++;
    return this.#statusOf(chunk.vshard);
  }

  #begin(copy: Copy, { vshard, transfer }: ReceivedChunk): void {
    const { shard, table, engines, log } = this.#options;
    table.publishSyncing(vshard, shard, copy.lsn); // before the first row changes; none will be behind what it is now
    log?.append([{ ...NOTHING, kind: LOG_ENTRY.RESTORE_BEGIN, vshard, lsn: copy.lsn }]);
    copy.state = COPY.RESTORING;
    copy.transfer = transfer;
    copy.sequence = 0;
    for (const engine of engines) engine.beginRestore(vshard);
  }

  #end(copy: Copy, { vshard, startLsn, endLsn }: ReceivedChunk): void {
    const { shard, table, engines, log } = this.#options;
    for (const engine of engines) engine.endRestore(vshard);
    log?.append([{ ...NOTHING, kind: LOG_ENTRY.RESTORE_END, vshard, lsn: startLsn, body: encodeEndLsn(endLsn) }]);
    copy.lsn = startLsn;
    copy.endLsn = endLsn;
    this.noteLevel(vshard);
    copy.exact = true;
    copy.state = startLsn >= endLsn ? COPY.VALID : COPY.REPLAYING;
    // Nobody told when that was appended, and what it lacks may be older than this moment.
    if (copy.state === COPY.VALID) table.publishApplied(vshard, shard, copy.lsn, 0);
    else table.publishSyncing(vshard, shard, copy.lsn);
  }

  /** Gives what a copy holds, whatever state it is in, to its primary, whose memory is gone. */
  #fetch(request: EngineRequest, reply: EngineReply): void {
    this.#assertSource(request);
    const wanted = readFetch(request);
    const { vshard, transfer, sequence } = wanted;
    this.#assertPrimary(request, vshard, FETCH_MAP);
    if (sequence === 0) {
      const next = partsOf(this.#options.engines, vshard, reply.limitBytes - MESSAGE_OVERHEAD_BYTES);
      this.#fetches.set(vshard, { transfer, next, sequence: 0 });
    }
    const fetch = this.#fetches.get(vshard);
    if (fetch === undefined || fetch.transfer !== transfer || fetch.sequence !== sequence)
      throw refused(`part ${sequence} of transfer ${transfer} must be the next`, fetch?.sequence);
    fetch.sequence++;
    const part = fetch.next();
    if (part === undefined) this.#fetches.delete(vshard);
    const { lsn } = this.#copy(vshard);
    const { type = 0, collection = 0, body = EMPTY } = part ?? {};
    const kind = part === undefined ? PART.END : PART.BODY;
    answerFetched(reply, { ...wanted, part: kind, lsn, type, collection }, body);
  }

  #apply(effect: ReceivedEffect): void {
    const engine = this.#engines.get(effect.type);
    if (engine === undefined) {
      throw new ShardloomError("ERR_UNKNOWN_MESSAGE", `Cannot apply effect as type ${effect.type} has no engine`);
    }
    engine.apply(effect);
  }

  #statusOf(vshard: number): CopyStatus {
    const { state, lsn } = this.#copy(vshard);
    return this.#isUnsure(vshard) ? { vshard, state, lsn, isUnsure: true } : { vshard, state, lsn };
  }

  /** What is known of a copy; of a predecessor's, what the table says. */
  #copy(vshard: number): Copy {
    const { table, shard, topology } = this.#options;
    const term = topology.current().terms[vshard] as number;
    const known = this.#copies.get(vshard);
    if (known !== undefined && known.term === term) return known;
    const lsn = table.floorLsn(vshard, shard);
    // As primary it may have begun more than it has applied; that is nobody's any more.
    const isWhole = table.appliedLsn(vshard, shard) >= 0 && table.headBy(vshard, shard) <= lsn;
    const copy: Copy = {
      state: isWhole ? COPY.VALID : COPY.UNKNOWN,
      lsn,
      endLsn: 0,
      transfer: -1,
      sequence: 0,
      exact: isWhole && (known === undefined ? this.#options.isFresh === true : isExactAt(known, lsn)),
      term,
      head: -1,
    };
    this.#copies.set(vshard, copy);
    return copy;
  }

  /** Refuses what a primary's worker sent before it was replaced. */
  #assertSource(request: EngineRequest): void {
    const { shard, incarnation } = readSource(request);
    const newest = this.#incarnations.get(shard) ?? 0;
    if (incarnation < newest) throw refused(`its sender must be worker ${newest} of shard ${shard}`, incarnation);
    this.#incarnations.set(shard, incarnation);
  }

  /** @param mapWord Where the message has the version of the map */
  #assertPrimary(request: EngineRequest, vshard: number, mapWord: number): void {
    const snapshot = this.#options.topology.current();
    const { shard } = readSource(request);
    const mapVersion = request.i32[(request.offset >>> 2) + mapWord] as number;
    this.#fences.assertNewest(vshard, shard, mapVersion, snapshot);
    if (!holdsCopy(snapshot, this.#options.shard, vshard))
      throw refused(`shard ${this.#options.shard} must hold a copy of vshard ${vshard}`, snapshot.topologyEpoch);
  }
}

/** Words of messages with the version of the map, see replica-messages.ts. */
const APPEND_MAP = 3;
const STATUS_MAP = 3;
const FETCH_MAP = 5;
const SNAPSHOT_MAP = 13;

function effectOf(
  { vshard, type, collection, bytes, offset, length }: ReceivedEffect,
  kind: LogEntryKind,
  lsn: number,
): ShardLogEntry {
  return { ...NOTHING, kind, vshard, lsn, type, collection, body: bytes.slice(offset, offset + length) };
}

/** @returns false when the collection of an effect is not open here yet: its vshard has to wait for that, and no other one */
function whenOpen(apply: () => void): boolean {
  try {
    apply();
    return true;
  } catch (error) {
    if (ShardloomError.is(error) && error.code === "ERR_UNKNOWN_COLLECTION") return false;
    throw error;
  }
}

function isExactAt({ exact, state, lsn }: Copy, at: number): boolean {
  return exact && state === COPY.VALID && lsn === at;
}
