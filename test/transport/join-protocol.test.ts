/** A node that joins, message by message, with everything that can stand in its way. Over real connections: join-tls.test.ts. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { createAuthority, issueCertificate, type KeyedCertificate } from "../../src/transport/certificates.ts";
import {
  createJoinAcceptor,
  createJoiner,
  type JoinAcceptor,
  type Joiner,
  type JoinOutcome,
} from "../../src/transport/join-protocol.ts";
import { createJoinToken } from "../../src/transport/join-token.ts";
import { openUsedTokens } from "../../src/transport/used-tokens.ts";
import { readCertificate } from "../../src/transport/x509.ts";
import { damagedCopies, refusalOf, rounds } from "../support/refusals.ts";

const wall = { ms: Date.now() };
const wallMs = (): number => wall.ms;
const root = await mkdtemp(join(tmpdir(), "shardloom-join-"));
afterAll(() => rm(root, { recursive: true, force: true }));
const used = await openUsedTokens(await createSystemDisk(root));
const authority = await createAuthority({ name: "shop", wallMs: wall.ms });
const other = await createAuthority({ name: "shop", wallMs: wall.ms });
const a = await issueCertificate(authority, { node: "a", hosts: ["127.0.0.1"], wallMs: wall.ms });
const leaf = readCertificate(a.certificate).der;
const acceptor = createJoinAcceptor({ authority, used, days: 30, wallMs });

function tokenFor(node: string, by: KeyedCertificate = authority): string {
  return createJoinToken(by, { node, hosts: ["127.0.0.1"], wallMs: wall.ms });
}

/** A request as the node would send it. */
function requestOf(joiner: Joiner, by: JoinAcceptor = acceptor): Promise<Uint8Array> {
  return joiner.request(by.welcome(leaf), leaf);
}

function parsed(bytes: Uint8Array): Record<string, unknown> {
  return JSON.parse(new TextDecoder().decode(bytes)) as Record<string, unknown>;
}

