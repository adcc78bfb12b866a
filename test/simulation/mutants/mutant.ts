/**
 * What a planted defect of the program is.
 *
 * Invariant: plain data; nothing of it knows of the test that runs it.
 */
import type { Patch } from "../../support/mutated.ts";
import type { SceneName } from "./scenes.ts";

/** One defect, and where it shows. */
export interface Mutant {
  readonly id: string;
  /** What is wrong, and what comes of it. */
  readonly what: string;
  readonly patches: readonly Patch[];
  readonly scene: SceneName;
  /** Rules of which one at least says so. */
  readonly rules: readonly string[];
}
