/**
 * Errors as plain values and back: what structured clone would lose (class, code, details, cause) survives.
 *
 * Invariant: `errorToValue` never throws and yields something `value-codec.ts` encodes, of bounded size whatever the error
 * carries; `errorFromValue` never throws and always yields a {@link ShardloomError}, `ERR_INTERNAL` when the code is not one
 * we know (a newer peer).
 * Source: the error envelope of connect-es. Divergence: causes travel too, bounded in number.
 */

import { describeValue, ERROR_CODES, type ErrorCode, ShardloomError } from "../errors.ts";
import { findUnencodable } from "./encodable.ts";
import { createValueCodec } from "./value-codec.ts";

/** An error as a plain value. `code` is present only for a ShardloomError. */
export interface ErrorValue {
  readonly name: string;
  readonly message: string;
  readonly code?: string;
  readonly retryable?: boolean;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly stack?: string;
  /** The next error of the chain, or a thrown value that was no error. */
  readonly cause?: ErrorValue | { readonly value: unknown };
}

/** How an error is written. */
export interface ErrorCodecOptions {
  /** Whether stacks travel. They do between threads; the network edge leaves them out. @default false */
  readonly stack?: boolean;
}

/** Longest chain of causes that travels, the error itself not counted. */
export const MAX_CAUSES = 8;
const MAX_TEXT_LENGTH = 4096;
const MAX_DETAILS = 32;
/** Largest detail, in characters or entries, that travels as it is. */
const MAX_DETAIL_SIZE = 1024;

const BUILT_IN: Readonly<Record<string, ErrorConstructor>> = {
  Error,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/** Turns anything thrown into a plain value. */
export function errorToValue(error: unknown, options: ErrorCodecOptions = {}): ErrorValue {
  const thrown = error instanceof Error ? error : new Error(describeValue(error));
  const wrapped = ShardloomError.is(thrown) ? thrown : ShardloomError.from(thrown);
  return toValue(wrapped, options.stack === true, MAX_CAUSES);
}

/** Turns a plain value, also a malformed one, back into an error. */
export function errorFromValue(value: unknown): ShardloomError {
  return fromValue(value, MAX_CAUSES);
}

function fromValue(value: unknown, causesLeft: number): ShardloomError {
  if (!isErrorValue(value)) {
    return new ShardloomError(
      "ERR_INTERNAL",
      `Cannot read an error as it must be an error value: current value is ${describeValue(value)}`,
    );
  }
  const known = value.code !== undefined && Object.hasOwn(ERROR_CODES, value.code);
  const code = known ? (value.code as ErrorCode) : "ERR_INTERNAL";
  const details = typeof value.details === "object" && value.details !== null ? value.details : {};
  const error = new ShardloomError(code, value.message, {
    details: known || value.code === undefined ? details : { ...details, remoteCode: value.code },
    ...(typeof value.retryable === "boolean" && { retryable: value.retryable }),
    ...(value.cause !== undefined && causesLeft > 0 && { cause: causeFromValue(value.cause, causesLeft - 1) }),
  });
  return withStack(error, value.stack);
}

const codec = createValueCodec();

/** An error as bytes, for the body of an error reply; stacks travel unless told otherwise, as readers are threads of this process. */
export function encodeError(error: unknown, options: ErrorCodecOptions = { stack: true }): Uint8Array {
  return codec.encode(errorToValue(error, options));
}

/** The error in a byte range; bytes that hold none give an `ERR_CORRUPT` of their own. */
export function decodeErrorAt(bytes: Uint8Array, byteOffset: number, byteLength: number): ShardloomError {
  try {
    return errorFromValue(codec.decode(bytes, byteOffset, byteLength));
  } catch (error) {
    return ShardloomError.from(error, "ERR_CORRUPT");
  }
}

function toValue(error: Error, stack: boolean, causesLeft: number): ErrorValue {
  const { cause } = error;
  return {
    name: clip(error.name),
    message: clip(error.message),
    ...(ShardloomError.is(error) && {
      code: error.code,
      retryable: error.retryable,
      details: plainDetails(error.details),
    }),
    ...(stack && typeof error.stack === "string" && { stack: clip(error.stack) }),
    ...(cause !== undefined &&
      causesLeft > 0 && {
        cause: cause instanceof Error ? toValue(cause, stack, causesLeft - 1) : { value: plainDetail(cause) },
      }),
  };
}

function causeFromValue(value: unknown, causesLeft: number): unknown {
  if (!isErrorValue(value))
    return typeof value === "object" && value !== null && "value" in value ? value.value : undefined;
  if (value.code !== undefined) return fromValue(value, causesLeft);
  const ErrorClass = Object.hasOwn(BUILT_IN, value.name) ? (BUILT_IN[value.name] as ErrorConstructor) : Error;
  const cause = value.cause === undefined || causesLeft === 0 ? undefined : causeFromValue(value.cause, causesLeft - 1);
  const error = new ErrorClass(value.message, cause === undefined ? undefined : { cause });
  if (error.name !== value.name) Object.defineProperty(error, "name", { value: value.name, configurable: true });
  return withStack(error, value.stack);
}

/** Gives the error the stack of where it was thrown; without one it keeps none, as ours would point at the codec. */
function withStack<E extends Error>(error: E, stack: string | undefined): E {
  Object.defineProperty(error, "stack", {
    value: stack ?? `${error.name}: ${error.message}`,
    configurable: true,
    writable: true,
  });
  return error;
}

function isErrorValue(value: unknown): value is ErrorValue {
  return (
    typeof value === "object" &&
    value !== null &&
    typeof (value as ErrorValue).name === "string" &&
    typeof (value as ErrorValue).message === "string"
  );
}

function plainDetails(details: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const plain: Record<string, unknown> = {};
  let count = 0;
  for (const key of Object.keys(details)) {
    if (count++ === MAX_DETAILS) break;
    if (key !== "__proto__" && key !== "constructor") plain[key] = plainDetail(details[key]);
  }
  return plain;
}

/** The value itself when it is small and can travel, else a short description of it. */
function plainDetail(value: unknown): unknown {
  if (typeof value === "string")
    return value.length > MAX_DETAIL_SIZE ? `${value.slice(0, MAX_DETAIL_SIZE - 3)}...` : value;
  if (typeof value === "object" && value !== null)
    return findUnencodable(value) === undefined && sizeOf(value, MAX_DETAIL_SIZE) > 0 ? value : describeValue(value);
  return typeof value === "function" || typeof value === "symbol" ? describeValue(value) : value;
}

/** What is left of a budget of parts after counting this one; ≤ 0 once it is spent. */
function sizeOf(value: unknown, budget: number): number {
  if (typeof value === "string") return budget - value.length;
  if (typeof value === "bigint") return budget - 64;
  if (typeof value !== "object" || value === null) return budget - 1;
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return budget - value.byteLength - 1;
  if (value instanceof Error) return 0;
  let left = budget - 1;
  const parts =
    value instanceof Map
      ? [...value.keys(), ...value.values()]
      : value instanceof Set
        ? [...value]
        : [...Object.keys(value), ...Object.values(value)];
  for (const part of parts) {
    if (left <= 0) return left;
    left = sizeOf(part, left);
  }
  return left;
}

function clip(text: unknown): string {
  const string = typeof text === "string" ? text : describeValue(text);
  return string.length > MAX_TEXT_LENGTH ? `${string.slice(0, MAX_TEXT_LENGTH - 3)}...` : string;
}
