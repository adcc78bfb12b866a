/**
 * What a command of `shardloom` is, and what it is given to run with.
 *
 * Invariant: a command touches the terminal only through its context, so that tests run it without one, and `--json`
 * means the same everywhere: standard output carries JSON lines and nothing else.
 */

/** An option `--name`. Names are kebab-case, units come last (`--timeout-ms`). */
export type OptionSpec = {
  readonly summary: string;
  /** One letter for `-x`. */
  readonly short?: string;
} & (
  | { readonly type: "boolean" }
  | {
      readonly type: "string";
      /** What stands for the value in the help. @default VALUE */
      readonly placeholder?: string;
      readonly choices?: readonly string[];
      readonly default?: string;
    }
  | {
      readonly type: "integer" | "number";
      readonly placeholder?: string;
      readonly min?: number;
      readonly max?: number;
      readonly default?: number;
    }
);

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

/** One command, such as `shardloom load`. */
export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What follows the name in the help: `[options] FILE`. */
  readonly usage: string;
  /** Its own options; `--json` and `--help` are everyone's. */
  readonly options: OptionSpecs;
  /** Operands that it takes. @default none */
  readonly operands?: { readonly min: number; readonly max: number };
  /** Resolves to the exit code: {@link EXIT}. Errors thrown are printed and end with 1, a {@link UsageError} with 2. */
  run(context: CommandContext): Promise<number>;
}

/** Exit codes. */
export const EXIT = { OK: 0, FAILURE: 1, USAGE: 2 } as const;

/** Parsed and checked arguments, and the terminal. */
export interface CommandContext {
  readonly operands: readonly string[];
  /** Value of a boolean option; false when it was not given. */
  flag(name: string): boolean;
  /** Value of a string option, or its default. */
  text(name: string): string | undefined;
  /** Value of a number or integer option, or its default. */
  number(name: string): number | undefined;
  /** Whether `--json` was given. */
  readonly json: boolean;
  readonly output: Output;
  /** Aborts on the first SIGINT or SIGTERM; the second ends the process. */
  readonly signal: AbortSignal;
}

/** Where a command writes to. */
export interface Output {
  readonly json: boolean;
  /** Whether standard output is a terminal for people. */
  readonly isTerminal: boolean;
  /** Width of the terminal; 100 when there is none. */
  readonly columns: number;
  /** One line for people on standard output; nothing under `--json`. */
  line(text?: string): void;
  /** One JSON line on standard output under `--json`; nothing otherwise. */
  object(value: Readonly<Record<string, unknown>>): void;
  /** The stream of notes and progress (standard error). */
  readonly notes: OutputStream;
}

/** The part of a Node stream that output needs. */
export interface OutputStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** Wrong arguments: printed with a hint at the help, exit code 2. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}
