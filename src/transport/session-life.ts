/**
 * From the first byte to the last: the two promises of a session and what they settle with.
 *
 * Invariant: `ready` settles before `closed` does, each once. A session that closes before it was ready was never ready.
 */
import { type ErrorCode, ShardloomError } from "../errors.ts";
import { CLOSE, type CloseInfo, MAX_REASON_BYTES, type SessionClose } from "./session.ts";

const CODE_OF: ReadonlyMap<ErrorCode, number> = new Map<ErrorCode, number>([
  ["ERR_UNTRUSTED", CLOSE.UNTRUSTED],
  ["ERR_VERSION_MISMATCH", CLOSE.VERSION],
  ["ERR_CORRUPT", CLOSE.DAMAGED],
  ["ERR_RECORD_TOO_LARGE", CLOSE.DAMAGED],
  ["ERR_OVERLOADED", CLOSE.OVERLOADED],
  ["ERR_TIMEOUT", CLOSE.TIMEOUT],
  ["ERR_CLOSED", CLOSE.NORMAL],
]);
/** What a peer's close means to who is told; everything else is that the peer is not there. */
const ERROR_OF: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [CLOSE.UNTRUSTED, "ERR_UNTRUSTED"],
  [CLOSE.VERSION, "ERR_VERSION_MISMATCH"],
]);

/** The code that tells a peer what an error means. */
export function closeCodeOf(error: ShardloomError): number {
  return CODE_OF.get(error.code) ?? CLOSE.REFUSED;
}

/** State of one side of a session. */
export class SessionLife {
  readonly ready: Promise<void>;
  readonly closed: Promise<SessionClose>;
  #state: "opening" | "ready" | "closed" = "opening";
  #resolveReady!: () => void;
  #rejectReady!: (error: ShardloomError) => void;
  #resolveClosed!: (close: SessionClose) => void;

  constructor() {
    this.ready = new Promise((resolve, reject) => {
      this.#resolveReady = resolve;
      this.#rejectReady = reject;
    });
    // Whoever waits for `closed` only is told there.
    this.ready.catch(() => undefined);
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  get isReady(): boolean {
    return this.#state === "ready";
  }

  get isClosed(): boolean {
    return this.#state === "closed";
  }

  open(): void {
    if (this.#state !== "opening") return;
    this.#state = "ready";
    this.#resolveReady();
  }

  /** @returns whether it was open until now */
  close(close: SessionClose): boolean {
    if (this.#state === "closed") return false;
    if (this.#state === "opening") this.#rejectReady(close.error);
    this.#state = "closed";
    this.#resolveClosed(close);
    return true;
  }

  /** Throws unless streams can be opened now. */
  checkOpen(address: string): void {
    if (this.#state === "ready") return;
    const [code, rule] =
      this.#state === "opening" ? (["ERR_UNAVAILABLE", "ready"] as const) : (["ERR_CLOSED", "open"] as const);
    throw new ShardloomError(code, `Cannot open stream to ${address} as its session must be ${rule}`);
  }
}

/** This side has closed it. */
export function closedLocally({ code, reason }: CloseInfo): SessionClose {
  const error = new ShardloomError("ERR_CLOSED", `Cannot go on as this side has closed the session: ${reason}`);
  return { code, reason, by: "local", error };
}

/** The peer has closed it. */
export function closedByPeer(address: string, { code, reason }: CloseInfo): SessionClose {
  const message = `Cannot go on as ${address} has closed the session: ${reason}`;
  return {
    code,
    reason,
    by: "remote",
    error: new ShardloomError(ERROR_OF.get(code) ?? "ERR_UNAVAILABLE", message, { details: { closeCode: code } }),
  };
}

/** Nobody has closed it. */
export function lost(address: string, why: string, cause?: unknown, code: ErrorCode = "ERR_UNAVAILABLE"): SessionClose {
  const error = new ShardloomError(code, `Cannot go on with ${address} as ${why}`, {
    details: { address },
    ...(cause === undefined ? {} : { cause }),
  });
  return { code: CLOSE.LOST, reason: error.message, by: "network", error };
}

/** A reason as it travels: as much of it as fits, whole characters. */
export function encodeReason(reason: string): Uint8Array {
  const target = new Uint8Array(MAX_REASON_BYTES);
  const { written } = new TextEncoder().encodeInto(reason, target);
  return target.subarray(0, written);
}