function message(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** Code and message of the answer, as who joins is told. */
function toldBy({ answer }: JoinOutcome, joiner: Joiner): string {
  try {
    joiner.finish(answer);
    return "";
  } catch (error) {
    return `${(error as ShardloomError).code} ${(error as Error).message}`;
  }
}

describe("who joins", () => {
  test("gets what the authority has signed, for its own key", async () => {
    const joiner = createJoiner(tokenFor("b"), wallMs);
    expect(joiner.claim).toMatchObject({ cluster: "shop", node: "b" });
    const outcome = await acceptor.answer(await requestOf(joiner));
    const joined = joiner.finish(outcome.answer);
    const { fingerprint, notAfterMs } = joined;
    expect(outcome).toEqual({ answer: outcome.answer, joined: { node: "b", fingerprint, notAfterMs } });
    expect(Math.abs(notAfterMs - (wall.ms + 30 * 86_400_000))).toBeLessThan(1_000);
    const stranger = createJoiner(tokenFor("b"), wallMs);
    await requestOf(stranger);
    expect(await refusalOf(() => stranger.finish(outcome.answer))).toBe("ERR_UNTRUSTED");
  });

  test("does not begin with a token that is none, or has expired", async () => {
    const token = tokenFor("b");
    for (const text of ["", "x", token.slice(1), token.slice(0, -2), token.slice(0, 90)])
      expect(await refusalOf(() => createJoiner(text, wallMs))).toBe("ERR_CORRUPT");
    expect(await refusalOf(() => createJoiner(token, () => wall.ms + 3_600_001))).toBe("ERR_UNTRUSTED");
  });

  test("shows its token to nobody but who holds its authority", async () => {
    const foreign = await issueCertificate(other, { node: "a", wallMs: wall.ms });
    const member = await issueCertificate(authority, { node: "m", wallMs: wall.ms });
    const elsewhere = createJoinAcceptor({ authority: other, used, wallMs });
    const welcome = acceptor.welcome(leaf);
    const attempts: [string, Uint8Array, Uint8Array, string][] = [
      ["another authority", elsewhere.welcome(leaf), leaf, "the acceptor's authority must be the token's"],
      [
        "a leaf of another authority",
        welcome,
        readCertificate(foreign.certificate).der,
        "must be a node of cluster shop",
      ],
      ["a member without the authority", welcome, readCertificate(member.certificate).der, "must hold the authority"],
      ["the authority's own certificate", welcome, readCertificate(authority.certificate).der, "must be a node's"],
      ["no proof", message({ ...parsed(welcome), proof: "" }), leaf, "must hold the authority"],
      [
        "a proof of another",
        message({ ...parsed(welcome), proof: parsed(elsewhere.welcome(leaf))["proof"] }),
        leaf,
        "hold",
      ],
      ["another version", message({ ...parsed(welcome), protocol: 2 }), leaf, "protocol must be 1: current value is 2"],
      ["no version", message({ ...parsed(welcome), protocol: undefined }), leaf, "protocol must be 1"],
      ["no authority", message({ protocol: 1 }), leaf, "a welcome with an authority"],
      ["no certificate", welcome, new Uint8Array(3), "must be a certificate"],
    ];
    for (const [what, first, shown, reason] of attempts) {
      const joiner = createJoiner(tokenFor("b"), wallMs);
      await expect(joiner.request(first, shown), what).rejects.toThrow(reason);
    }
    const late = createJoiner(tokenFor("b"), wallMs);
    wall.ms += 40 * 86_400_000;
    const short = await issueCertificate(authority, { node: "s", days: 1, wallMs: wall.ms - 3 * 86_400_000 });
    const der = readCertificate(short.certificate).der;
    await expect(late.request(acceptor.welcome(der), der)).rejects.toThrow("the time must be between");
    wall.ms -= 40 * 86_400_000;
  });

  test("believes no answer that it did not ask for", async () => {
    const joiner = createJoiner(tokenFor("b"), wallMs);
    const { certificate } = parsed((await acceptor.answer(await requestOf(joiner))).answer);
    for (const [value, code] of [
      [{}, "ERR_CORRUPT"],
      [{ certificate: 7 }, "ERR_CORRUPT"],
      [{ certificate: "x" }, "ERR_CORRUPT"],
      [{ error: "no" }, "ERR_CORRUPT"],
      [{ error: { code: "constructor", message: "m" } }, "ERR_UNAVAILABLE"],
      [{ certificate: a.certificate }, "ERR_UNTRUSTED"],
      [{ certificate: authority.certificate }, "ERR_UNTRUSTED"],
    ] as const)
      expect(await refusalOf(() => joiner.finish(message(value)))).toBe(code);
    expect(joiner.finish(message({ certificate })).node).toBe("b");
  });

  test("does not take a certificate in another node's name, even for its key", async () => {
    const joiner = createJoiner(tokenFor("b"), wallMs);
    const request = parsed(await requestOf(joiner));
    const renamed = await acceptor.answer(message({ ...request, token: tokenFor("c") }));
    expect(renamed.joined?.node).toBe("c");
    expect(toldBy(renamed, joiner)).toBe(
      "ERR_UNTRUSTED Cannot join as node b as the certificate must be its own: current value is node c",
    );
  });
});

describe("who accepts", () => {
  test("takes a token once: replayed, with another key, and at the same moment", async () => {
    const token = tokenFor("b");
    const joiners = Array.from({ length: 6 }, () => createJoiner(token, wallMs));
    const requests = await Promise.all(joiners.map((joiner) => requestOf(joiner)));
    const outcomes = await Promise.all(requests.map((request) => acceptor.answer(request)));
    expect(outcomes.filter(({ joined }) => joined !== undefined)).toHaveLength(1);
    for (const { joined, refused } of outcomes) if (joined === undefined) expect(refused?.code).toBe("ERR_UNTRUSTED");
    for (const request of requests) expect((await acceptor.answer(request)).refused?.code).toBe("ERR_UNTRUSTED");
    const restarted = createJoinAcceptor({
      authority,
      used: await openUsedTokens(await createSystemDisk(root)),
      wallMs,
    });
    const again = await restarted.answer(requests[0] as Uint8Array);
    expect(toldBy(again, joiners[0] as Joiner)).toContain("the token must not have been used before");
  });

  test("does not use a token up for a request that fails", async () => {
    const joiner = createJoiner(tokenFor("b"), wallMs);
    const request = await requestOf(joiner);
    const broken = await acceptor.answer(message({ ...parsed(request), request: "AAAA" }));
    expect(toldBy(broken, joiner)).toMatch(/^ERR_CORRUPT .*certificate request/);
    expect((await acceptor.answer(request)).joined?.node).toBe("b");
  });

  test("refuses tokens of others, expired ones, and other versions, with the reason", async () => {
    const joiner = createJoiner(tokenFor("b"), wallMs);
    const request = parsed(await requestOf(joiner));
    const told = async (change: object): Promise<string> =>
      toldBy(await acceptor.answer(message({ ...request, ...change })), joiner);
    expect(await told({ token: tokenFor("b", other) })).toMatch(/^ERR_UNTRUSTED .*of this cluster's authority/);
    expect(await told({ token: "x" })).toMatch(/^ERR_CORRUPT Cannot read join token/);
    expect(await told({ token: undefined })).toMatch(/^ERR_CORRUPT/);
    expect(await told({ protocol: 7 })).toMatch(/^ERR_VERSION_MISMATCH .*current value is 7/);
    wall.ms += 3_600_001;
    expect(await told({})).toMatch(/^ERR_UNTRUSTED .*the time must be at most/);
    wall.ms -= 3_600_001;
    expect(await told({})).toBe("");
  });

  test("says nothing of what goes wrong inside, and keeps the token usable", async () => {
    let isFailing = true;
    const failing = createJoinAcceptor({
      authority,
      wallMs,
      used: {
        remember: (claim, now) =>
          isFailing
            ? Promise.reject(new ShardloomError("ERR_IO", "Cannot write /secret/place"))
            : used.remember(claim, now),
      },
    });
    const joiner = createJoiner(tokenFor("b"), wallMs);
    const request = await requestOf(joiner, failing);
    const outcome = await failing.answer(request);
    expect(outcome.refused?.message).toContain("/secret/place");
    expect(toldBy(outcome, joiner)).toBe("ERR_UNAVAILABLE Cannot join as the acceptor cannot issue certificates now");
    isFailing = false;
    expect((await failing.answer(request)).joined?.node).toBe("b");
  });

  test("answers whatever comes, and issues nothing for damaged requests", async () => {
    const joiner = createJoiner(tokenFor("b"), wallMs);
    const request = await requestOf(joiner);
    const never = createJoinAcceptor({ authority, wallMs, used: { remember: () => Promise.resolve(true) } });
    const codes = new Map<string, number>();
    for (const damaged of damagedCopies(request, rounds(1_000))) {
      const { joined, refused, answer } = await never.answer(damaged);
      expect(answer.length).toBeLessThan(65_536);
      const code = refused?.code ?? "issued";
      codes.set(code, (codes.get(code) ?? 0) + 1);
      // Not all of a message is signed (a space more, the form of a signature): it may then be answered, for the same key and node.
      if (joined !== undefined) expect(joiner.finish(answer).node).toBe("b");
    }
    expect(codes.get("ERR_CORRUPT")).toBeGreaterThan(100);
    expect(codes.get("ERR_UNTRUSTED")).toBeGreaterThan(10);
    expect(codes.get("ERR_INTERNAL")).toBeUndefined();
    for (const bytes of [new Uint8Array(0), message(null), message(7), new Uint8Array(70_000), Uint8Array.from([255])])
      expect((await never.answer(bytes)).refused?.code).toBe("ERR_CORRUPT");
  });

  test("does not begin with an authority that cannot issue", async () => {
    const create = (by: KeyedCertificate) => () => createJoinAcceptor({ authority: by, used, wallMs });
    expect(await refusalOf(create(a))).toBe("ERR_UNTRUSTED");
    expect(await refusalOf(create({ ...authority, key: other.key }))).toBe("ERR_UNTRUSTED");
  });
});
