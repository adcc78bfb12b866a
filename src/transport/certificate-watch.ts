/**
 * Notices that a node's certificate files were replaced, so that it changes certificates while it runs.
 *
 * Invariant: what is told is whole, valid now and of the same node and cluster as before; anything else (half of a pair, another node's, an expired
 * one) is reported once, and the certificate in use stays. Changes are told one at a time and in order.
 * Divergence from `fs.watch`: files are read again and again. They are few and small, and reading sees what notifications miss: directories that
 * are swapped by a symbolic link, network file systems, changes between two reads of a pair.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import { type CertificateFiles, readCertificateFiles } from "./certificate-files.ts";
import { type CheckedCertificate, checkNodeCertificate, type NodeCertificate } from "./certificates.ts";

/** How files are watched. */
export interface WatchOptions {
  readonly scheduler: Scheduler;
  /** The time now, in milliseconds since 1970. */
  readonly wallMs: () => number;
  /** Milliseconds between two looks, ≥ 10. @default 10000 */
  readonly intervalMs?: number;
  /** The files have changed into something that cannot be used; the old certificate stays. Once for each such change. */
  readonly onRefused: (error: ShardloomError) => void;
}

/** A watch over files. */
export interface CertificateWatch {
  /** What was told last. */
  readonly current: CheckedCertificate;
  /** Looks now. Settles when what is found has been told. */
  check(): Promise<void>;
  /** Ends the watch; nothing is told after it. */
  close(): void;
}

const INTERVAL_MS = 10_000;
const LEAST_INTERVAL_MS = 10;

/**
 * Reads a node's certificate and watches its files. The watch does not keep the process alive.
 *
 * @param onChange Called with every new certificate; not with the first. When it throws, that certificate is refused and the old one stays.
 * @throws {ShardloomError} `ERR_NO_FILE`, `ERR_CORRUPT`, `ERR_UNTRUSTED` when what is there now cannot be used; `ERR_INVALID_ARGUMENT`.
 */
export async function watchCertificate(
  files: CertificateFiles,
  onChange: (certificate: CheckedCertificate) => void,
  options: WatchOptions,
): Promise<CertificateWatch> {
  const { intervalMs = INTERVAL_MS, wallMs } = options;
  if (!(intervalMs >= LEAST_INTERVAL_MS))
    throw invalidArgument("watch certificate", "intervalMs", `a number ≥ ${LEAST_INTERVAL_MS}`, intervalMs);
  const first = checkNodeCertificate(await readCertificateFiles(files), wallMs());
  return new Watch(files, first, onChange, { ...options, intervalMs });
}

class Watch implements CertificateWatch {
  readonly #files: CertificateFiles;
  readonly #onChange: (certificate: CheckedCertificate) => void;
  readonly #options: Required<WatchOptions>;
  #current: CheckedCertificate;
  /** What was refused last: it is judged again at every look, as its time may come, but reported once. */
  #refused = "";
  #look: Promise<void> = Promise.resolve();
  #timer: Timer | undefined;
  #closed = false;

  constructor(
    files: CertificateFiles,
    first: CheckedCertificate,
    onChange: (certificate: CheckedCertificate) => void,
    options: Required<WatchOptions>,
  ) {
    this.#files = files;
    this.#current = first;
    this.#onChange = onChange;
    this.#options = options;
    this.#arm();
  }

  get current(): CheckedCertificate {
    return this.#current;
  }

  check(): Promise<void> {
    const look = (): Promise<void> => this.#lookOnce();
    this.#look = this.#look.then(look, look);
    return this.#look;
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#closed) return;
    this.#timer = this.#options.scheduler.timer(this.#options.intervalMs, () => {
      void this.check().then(() => this.#arm());
    });
    this.#timer.unref();
  }

  async #lookOnce(): Promise<void> {
    if (this.#closed) return;
    let seen = "";
    try {
      const found = await readCertificateFiles(this.#files);
      if (this.#closed || isSame(found, this.#current)) {
        this.#refused = "";
        return;
      }
      seen = `${found.certificate}${found.key}${found.authority}`;
      const checked = checkNodeCertificate(found, this.#options.wallMs());
      assertSameNode(checked, this.#current);
      this.#onChange(checked);
      this.#current = checked;
      this.#refused = "";
    } catch (error) {
      this.#refuse(ShardloomError.from(error), seen);
    }
  }

  #refuse(error: ShardloomError, seen: string): void {
    const mark = seen === "" ? error.message : seen;
    if (this.#closed || mark === this.#refused) return;
    this.#refused = mark;
    this.#options.onRefused(error);
  }
}

function isSame(one: NodeCertificate, other: NodeCertificate): boolean {
  return one.certificate === other.certificate && one.key === other.key && one.authority === other.authority;
}

function assertSameNode(found: CheckedCertificate, current: CheckedCertificate): void {
  for (const name of ["cluster", "node"] as const) {
    if (found[name] === current[name]) continue;
    throw new ShardloomError(
      "ERR_UNTRUSTED",
      `Cannot change certificate as its ${name} must be ${current[name]}: current value is ${found[name]}`,
      { details: { name, expected: current[name], value: found[name] } },
    );
  }
}
