/**
 * Accounts of questions about graphs, for results that have a place for one and for those that have none.
 *
 * Invariant: who does not ask for an account pays for none; whoever asks gets it with the result, once.
 */
import type { CallOptions } from "../call-options.ts";
import { checkExplain, type ExplainedValue } from "../explained-value.ts";
import type { GraphHandle } from "./client-calls.ts";
import { type ExplainGraph, GraphAccount, type GraphExplanation } from "./graph-account.ts";

/** A result, with how it came about when `explain` was asked for. */
export type Explained<Result> = Result & { readonly explain?: GraphExplanation };

/** A plain result, alone or with its explanation beside it. */
export type MaybeExplained<Value> = Value | ExplainedValue<Value, GraphExplanation>;

/** What every question about a graph takes. */
export interface ExplainOption {
  /** Gives the result an account of what was asked of whom, or tells it to a function. @default false */
  readonly explain?: ExplainGraph | undefined;
}

/** Options of questions whose results have no place for an account. */
export interface PlainGraphOptions extends CallOptions {
  /** Whom the account is given; with `true` the result comes as `{ value, explain }`. @default false */
  readonly explain?: false | ((explanation: GraphExplanation) => void);
}

/** Options of `Graph.neighbours`. */
export interface NeighbourOptions extends PlainGraphOptions {
  /**
   * Properties of the vertices at the other ends that come with them, by name. In a graph with `ghosts` a shard tells of vertices of
   * others what it has read of them, which may be as old as `ttlMs`. @default none
   */
  readonly vertexProperties?: readonly string[];
}

/** The account of a question, when one is asked for. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function accountOf({ coordinator }: GraphHandle, { explain }: ExplainOption): GraphAccount | undefined {
  return checkExplain("search graph", explain) ? new GraphAccount(coordinator) : undefined;
}

/** Answers a question; its account is part of the result. */
export async function explained<Result extends object>(
  handle: GraphHandle,
  option: ExplainOption,
  answer: (account: GraphAccount | undefined) => Promise<Result>,
): Promise<Explained<Result>> {
  const { value, explain } = await answered(handle, option, answer);
  return explain === undefined ? value : { ...value, explain };
}

/** Answers a question whose result has no place for an account: it comes beside it. */
export async function explainedValue<Value>(
  handle: GraphHandle,
  option: ExplainOption,
  answer: (account: GraphAccount | undefined) => Promise<Value>,
): Promise<MaybeExplained<Value>> {
  const { value, explain } = await answered(handle, option, answer);
  return option.explain === true && explain !== undefined ? { value, explain } : value;
}

async function answered<Value>(
  handle: GraphHandle,
  option: ExplainOption,
  answer: (account: GraphAccount | undefined) => Promise<Value>,
): Promise<{ readonly value: Value; readonly explain?: GraphExplanation }> {
  const account = accountOf(handle, option);
  const value = await answer(account);
  if (account === undefined) return { value };
  const explain = account.explain(handle.options.shards);
  if (typeof option.explain === "function") option.explain(explain);
  return { value, explain };
}

/** The handle that counts for an account. */
export function counting(handle: GraphHandle, account: GraphAccount | undefined): GraphHandle {
  return account === undefined ? handle : { ...handle, account };
}
