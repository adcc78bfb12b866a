/**
 * Keeps the documents of one shard up with its log: opens what there is, builds it anew from the newest snapshot where it does not fit, and
 * then applies what has become durable, batch by batch.
 *
 * Invariant: `applied` is never ahead of the log's durable position, and the documents are never ahead of what `applied` said before a crash
 * could take it back. Nothing here is needed by a write or a read: whatever fails is tried again later, or given up with its reason.
 */
import { ShardloomError } from "../src/errors.ts";
import type { DocumentStep } from "../src/store/document-batch.ts";
import { makeDocumentsDirectory, markClean, removeDocuments, unmark } from "../src/store/document-files.ts";
import { type DocumentsSource, fitsLog, openVetted, vetDocuments } from "../src/store/document-recovery.ts";
import type { Documents } from "../src/store/documents.ts";
import type { LogFrame } from "../src/store/log.ts";
import type { SnapshotTable } from "../src/store/snapshot-table.ts";
import { documentCodecOf } from "./document-codecs.ts";
import { stepsOf } from "./document-steps.ts";

/** Bytes of log in one transaction. */
export const BATCH_BYTES: number = 4 * 1024 * 1024;
/** Pauses after a failure that may pass: doubled each time. */
const RETRY_MS = { first: 500, longest: 60_000 } as const;

/** Frames of a shard's log, read from its files while its shard writes them. */
export interface FrameReader {
  /** At least one frame when there is one up to `upTo`; from the oldest on where earlier ones were truncated. */
  read(from: number, limitBytes: number, upTo: number): Promise<readonly LogFrame[]>;
  /** Position of the oldest frame that there is; 1 when there is none. */
  first(): Promise<number>;
  close(): Promise<void>;
}

/** A snapshot to build documents from. */
export interface FeedSnapshot {
  /** The log from here on makes it whole, when it is applied up to `endPosition` at least. */
  readonly position: number;
  readonly endPosition: number;
  readonly table: Uint8Array;
  parts(): AsyncIterable<{
    readonly vshard: number;
    readonly part: { readonly type: number; readonly collection: number; readonly body: Uint8Array };
  }>;
}

export interface FeedOptions extends DocumentsSource {
  readonly reader: FrameReader;
  /** The newest snapshot that the log makes whole. */
  readonly newestSnapshot: (log: { first: number; head: number }) => Promise<FeedSnapshot | undefined>;
  readonly readTable: (table: Uint8Array) => SnapshotTable;
  /** Up to where the shard's log is durable; 0 until that is known. */
  readonly durable: () => number;
  /** Told whenever documents are durable up to another position. */
  readonly onApplied: (position: number) => void;
  /** Collections that are open at the start; what earlier lives have left of others is removed. */
  readonly collections: ReadonlySet<number>;
  readonly nowMs: () => number;
}

/** What is left to do: something at once, nothing until the log goes on, or nothing for good. */
export type FeedState = "more" | "idle" | "failed";

export class DocumentFeed {
  readonly #options: FeedOptions;
  #documents: Documents | undefined;
  #vetted = false;
  #failure: ShardloomError | undefined;
  #isFinal = false;
  #retryMs: number = RETRY_MS.first;
  #retryAtMs = 0;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** Why the documents do not follow at present. */
  get failure(): ShardloomError | undefined {
    return this.#failure;
  }

