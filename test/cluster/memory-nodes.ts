/** What both processes of `processes-memory.test.ts` know: who they are, and what one tells the other. */
import type { RegionRef } from "../../src/index.ts";
import type { Credentials } from "../../src/transport/session.ts";
import { ACTORS_URL, PATIENT_DETECTOR } from "../support/cluster.ts";

/** Both nodes: the parent's dials. */
export const MEMORY_NODES = [
  { name: "here", shards: [0] },
  { name: "there", shards: [1, 2] },
] as const;
export const MEMORY_OPTIONS = { vshards: 16, memoryBytes: 64 * 1024 * 1024, ...PATIENT_DETECTOR } as const;
export const ACTOR_URLS: readonly URL[] = [ACTORS_URL];

/** What the parent says; every one but the first is answered. */
export type MemoryCommand =
  | { readonly do: "start"; readonly credentials: Credentials }
  | { readonly do: "register"; readonly byteLength: number; readonly isCell: boolean }
  | { readonly do: "deregister"; readonly ref: RegionRef }
  /** Writes one value over the whole cell again and again, one after the other. */
  | { readonly do: "write"; readonly ref: RegionRef };

export function patternAt(at: number): number {
  return (at * 31 + (at >>> 8)) & 0xff;
}
