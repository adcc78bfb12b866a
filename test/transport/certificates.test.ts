/** The authority of a cluster and what it issues: as made, as read back, and as TLS itself judges it. */
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type TLSSocket } from "node:tls";
import { describe, expect, test } from "vitest";
import {
  certifyKey,
  checkValidity,
  createAuthority,
  type IssueOptions,
  issueCertificate,
  type NodeCertificate,
  renewCertificate,
} from "../../src/transport/certificates.ts";
import { clusterOfAuthority, nodeOfCertificate } from "../../src/transport/node-identity.ts";
import { createKeyPair, isIssuedBy, isKeyOf, readCertificate } from "../../src/transport/x509.ts";
import { buildRequest, readRequest } from "../../src/transport/x509-builder.ts";
import { damagedCopies, refusalOf, rounds } from "../support/refusals.ts";

const DAY_MS = 86_400_000;
const WALL_MS = Date.UTC(2030, 0, 1);
const authority = await createAuthority({ name: "shop", days: 100, wallMs: WALL_MS });
const facts = readCertificate(authority.certificate);

function issue(options: Partial<IssueOptions> = {}, by = authority): Promise<NodeCertificate> {
  return issueCertificate(by, { node: "a", wallMs: WALL_MS, ...options });
}

describe("an authority", () => {
  test("is of its cluster, signs itself, and may sign others", () => {
    expect(clusterOfAuthority(facts)).toBe("shop");
    expect(facts).toMatchObject({ isAuthority: true, subject: "Shardloom authority of shop" });
    expect(facts.notBeforeMs).toBe(WALL_MS - 300_000);
    expect(facts.notAfterMs).toBe(WALL_MS + 100 * DAY_MS);
    expect(isIssuedBy(facts, facts)).toBe(true);
    expect(isKeyOf(authority.key, facts)).toBe(true);
    expect(authority.certificate).toMatch(/^-----BEGIN CERTIFICATE-----\n[\s\S]*\n-----END CERTIFICATE-----\n$/);
    expect(authority.key).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
  });

  test("of the longest name can be read", async () => {
    const name = "n".repeat(63);
    const { certificate } = await createAuthority({ name, wallMs: WALL_MS });
    expect(clusterOfAuthority(readCertificate(certificate))).toBe(name);
  });

  test("is refused for wrong names and times", async () => {
    for (const name of ["", "a b", "a/b", "n".repeat(64)])
      expect(await refusalOf(() => createAuthority({ name, wallMs: WALL_MS }))).toBe("ERR_INVALID_ARGUMENT");
    for (const days of [0, 0.5, -1, 3651, Number.NaN])
      await expect(createAuthority({ name: "a", days, wallMs: WALL_MS })).rejects.toThrow(
        `days must be an integer between 1 and 3650: current value is ${days}`,
      );
  });

  test("cannot issue with another's key, before or after its time, or when it is a node's", async () => {
    const other = await createAuthority({ name: "shop", days: 100, wallMs: WALL_MS });
    const mixed = { certificate: authority.certificate, key: other.key };
    await expect(issue({}, mixed)).rejects.toThrow("its key must be the one of its certificate");
    for (const wallMs of [WALL_MS - DAY_MS, WALL_MS + 101 * DAY_MS])
      expect(await refusalOf(() => issue({ wallMs }))).toBe("ERR_UNTRUSTED");
    const node = await issue();
    expect(await refusalOf(() => issue({}, node))).toBe("ERR_UNTRUSTED");
    expect(await refusalOf(() => issue({}, { ...authority, key: "no key" }))).toBe("ERR_CORRUPT");
    expect(await refusalOf(() => issue({}, { ...authority, certificate: "none" }))).toBe("ERR_CORRUPT");
  });
});

