/**
 * The words of the simulated network: messages, rules and their verdicts, options, and what is counted and recorded.
 *
 * Invariant: a rule sees a packet before anything happens to it and decides all that happens; it changes nothing itself.
 * Source: turmoil-net `rule.rs` (`Rule` → `Verdict`). Divergence: verdicts also duplicate, corrupt and hold.
 */
import { invalidArgument } from "../errors.ts";

/** `dial`, `accept`, `close` and `reset` belong to connections, as `frame` does. */
export type MessageKind = "dial" | "accept" | "frame" | "close" | "reset" | "datagram";

/** A packet that is about to travel. */
export interface NetworkMessage {
  readonly from: string;
  readonly to: string;
  readonly kind: MessageKind;
  /** What a frame or datagram carries; empty for the rest. Not to be changed. */
  readonly data: Uint8Array;
  /** 0 for the first try; packets of connections are sent again when they are lost. */
  readonly attempt: number;
}

/** What becomes of a packet. */
export type Verdict =
  | { readonly kind: "pass" }
  /** Arrives later than it would by so much. */
  | { readonly kind: "deliver"; readonly delayMs: number }
  | { readonly kind: "drop" }
  /** A datagram arrives once more, so much later; a connection has use for the first only. */
  | { readonly kind: "duplicate"; readonly delayMs: number }
  /** One bit is flipped; `at` in `[0, 1)` says which. What is no frame or datagram is dropped instead. */
  | { readonly kind: "corrupt"; readonly at: number }
  /** Waits until its rule is uninstalled, and is judged again then. */
  | { readonly kind: "hold" };

/** Decides about a packet. Called again for each try. */
export type Rule = (message: NetworkMessage) => Verdict;

/** Takes a rule back. */
export interface RuleGuard {
  /** Packets that the rule holds go on. Idempotent. */
  uninstall(): void;
}

export const PASS: Verdict = { kind: "pass" };
export const DROP: Verdict = { kind: "drop" };
export const HOLD: Verdict = { kind: "hold" };

export interface NetworkOptions {
  /** Time of every packet on its way, in µs. @default 200 */
  readonly baseLatencyUs?: number;
  /** Mean of what comes on top, exponentially distributed, in µs. @default 100 */
  readonly jitterUs?: number;
  /** Bytes per second of a link; packets queue for it. @default unlimited */
  readonly bytesPerSecond?: number;
  /** After this time without an answer a connection closes on both sides. @default 5000 */
  readonly idleLimitMs?: number;
  /** After this time a dial that nobody answers fails. @default 3000 */
  readonly dialTimeoutMs?: number;
  /** First wait before a lost packet of a connection is sent again; it doubles, up to a second. @default 100 */
  readonly retransmitMs?: number;
  /** Packets that are kept for the timeline, the latest ones; 0 keeps none. @default 20000 */
  readonly recordLimit?: number;
}

export type ResolvedNetworkOptions = Required<NetworkOptions>;

const DEFAULTS: ResolvedNetworkOptions = {
  baseLatencyUs: 200,
  jitterUs: 100,
  bytesPerSecond: Number.POSITIVE_INFINITY,
  idleLimitMs: 5000,
  dialTimeoutMs: 3000,
  retransmitMs: 100,
  recordLimit: 20_000,
};

/** Below this a number makes no sense: a link needs bandwidth, a limit some time. */
const LOWEST: ResolvedNetworkOptions = {
  baseLatencyUs: 0,
  jitterUs: 0,
  bytesPerSecond: 1,
  idleLimitMs: 1,
  dialTimeoutMs: 1,
  retransmitMs: 1,
  recordLimit: 0,
};

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the field. */
export function resolveNetworkOptions(options: NetworkOptions): ResolvedNetworkOptions {
  const resolved = { ...DEFAULTS, ...options };
  for (const name of Object.keys(DEFAULTS) as (keyof ResolvedNetworkOptions)[]) {
    const value = resolved[name];
    const isUnlimited = name === "bytesPerSecond" && value === Number.POSITIVE_INFINITY;
    if (isUnlimited || (Number.isFinite(value) && value >= LOWEST[name])) continue;
    throw invalidArgument("create network", name, `a finite number, at least ${LOWEST[name]}`, value);
  }
  return resolved;
}

/** What happened on one link, in one direction, since the world began. Tries count, not messages. */
export interface LinkCounters {
  readonly from: string;
  readonly to: string;
  readonly sent: number;
  readonly delivered: number;
  readonly dropped: number;
  readonly delayed: number;
  readonly duplicated: number;
  readonly corrupted: number;
  readonly held: number;
  readonly sentBytes: number;
}

/** `flying`: it had not arrived when the record was read. */
export type MessageOutcome = "flying" | "delivered" | "dropped" | "held";

/** One packet, for a timeline. */
export interface MessageRecord {
  readonly sentUs: number;
  /** When it arrived or was dropped; −1 before. */
  readonly endedUs: number;
  readonly from: string;
  readonly to: string;
  readonly kind: MessageKind;
  readonly bytes: number;
  readonly outcome: MessageOutcome;
}
