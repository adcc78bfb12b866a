/** Erlang/OTP's figures: compiles `bench/compare/pingpong.erl` into a temporary folder when `erl` is on the path. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const SOURCE: string = fileURLToPath(new URL("../../../bench/compare/pingpong.erl", import.meta.url));

/** What one run of the Erlang program measured. */
export interface ErlangFigures {
  readonly oneWayNs: number;
  readonly roundTripNs: number;
}

/** The compiled program. */
export interface ErlangProgram {
  /** @throws when the program did not count what was sent. */
  run(messages: number): ErlangFigures;
  dispose(): void;
}

/** Undefined, with the reason logged, when there is no Erlang. */
export function compileErlang(log: (line: string) => void): ErlangProgram | undefined {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-bench-"));
  const dispose = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    execFileSync("erlc", ["-o", folder, SOURCE], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    dispose();
    log(`Erlang skipped: ${error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error)}`);
    return undefined;
  }
  return {
    dispose,
    run: (messages) => {
      const output = execFileSync("erl", ["-noshell", "-pa", folder, "-run", "pingpong", "main", String(messages)], {
        encoding: "utf8",
      });
      const [oneWayNs = Number.NaN, roundTripNs = Number.NaN, counted] = output.trim().split(" ").map(Number);
      if (counted !== messages || !(oneWayNs > 0) || !(roundTripNs > 0))
        throw new Error(`Erlang counted ${counted} of ${messages} messages`);
      return { oneWayNs, roundTripNs };
    },
  };
}
