/**
 * A member of a barrier: its name, its number, and how far it has come.
 *
 * Invariant: `first ≤ next`; the member has arrived at every position in between that was not complete without it. Only the
 * barrier changes what it has made; `owner` belongs to whoever hosts the barrier.
 */

/** A member, as the barrier's host sees it. */
export interface BarrierMember {
  readonly name: string;
  /** Never given to another member of the same barrier. */
  readonly id: number;
  /** Whoever answers for the member; the barrier does not look at it. */
  owner: unknown;
}

/** A member, as the barrier sees it. */
export class Member implements BarrierMember {
  readonly name: string;
  readonly id: number;
  /** First position that the member belongs to. */
  readonly first: number;
  /** The position after its last arrival. */
  next: number;
  present = true;
  owner: unknown = undefined;

  constructor(name: string, id: number, first: number) {
    this.name = name;
    this.id = id;
    this.first = first;
    this.next = first;
  }
}
