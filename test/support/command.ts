/** Runs the commands as a user does: a process, its streams, its exit code; or the same without a process for each of many small answers. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Command } from "../../src/cli/command.ts";
import { runProgram } from "../../src/cli/program.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

/** How a command ended. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output under `--json`. */
  readonly objects: Record<string, unknown>[];
}

/** Runs `shardloom` with arguments. */
export function shardloom(...args: string[]): Promise<Finished> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { timeout: 60_000 }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ code, stdout, stderr, objects: objectsIn(stdout, args) });
    });
  });
}

/** Runs one of some commands in this process: to start another one takes a second of a core. */
export async function shardloomHere(commands: readonly Command[], ...args: string[]): Promise<Finished> {
  const texts = { stdout: "", stderr: "" };
  const stream = (name: keyof typeof texts) => ({
    write: (text: string) => {
      texts[name] += text;
    },
  });
  const code = await runProgram(args, {
    commands,
    defaultCommand: commands[0]?.name ?? "",
    version: "0",
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    signal: new AbortController().signal,
  });
  return { code, ...texts, objects: objectsIn(texts.stdout, args) };
}

function objectsIn(stdout: string, args: readonly string[]): Record<string, unknown>[] {
  if (!args.includes("--json")) return [];
  const lines = stdout.trim().split("\n");
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>);
}
