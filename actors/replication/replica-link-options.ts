/**
 * What the link from a primary to one shard that holds copies works with.
 *
 * Invariant: no behaviour.
 */
import type { Requester } from "../../src/routing/requester.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import type { LogEntry } from "../../src/store/log.ts";
import type { SnapshotPart } from "../engine.ts";
import type { OwnedVshard } from "./owned-vshard.ts";
import type { ReplicaSource } from "./replica-messages.ts";

/** The way to a peer. */
export type PeerRequester = Pick<Requester, "request" | "maxPayloadBytes">;

/** What a link works with. */
export interface ReplicaLinkOptions {
  readonly peer: number;
  readonly source: ReplicaSource;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly requestTimeoutMs: number;
  readonly requester: (shard: number) => PeerRequester | undefined;
  /** What a vshard holds, part by part. */
  readonly snapshot: (vshard: number) => () => SnapshotPart | undefined;
  /** Whether the collection of an entry is open on the primary. */
  readonly isOpen: (entry: LogEntry) => boolean;
  readonly onAcked: (owned: OwnedVshard, peer: number) => void;
}
