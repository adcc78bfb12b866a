/**
 * The rule for weights of members, shared by the hash ring and the placement.
 *
 * Invariant: a weight is a positive finite number of at most {@link MAX_WEIGHT}; a member that shall hold nothing is drained or
 * removed, never given a weight of zero.
 */
import { invalidArgument } from "../errors.ts";

/** Most that one member can weigh: keeps a ring's points and a placement's shares within exact arithmetic. */
export const MAX_WEIGHT = 100;

/**
 * Checks one weight.
 *
 * @param action What cannot be done with a bad one: the start of the message.
 * @param name Which weight it is.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the value and the rule.
 */
export function checkWeight(action: string, name: string, weight: number): void {
  if (typeof weight !== "number" || !(weight > 0 && weight <= MAX_WEIGHT)) {
    throw invalidArgument(action, name, `a number above 0 and at most ${MAX_WEIGHT}`, weight);
  }
}
