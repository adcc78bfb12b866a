/**
 * What a shard has to tell the owners of its ghosts: the newest number of references of each, until it is acknowledged.
 *
 * Invariant: at most one message to an owner is under way, of at most {@link MAX_CHANGES} changes; one that fails is sent again, later. As
 * counts are absolute and numbered, an owner that gets one twice, or an old one late, is not misled.
 */
import type { VertexKey } from "../vertex-key.ts";
import type { GhostChange } from "./ghost-holders.ts";

const MAX_CHANGES = 256;
const RETRY_MS = 100;

/** Sends changes of one kind to an owner; must settle, by its own deadline at the latest. */
export type SendGhostChanges = (
  owner: number,
  kind: "create" | "delete",
  changes: readonly GhostChange[],
) => Promise<unknown>;

interface Waiting {
  readonly changes: Map<VertexKey, GhostChange>;
  underWay: boolean;
  notBeforeMs: number;
}

export class GhostNews {
  readonly #send: SendGhostChanges;
  readonly #owners: Map<number, Waiting> = new Map();
  #version = 0;

  constructor(send: SendGhostChanges) {
    this.#send = send;
  }

  /** Changes that are not acknowledged. */
  get size(): number {
    return [...this.#owners.values()].reduce((sum, { changes }) => sum + changes.size, 0);
  }

  /** This many edges of this shard lead to a vertex now. */
  add(owner: number, key: VertexKey, references: number): void {
    let waiting = this.#owners.get(owner);
    if (waiting === undefined) {
      waiting = { changes: new Map(), underWay: false, notBeforeMs: 0 };
      this.#owners.set(owner, waiting);
    }
    waiting.changes.set(key, { key, references, version: ++this.#version });
  }

  /** When there is something to send; infinity: nothing. */
  get dueAtMs(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const { changes, underWay, notBeforeMs } of this.#owners.values())
      if (changes.size > 0 && !underWay) least = Math.min(least, notBeforeMs);
    return least;
  }

  /** Sends what is due. @returns whether anything was */
  run(nowMs: number): boolean {
    let sent = false;
    for (const [owner, waiting] of this.#owners) {
      if (waiting.underWay || waiting.changes.size === 0 || waiting.notBeforeMs > nowMs) continue;
      sent = true;
      void this.#tell(owner, waiting, nowMs);
    }
    return sent;
  }

  async #tell(owner: number, waiting: Waiting, nowMs: number): Promise<void> {
    const [first] = waiting.changes.values() as Iterable<GhostChange> as [GhostChange];
    const isCreate = first.references > 0;
    const changes: GhostChange[] = [];
    for (const change of waiting.changes.values()) {
      if (changes.length === MAX_CHANGES) break;
      if (change.references > 0 === isCreate) changes.push(change);
    }
    waiting.underWay = true;
    try {
      await this.#send(owner, isCreate ? "create" : "delete", changes);
      for (const change of changes) if (waiting.changes.get(change.key) === change) waiting.changes.delete(change.key);
    } catch {
      waiting.notBeforeMs = nowMs + RETRY_MS; // the owner is being replaced, or busy: it is told later
    } finally {
      waiting.underWay = false;
    }
  }
}
