/**
 * The error for a graph file in the house grammar: *Cannot read a.e at line 3 as weight must be a number: current value is "x"*.
 *
 * Invariant: `details` always has `file` and `line`, so that a program can lead its user to the place.
 */
import { describeValue, type ErrorCode, ShardloomError } from "../../../src/errors.ts";

export function graphTextError(
  code: ErrorCode,
  file: string,
  line: number,
  name: string,
  rule: string,
  value: unknown,
  details: Readonly<Record<string, unknown>> = {},
): ShardloomError {
  return new ShardloomError(
    code,
    `Cannot read ${file} at line ${line} as ${name} must be ${rule}: current value is ${describeValue(value)}`,
    { details: { file, line, value, ...details } },
  );
}
