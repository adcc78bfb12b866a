/**
 * The token ring against an onlooker who sees everything: it never ends a computation that goes on, and always ends one that is over.
 * The computation is the diffusing one of EWD 998: active members send at will and may fall passive; a message makes active again.
 */
import { expect, test } from "vitest";
import { type Token, TokenRing } from "../../../../actors/vector/cotra/token-ring.ts";
import { createSeededRandom, type Random } from "../../../../src/runtime/random.ts";

const BASE = Number(process.env["SEED"] ?? 1);

interface Flying {
  readonly from: number;
  readonly to: number;
  readonly token?: Token;
}

/** The world that the ring watches, with everything random: who acts, who fails, what arrives next. */
class Onlooker {
  readonly members: number[];
  readonly rings: Map<number, TokenRing>;
  readonly active: Set<number>;
  readonly dead = new Set<number>();
  flying: Flying[] = [];
  /** Losses that a member has yet to hear of. */
  news: { member: number; lost: number }[] = [];
  finished = false;
  work: number;
  readonly #random: Random;

  constructor(random: Random, size: number, work: number) {
    this.#random = random;
    this.members = Array.from({ length: size }, (_, at) => 10 + at);
    this.rings = new Map(this.members.map((member) => [member, new TokenRing(member, this.members)]));
    this.active = new Set(this.members);
    this.work = work;
  }

  int(below: number): number {
    return Math.floor(this.#random.float() * below);
  }

  ring(member: number): TokenRing {
    return this.rings.get(member) as TokenRing;
  }

  living(): number[] {
    return this.members.filter((member) => !this.dead.has(member));
  }

  /** What can still reach a living member that has not written the sender off. */
  underWay(): Flying[] {
    return this.flying.filter(
      ({ from, to, token }) => token === undefined && !this.dead.has(to) && !this.ring(to).lost.has(from),
    );
  }

  isOver(): boolean {
    return this.underWay().length === 0 && this.living().every((member) => !this.active.has(member));
  }

  step(): void {
    const kind = this.int(4);
    if (kind === 0 && this.flying.length > 0) this.#arrive(this.flying.splice(this.int(this.flying.length), 1)[0]!);
    else if (kind === 1 && this.news.length > 0 && this.int(3) === 0) {
      const { member, lost } = this.news.splice(this.int(this.news.length), 1)[0]!;
      if (!this.dead.has(member)) this.ring(member).lose(lost);
    } else {
      const living = this.living();
      this.#act(living[this.int(living.length)] as number);
    }
  }

  kill(member: number): void {
    this.dead.add(member);
    this.active.delete(member);
    this.flying = this.flying.filter(({ to, from }) => to !== member && (from !== member || this.int(2) === 0));
    for (const other of this.living()) this.news.push({ member: other, lost: member });
  }

  #act(member: number): void {
    if (!this.active.has(member)) {
      const action = this.ring(member).advance();
      if (action.kind === "finished") this.finished = true;
      if (action.kind === "send") this.#launch({ from: member, to: action.to, token: action.token });
      return;
    }
    const to = this.members[this.int(this.members.length)] as number;
    if (this.work > 0 && to !== member && !this.ring(member).lost.has(to)) {
      this.work--;
      this.ring(member).sent(to);
      this.#launch({ from: member, to });
    }
    if (this.int(2) === 0) this.active.delete(member);
  }

  #launch(message: Flying): void {
    if (!this.dead.has(message.to)) this.flying.push(message);
  }

  #arrive({ from, to, token }: Flying): void {
    if (this.ring(to).lost.has(from)) return;
    if (token !== undefined) this.ring(to).accept(token);
    else {
      this.ring(to).received(from);
      this.active.add(to);
    }
  }
}

test("no early end and no hang, for any order of messages", () => {
  for (let run = 0; run < 3000; run++) {
    const random = createSeededRandom(BASE + run);
    const world = new Onlooker(random, 1 + (run % 6), run % 40);
    for (let step = 0; !world.finished; step++) {
      world.step();
      if (world.finished) expect(world.isOver(), `SEED=${BASE} run ${run} ended early`).toBe(true);
      if (step > 20_000) expect.fail(`SEED=${BASE} run ${run} never ends`);
    }
  }
});

test("the same when members die, at any time, and the others hear of it late and one by one", () => {
  let killed = 0;
  for (let run = 0; run < 3000; run++) {
    const random = createSeededRandom(BASE + 10_000 + run);
    const world = new Onlooker(random, 3 + (run % 4), run % 40);
    const victims = world.members.slice(1).filter(() => world.int(2) === 0);
    for (let step = 0; !world.finished; step++) {
      if (victims.length > 0 && world.int(20) === 0) {
        world.kill(victims.pop() as number);
        killed++;
      }
      world.step();
      if (world.finished) expect(world.isOver(), `SEED=${BASE} run ${run} ended early`).toBe(true);
      if (step > 40_000) expect.fail(`SEED=${BASE} run ${run} never ends`);
    }
  }
  expect(killed).toBeGreaterThan(1000);
});

test("without its initiator a ring stands still", () => {
  const rings = [1, 2, 3].map((member) => new TokenRing(member, [1, 2, 3]));
  const launched = rings[0]?.advance();
  if (launched?.kind !== "send") expect.fail("the initiator sends no token");
  rings[1]?.accept(launched.token);
  rings[1]?.lose(1);
  expect(rings[1]?.advance()).toEqual({ kind: "none" });
});

test("a token of an older generation is dropped", () => {
  const ring = new TokenRing(2, [1, 2, 3]);
  ring.accept({ generation: 5, count: 0, black: false, lost: [] });
  expect(ring.advance().kind).toBe("send");
  ring.accept({ generation: 4, count: 0, black: false, lost: [] });
  expect(ring.advance().kind).toBe("none");
});

test("a token that was on its way when the initiator heard of a loss decides nothing", () => {
  const ring = new TokenRing(1, [1, 2, 3]);
  const launched = ring.advance();
  if (launched.kind !== "send") expect.fail("the initiator sends no token");
  // White and balanced, but 2 may have sent to 3 before it died.
  ring.lose(2);
  ring.accept(launched.token);
  expect(ring.advance()).toMatchObject({ kind: "send", to: 3, token: { lost: [2], count: 0 } });
});

test("a loss that only a member knows of comes round with the token, and decides nothing in that lap", () => {
  const [initiator, member] = [new TokenRing(1, [1, 2, 3]), new TokenRing(2, [1, 2, 3])];
  const launched = initiator.advance();
  if (launched.kind !== "send") expect.fail("the initiator sends no token");
  member.lose(3);
  member.accept(launched.token);
  const passed = member.advance();
  expect(passed).toMatchObject({ kind: "send", to: 1, token: { lost: [3] } });
  if (passed.kind === "send") initiator.accept(passed.token);
  expect(initiator.advance()).toMatchObject({ kind: "send", to: 2, token: { lost: [3], black: false } });
});