  /** One batch. Never rejects. */
  async step(): Promise<FeedState> {
    if (this.#isFinal) return "failed";
    if (this.#options.nowMs() < this.#retryAtMs) return "idle";
    try {
      const more = this.#documents === undefined ? await this.#open() : await this.#apply(this.#documents);
      if (this.#documents !== undefined) this.#failure = undefined;
      return more ? "more" : "idle";
    } catch (error) {
      await this.#fail(ShardloomError.from(error));
      return this.#isFinal ? "failed" : "idle";
    }
  }

  /** Ends in order: the next life opens the documents as they are. */
  async close(): Promise<void> {
    const documents = this.#documents;
    this.#documents = undefined;
    this.#isFinal = true;
    documents?.close();
    if (documents !== undefined && documents.failure === undefined && !documents.meta.building)
      await markClean(this.#options);
    await this.#options.reader.close();
  }

  async #open(): Promise<boolean> {
    const { durable, reader } = this.#options;
    const head = durable();
    if (head === 0) return false;
    await makeDocumentsDirectory(this.#options);
    const isFirst = !this.#vetted;
    this.#vetted ||= await vetDocuments(this.#options);
    const first = await reader.first();
    if (this.#vetted) {
      await unmark(this.#options);
      const documents = await openVetted(this.#options, false);
      if (documents !== undefined && fitsLog(documents, { first, head })) return this.#begin(documents, isFirst);
      documents?.close();
    }
    return this.#build(first, head);
  }

  /** Builds the documents anew. @returns false when there is nothing yet to build them from */
  async #build(first: number, head: number): Promise<boolean> {
    await removeDocuments(this.#options);
    this.#vetted = true; // whatever is there from now on was written by this process
    const snapshot = await this.#options.newestSnapshot({ first, head });
    if (snapshot === undefined && first > 1) return false;
    const documents = await openVetted(this.#options, false);
    if (documents === undefined) return true;
    try {
      if (snapshot !== undefined) await this.#takeOver(documents, snapshot);
    } catch (error) {
      documents.close();
      await removeDocuments(this.#options);
      throw error;
    }
    return this.#begin(documents, false);
  }

  async #takeOver(documents: Documents, snapshot: FeedSnapshot): Promise<void> {
    const place = { position: snapshot.position - 1, index: 0 };
    let steps: DocumentStep[] = [];
    let bytes = 0;
    for await (const { vshard, part } of snapshot.parts()) {
      for (const change of documentCodecOf(part.type).changes(vshard, part.type, part.body))
        steps.push({ step: "document", place, change });
      bytes += part.body.length;
      if (bytes < BATCH_BYTES) continue;
      documents.apply(steps, { building: true });
      steps = [];
      bytes = 0;
    }
    const { vshards, keys } = this.#options.readTable(snapshot.table);
    for (const [vshard, { lsn, leaseEpoch, state }] of vshards) {
      // Where a restore began that goes on in the log, the snapshot does not say.
      const record = { lsn, leaseEpoch, state: state === "restoring" ? "unknown" : state } as const;
      steps.push({ step: "vshard", vshard, record });
    }
    for (const record of keys) steps.push({ step: "key", record });
    documents.apply(steps, {
      appliedPosition: place.position,
      wholeAt: snapshot.endPosition,
      building: false,
    });
  }

  /** @param isOld Whether they are of an earlier life: of what was dropped since, the log says nothing. */
  #begin(documents: Documents, isOld: boolean): true {
    try {
      if (isOld) documents.retain(this.#options.collections);
    } catch (error) {
      documents.close();
      throw error;
    }
    this.#documents = documents;
    this.#options.onApplied(documents.meta.appliedPosition);
    return true;
  }

  async #apply(documents: Documents): Promise<boolean> {
    const { reader, durable, onApplied } = this.#options;
    const upTo = durable();
    const from = documents.meta.appliedPosition + 1;
    if (from > upTo) return false;
    const frames = await reader.read(from, BATCH_BYTES, upTo);
    const last = frames.at(-1);
    if (frames[0] === undefined || last === undefined) return false;
    if (frames[0].position !== from) {
      // The log was truncated ahead of the documents: the snapshot that allowed it has what is missing.
      this.#close(documents);
      return this.#build(await reader.first(), upTo);
    }
    documents.apply(stepsOf(frames, documents.vshards), { appliedPosition: last.position });
    onApplied(last.position);
    this.#retryMs = RETRY_MS.first;
    return last.position < durable();
  }

  #close(documents: Documents): void {
    this.#documents = undefined;
    documents.close();
  }

  async #fail(error: ShardloomError): Promise<void> {
    const { nowMs } = this.#options;
    const documents = this.#documents;
    this.#failure = error;
    this.#retryAtMs = nowMs() + this.#retryMs;
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS.longest);
    if (documents !== undefined) this.#close(documents);
    if (documents?.failure?.code === "ERR_CORRUPT") {
      // Not the log: what is stored was found to be damaged. It is built anew.
      await removeDocuments(this.#options).catch(() => undefined); // then the next attempt fails of it
      return;
    }
    this.#isFinal = LASTING.has(error.code);
  }
}

/** Failures that no later attempt can pass. Others may: also of a log that its shard has not written as far as it says. */
const LASTING: ReadonlySet<string> = new Set(["ERR_UNSUPPORTED_FORMAT", "ERR_UNKNOWN_MESSAGE", "ERR_RECORD_TOO_LARGE"]);
