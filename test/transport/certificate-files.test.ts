/** Certificates in a directory: rights, whole files, nothing replaced by mistake, and changes that a running node notices. */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ShardloomError } from "../../src/errors.ts";
import { createVirtualTime } from "../../src/runtime/scheduler.ts";
import {
  authorityFiles,
  type CertificateFiles,
  certificateFiles,
  isOpenToOthers,
  nodesIn,
  readAuthorityFiles,
  readCertificateFiles,
  replaceCertificateFile,
  writeAuthorityFiles,
  writeCertificateFiles,
} from "../../src/transport/certificate-files.ts";
import { watchCertificate } from "../../src/transport/certificate-watch.ts";
import {
  type CheckedCertificate,
  checkNodeCertificate,
  createAuthority,
  issueCertificate,
  renewCertificate,
} from "../../src/transport/certificates.ts";
import { eventually } from "../support/cluster.ts";
import { refusalOf } from "../support/refusals.ts";

const WALL_MS = Date.UTC(2030, 0, 1);
const DAY_MS = 86_400_000;
const authority = await createAuthority({ name: "shop", wallMs: WALL_MS });
const other = await createAuthority({ name: "shop", wallMs: WALL_MS });
const [a, b, foreign] = await Promise.all([
  issueCertificate(authority, { node: "a", days: 30, wallMs: WALL_MS }),
  issueCertificate(authority, { node: "b", days: 30, wallMs: WALL_MS }),
  issueCertificate(other, { node: "a", days: 30, wallMs: WALL_MS }),
]);

let directory = "";
let files: CertificateFiles;
beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), "shardloom-certs-")), "certs");
  files = certificateFiles(directory, "a");
});
afterEach(() => rmSync(join(directory, ".."), { recursive: true, force: true }));

function modeOf(path: string): number {
  return statSync(path).mode & 0o777;
}

describe("certificates in a directory", () => {
  test("are read as they were written, and keys by nobody else", async () => {
    await writeAuthorityFiles(directory, authority);
    await writeCertificateFiles(files, a);
    expect(readdirSync(directory).sort((x, y) => x.localeCompare(y))).toEqual([
      "a.crt",
      "a.key",
      "authority.crt",
      "authority.key",
    ]);
    expect(await readAuthorityFiles(directory)).toEqual(authority);
    expect(await readCertificateFiles(files)).toEqual(a);
    expect(await nodesIn(directory)).toEqual(["a"]);
    expect([directory, files.key, files.certificate].map(modeOf)).toEqual([0o700, 0o600, 0o644]);
    expect(modeOf(authorityFiles(directory).key)).toBe(0o600);
    expect(await isOpenToOthers(files.key)).toBe(false);
    chmodSync(files.key, 0o640);
    expect(await isOpenToOthers(files.key)).toBe(true);
  });

  test("bring their authority along where there is none", async () => {
    await writeCertificateFiles(files, a);
    expect(readFileSync(files.authority, "utf8")).toBe(authority.certificate);
    await writeCertificateFiles(files, foreign, { replace: true });
    expect(readFileSync(files.authority, "utf8")).toBe(authority.certificate); // never another one in its place
  });

  test("are not replaced unless that is asked for", async () => {
    await writeAuthorityFiles(directory, authority);
    await expect(writeAuthorityFiles(directory, other)).rejects.toThrow("authority.crt is there already");
    expect(await readAuthorityFiles(directory)).toEqual(authority);
    rmSync(authorityFiles(directory).certificate);
    expect(await refusalOf(() => writeAuthorityFiles(directory, other))).toBe("ERR_FILE_EXISTS");
    expect(readFileSync(authorityFiles(directory).key, "utf8")).toBe(authority.key);
    await writeAuthorityFiles(directory, other, { replace: true });
    expect(await readAuthorityFiles(directory)).toEqual(other);
    expect(readdirSync(directory)).toHaveLength(2); // nothing is left of what was refused
  });

  test("of two writers at once one wins whole", async () => {
    const both = [authority, other];
    const ends = await Promise.all(both.map((each) => refusalOf(() => writeAuthorityFiles(directory, each))));
    const winner = both[ends.indexOf(undefined)];
    expect(ends).toContain("ERR_FILE_EXISTS");
    expect(await readAuthorityFiles(directory)).toEqual(winner);
  });

  test("are refused when missing, too large, directories, or of a name that would be the authority's", async () => {
    expect(await refusalOf(() => readAuthorityFiles(directory))).toBe("ERR_NO_FILE");
    expect(await refusalOf(() => nodesIn(directory))).toBe("ERR_NO_FILE");
    mkdirSync(directory);
    writeFileSync(files.certificate, "x".repeat(300_000));
    expect(await refusalOf(() => readCertificateFiles(files))).toBe("ERR_CORRUPT");
    rmSync(files.certificate);
    mkdirSync(files.certificate);
    expect(await refusalOf(() => readCertificateFiles(files))).toBe("ERR_IO");
    for (const node of ["authority", "../a", ""])
      expect(await refusalOf(() => certificateFiles(directory, node))).toBe("ERR_INVALID_ARGUMENT");
    writeFileSync(join(directory, "no node.crt"), "");
    writeFileSync(join(directory, "c.key"), "");
    expect(await nodesIn(directory)).toEqual(["a"]);
  });
});

