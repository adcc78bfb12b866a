/** Join tokens: what the authority has signed is read back, anything else is refused, and no refusal has the token in it. */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { createAuthority } from "../../src/transport/certificates.ts";
import {
  createJoinToken,
  type JoinTokenOptions,
  readJoinToken,
  verifyJoinToken,
} from "../../src/transport/join-token.ts";
import { readCertificate, signBytes } from "../../src/transport/x509.ts";
import { damagedCopies, refusalOf, rounds } from "../support/refusals.ts";

const WALL_MS = Date.UTC(2030, 0, 1);
const authority = await createAuthority({ name: "shop", days: 10, wallMs: WALL_MS });
const facts = readCertificate(authority.certificate);

function create(options: Partial<JoinTokenOptions> = {}): string {
  return createJoinToken(authority, { node: "b", wallMs: WALL_MS, ...options });
}

/** A token with this claim, signed by the authority itself. */
function signed(claim: unknown): string {
  const text = `shardloom-join-1.${Buffer.from(JSON.stringify(claim)).toString("base64url")}`;
  return `${text}.${Buffer.from(signBytes(authority.key, Buffer.from(text))).toString("base64url")}`;
}

describe("a token", () => {
  test("says what was signed, to who can check it and who cannot", () => {
    const token = create({ hosts: ["b.example", "::1"], minutes: 5 });
    const claim = {
      cluster: "shop",
      node: "b",
      hosts: ["b.example", "::1"],
      expiresMs: WALL_MS + 300_000,
      authority: facts.fingerprint,
      nonce: expect.stringMatching(/^[0-9a-f]{32}$/),
    };
    expect(readJoinToken(token)).toEqual(claim);
    expect(verifyJoinToken(token, facts, WALL_MS)).toEqual(claim);
    expect(verifyJoinToken(`  ${token}\n`, facts, WALL_MS)).toEqual(claim);
    expect(token).toMatch(/^shardloom-join-1\.[\w-]+\.[\w-]+$/);
  });

  test("is another one every time", () => {
    expect(readJoinToken(create()).nonce).not.toBe(readJoinToken(create()).nonce);
  });

  test("can be used to its last millisecond", async () => {
    const token = create({ minutes: 1 });
    expect(verifyJoinToken(token, facts, WALL_MS + 60_000).node).toBe("b");
    expect(await refusalOf(() => verifyJoinToken(token, facts, WALL_MS + 60_001))).toBe("ERR_UNTRUSTED");
    expect(() => verifyJoinToken(token, facts, WALL_MS + 60_001)).toThrow(
      "Cannot use join token for node b as the time must be at most 2030-01-01T00:01:00.000Z",
    );
  });

  test("of another authority is refused, also of one of the same name", async () => {
    const other = await createAuthority({ name: "shop", wallMs: WALL_MS });
    const foreign = createJoinToken(other, { node: "b", wallMs: WALL_MS });
    expect(await refusalOf(() => verifyJoinToken(foreign, facts, WALL_MS))).toBe("ERR_UNTRUSTED");
    const [, claim] = foreign.split(".") as [string, string];
    const stolen = {
      ...(JSON.parse(Buffer.from(claim, "base64url").toString()) as object),
      authority: facts.fingerprint,
    };
    const [prefix, , signature] = foreign.split(".");
    const forged = [prefix, Buffer.from(JSON.stringify(stolen)).toString("base64url"), signature].join(".");
    expect(() => verifyJoinToken(forged, facts, WALL_MS)).toThrow("it must have the signature of its authority");
  });

  test("for another cluster is refused, also when this authority has signed it", async () => {
    const claim = { ...readJoinToken(create()), cluster: "store" };
    expect(await refusalOf(() => verifyJoinToken(signed(claim), facts, WALL_MS))).toBe("ERR_UNTRUSTED");
  });

  test.for<[string, object]>([
    ["no node", { node: undefined }],
    ["a node that is a path", { node: "../b" }],
    ["hosts that are none", { hosts: "b" }],
    ["a host that is a number", { hosts: [7] }],
    ["an end that is no number", { expiresMs: "1" }],
    ["an end beyond all times", { expiresMs: 9e15 }],
    ["a nonce that is a path", { nonce: "../".padEnd(32, "0") }],
    ["a short fingerprint", { authority: "00" }],
  ])("with a claim that cannot be is refused: %s", async ([, wrong]) => {
    const whole = readJoinToken(create());
    expect(verifyJoinToken(signed(whole), facts, WALL_MS)).toEqual(whole);
    expect(await refusalOf(() => readJoinToken(signed({ ...whole, ...wrong })))).toBe("ERR_CORRUPT");
  });

  test("that was damaged is refused, and no refusal shows it", () => {
    const token = create();
    const pieces = token.split(".").flatMap((part) => part.match(/.{16}/g) ?? []);
    expect(pieces.length).toBeGreaterThan(10);
    const codes = new Set<string>();
    const cut = Array.from({ length: token.length }, (_, length) => token.slice(0, length));
    const changed = [...damagedCopies(Buffer.from(token), rounds(2_000))].map((bytes) =>
      Buffer.from(bytes).toString("latin1"),
    );
    for (const text of [...cut, ...changed, `${token}.x`, `${token}=`, "", "x".repeat(20_000)]) {
      if (text.trim() === token) continue;
      let error: unknown;
      try {
        verifyJoinToken(text, facts, WALL_MS);
      } catch (caught) {
        error = caught;
      }
      if (!ShardloomError.is(error)) throw new Error(`taken: ${text}`, { cause: error });
      codes.add(error.code);
      const shown = JSON.stringify([error.message, error.details, String(error.cause)]);
      expect(pieces.filter((piece) => piece !== "shardloom-join-1" && shown.includes(piece))).toEqual([]);
    }
    expect(codes).toEqual(new Set(["ERR_CORRUPT", "ERR_UNTRUSTED"]));
  });

  test("is not made of wrong options, or by an authority that cannot issue", async () => {
    for (const node of ["", "a b", "."]) expect(await refusalOf(() => create({ node }))).toBe("ERR_INVALID_ARGUMENT");
    for (const minutes of [0, 1.5, 10_081, Number.NaN])
      expect(() => create({ minutes })).toThrow(`minutes must be an integer between 1 and 10080: current value is`);
    expect(await refusalOf(() => create({ hosts: ["a:1"] }))).toBe("ERR_INVALID_ARGUMENT");
    expect(await refusalOf(() => create({ wallMs: WALL_MS + 11 * 86_400_000 }))).toBe("ERR_UNTRUSTED");
  });

  test("with as many and long hosts as there may be can be read", () => {
    const hosts = Array.from(
      { length: 32 },
      (_, at) => `h${at}.${"a".repeat(60)}.${"b".repeat(60)}.${"c".repeat(60)}.${"d".repeat(60)}`,
    );
    expect(verifyJoinToken(create({ hosts }), facts, WALL_MS).hosts).toEqual(hosts);
  });
});
