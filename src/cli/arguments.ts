/**
 * Command-line arguments → a command's checked options and operands, and the help texts.
 *
 * Invariant: an argument that is not declared is an error, never ignored; every value is checked against its
 * declaration before the command runs.
 * Built on `parseArgs` of `node:util` rather than on citty: citty 0.2 takes unknown options without a word and has no
 * exit code for wrong usage, and what it adds (help, sub-commands) is shorter here than its adapter would be.
 */
import { parseArgs } from "node:util";
import { type Command, type OptionSpec, type OptionSpecs, UsageError } from "./command.ts";

/** Options of every command. */
export const COMMON_OPTIONS: OptionSpecs = {
  json: { type: "boolean", summary: "write JSON lines, and nothing else, to standard output" },
  help: { type: "boolean", short: "h", summary: "show this help" },
};

export type OptionValue = string | number | boolean | undefined;

export interface ParsedArguments {
  readonly options: Readonly<Record<string, OptionValue>>;
  readonly operands: readonly string[];
}

/**
 * Parses what follows a command's name.
 *
 * @throws {UsageError} Unknown option, missing or wrong value, too few or too many operands. Not under `--help`.
 */
export function parseArguments(command: Command, argv: readonly string[]): ParsedArguments {
  const specs = { ...command.options, ...COMMON_OPTIONS };
  const { values, positionals } = parse(specs, argv);
  const entries = Object.entries(specs).map(([name, spec]) => [name, checkValue(name, spec, values[name])] as const);
  const parsed = { options: Object.fromEntries(entries), operands: positionals };
  const { min, max } = command.operands ?? { min: 0, max: 0 };
  if (parsed.options["help"] === true) return parsed;
  if (positionals.length < min) throw new UsageError(`too few operands: usage is ${command.name} ${command.usage}`);
  if (positionals.length > max) throw new UsageError(`unexpected operand ${JSON.stringify(positionals[max])}`);
  return parsed;
}

function parse(
  specs: OptionSpecs,
  argv: readonly string[],
): { values: Readonly<Record<string, string | boolean | undefined>>; positionals: string[] } {
  const options = Object.fromEntries(
    Object.entries(specs).map(([name, { type, short }]) => {
      const kind = type === "boolean" ? ("boolean" as const) : ("string" as const);
      return [name, short === undefined ? { type: kind } : { type: kind, short }];
    }),
  );
  try {
    return parseArgs({ args: [...argv], options, allowPositionals: true, strict: true });
  } catch (cause) {
    // The first sentence says what is wrong; the rest explains how to write an operand that starts with a dash.
    const [message = ""] = (cause as Error).message.split(". ");
    throw new UsageError(message.charAt(0).toLowerCase() + message.slice(1), { cause });
  }
}

function checkValue(name: string, spec: OptionSpec, value: string | boolean | undefined): OptionValue {
  if (spec.type === "boolean") return value === true;
  if (value === undefined) return spec.default;
  const text = `${value}`;
  if (spec.type === "string") {
    if (spec.choices === undefined || spec.choices.includes(text)) return text;
    throw new UsageError(`--${name} must be one of ${spec.choices.join(", ")}: current value is ${text}`);
  }
  const number = text.trim() === "" ? Number.NaN : Number(text);
  const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = spec;
  const isRight = spec.type === "integer" ? Number.isSafeInteger(number) : Number.isFinite(number);
  if (isRight && number >= min && number <= max) return number;
  const article = spec.type === "integer" ? "an integer" : "a number";
  const range = spec.min === undefined && spec.max === undefined ? "" : ` in [${spec.min ?? "-∞"}, ${spec.max ?? "∞"}]`;
  throw new UsageError(`--${name} must be ${article}${range}: current value is ${text}`);
}

/** The help of one command. */
export function commandHelp(command: Command): string {
  const specs = { ...command.options, ...COMMON_OPTIONS };
  const rows = Object.entries(specs).map(([name, spec]) => [optionForm(name, spec), optionSummary(spec)] as const);
  return [
    `Usage: shardloom ${command.name} ${command.usage}`,
    "",
    sentence(command.summary),
    "",
    ...aligned(rows),
  ].join("\n");
}

/** The help of the program. */
export function programHelp(commands: readonly Command[], defaultCommand: string): string {
  const list = commands.map(
    ({ name, summary }) => [name, name === defaultCommand ? `${summary} (default)` : summary] as const,
  );
  return [
    "Usage: shardloom [command] [options]",
    "",
    ...aligned(list),
    "",
    ...aligned([
      ["--json", COMMON_OPTIONS["json"]?.summary ?? ""],
      ["-h, --help", "show the help of the program or of a command"],
      ["--version", "show the version"],
    ]),
    "",
    "Exit codes: 0 done, 1 failed, 2 wrong usage.",
  ].join("\n");
}

function optionForm(name: string, spec: OptionSpec): string {
  const short = spec.short === undefined ? "" : `-${spec.short}, `;
  if (spec.type === "boolean") return `${short}--${name}`;
  return `${short}--${name} ${spec.placeholder ?? (spec.type === "string" ? "VALUE" : "N")}`;
}

function optionSummary(spec: OptionSpec): string {
  const choices = spec.type === "string" && spec.choices !== undefined ? `: ${spec.choices.join(", ")}` : "";
  const fallback = spec.type === "boolean" || spec.default === undefined ? "" : ` (default ${spec.default})`;
  return `${spec.summary}${choices}${fallback}`;
}

function aligned(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(0, ...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
