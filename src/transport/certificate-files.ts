/**
 * Certificates and keys in a directory, as other programs read them too: PEM, one file each. The adapter over files with rights.
 *
 * `authority.crt`, `authority.key` (only where certificates are issued), and for each node `<node>.crt`, `<node>.key`.
 *
 * Invariant: a file appears whole and is replaced whole; a key is never readable by others, not even before it has its name; nothing that is there
 * is replaced unless that was asked for. Of a pair the key comes first: a crash between the two leaves a pair that does not fit and is refused,
 * never one that is used by mistake.
 * Divergence from src/runtime/disk.ts: files have rights here, and directories are the user's, symbolic links included.
 */
import { link, mkdir, open, readdir, readFile, rename, stat, unlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { invalidArgument, ShardloomError } from "../errors.ts";
import { diskError } from "../runtime/disk.ts";
import type { KeyedCertificate, NodeCertificate } from "./certificates.ts";
import { checkIdentityName, isIdentityName } from "./node-identity.ts";
import { secretBytes } from "./x509.ts";

/** Paths of what a node runs with. */
export interface CertificateFiles {
  readonly certificate: string;
  readonly key: string;
  /** Certificate of the authority; may hold several. */
  readonly authority: string;
}

/** How files are written. */
export interface WriteOptions {
  /** Whether files that are there are replaced. @default false: `ERR_FILE_EXISTS` */
  readonly replace?: boolean;
}

const AUTHORITY = "authority";
const PRIVATE = 0o600;
const PUBLIC = 0o644;
const PRIVATE_DIRECTORY = 0o700;
/** Rights of anybody but the owner. */
const OTHERS = 0o077;
/** Longest file; a longer one is not one of ours. */
const MAX_BYTES = 256 * 1024;

/** Where a directory has what a node runs with. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function certificateFiles(directory: string, node: string): CertificateFiles {
  checkIdentityName("name files of certificate", "node", node);
  if (node === AUTHORITY)
    throw invalidArgument("name files of certificate", "node", `another name than ${AUTHORITY}`, node);
  return { ...pairOf(directory, node), authority: pairOf(directory, AUTHORITY).certificate };
}

/** Where a directory has its authority. */
export function authorityFiles(directory: string): Omit<CertificateFiles, "authority"> {
  return pairOf(directory, AUTHORITY);
}

/** Names of the nodes whose certificates a directory has, in order. @throws {ShardloomError} `ERR_NO_FILE`, `ERR_IO` */
export async function nodesIn(directory: string): Promise<string[]> {
  const names = await attempt("list directory", directory, () => readdir(directory));
  const nodes = names.filter((name) => name.endsWith(CERTIFICATE)).map((name) => name.slice(0, -CERTIFICATE.length));
  return nodes.filter((node) => node !== AUTHORITY && isIdentityName(node)).sort();
}

/** Reads an authority, unchecked. @throws {ShardloomError} `ERR_NO_FILE`, `ERR_CORRUPT`, `ERR_IO` */
export function readAuthorityFiles(directory: string): Promise<KeyedCertificate> {
  return readPair(authorityFiles(directory));
}

/** Reads what a node runs with, unchecked. As {@link readAuthorityFiles}. */
export async function readCertificateFiles(files: CertificateFiles): Promise<NodeCertificate> {
  return { ...(await readPair(files)), authority: await readText(files.authority) };
}

/** Reads one file of a few certificates or a key. As {@link readAuthorityFiles}. */
export function readPemFile(path: string): Promise<string> {
  return readText(path);
}

/** Writes an authority; makes the directory, for nobody else to enter, when it is missing. @throws {ShardloomError} `ERR_FILE_EXISTS`, and as disks do */
export async function writeAuthorityFiles(
  directory: string,
  authority: KeyedCertificate,
  options: WriteOptions = {},
): Promise<void> {
  await writePair(authorityFiles(directory), authority, options);
}

/**
 * Writes a node's certificate and key. The authority's certificate is written where it is missing, and is otherwise left as it is.
 * As {@link writeAuthorityFiles}.
 */
export async function writeCertificateFiles(
  files: CertificateFiles,
  certificate: NodeCertificate,
  options: WriteOptions = {},
): Promise<void> {
  await writePair(files, certificate, options);
  if (!(await isThere(files.authority))) await writeWhole(files.authority, certificate.authority, PUBLIC, options);
}

/** Replaces a certificate by one for the same key. */
export async function replaceCertificateFile({ certificate }: CertificateFiles, pem: string): Promise<void> {
  await writeWhole(certificate, pem, PUBLIC, { replace: true });
}

/** Whether anybody but its owner may do anything with a file. Systems without rights of files say what they like. */
export async function isOpenToOthers(path: string): Promise<boolean> {
  const { mode } = await attempt("read rights of file", path, () => stat(path));
  return (mode & OTHERS) !== 0;
}

/** Whether there is something of that name. */
export async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    const { code = "EIO" } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return false;
    throw diskError("look for file", path, code, error);
  }
}

const CERTIFICATE = ".crt";
const KEY = ".key";

function pairOf(directory: string, name: string): Omit<CertificateFiles, "authority"> {
  return { certificate: join(directory, `${name}${CERTIFICATE}`), key: join(directory, `${name}${KEY}`) };
}

async function readPair(files: Omit<CertificateFiles, "authority">): Promise<KeyedCertificate> {
  return { certificate: await readText(files.certificate), key: await readText(files.key) };
}

async function writePair(
  files: Omit<CertificateFiles, "authority">,
  { certificate, key }: KeyedCertificate,
  options: WriteOptions,
): Promise<void> {
  const directory = dirname(files.key);
  await attempt("make directory", directory, () => mkdir(directory, { recursive: true, mode: PRIVATE_DIRECTORY }));
  // Before the key is written: a certificate without a key stays what it is.
  if (options.replace !== true && (await isThere(files.certificate)))
    throw diskError("write file", files.certificate, "EEXIST");
  await writeWhole(files.key, key, PRIVATE, options);
  await writeWhole(files.certificate, certificate, PUBLIC, options);
}

/** Under another name first, which only this call has; then by one call of the system under the file's. */
async function writeWhole(path: string, text: string, mode: number, { replace = false }: WriteOptions): Promise<void> {
  const fresh = `${path}.${Buffer.from(secretBytes(6)).toString("hex")}.new`;
  await attempt("write file", path, async () => {
    try {
      const file = await open(fresh, "wx", mode);
      try {
        await file.writeFile(text);
        await file.sync();
      } finally {
        await file.close();
      }
      await (replace ? rename(fresh, path) : link(fresh, path));
    } finally {
      await unlink(fresh).catch((error: unknown) => {
        // Renamed, or never made.
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      });
    }
    const directory = await open(dirname(path), "r");
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  });
}

async function readText(path: string): Promise<string> {
  const bytes = await attempt("read file", path, async () => {
    const { size } = await stat(path);
    return size > MAX_BYTES ? undefined : readFile(path);
  });
  if (bytes !== undefined) return bytes.toString("utf8");
  throw new ShardloomError("ERR_CORRUPT", `Cannot read ${path} as it must be at most ${MAX_BYTES} bytes of PEM`, {
    details: { path },
  });
}

async function attempt<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    throw diskError(operation, path, (error as NodeJS.ErrnoException).code ?? "EIO", error);
  }
}
