/**
 * A file that other threads wait for: until it is gone, or for as long as they say at most.
 *
 * Invariant: whoever waits looks every few milliseconds and uses no core; nothing is left behind once it was opened.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const LOOK_MS = 3;
const REACHED = ".reached";
/** A word that nobody wakes. */
const STILL = new Int32Array(new SharedArrayBuffer(4));

export class Gate {
  readonly path: string;
  readonly #folder: string;

  constructor() {
    this.#folder = mkdtempSync(join(tmpdir(), "shardloom-gate-"));
    this.path = join(this.#folder, "closed");
    writeFileSync(this.path, "");
  }

  /** Whether somebody waits, or has waited. */
  get isReached(): boolean {
    return existsSync(this.path + REACHED);
  }

  /** Lets everybody go; again, it does nothing. */
  open(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Holds this thread until a gate is open, for so long at most. @param isSpinning Whether it uses its core meanwhile. */
export function waitAt(path: string, milliseconds: number, isSpinning = false): void {
  const until = performance.now() + milliseconds;
  try {
    writeFileSync(path + REACHED, "");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error; // it is open, and its folder gone
  }
  while (performance.now() < until && existsSync(path)) {
    if (!isSpinning) Atomics.wait(STILL, 0, 0, LOOK_MS);
    for (const look = performance.now() + LOOK_MS; isSpinning && performance.now() < look; );
  }
}

/** Workers that load `start-trouble` from now on do not start. @returns lets them */
export function holdStarts(): () => void {
  const gate = new Gate();
  process.env["SHARDLOOM_TEST_START"] = gate.path;
  return () => {
    delete process.env["SHARDLOOM_TEST_START"];
    gate.open();
  };
}
