/** Waiting policies under test: fixed budgets of polling, and ours. */
import { AdaptiveSpin } from "../../native-bridge/idle-strategy.ts";
import { localUs, type Policy } from "./ring-partner.ts";

/** Polls for a fixed time, then says to park: what AdaptiveSpin is held against. */
export class FixedSpin {
  readonly #budgetUs: number;

  constructor(budgetUs: number) {
    this.#budgetUs = budgetUs;
  }

  spin(predicate: () => boolean): boolean {
    if (this.#budgetUs === 0) return predicate();
    const endUs = localUs() + this.#budgetUs;
    do {
      for (let poll = 0; poll < 32; poll++) if (predicate()) return true;
    } while (localUs() < endUs);
    return false;
  }

  woke(): void {
    // A fixed policy learns nothing.
  }
}

/** The spin of a policy. */
export function makeSpin(policy: Policy): AdaptiveSpin | FixedSpin {
  return policy.kind === "adaptive" ? new AdaptiveSpin({ nowUs: localUs }) : new FixedSpin(policy.spinUs);
}

export function policyName(policy: Policy): string {
  if (policy.kind === "adaptive") return "adaptive";
  return policy.spinUs === 0 ? "park" : `spin ${policy.spinUs} us`;
}
