/** Sessions: LSNs only grow, tokens come back as they were, and no altered token passes for one that asks for less. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { Session } from "../../src/topology/session.ts";

const entries = fc.array(fc.tuple(fc.nat(32_767), fc.oneof(fc.nat(), fc.maxSafeNat())), { maxLength: 50 });

function sessionOf(list: readonly (readonly [number, number])[]): Session {
  const session = new Session();
  for (const [vshard, lsn] of list) session.merge(vshard, lsn);
  return session;
}

test("keeps the greatest LSN of each vshard, in whatever order they come", () => {
  fc.assert(
    fc.property(entries, (list) => {
      const session = sessionOf(list);
      const backwards = new Session();
      backwards.mergeAll(sessionOf(list.toReversed()));
      expect(backwards.lsns()).toEqual(session.lsns());
      for (const [vshard, lsn] of list) {
        expect(session.lsnOf(vshard)).toBeGreaterThanOrEqual(lsn);
        expect(session.covers(vshard, lsn)).toBe(lsn >= session.lsnOf(vshard));
        expect(session.covers(vshard, session.lsnOf(vshard))).toBe(true);
      }
    }),
  );
});

test("covers what it knows nothing of", () => {
  expect(new Session().covers(5, 0)).toBe(true);
  expect(new Session().lsnOf(5)).toBe(0);
});

test("gives the LSNs of the vshards of one request", () => {
  const session = sessionOf([
    [9, 3],
    [2, 7],
    [5, 1],
  ]);
  expect(session.lsns(Uint16Array.of(9, 1, 2))).toEqual({
    vshards: Uint16Array.of(2, 9),
    lsns: Float64Array.of(7, 3),
  });
  expect([...session.lsns().vshards]).toEqual([2, 5, 9]);
});

test("survives its token, which may stand in a URL as it is", () => {
  fc.assert(
    fc.property(entries, (list) => {
      const session = sessionOf(list);
      const token = session.toString();
      expect(encodeURIComponent(token)).toBe(token);
      const parsed = Session.parse(token);
      expect(parsed.lsns()).toEqual(session.lsns());
      expect(parsed.size).toBe(session.size);
    }),
  );
});

test("the token of one known session stays the same between versions", () => {
  const session = sessionOf([
    [0, 1],
    [200, 300],
  ]);
  expect(session.toString()).toBe("s1.AAHHAawCI7ch7Q");
});

test("every token that is cut, lengthened or altered in one character is refused", () => {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.= ";
  const token = sessionOf([
    [3, 70_000],
    [900, 2 ** 50],
  ]).toString();
  let tried = 0;
  for (let at = 0; at <= token.length; at++) {
    if (at < token.length) refused(token.slice(0, at));
    for (const letter of alphabet) {
      refused(token.slice(0, at) + letter + token.slice(at));
      if (letter !== token[at] && at < token.length) refused(token.slice(0, at) + letter + token.slice(at + 1));
      tried++;
    }
  }
  expect(tried).toBeGreaterThan(1000);

  function refused(text: string): void {
    expect(
      codeOf(() => Session.parse(text)),
      text,
    ).toBe("ERR_INVALID_ARGUMENT");
  }
});

test("garbage is refused with a typed error", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.string().map((text) => `s1.${text}`),
      ),
      (text) => {
        expect(codeOf(() => Session.parse(text))).toBe("ERR_INVALID_ARGUMENT");
      },
    ),
  );
  for (const value of [undefined, null, 7, {}])
    expect(codeOf(() => Session.parse(value as never))).toBe("ERR_INVALID_ARGUMENT");
});

test.each([
  [-1, 1],
  [32_768, 1],
  [1.5, 1],
  [1, -1],
  [1, 2 ** 53],
  [1, Number.NaN],
])("vshard %d with LSN %d is refused", (vshard, lsn) => {
  expect(codeOf(() => new Session().merge(vshard, lsn))).toBe("ERR_INVALID_ARGUMENT");
});

function codeOf(act: () => unknown): string {
  try {
    act();
    return "";
  } catch (error) {
    return ShardloomError.is(error) ? error.code : String(error);
  }
}