describe("what a node runs with", () => {
  test("is whole, or refused with what is wrong", async () => {
    expect(checkNodeCertificate(a, WALL_MS)).toMatchObject({ ...a, cluster: "shop", node: "a" });
    const refused = (wrong: Partial<typeof a>, wallMs = WALL_MS): string => {
      try {
        checkNodeCertificate({ ...a, ...wrong }, wallMs);
        return "";
      } catch (error) {
        return `${(error as ShardloomError).code} ${(error as Error).message}`;
      }
    };
    const elsewhere = await createAuthority({ name: "store", wallMs: WALL_MS });
    expect(refused({ key: b.key })).toMatch(/^ERR_UNTRUSTED .*its key must be the one of the certificate/);
    expect(refused({ authority: other.certificate })).toMatch(/^ERR_UNTRUSTED .*its authority must have issued it/);
    expect(refused({ authority: elsewhere.certificate })).toMatch(/must be of cluster shop: current value is store/);
    expect(refused({ authority: b.certificate })).toMatch(/^ERR_UNTRUSTED .*must be an authority's/);
    expect(refused({}, WALL_MS + 31 * DAY_MS)).toMatch(/^ERR_UNTRUSTED .*the time must be between/);
    expect(refused({ authority: "" })).toMatch(/^ERR_CORRUPT/);
    expect(refused({ key: "" })).toMatch(/^ERR_CORRUPT/);
    expect(refused({ ...authority })).toMatch(/^ERR_UNTRUSTED/);
  });

  test("may trust the old authority and the new one", () => {
    const both = `${other.certificate}\n${authority.certificate}`;
    expect(checkNodeCertificate({ ...a, authority: both }, WALL_MS).node).toBe("a");
    expect(checkNodeCertificate({ ...foreign, authority: both }, WALL_MS).node).toBe("a");
  });
});

describe("a watch", () => {
  interface Watched {
    readonly told: CheckedCertificate[];
    readonly refused: string[];
  }

  async function watched(wall = { ms: WALL_MS }, onChange?: () => void) {
    const time = createVirtualTime();
    const seen: Watched = { told: [], refused: [] };
    const watch = await watchCertificate(
      files,
      (certificate) => {
        onChange?.();
        seen.told.push(certificate);
      },
      { scheduler: time.scheduler, wallMs: () => wall.ms, onRefused: ({ code }) => seen.refused.push(code) },
    );
    return { ...seen, watch, time };
  }

  test("tells a renewed certificate, and nothing before and after", async () => {
    await writeCertificateFiles(files, a);
    const { told, refused, watch } = await watched();
    await watch.check();
    expect(told).toEqual([]);
    const renewed = await renewCertificate(authority, a.certificate, { wallMs: WALL_MS });
    await replaceCertificateFile(files, renewed);
    await Promise.all([watch.check(), watch.check()]);
    expect(told).toMatchObject([{ certificate: renewed, key: a.key, node: "a" }]);
    expect(watch.current).toBe(told[0]);
    expect(refused).toEqual([]);
    watch.close();
  });

  test("looks by itself, at every interval, until it is closed", async () => {
    await writeCertificateFiles(files, a);
    const { told, watch, time } = await watched();
    for (const days of [10, 20]) {
      await replaceCertificateFile(files, await renewCertificate(authority, a.certificate, { days, wallMs: WALL_MS }));
      await time.advance(10_000);
      await eventually("a look by itself", () => told.length === days / 10 && time.pending() === 1);
    }
    watch.close();
    expect(time.pending()).toBe(0);
    await replaceCertificateFile(files, a.certificate);
    await watch.check();
    expect(told).toHaveLength(2);
  });

  test("keeps the old certificate while the files cannot be used, and says so once each", async () => {
    await writeCertificateFiles(files, a);
    const wall = { ms: WALL_MS };
    const { told, refused, watch } = await watched(wall);
    const put = async (certificate: typeof a): Promise<void> => {
      await writeCertificateFiles(files, certificate, { replace: true });
      await watch.check();
      await watch.check();
    };
    await put({ ...a, key: b.key });
    expect(refused).toEqual(["ERR_UNTRUSTED"]);
    await put(b); // whole, but another node's
    await put(foreign);
    expect(refused).toEqual(["ERR_UNTRUSTED", "ERR_UNTRUSTED", "ERR_UNTRUSTED"]);
    rmSync(files.key);
    await watch.check();
    await watch.check();
    expect(refused.slice(3)).toEqual(["ERR_NO_FILE"]);
    expect(told).toEqual([]);
    expect(watch.current.certificate).toBe(a.certificate);
    await put(a); // as it was: nothing to tell
    const renewed = await issueCertificate(authority, { node: "a", days: 60, wallMs: WALL_MS });
    wall.ms += 61 * DAY_MS;
    await put(renewed);
    expect(refused.slice(4)).toEqual(["ERR_UNTRUSTED"]);
    wall.ms = WALL_MS;
    await watch.check(); // the same files, whose time has come
    expect(told.map(({ key }) => key)).toEqual([renewed.key]);
    const newer = await issueCertificate(authority, { node: "a", days: 60, wallMs: WALL_MS });
    await put(newer);
    expect(told.map(({ key }) => key)).toEqual([renewed.key, newer.key]);
    watch.close();
  });

  test("keeps the old certificate when who was told throws, and goes on", async () => {
    await writeCertificateFiles(files, a);
    let isFailing = true;
    const { told, refused, watch } = await watched(undefined, () => {
      if (isFailing) throw new Error("no");
    });
    const replace = async (days: number): Promise<void> => {
      await replaceCertificateFile(files, await renewCertificate(authority, a.certificate, { days, wallMs: WALL_MS }));
      await watch.check();
    };
    await replace(10);
    expect(refused).toEqual(["ERR_INTERNAL"]);
    expect(watch.current.certificate).toBe(a.certificate);
    isFailing = false;
    await replace(20);
    expect(told).toHaveLength(1);
    watch.close();
  });

  test("does not begin with files that cannot be used", async () => {
    expect(await refusalOf(() => watched())).toBe("ERR_NO_FILE");
    await writeCertificateFiles(files, foreign);
    writeFileSync(files.authority, authority.certificate);
    expect(await refusalOf(() => watched())).toBe("ERR_UNTRUSTED");
    const options = { scheduler: createVirtualTime().scheduler, wallMs: () => WALL_MS, onRefused: () => undefined };
    const watch = () => watchCertificate(files, () => undefined, { ...options, intervalMs: 1 });
    expect(await refusalOf(watch)).toBe("ERR_INVALID_ARGUMENT");
  });
});
