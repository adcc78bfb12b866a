/**
 * Pressure of a bounded resource: open, throttled or suspended, with hysteresis so that it does not flap.
 *
 * Invariant: throttle at 85 % of any of the measured uses and release at 75 % of all of them; suspend at 95 %, release at
 * 85 %. The state is a function of the uses seen in order; whoever asks for admission enforces it.
 * Source: DESIGN.md, "Delivery". A state machine with one transition function.
 */

/** States in rising order, as numbers: admission compares a priority with them. */
export const PRESSURE_OPEN = 0;
export const PRESSURE_THROTTLED = 1;
export const PRESSURE_SUSPENDED = 2;

const THROTTLE_AT = 0.85;
const THROTTLE_RELEASE = 0.75;
const SUSPEND_AT = 0.95;
const SUSPEND_RELEASE = 0.85;

/**
 * The next state.
 *
 * @param state One of the three states.
 * @param use The largest use of any resource, as a fraction of its limit.
 */
export function nextPressure(state: number, use: number): number {
  if (use >= SUSPEND_AT) return PRESSURE_SUSPENDED;
  if (state === PRESSURE_SUSPENDED && use > SUSPEND_RELEASE) return PRESSURE_SUSPENDED;
  if (use >= THROTTLE_AT) return PRESSURE_THROTTLED;
  if (state !== PRESSURE_OPEN && use > THROTTLE_RELEASE) return PRESSURE_THROTTLED;
  return PRESSURE_OPEN;
}

/** The name of a state, for people and statistics. */
export function pressureName(state: number): "open" | "throttled" | "suspended" {
  return state === PRESSURE_OPEN ? "open" : state === PRESSURE_THROTTLED ? "throttled" : "suspended";
}
