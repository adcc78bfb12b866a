/**
 * `shardloom bench`: runs the package's benches in a process of their own and shows their tables, or their JSON.
 *
 * Invariant: the bench process is started fresh, so that nothing of this one (heap, compiled code, timers) is in the
 * figures; its exit code is ours.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Command, type CommandContext, EXIT } from "./command.ts";

const BENCH_URL = new URL("../../bench/main.js", import.meta.url);

export const bench: Command = {
  name: "bench",
  summary: "Run benches (or all of them) and print ratios against their goals",
  usage: "[options] [NAME ...]",
  operands: { min: 0, max: 16 },
  options: {
    smoke: { type: "boolean", summary: "Smallest sizes: does every bench still run?" },
    full: { type: "boolean", summary: "Full sizes, for figures to quote" },
    seed: { type: "integer", summary: "Seed of what is random", min: 0, max: 2 ** 31 - 1, default: 1 },
    output: { type: "string", summary: "Write the JSON result to a file too", placeholder: "FILE" },
  },
  async run(context) {
    const folder = await mkdtemp(join(tmpdir(), "shardloom-bench-"));
    const file = context.text("output") ?? join(folder, "result.json");
    try {
      const code = await runBenches(context, file);
      if (code === EXIT.OK && context.json) {
        const result: unknown = JSON.parse(await readFile(file, "utf8"));
        for (const one of Array.isArray(result) ? result : [result])
          context.output.object(one as Record<string, unknown>);
      }
      return code;
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  },
};

async function runBenches(context: CommandContext, file: string): Promise<number> {
  const names = context.operands.length === 0 ? ["all"] : context.operands;
  const size = context.flag("smoke") ? ["--smoke"] : context.flag("full") ? ["--full"] : [];
  const args = [
    fileURLToPath(BENCH_URL),
    ...names,
    ...size,
    "--seed",
    String(context.number("seed") ?? 1),
    "--json",
    file,
  ];
  const child = spawn(process.execPath, args, { stdio: ["ignore", context.json ? "ignore" : "inherit", "inherit"] });
  const stop = (): void => void child.kill("SIGTERM");
  context.signal.addEventListener("abort", stop, { once: true });
  const [code] = (await once(child, "exit")) as [number | null];
  context.signal.removeEventListener("abort", stop);
  return code ?? EXIT.FAILURE;
}
