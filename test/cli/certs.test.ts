/** `shardloom certs` as a user runs it: what is made can be run with, what is there is not lost, secrets stay secret. */
import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { certs as command } from "../../src/cli/certs.ts";
import { runProgram } from "../../src/cli/program.ts";
import { certificateFiles, readAuthorityFiles, readCertificateFiles } from "../../src/transport/certificate-files.ts";
import { checkNodeCertificate, createAuthority, issueCertificate } from "../../src/transport/certificates.ts";
import { verifyJoinToken } from "../../src/transport/join-token.ts";
import { readCertificate } from "../../src/transport/x509.ts";
import { type Finished, shardloom } from "../support/command.ts";

const DAY_MS = 86_400_000;
const root = mkdtempSync(join(tmpdir(), "shardloom-cli-certs-"));
const directory = join(root, "certs");
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The program in this process, as each of its own takes most of a second to load. */
async function certs(...args: string[]): Promise<Finished> {
  const written = { stdout: "", stderr: "" };
  const code = await runProgram(["certs", ...args, "--directory", directory], {
    commands: [command],
    defaultCommand: "certs",
    version: "0",
    stdout: { write: (text: string) => (written.stdout += text) },
    stderr: { write: (text: string) => (written.stderr += text) },
    signal: new AbortController().signal,
  });
  const lines = args.includes("--json") ? written.stdout.trim().split("\n") : [];
  return { code, ...written, objects: lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

beforeAll(async () => {
  const made = await shardloom("certs", "init", "shop", "--directory", directory);
  expect(made.stderr).toBe("");
  expect(made.stdout).toMatch(/^Made the authority of cluster shop, valid until \d{4}-\d\d-\d\d:\n/);
});

describe("shardloom certs", () => {
  it("makes an authority and certificates that a node can run with", async () => {
    const a = await certs("issue", "a");
    expect(a.code, a.stderr).toBe(0);
    expect(a.stdout).toContain("for node a (localhost, 127.0.0.1, ::1), valid until ");
    const b = await certs("issue", "b", "--host", "b.example, 10.0.0.2", "--days", "20", "--json");
    expect(b.objects).toMatchObject([{ node: "b", names: ["shardloom://shop/b", "b.example", "10.0.0.2"] }]);
    for (const [node, days] of [
      ["a", 365],
      ["b", 20],
    ] as const) {
      const files = certificateFiles(directory, node);
      const checked = checkNodeCertificate(await readCertificateFiles(files), Date.now());
      expect(checked).toMatchObject({ cluster: "shop", node });
      expect(Math.abs(checked.notAfterMs - Date.now() - days * DAY_MS)).toBeLessThan(120_000);
      expect(statSync(files.key).mode & 0o777).toBe(0o600);
    }
    expect(b.objects[0]?.["fingerprint"]).toBe(
      readCertificate(readFileSync(certificateFiles(directory, "b").certificate, "utf8")).fingerprint,
    );
  });

  it("replaces nothing without --force, and says what would", async () => {
    const before = readdirSync(directory).map((name) => readFileSync(join(directory, name), "utf8"));
    for (const args of [
      ["init", "other"],
      ["issue", "a"],
    ]) {
      const { code, stderr } = await certs(...args);
      expect(code).toBe(1);
      expect(stderr).toMatch(/\.crt is there already: EEXIST; --force replaces it \(ERR_FILE_EXISTS\)\n$/);
    }
    expect(readdirSync(directory).map((name) => readFileSync(join(directory, name), "utf8"))).toEqual(before);
    const files = certificateFiles(directory, "a");
    const old = await readCertificateFiles(files);
    expect((await certs("issue", "a", "--force", "--host", "a.example")).code).toBe(0);
    const fresh = await readCertificateFiles(files);
    expect(fresh.key).not.toBe(old.key);
    expect(checkNodeCertificate(fresh, Date.now()).node).toBe("a");
  });

  it("renews a certificate for its key", async () => {
    const files = certificateFiles(directory, "b");
    const old = await readCertificateFiles(files);
    const { code, stdout } = await certs("renew", "b", "--days", "40");
    expect(code).toBe(0);
    expect(stdout).toContain("Renewed the certificate of node b (b.example, 10.0.0.2)");
    const renewed = await readCertificateFiles(files);
    expect(renewed.key).toBe(old.key);
    const { notAfterMs } = checkNodeCertificate(renewed, Date.now());
    expect(notAfterMs - checkNodeCertificate(old, Date.now()).notAfterMs).toBeGreaterThan(19 * DAY_MS);
    expect((await certs("renew", "z")).stderr).toContain("z.crt is not there");
  });

  it("makes tokens that a shell can take", async () => {
    const { stdout, stderr, code } = await certs("token", "c", "--host", "10.0.0.3", "--minutes", "5");
    expect(code).toBe(0);
    const authority = readCertificate((await readAuthorityFiles(directory)).certificate);
    const claim = verifyJoinToken(stdout.trim(), authority, Date.now());
    expect(claim).toMatchObject({ cluster: "shop", node: "c", hosts: ["10.0.0.3"] });
    expect(Math.abs(claim.expiresMs - Date.now() - 300_000)).toBeLessThan(60_000);
    expect(stderr).toMatch(/^A secret\. Lets node c join cluster shop, once, until .*Z\.\n$/);
    const { objects } = await certs("token", "c", "--json");
    expect(verifyJoinToken(objects[0]?.["token"] as string, authority, Date.now()).hosts).toEqual([
      "localhost",
      "127.0.0.1",
      "::1",
    ]);
  });

  it("never prints a key", async () => {
    const keys = readdirSync(directory)
      .filter((name) => name.endsWith(".key"))
      .map((name) => readFileSync(join(directory, name), "utf8").split("\n")[1] ?? "");
    expect(keys.length).toBeGreaterThan(2);
    const runs = [await certs("show"), await certs("show", "--json"), await certs("issue", "k", "--json")];
    for (const { stdout, stderr } of runs)
      for (const key of [...keys, "PRIVATE KEY"]) expect(stdout + stderr).not.toContain(key);
  });

  it("ends with 2 for wrong usage, with a hint, and does nothing", async () => {
    const before = readdirSync(directory);
    for (const [args, message] of [
      [["fly"], /certs takes init, issue, renew, token, show: "fly" is none/],
      [["constructor"], /"constructor" is none/],
      [["init"], /usage is certs init CLUSTER/],
      [["show", "a"], /usage is certs show/],
      [["show", "--force"], /--force is not for certs show/],
      [["init", "x", "--host", "a"], /--host is not for certs init/],
      [["renew", "a", "--force"], /--force is not for certs renew/],
      [["token", "c", "--days", "3"], /--days is not for certs token/],
      [["issue", "c", "--minutes", "3"], /--minutes is not for certs issue/],
      [["issue", "c", "--days", "0"], /--days must be an integer in \[1, 3650\]/],
    ] as const) {
      const { code, stderr } = await certs(...args);
      expect(code, args.join(" ")).toBe(2);
      expect(stderr).toMatch(message);
      expect(stderr).toContain("Try: shardloom certs --help");
    }
    for (const args of [
      ["issue", "../a"],
      ["issue", "authority"],
      ["issue", "c", "--host", "c:1"],
      ["issue", "c", "--host", ""],
      ["token", ".."],
    ]) {
      const { code, stderr } = await certs(...args);
      expect(code, args.join(" ")).toBe(1);
      expect(stderr).toContain("ERR_INVALID_ARGUMENT");
    }
    expect(readdirSync(directory)).toEqual(before);
  });
});

describe("shardloom certs show", () => {
  it("lists what is good, as a table and as JSON", async () => {
    const { code, stdout } = await certs("show");
    expect(code).toBe(0);
    expect(stdout).toMatch(/^authority of shop {2,}\d{4}-\d\d-\d\d {2,}3,6\d\d {2,}[0-9a-f]{16} {2,}can issue$/m);
    expect(stdout).toMatch(/^a +\d{4}-\d\d-\d\d +36\d +[0-9a-f]{16} +good +a\.example$/m);
    const { objects } = await certs("show", "--json");
    const { certificates } = objects[0] as { certificates: { name: string; state?: string; complaint?: string }[] };
    expect(certificates.map(({ name }) => name)).toEqual(["authority of shop", "a", "b", "k"]);
    expect(certificates.map(({ state }) => state)).toEqual(["can issue", "good", "good", "good"]);
    expect(certificates.every(({ complaint }) => complaint === undefined)).toBe(true);
  });

  it("names what is expired, foreign, without its key or open to others, and ends with 1", async () => {
    const authority = await readAuthorityFiles(directory);
    const other = await createAuthority({ name: "shop", wallMs: Date.now() });
    const write = (node: string, { certificate, key }: { certificate: string; key: string }): void => {
      const files = certificateFiles(directory, node);
      writeFileSync(files.certificate, certificate);
      writeFileSync(files.key, key, { mode: 0o600 });
    };
    const past = { certificate: authority.certificate, key: authority.key };
    const soon = await issueCertificate(past, { node: "soon", days: 5, wallMs: Date.now() });
    write("soon", soon);
    write("foreign", await issueCertificate(other, { node: "foreign", wallMs: Date.now() }));
    write("damaged", { certificate: "none", key: "none" });
    write("keyless", soon);
    rmSync(certificateFiles(directory, "keyless").key);
    copyFileSync(certificateFiles(directory, "a").key, certificateFiles(directory, "b").key);
    chmodSync(certificateFiles(directory, "k").key, 0o644);
    const { code, stdout } = await certs("show");
    expect(code).toBe(1);
    expect(stdout).toMatch(/^soon .* good, ends soon /m);
    expect(stdout).toMatch(/^foreign: .*its authority must have issued it$/m);
    expect(stdout).toMatch(/^damaged: .*must be a certificate$/m);
    expect(stdout).toMatch(/^keyless: .*keyless\.key is not there/m);
    expect(stdout).toMatch(/^b: .*its key must be the one of the certificate$/m);
    expect(stdout).toMatch(/^k: others may read its key$/m);
    expect(stdout).toMatch(/^a .* good /m);
    const { objects } = await certs("show", "--json");
    const { certificates } = objects[0] as { certificates: { name: string; complaint?: string }[] };
    const bad = certificates.filter(({ complaint }) => complaint !== undefined).map(({ name }) => name);
    expect(bad).toEqual(["b", "damaged", "foreign", "k", "keyless"]);
  });

  it("an authority without its key is good for a node, and cannot issue", async () => {
    rmSync(join(directory, "authority.key"));
    expect((await certs("show")).stdout).toMatch(/^authority of shop .* without its key$/m);
    const { code, stderr } = await certs("issue", "d");
    expect(code).toBe(1);
    expect(stderr).toContain(
      "authority.key is not there: ENOENT; certificates are issued where the authority's key is",
    );
    rmSync(join(directory, "authority.crt"));
    expect((await certs("token", "d")).stderr).toContain("ENOENT; shardloom certs init makes an authority");
    expect((await certs("show")).stderr).toContain("ERR_NO_FILE");
  });
});
