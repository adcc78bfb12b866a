/**
 * One reservation of the far end of an edge, as a state machine.
 *
 * Invariant: from `reserved` until its end the vertex that is reserved exists, and whoever reserved it learns exactly one end, however
 * often and in whatever order he asks: `committed`, `released` or `expired` are final. A commit that was not preceded by a reserve, or comes
 * after the time, never makes an edge.
 *
 * ```
 *   none ──reserve──▶ reserved ──commit, in time──▶ committed
 *    │                   ├──────release───────────▶ released
 *    ├──release──▶ released (a reserve that comes later is refused)
 *    └──commit───▶ expired  └──time, commit too late─▶ expired
 * ```
 */

/** Where a reservation is. */
export type ReservationState =
  | { readonly kind: "none" }
  /** The vertex is held until then, by the clock of its owner. */
  | { readonly kind: "reserved"; readonly expiresMs: number }
  | { readonly kind: "committed" }
  | { readonly kind: "released" }
  | { readonly kind: "expired" };

/** What happens to it. */
export type ReservationEvent =
  | { readonly kind: "reserve"; readonly expiresMs: number }
  | { readonly kind: "commit" | "release" | "time" };

export const NO_RESERVATION: ReservationState = { kind: "none" };
const COMMITTED: ReservationState = { kind: "committed" };
const RELEASED: ReservationState = { kind: "released" };
const EXPIRED: ReservationState = { kind: "expired" };

/** The state after an event; the same object when nothing changes. */
export function transition(state: ReservationState, event: ReservationEvent, nowMs: number): ReservationState {
  switch (state.kind) {
    case "none":
      if (event.kind === "reserve") return { kind: "reserved", expiresMs: event.expiresMs };
      return event.kind === "release" ? RELEASED : event.kind === "commit" ? EXPIRED : state;
    case "reserved":
      if (event.kind === "release") return RELEASED;
      if (nowMs >= state.expiresMs) return EXPIRED;
      return event.kind === "commit" ? COMMITTED : state;
    case "committed":
    case "released":
    case "expired":
      return state;
  }
}
