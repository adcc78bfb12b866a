/**
 * The machine's own limit: compiles a program of `bench/compare/` into a temporary folder when a C++ compiler is present,
 * and talks to it line by line, so that its samples interleave with ours.
 *
 * Invariant: the child sleeps on its standard input between samples; it burns no core while another side runs.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const SOURCE = fileURLToPath(new URL("../../../bench/compare/native.cpp", import.meta.url));

/** A compiled baseline program. */
export interface NativeProgram {
  readonly path: string;
  dispose(): void;
}

/** Tried in this order. */
const COMPILERS: readonly string[] = ["g++", "clang++"];

/** Compiles a baseline with `-O2`; undefined, with the reason logged, when there is no compiler. */
export function compileNative(log: (line: string) => void, source: string = SOURCE): NativeProgram | undefined {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-bench-"));
  const path = join(folder, "native");
  let reason = "";
  for (const compiler of COMPILERS) {
    try {
      execFileSync(compiler, ["-O2", "-std=c++17", "-pthread", "-o", path, source], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      return { path, dispose: () => rmSync(folder, { recursive: true, force: true }) };
    } catch (error) {
      reason ||= error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    }
  }
  rmSync(folder, { recursive: true, force: true });
  log(`C++ baselines skipped: ${reason}`);
  return undefined;
}

/** One running mode of the program: each run() is one sample. */
export class NativeSide {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #waiting: ((line: string) => void) | undefined = undefined;
  /** What the last sample proved: the child checks its own sums and sends 0 when they are wrong. */
  lastValid: boolean = false;

  constructor(program: NativeProgram, args: readonly string[]) {
    this.#child = spawn(program.path, args, { stdio: ["pipe", "pipe", "inherit"] });
    if (this.#child.stdout === null) throw new Error("Cannot start native side as it has no output");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting === undefined) this.#lines.push(line);
      else waiting(line);
    });
    this.#child.once("exit", () => this.#waiting?.("0 0"));
  }

  async run(): Promise<number> {
    this.#child.stdin?.write("go\n");
    const line = this.#lines.shift() ?? (await new Promise<string>((resolve) => (this.#waiting = resolve)));
    const [nanoseconds, valid] = line.split(" ").map(Number);
    this.lastValid = valid === 1;
    return nanoseconds ?? Number.NaN;
  }

  close(): void {
    this.#child.stdin?.end();
  }
}
