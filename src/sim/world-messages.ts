/**
 * What the caller's thread and a world's thread say to each other.
 *
 * Invariant: plain data; one run is open at a time, and each is answered by exactly one result or error with its number.
 */
import type { WorkloadRef } from "./workload-types.ts";
import type { ReplayPlan, ResolvedWorldOptions, RunProgress, RunResult } from "./world-types.ts";

/** To the world. */
export type WorldCommand =
  | {
      readonly kind: "run";
      readonly run: number;
      readonly options: ResolvedWorldOptions;
      readonly workload: WorkloadRef;
      readonly replay: ReplayPlan | undefined;
    }
  | { readonly kind: "abort"; readonly run: number };

/** From the world. Errors are encoded as on every wire of ours, as clones lose class and code. */
export type WorldReport =
  | { readonly kind: "progress"; readonly run: number; readonly progress: RunProgress }
  | { readonly kind: "result"; readonly run: number; readonly result: RunResult }
  | { readonly kind: "error"; readonly run: number; readonly error: Uint8Array };
