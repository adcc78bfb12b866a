/** Certificates and the nodes that they name: what is made is read back, and whatever else comes is refused with its type. */
import { describe, expect, test } from "vitest";
import { createAuthority, issueCertificate } from "../../src/transport/certificates.ts";
import { isIdentityName, nodeOfCertificate } from "../../src/transport/node-identity.ts";
import { type CertificateName, createKeyPair, readCertificate } from "../../src/transport/x509.ts";
import { buildCertificate } from "../../src/transport/x509-builder.ts";
import { damagedCopies, refusalOf, rounds } from "../support/refusals.ts";

const WALL_MS = Date.UTC(2030, 0, 1);
const authority = await createAuthority({ name: "shop", wallMs: WALL_MS });

/** A certificate with these names, as the authority itself would never make it. */
async function derWith(...names: CertificateName[]): Promise<Uint8Array> {
  const times = { notBeforeMs: WALL_MS, notAfterMs: WALL_MS + 1_000 };
  const { publicKey } = createKeyPair();
  return readCertificate(await buildCertificate({ subject: "x", names, publicKey, issuer: authority, ...times })).der;
}

function uri(value: string): CertificateName {
  return { kind: "uri", value };
}

describe("the node of a certificate", () => {
  test("is the one that it was issued for", async () => {
    const { certificate } = await issueCertificate(authority, { node: "Node_1.a-b", hosts: ["::1"], wallMs: WALL_MS });
    const { der } = readCertificate(certificate);
    expect(nodeOfCertificate(der)).toEqual({ cluster: "shop", node: "Node_1.a-b" });
  });

  test("URIs of others beside it do no harm", async () => {
    const der = await derWith(uri("https://a.example/x,y"), uri("shardloom://c/n"), uri("spiffe://c/n"));
    expect(nodeOfCertificate(der)).toEqual({ cluster: "c", node: "n" });
  });

  test.for<[string, CertificateName[]]>([
    ["no name at all", []],
    ["no URI", [{ kind: "dns", value: "shardloom" }]],
    ["a URI of another scheme", [uri("spiffe://c/n")]],
    ["the scheme in capitals", [uri("SHARDLOOM://c/n")]],
    ["two nodes", [uri("shardloom://c/n"), uri("shardloom://c/m")]],
    ["one node twice", [uri("shardloom://c/n"), uri("shardloom://c/n")]],
    ["a cluster only", [uri("shardloom://c")]],
    ["no node", [uri("shardloom://c/")]],
    ["no cluster", [uri("shardloom:///n")]],
    ["a path", [uri("shardloom://c/n/m")]],
    ["a step upwards", [uri("shardloom://c/..")]],
    ["a question", [uri("shardloom://c/n?m")]],
    ["an escape", [uri("shardloom://c/%6e")]],
    ["a space", [uri("shardloom://c/n ")]],
    ["a zero", [uri("shardloom://c/n\0m")]],
    ["a name that is too long", [uri(`shardloom://c/${"n".repeat(64)}`)]],
    ["a DNS name that looks like two", [{ kind: "dns", value: "x, URI:shardloom://c/evil" }]],
    ["a quoted DNS name that looks like two", [{ kind: "dns", value: 'x", URI:shardloom://c/evil, DNS:"y' }]],
    ["a DNS name that is the URI", [{ kind: "dns", value: "shardloom://c/n" }]],
  ])("is refused: %s", async ([, names]) => {
    const der = await derWith(...names);
    expect(await refusalOf(() => nodeOfCertificate(der))).toBe("ERR_UNTRUSTED");
  });

  test("a longer name is a node, but one that looks like two beside it does not add one", async () => {
    const node = "n".repeat(63);
    const der = await derWith({ kind: "dns", value: "x, URI:shardloom://c/evil" }, uri(`shardloom://c/${node}`));
    expect(nodeOfCertificate(der)).toEqual({ cluster: "c", node });
  });

  test("an authority is nobody's", async () => {
    const { der } = readCertificate(authority.certificate);
    expect(await refusalOf(() => nodeOfCertificate(der))).toBe("ERR_UNTRUSTED");
  });

  test("bytes that are no certificate, and damaged ones", async () => {
    expect(await refusalOf(() => nodeOfCertificate(new Uint8Array(0)))).toBe("ERR_CORRUPT");
    expect(await refusalOf(() => nodeOfCertificate(Uint8Array.from([0x30, 0x03, 1, 2, 3])))).toBe("ERR_CORRUPT");
    const der = await derWith(uri("shardloom://c/n"));
    for (let cut = 0; cut < der.length; cut += 7)
      expect(await refusalOf(() => nodeOfCertificate(der.slice(0, cut)))).toBe("ERR_CORRUPT");
    const seen = new Map<string | undefined, number>();
    for (const bytes of damagedCopies(der, rounds(2_000))) {
      const code = await refusalOf(() => nodeOfCertificate(bytes));
      seen.set(code, (seen.get(code) ?? 0) + 1);
    }
    // Only a change outside the names and the structure goes unnoticed here: TLS checks the signature.
    expect(new Set(seen.keys())).toEqual(new Set(["ERR_CORRUPT", "ERR_UNTRUSTED", undefined]));
  });
});

test("names are letters, digits and a few marks", () => {
  const good = ["a", "A9", "a.b-c_d", "9", "n".repeat(63)];
  expect(good.filter(isIdentityName)).toEqual(good);
  const bad = ["", ".", "..", ".a", "-a", "_a", "a/b", "a b", "é", "a\n", "n".repeat(64), undefined, 7, null];
  expect(bad.filter(isIdentityName)).toEqual([]);
});
