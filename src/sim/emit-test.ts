/**
 * Writes a failing run out as a test of vitest: everything that it is made of as data, and the expectation that it passes.
 *
 * Invariant: the text is a module that needs nothing besides vitest, the simulator and the workload's module; it is the same for the same run,
 * and valid both as JavaScript and as TypeScript. It fails until the defect is mended, and guards against it from then on.
 */
import { dirname, relative } from "node:path";
import { fileURLToPath } from "node:url";
import type { Fault } from "./fault-types.ts";
import type { Violation } from "./history-types.ts";
import type { Operation, WorkloadRef } from "./workload-types.ts";
import type { WorldOptions } from "./world-types.ts";

export interface EmitTestOptions {
  /** As the run was given them; what a replay does not need is left out. */
  readonly world: WorldOptions;
  readonly workload: WorkloadRef;
  readonly faults: readonly Fault[];
  readonly operations: readonly Operation[];
  /** What the run broke: the name of the test and its opening comment. */
  readonly violation: Violation;
  /** Where the test will be written, so that it names modules of files relatively. @default by their URL */
  readonly path?: string;
  /** What exports `createWorld`. @default "shardloom/sim" */
  readonly simModule?: string;
  /** Real time that the test may take, in ms. @default 120000 */
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 120_000;
const LINE_WIDTH = 118;

/** The text of a test file that repeats a run and expects it to pass. */
export function emitTest(options: EmitTestOptions): string {
  const {
    workload,
    faults,
    operations,
    violation,
    simModule = "shardloom/sim",
    timeoutMs = DEFAULT_TIMEOUT_MS,
  } = options;
  const world = replayedOptions(options.world);
  const title = `seed ${world["seed"]}: ${violation.rule}`;
  return `/**
${comment(`${violation.rule}: ${violation.message}`)}
 *
 * Written by the simulator: ${count(faults, "fault")} and ${count(operations, "operation")} that break it. The test fails until the defect is mended.
 */
import { createWorld } from ${JSON.stringify(simModule)};
import { expect, test } from "vitest";

test(${JSON.stringify(title)}, { timeout: ${timeoutMs} }, async () => {
  const world = createWorld(${literal(world)});
  const { violations } = await world.run(
    {
      module: ${moduleOf(workload.module, options.path)},
      export: ${JSON.stringify(workload.export)},
      options: ${literal(workload.options)},
    },
    {
      replay: {
        faults: ${rows(faults)},
        operations: ${rows(operations)},
      },
    },
  );
  expect(violations.map(({ rule, message }) => \`\${rule}: \${message}\`)).toEqual([]);
});
`;
}

/** What a replay needs: neither rates of faults, nor limits of the machine, nor the trace. */
function replayedOptions(options: WorldOptions): Record<string, unknown> {
  const { faults: _faults, wallLimitMs: _wall, keepTrace: _trace, seed = 1, ...rest } = options;
  return { seed, ...rest };
}

/** A module of a file by its place relative to the test, and any other by its name. */
function moduleOf(module: string, testPath: string | undefined): string {
  if (testPath === undefined || !module.startsWith("file:")) return JSON.stringify(module);
  const path = relative(dirname(testPath), fileURLToPath(module)).replaceAll("\\", "/");
  return `new URL(${JSON.stringify(path.startsWith(".") ? path : `./${path}`)}, import.meta.url).href`;
}

/** A comment's lines; what would end the comment does not. */
function comment(text: string): string {
  const words = text.replaceAll("*/", "*\\/").split(/\s+/);
  const lines: string[] = [];
  let line = " *";
  for (const word of words) {
    if (line.length + 1 + word.length > LINE_WIDTH && line !== " *") {
      lines.push(line);
      line = " *";
    }
    line += ` ${word}`;
  }
  return [...lines, line].join("\n");
}

function count(items: readonly unknown[], noun: string): string {
  return `${items.length} ${noun}${items.length === 1 ? "" : "s"}`;
}

/** An array literal with an item on each line, in its place in the call so that its strings keep their types. */
function rows(items: readonly unknown[]): string {
  const lines = items.map((item) => `${" ".repeat(10)}${literal(item)},\n`);
  return items.length === 0 ? "[]" : `[\n${lines.join("")}${" ".repeat(8)}]`;
}

/** Plain data as the source text of an expression: JSON with bare keys where that is the same. */
function literal(value: unknown): string {
  if (value === undefined || value === null || typeof value === "boolean" || typeof value === "number")
    return String(value);
  if (typeof value === "string")
    return JSON.stringify(value).replaceAll("\u2028", "\\u2028").replaceAll("\u2029", "\\u2029");
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  const entries = Object.entries(value).filter(([, member]) => member !== undefined);
  return entries.length === 0
    ? "{}"
    : `{ ${entries.map(([key, member]) => `${keyText(key)}: ${literal(member)}`).join(", ")} }`;
}

/** `__proto__` needs brackets: as a plain key it would set the prototype. */
function keyText(key: string): string {
  if (key === "__proto__") return '["__proto__"]';
  return /^[A-Za-z_$][\w$]*$/.test(key) ? key : JSON.stringify(key);
}