describe("an issued certificate", () => {
  test("has node, hosts and validity as asked for", async () => {
    const hosts = ["a.example", "localhost", "10.0.0.1", "::1", "2001:db8:0::7", "localhost"];
    const { certificate, key, authority: signer } = await issue({ hosts, days: 30 });
    const read = readCertificate(certificate);
    expect(signer).toBe(authority.certificate);
    expect(nodeOfCertificate(read.der)).toEqual({ cluster: "shop", node: "a" });
    expect(read).toMatchObject({ isAuthority: false, subject: "a", notAfterMs: WALL_MS + 30 * DAY_MS });
    expect(read.names).toEqual([
      { kind: "uri", value: "shardloom://shop/a" },
      { kind: "dns", value: "a.example" },
      { kind: "dns", value: "localhost" },
      { kind: "ip", value: "10.0.0.1" },
      { kind: "ip", value: "::1" },
      { kind: "ip", value: "2001:db8::7" },
    ]);
    expect(isIssuedBy(read, facts)).toBe(true);
    expect(isIssuedBy(facts, read)).toBe(false);
    expect(isKeyOf(key, read)).toBe(true);
    expect(isKeyOf(authority.key, read)).toBe(false);
  });

  test("no two are the same, of node or number", async () => {
    const read = [await issue(), await issue()].map(({ certificate }) => readCertificate(certificate));
    expect(new Set(read.map(({ serial }) => serial)).size).toBe(2);
    expect(new Set(read.map(({ publicKey }) => Buffer.from(publicKey).toString("hex"))).size).toBe(2);
  });

  test("ends with its authority at the latest", async () => {
    expect(readCertificate((await issue()).certificate).notAfterMs).toBe(facts.notAfterMs);
    await expect(issue({ days: 101 })).rejects.toThrow("days must be at most 100");
    expect(readCertificate((await issue({ days: 100 })).certificate).notAfterMs).toBe(facts.notAfterMs);
  });

  test("is refused for wrong names", async () => {
    for (const node of ["", "..", "a/b"]) expect(await refusalOf(() => issue({ node }))).toBe("ERR_INVALID_ARGUMENT");
    for (const host of ["", "a:1", "a b", "*.a", "1.2.3", "300.1.1.1", "-a", "fe80::1%eth0", "a..b", "é"])
      expect(await refusalOf(() => issue({ hosts: [host] })), host).toBe("ERR_INVALID_ARGUMENT");
    const many = Array.from({ length: 33 }, (_, at) => `host${at}`);
    expect(await refusalOf(() => issue({ hosts: many }))).toBe("ERR_INVALID_ARGUMENT");
  });

  test("is for keys over P-256 only", async () => {
    const options = { node: "a", wallMs: WALL_MS };
    const { publicKey } = createKeyPair();
    const certificate = readCertificate(await certifyKey(authority, publicKey, options));
    expect(certificate.publicKey).toEqual(publicKey);
    for (const wrong of [new Uint8Array(0), publicKey.slice(1), new Uint8Array(91)])
      expect(await refusalOf(() => certifyKey(authority, wrong, options))).toBe("ERR_INVALID_ARGUMENT");
  });
});

describe("validity", () => {
  test("is from a little before to the last second", async () => {
    const read = readCertificate((await issue({ days: 1 })).certificate);
    for (const wallMs of [WALL_MS - 300_000, WALL_MS, WALL_MS + DAY_MS]) checkValidity(read, wallMs);
    expect(() => checkValidity(read, WALL_MS - 300_001)).toThrow("the time must be between 2029-12-31T23:55:00.000Z");
    expect(() => checkValidity(read, WALL_MS + DAY_MS + 1)).toThrow("current value is 2030-01-02T00:00:00.001Z");
  });

  test("a renewed certificate has the same node, hosts and key for a new time", async () => {
    const old = await issue({ hosts: ["a.example", "::1"], days: 1 });
    const later = WALL_MS + 10 * DAY_MS;
    const renewed = await renewCertificate(authority, old.certificate, { days: 20, wallMs: later });
    const [before, after] = [readCertificate(old.certificate), readCertificate(renewed)];
    expect(after).toMatchObject({ names: before.names, subject: "a", notAfterMs: later + 20 * DAY_MS });
    expect(after.serial).not.toBe(before.serial);
    expect(isKeyOf(old.key, after)).toBe(true);
    expect(isIssuedBy(after, facts)).toBe(true);
  });

  test("nobody renews what another authority has issued", async () => {
    const other = await createAuthority({ name: "shop", wallMs: WALL_MS });
    const { certificate } = await issue({}, other);
    expect(await refusalOf(() => renewCertificate(authority, certificate, { wallMs: WALL_MS }))).toBe("ERR_UNTRUSTED");
    const self = () => renewCertificate(authority, authority.certificate, { wallMs: WALL_MS });
    expect(await refusalOf(self)).toBe("ERR_UNTRUSTED");
  });
});

