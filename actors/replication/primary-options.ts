/**
 * What a primary works with.
 *
 * Invariant: no behaviour.
 */
import type { ArrivalsOptions } from "./arrivals.ts";
import type { CopiesOptions } from "./copies-options.ts";
import type { ReplicaLinkOptions } from "./replica-link-options.ts";
import type { WaitingAnswersOptions } from "./waiting-answers.ts";

/** What a primary works with. */
export interface PrimaryOptions
  extends CopiesOptions,
    Pick<ArrivalsOptions, "own">,
    Pick<WaitingAnswersOptions, "lease">,
    Pick<ReplicaLinkOptions, "clock" | "scheduler" | "requestTimeoutMs" | "requester"> {
  readonly incarnation: number;
  /** Copies that writes ask for which do not say: what a predecessor left must have as many before strong reads show it. */
  readonly acks: number;
  /** Bytes of all logs of this shard; a copy that lacks more gets a snapshot. @default 64 MiB */
  readonly logBytes?: number;
  /** Entries of each vshard's log. @default 4096 */
  readonly logEntries?: number;
  /** A vshard is here: all that was acknowledged of it is. */
  readonly onLevel?: (vshard: number) => void;
  /** Whether the shard's log has the rows that were here of a vshard. @default it has */
  readonly isLogged?: (vshard: number) => boolean;
  /**
   * Position from which on the shard's log has the rows of a vshard that were here before: a predecessor's, or what came from copies; infinity: it
   * does not take them yet. @default 0: it has them
   */
  readonly loggedAt?: (vshard: number) => number;
  /** A vshard came back from its copies: its rows, as of an LSN, are not in the shard's log. */
  readonly onRefilled?: (vshard: number, lsn: number) => void;
}
