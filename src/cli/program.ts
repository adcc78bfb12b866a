/**
 * The program: finds the command, parses its arguments, runs it, and turns every end into an exit code.
 *
 * Invariant: it never throws and never ends the process. 0 is done, 1 is a failure that was printed, 2 wrong usage that
 * was printed with a hint. Under `--json` the failure is one JSON line on standard output.
 */
import { ShardloomError } from "../errors.ts";
import { commandHelp, parseArguments, programHelp } from "./arguments.ts";
import { type Command, type CommandContext, EXIT, type Output, type OutputStream, UsageError } from "./command.ts";

export interface ProgramOptions {
  readonly commands: readonly Command[];
  /** Runs when no command is named. */
  readonly defaultCommand: string;
  readonly version: string;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly signal: AbortSignal;
}

const DEFAULT_COLUMNS = 100;

/** Runs the program on the arguments after its name; resolves to the exit code. */
export async function runProgram(argv: readonly string[], options: ProgramOptions): Promise<number> {
  const json = argv.includes("--json");
  const output = createOutput(json, options);
  const { commands, defaultCommand } = options;
  // Options before a command's name belong to the default command, which is never named that way.
  const [first] = argv;
  const isNamed = first !== undefined && !first.startsWith("-");
  const name = isNamed ? first : defaultCommand;
  const command = commands.find((candidate) => candidate.name === name);
  try {
    if (!isNamed && argv.includes("--version")) return show(output, { version: options.version }, options.version);
    if (first === "help") return help(argv[1], output, options);
    if (!isNamed && argv.some((argument) => argument === "--help" || argument === "-h"))
      return help("", output, options);
    if (command === undefined) throw new UsageError(`no command ${JSON.stringify(name)}`);
    const parsed = parseArguments(command, isNamed ? argv.slice(1) : argv);
    if (parsed.options["help"] === true) return show(output, { help: commandHelp(command) }, commandHelp(command));
    return await command.run(createContext(parsed, output, options.signal));
  } catch (error) {
    return report(error, command, output);
  }
}

function help(topic: string | undefined, output: Output, { commands, defaultCommand }: ProgramOptions): number {
  const command = commands.find(({ name }) => name === topic);
  const text = command === undefined ? programHelp(commands, defaultCommand) : commandHelp(command);
  return show(output, { help: text }, text);
}

function show(output: Output, value: Readonly<Record<string, unknown>>, text: string): number {
  output.object(value);
  output.line(text);
  return EXIT.OK;
}

function createOutput(json: boolean, { stdout, stderr }: ProgramOptions): Output {
  return {
    json,
    isTerminal: stdout.isTTY === true && !json,
    columns: stdout.columns || DEFAULT_COLUMNS,
    line(text = "") {
      if (!json) stdout.write(`${text}\n`);
    },
    object(value) {
      if (json) stdout.write(`${JSON.stringify(value)}\n`);
    },
    notes: stderr,
  };
}

function createContext(
  { options, operands }: ReturnType<typeof parseArguments>,
  output: Output,
  signal: AbortSignal,
): CommandContext {
  return {
    operands,
    flag: (name) => options[name] === true,
    text: (name) => {
      const value = options[name];
      return typeof value === "string" ? value : undefined;
    },
    number: (name) => {
      const value = options[name];
      return typeof value === "number" ? value : undefined;
    },
    json: output.json,
    output,
    signal,
  };
}

function report(error: unknown, command: Command | undefined, output: Output): number {
  const isUsage = error instanceof UsageError;
  const message = error instanceof Error ? error.message : String(error);
  const known = ShardloomError.is(error)
    ? { code: error.code, retryable: error.retryable, details: error.details }
    : {};
  output.object({ error: { message, ...known, ...(isUsage ? { code: "USAGE" } : {}) } });
  if (!output.json) {
    const code = ShardloomError.is(error) ? ` (${error.code})` : "";
    output.notes.write(`shardloom: ${message}${code}\n`);
    if (isUsage) output.notes.write(`Try: shardloom ${command === undefined ? "" : `${command.name} `}--help\n`);
    else if (code === "" && error instanceof Error) output.notes.write(`${error.stack ?? ""}\n`);
  }
  return isUsage ? EXIT.USAGE : EXIT.FAILURE;
}
