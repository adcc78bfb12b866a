/**
 * Termination of a search that runs on several shards: one member's part of a coloured token ring with message counts.
 *
 * Invariant: the initiator says `finished` only when every living member is passive and no counted message is under way between living
 * members. A passive member sends no counted message, and every receipt of one turns its receiver black. Messages may overtake each
 * other and take any time; they must arrive once (the caller drops duplicates) or their sender or receiver must be declared lost.
 * Source: Dijkstra, "Shmuel Safra's version of termination detection", EWD 998. Divergence: members may be lost. Counts are kept per
 * peer, so those with a lost peer leave the sums; a token names the losses that its carriers know of, and each that it visits adopts them. A loss
 * that is new to the initiator makes it send a token of a new generation: tokens whose sums may count the lost one die.
 */

/** The token: what the members visited so far have sent less what they received, among living members. */
export interface Token {
  /** Ordered: a member drops tokens of an older generation than it has seen. */
  readonly generation: number;
  readonly count: number;
  readonly black: boolean;
  /** Members that some carrier knows to be lost. */
  readonly lost: readonly number[];
}

/** What to do after a step of the ring. */
export type RingAction =
  | { readonly kind: "none" }
  | { readonly kind: "send"; readonly to: number; readonly token: Token }
  | { readonly kind: "finished" };

const NONE: RingAction = { kind: "none" };

/** One member of the ring of one query. */
export class TokenRing {
  readonly #self: number;
  /** Initiator first. */
  readonly #members: readonly number[];
  readonly #lost = new Set<number>();
  /** Sent less received, per peer. */
  readonly #balance = new Map<number, number>();
  #black = false;
  #held: Token | undefined;
  #generation = 0;
  /** Only the initiator: whether a token of its generation is on its way round. */
  #launched = false;

  /** @param members All members in ring order, the initiator first. */
  constructor(self: number, members: readonly number[]) {
    this.#self = self;
    this.#members = members;
  }

  get lost(): ReadonlySet<number> {
    return this.#lost;
  }

  /** A counted message was handed to the transport. */
  sent(to: number): void {
    this.#balance.set(to, (this.#balance.get(to) ?? 0) + 1);
  }

  /** A counted message came in. */
  received(from: number): void {
    this.#balance.set(from, (this.#balance.get(from) ?? 0) - 1);
    this.#black = true;
  }

  /** Keeps an incoming token until {@link advance}. */
  accept(token: Token): void {
    if (token.generation < this.#generation) return;
    this.#generation = token.generation;
    for (const member of token.lost) this.lose(member);
    if (token.generation === this.#generation) this.#held = token;
  }

  /** Declares a member dead: it is skipped and its messages are no longer counted. */
  lose(member: number): void {
    if (member === this.#self || this.#lost.has(member)) return;
    this.#lost.add(member);
    this.#balance.delete(member);
    if (!this.#isInitiator()) return;
    // The token may have died with the member, and its sums may hold the member's messages: start over.
    this.#generation++;
    this.#launched = false;
    this.#held = undefined;
  }

  /** Passes the token on, or judges it. Called only while this member is passive. */
  advance(): RingAction {
    if (this.#isInitiator()) return this.#judge();
    const token = this.#held;
    // Without its initiator nobody can judge: the ring stands still until the search is called off.
    if (token === undefined || this.#lost.has(this.#members[0] as number)) return NONE;
    this.#held = undefined;
    return this.#pass(token);
  }

  #judge(): RingAction {
    if (this.#next() === this.#self) return { kind: "finished" };
    const token = this.#held;
    if (this.#launched && token === undefined) return NONE;
    if (token !== undefined && !token.black && !this.#black && token.count + this.#sum() === 0)
      return { kind: "finished" };
    this.#held = undefined;
    this.#launched = true;
    this.#black = false;
    const fresh: Token = { generation: ++this.#generation, count: 0, black: false, lost: [...this.#lost] };
    return { kind: "send", to: this.#next(), token: fresh };
  }

  #pass(token: Token): RingAction {
    const passed: Token = {
      generation: token.generation,
      count: token.count + this.#sum(),
      black: token.black || this.#black,
      lost: [...this.#lost],
    };
    this.#black = false;
    return { kind: "send", to: this.#next(), token: passed };
  }

  #sum(): number {
    let sum = 0;
    for (const count of this.#balance.values()) sum += count;
    return sum;
  }

  /** The next living member in the ring. */
  #next(): number {
    const members = this.#members;
    let at = members.indexOf(this.#self);
    do at = (at + 1) % members.length;
    while (this.#lost.has(members[at] as number));
    return members[at] as number;
  }

  #isInitiator(): boolean {
    return this.#members[0] === this.#self;
  }
}
