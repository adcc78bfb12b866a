/** What the two sides of sessions between two processes agree on: what a stream can ask of the far side, and what that says of itself. */
import type { Credentials } from "../../src/transport/session.ts";
import { patterned } from "./parties.ts";

/** What a stream can ask for, by its first byte; a second one is the code. */
export const ASK = { ECHO: 1, RESET: 2, OPEN: 3, DATAGRAM: 4, CLOSE: 5, WHO: 6, COUNT: 7 } as const;
/** What the far side sends on the stream that it opens, and in its datagram. */
export const FAR_STREAM: Uint8Array = patterned(200_000, 3);
export const FAR_DATAGRAM: Uint8Array = patterned(1_000, 5);

/** What the parent says first. */
export interface SessionOptions {
  readonly scheme: "tls" | "https";
  readonly credentials: Credentials;
  readonly maxStreams: number;
  readonly maxSessions: number;
}

/** What became of a session, as the far side saw it. */
export interface SessionReport {
  readonly close: { readonly code: number; readonly reason: string; readonly by: string };
  readonly resets: readonly (number | undefined)[];
  readonly faults: readonly string[];
}
