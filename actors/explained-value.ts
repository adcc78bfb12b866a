/**
 * Accounts of reads whose results are plain values: documents, counts, neighbours.
 *
 * A result that is an object of its own has its account as `explain`; a plain one comes beside it, as `{ value, explain }`, with
 * `explain: true`, or goes to a function and leaves the result as it is. Invariant: one call gives one account, however many plans it took.
 */
import { invalidArgument } from "../src/errors.ts";
import type { PlainReadOptions, ReadOptions } from "./call-options.ts";
import type { Coordinator } from "./coordinator.ts";
import type { Explanation } from "./planned-read.ts";
import { ShardAccount, sumsOf } from "./shard-account.ts";

/** A plain result with its account. */
export interface ExplainedValue<Value, Account = Explanation> {
  readonly value: Value;
  readonly explain: Account;
}

/** Options with which a plain result comes as an {@link ExplainedValue}. */
export type Explaining<Options> = Omit<Options, "explain"> & {
  /** Gives the result as `{ value, explain }`. */
  readonly explain: true;
};

/** Whether an account is asked for. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function checkExplain(action: string, explain: unknown): boolean {
  if (explain === undefined || explain === false) return false;
  if (explain === true || typeof explain === "function") return true;
  throw invalidArgument(action, "explain", "true, false or a function", explain);
}

/** Reads a plain value, with its account when one is asked for. */
export async function explainedRead<Value>(
  coordinator: Coordinator,
  options: PlainReadOptions | Explaining<PlainReadOptions>,
  read: (options: ReadOptions) => Promise<Value>,
): Promise<Value | ExplainedValue<Value>> {
  const { explain } = options;
  const account = ReadAccount.of(coordinator, options);
  if (account === undefined) return read(options);
  const value = await read({ ...options, explain: account.take });
  const told = account.finish();
  if (explain === true) return { value, explain: told };
  if (typeof explain === "function") explain(told);
  return value;
}

/** What becomes the account of one call: those of its plans, and of further pages of answers. */
export class ReadAccount {
  readonly pages: ShardAccount = new ShardAccount();
  readonly #coordinator: Coordinator;
  readonly #options: ReadOptions;
  readonly #plans: Explanation[] = [];
  readonly #startedMs: number;

  private constructor(coordinator: Coordinator, options: ReadOptions) {
    this.#coordinator = coordinator;
    this.#options = options;
    this.#startedMs = coordinator.nowMs();
  }

  /** Undefined when no account is asked for. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
  static of(coordinator: Coordinator, options: ReadOptions): ReadAccount | undefined {
    return checkExplain("read", options.explain) ? new ReadAccount(coordinator, options) : undefined;
  }

  /** Takes the account of a plan. */
  readonly take = (plan: Explanation): void => {
    this.#plans.push(plan);
  };

  /** The account of the call: that of its plan, or several plans' in one. */
  finish(): Explanation {
    const plans = this.#plans;
    const [first = this.#nothingAsked()] = plans;
    const totalUs = (this.#coordinator.nowMs() - this.#startedMs) * 1000;
    if (plans.length <= 1) return withPages(first, this.pages, totalUs);
    const sum = (of: (plan: Explanation) => number): number => plans.reduce((total, plan) => total + of(plan), 0);
    const whole: Explanation = {
      plan: {
        ...first.plan,
        targets: plans.flatMap(({ plan }) => plan.targets),
        unavailable: plans.flatMap(({ plan }) => plan.unavailable),
      },
      planUs: sum(({ planUs }) => planUs),
      totalUs,
      stalenessMs: Math.max(...plans.map(({ stalenessMs }) => stalenessMs)),
      outcomes: plans.flatMap(({ outcomes }) => outcomes),
      attempts: sum(({ attempts }) => attempts),
      hedges: sum(({ hedges }) => hedges),
      bytes: sum(({ bytes }) => bytes),
    };
    return withPages(whole, this.pages, totalUs);
  }

  /** Of an empty list of ids. */
  #nothingAsked(): Explanation {
    const { topologyEpoch } = this.#coordinator.snapshot;
    const { strategy: copies, consistency } = this.#coordinator.rules(this.#options);
    const plan = { kind: "batch", topologyEpoch, copies, consistency, targets: [], unavailable: [] } as const;
    return { plan, planUs: 0, totalUs: 0, stalenessMs: 0, outcomes: [], attempts: 0, hedges: 0, bytes: 0 };
  }
}

/** An account with what was asked for the rest of answers, if anything was. @param totalUs With that. */
export function withPages<Account extends Explanation>(
  account: Account,
  asked: ShardAccount,
  totalUs: number,
): Account {
  const pages = asked.outcomes();
  if (pages.length === 0) return account;
  const { attempts, bytes } = sumsOf(pages);
  return { ...account, totalUs, pages, attempts: account.attempts + attempts, bytes: account.bytes + bytes };
}
