/** The program: arguments, help, exit codes, `--json`, and the executable itself as a process. */
import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { type Command, type CommandContext, UsageError } from "../../src/cli/command.ts";
import { runProgram } from "../../src/cli/program.ts";
import { ShardloomError } from "../../src/errors.ts";

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function command(run: (context: CommandContext) => Promise<number> | number): Command {
  return {
    name: "load",
    summary: "load a file of vectors",
    usage: "[options] FILE",
    operands: { min: 1, max: 2 },
    options: {
      "batch-size": { type: "integer", min: 1, max: 1000, default: 100, summary: "rows per batch" },
      ratio: { type: "number", min: 0, summary: "a number" },
      metric: { type: "string", choices: ["l2", "cosine"], summary: "distance" },
      quiet: { type: "boolean", short: "q", summary: "say less" },
    },
    run: async (context) => run(context),
  };
}

async function run(
  argv: readonly string[],
  body: (context: CommandContext) => Promise<number> | number = () => 0,
): Promise<Run> {
  let [stdout, stderr] = ["", ""];
  const code = await runProgram(argv, {
    commands: [command(body), { ...command(() => 0), name: "demo", operands: { min: 0, max: 9 } }],
    defaultCommand: "demo",
    version: "1.2.3",
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    signal: new AbortController().signal,
  });
  return { code, stdout, stderr };
}

describe("arguments", () => {
  test("reach the command, checked and with defaults", async () => {
    let seen: unknown;
    const { code } = await run(["load", "a.npy", "--ratio=0.5", "--metric", "l2", "-q", "--", "-b"], (context) => {
      seen = [
        context.operands,
        context.number("batch-size"),
        context.number("ratio"),
        context.text("metric"),
        context.flag("quiet"),
        context.flag("other"),
        context.text("ratio"),
        context.json,
      ];
      return 0;
    });
    expect(code).toBe(0);
    expect(seen).toEqual([["a.npy", "-b"], 100, 0.5, "l2", true, false, undefined, false]);
  });

  test.each([
    [["load"], /too few operands: usage is load \[options\] FILE/],
    [["load", "a", "b", "c"], /unexpected operand "c"/],
    [["load", "a", "--batch-size", "0"], /--batch-size must be an integer in \[1, 1000\]: current value is 0/],
    [["load", "a", "--batch-size=1.5"], /--batch-size must be an integer/],
    [["load", "a", "--batch-size="], /--batch-size must be an integer/],
    [["load", "a", "--ratio", "x"], /--ratio must be a number in \[0, ∞\]: current value is x/],
    [["load", "a", "--metric", "l1"], /--metric must be one of l2, cosine: current value is l1/],
    [["load", "a", "--bogus"], /unknown option '--bogus'/],
    [["load", "a", "--metric"], /argument missing/],
    [["nonsense"], /no command "nonsense"/],
  ])("wrong usage %j ends with 2 and a hint", async (argv, message) => {
    let ran = false;
    const { code, stdout, stderr } = await run(argv, () => {
      ran = true;
      return 0;
    });
    expect({ code, stdout, ran }).toEqual({ code: 2, stdout: "", ran: false });
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/\nTry: shardloom (?:load )?--help\n$/);
  });
});

describe("help and version", () => {
  test("the program lists its commands", async () => {
    for (const argv of [["--help"], ["-h"], ["help"], ["--quiet", "-h"]]) {
      const { code, stdout } = await run(argv);
      expect(code).toBe(0);
      expect(stdout).toMatch(/^ {2}load {2}load a file of vectors$/m);
      expect(stdout).toMatch(/^ {2}demo {2}.*\(default\)$/m);
    }
  });

  test("a command lists its options, also where operands are missing", async () => {
    for (const argv of [
      ["load", "--help"],
      ["help", "load"],
    ]) {
      const { code, stdout } = await run(argv);
      expect(code).toBe(0);
      expect(stdout).toContain("Usage: shardloom load [options] FILE");
      expect(stdout).toMatch(/--batch-size N +rows per batch \(default 100\)/);
      expect(stdout).toMatch(/--metric VALUE +distance: l2, cosine/);
      expect(stdout).toMatch(/-q, --quiet +say less/);
      expect(stdout).toMatch(/--json/);
    }
  });

  test("the version", async () => {
    expect(await run(["--version"])).toEqual({ code: 0, stdout: "1.2.3\n", stderr: "" });
    expect(await run(["--json", "--version"])).toEqual({ code: 0, stdout: '{"version":"1.2.3"}\n', stderr: "" });
  });

  test("no command, or only options, is the default command", async () => {
    expect(await run([])).toEqual({ code: 0, stdout: "", stderr: "" });
    expect(await run(["--quiet"])).toMatchObject({ code: 0 });
  });
});

describe("ends", () => {
  const failure = new ShardloomError("ERR_TRUNCATED", "Cannot read it", { details: { row: 3 } });

  test("the command's own exit code is kept", async () => {
    expect((await run(["load", "a"], () => 1)).code).toBe(1);
  });

  test("errors are printed with their code", async () => {
    const ended = await run(["load", "a"], () => Promise.reject(failure));
    expect(ended).toEqual({ code: 1, stdout: "", stderr: "shardloom: Cannot read it (ERR_TRUNCATED)\n" });
  });

  test("errors that are bugs show where they come from", async () => {
    const ended = await run(["load", "a"], () => Promise.reject(new TypeError("oops")));
    expect(ended.code).toBe(1);
    expect(ended.stderr).toMatch(/^shardloom: oops\nTypeError: oops\n +at /);
  });

  test("a command may find wrong usage itself", async () => {
    expect(await run(["load", "a"], () => Promise.reject(new UsageError("no")))).toMatchObject({ code: 2 });
  });

  test("--json keeps standard output to JSON lines, errors included", async () => {
    const good = await run(["load", "a", "--json"], ({ output }) => {
      output.line("for people");
      output.object({ count: 2 });
      return 0;
    });
    expect(good).toEqual({ code: 0, stdout: '{"count":2}\n', stderr: "" });
    const bad = await run(["load", "a", "--json"], () => Promise.reject(failure));
    expect(bad).toMatchObject({ code: 1, stderr: "" });
    expect(JSON.parse(bad.stdout)).toEqual({
      error: { message: "Cannot read it", code: "ERR_TRUNCATED", retryable: false, details: { row: 3 } },
    });
    expect(JSON.parse((await run(["load", "--json"])).stdout)).toMatchObject({ error: { code: "USAGE" } });
  });
});

describe("the executable", () => {
  const shardloom = (...argv: string[]): Run => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/src/cli/main.js", ...argv], {
      encoding: "utf8",
    });
    return { code: status ?? -1, stdout, stderr };
  };

  test("knows the version of its package, its help, and wrong usage", () => {
    expect(shardloom("--version")).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
    expect(shardloom("--help")).toMatchObject({ code: 0, stdout: expect.stringContaining("Usage: shardloom") });
    expect(shardloom("nonsense")).toMatchObject({ code: 2, stdout: "" });
  });
});