describe("a request", () => {
  test("is for the key that has signed it", async () => {
    const pair = createKeyPair();
    const der = await buildRequest(pair, "a");
    expect(await readRequest(der)).toEqual(pair.publicKey);
    const codes = new Set<string | undefined>();
    for (const bytes of damagedCopies(der, rounds(500))) {
      const code = await refusalOf(async () => expect(await readRequest(bytes)).toEqual(pair.publicKey));
      codes.add(code);
    }
    expect(codes).toContain("ERR_CORRUPT");
    expect(codes).toContain("ERR_UNTRUSTED");
  });
});

/** Whom each of two sides, which trust their authority alone, takes the other for, over TLS 1.3; or why it does not. */
async function handshake(
  server: NodeCertificate,
  client: NodeCertificate,
): Promise<{ server: string; client: string }> {
  const judge = (socket: TLSSocket): string =>
    socket.authorized
      ? nodeOfCertificate(socket.getPeerCertificate().raw).node
      : String((socket.authorizationError as Error & { code?: string }).code ?? socket.authorizationError);
  const both = { minVersion: "TLSv1.3", rejectUnauthorized: false } as const;
  const listener = createServer({ ...tlsOptions(server), ...both, requestCert: true }).listen(0, "127.0.0.1");
  await once(listener, "listening");
  const accepted = once(listener, "secureConnection") as Promise<[TLSSocket]>;
  const socket = connect({ ...tlsOptions(client), ...both, port: (listener.address() as AddressInfo).port });
  const closed = once(listener, "close");
  try {
    await once(socket, "secureConnect");
    const [peer] = await accepted;
    return { client: judge(socket), server: judge(peer.on("error", () => undefined)) };
  } finally {
    socket.destroy();
    listener.close();
    await closed;
  }
}

function tlsOptions({ certificate, key, authority: ca }: NodeCertificate): { cert: string; key: string; ca: string } {
  return { cert: certificate, key, ca };
}

describe("TLS", () => {
  const now = Date.now();
  const hosts = ["127.0.0.1", "localhost"];
  const UNKNOWN_ISSUER = "UNABLE_TO_VERIFY_LEAF_SIGNATURE";

  test("takes both sides for the nodes that they are", async () => {
    const own = await createAuthority({ name: "shop", wallMs: now });
    const [a, b] = await Promise.all(["a", "b"].map((node) => issueCertificate(own, { node, hosts, wallMs: now })));
    expect(await handshake(a as NodeCertificate, b as NodeCertificate)).toEqual({ client: "a", server: "b" });
  });

  test("refuses another authority of the same name, and what has expired", async () => {
    const [own, other] = await Promise.all(
      [1, 2].map(() => createAuthority({ name: "shop", wallMs: now - 9 * DAY_MS })),
    );
    const make = (by: typeof own, wallMs: number): Promise<NodeCertificate> =>
      issueCertificate(by as NonNullable<typeof own>, { node: "a", hosts, days: 8, wallMs });
    const good = await make(own, now - DAY_MS);
    const foreign = { ...(await make(other, now - DAY_MS)), authority: good.authority };
    const old = await make(own, now - 9 * DAY_MS);
    expect(await handshake(good, good)).toEqual({ server: "a", client: "a" });
    expect(await handshake(good, foreign)).toEqual({ server: UNKNOWN_ISSUER, client: "a" });
    expect(await handshake(foreign, good)).toEqual({ server: "a", client: UNKNOWN_ISSUER });
    expect(await handshake(good, old)).toEqual({ server: "CERT_HAS_EXPIRED", client: "a" });
    expect(await handshake(old, good)).toEqual({ server: "a", client: "CERT_HAS_EXPIRED" });
  });
});
