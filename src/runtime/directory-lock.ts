/**
 * Who has a directory open: one process at a time, and one user of it in that process. The adapter over files, processes and the host's name.
 *
 * The file `lock` names the process that holds it. When that process is gone (also when another one has its number by now, or the machine was
 * started anew) whoever makes the file `lock.<token of the old lock>.next` first is its successor. A successor puts its own lock in the place of
 * the old one and only then removes that file; who made one of these files looks again from the beginning whether it is the last of the chain.
 *
 * Invariant: of any number of starters exactly one gets a lock that nobody holds. Files appear whole, under a name that only one can make
 * (`link`); the old lock goes by one rename, and no token comes back, so a place in the chain that was removed is never reached again.
 * Divergence from locks of the kernel (`flock`): Node has none. A holder in another container or on another host cannot be looked at, so
 * it counts as alive until somebody removes its file.
 */
import { link, open, readdir, readFile, readlink, realpath, rename, unlink } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { ShardloomError } from "../errors.ts";
import { crc32 } from "./checksum.ts";
import { diskError } from "./disk.ts";
import { type Random, systemRandom } from "./random.ts";

/** Name of the file. */
export const LOCK_FILE = "lock";

/** A lock that is held. */
export interface DirectoryLock {
  /** Gives it up; harmless a second time. */
  close(): Promise<void>;
}

/** Who holds a lock. What a system does not tell is `""`. */
export interface LockHolder {
  /** Unique among all locks that ever were. */
  readonly token: string;
  readonly pid: number;
  /** When the process started, as the system counts it since its boot: the next process of that number has another one. */
  readonly started: string;
  /** Which start of the machine. */
  readonly boot: string;
  /** In which numbers of processes mean something. */
  readonly pidSpace: string;
  readonly host: string;
}

/** Locks that change under the eyes of a starter before it gives up: each change means that another one got the lock. */
const ATTEMPTS = 100;

/**
 * Locks a directory that exists.
 *
 * @throws {ShardloomError} `ERR_DIRECTORY_IN_USE` with `details.pid` and `details.host`; `ERR_READ_ONLY`, `ERR_DISK_FULL`, `ERR_IO`.
 */
export async function lockDirectory(path: string, random: Random = systemRandom): Promise<DirectoryLock> {
  return attempt(path, async () => {
    const directory = await realpath(path);
    const own = await ownHolder(random);
    const temporary = join(directory, `${LOCK_FILE}.${own.token}`);
    try {
      await writeWhole(temporary, own);
      for (let tried = 0; tried < ATTEMPTS; tried++) {
        const chain = await readChain(directory);
        const last = chain.at(-1);
        if (last !== undefined && !(await isGone(last, own))) throw inUse(path, last);
        const place = join(directory, last === undefined ? LOCK_FILE : nextOf(last.token));
        if (!(await linkNew(temporary, place))) continue;
        try {
          if ((await readChain(directory)).at(-1)?.token === own.token) {
            await settle(directory, temporary, own, last !== undefined);
            return { close: () => release(directory, own) };
          }
        } catch (error) {
          await release(directory, own);
          await remove(place);
          throw error;
        }
        await remove(place); // the end of the chain that was seen was no more when it was made
      }
    } finally {
      await remove(temporary);
    }
    throw new ShardloomError("ERR_DIRECTORY_IN_USE", `Cannot open ${path} as too many processes open it at once`, {
      details: { path, attempts: ATTEMPTS },
    });
  });
}

/** Puts the own lock at the beginning of the chain, and removes what the dead have left. */
async function settle(directory: string, temporary: string, own: LockHolder, isSuccessor: boolean): Promise<void> {
  if (isSuccessor) await rename(temporary, join(directory, LOCK_FILE));
  for (const name of await readdir(directory)) {
    if (!name.startsWith(`${LOCK_FILE}.`)) continue;
    const path = join(directory, name);
    // Nobody can follow the own lock while this process lives, so every other place in a chain is of one that is over.
    if (name.endsWith(NEXT)) await remove(path);
    else {
      const holder = await readHolder(path);
      // One that names nobody may be half written.
      const named = holder !== undefined && holder.pid !== NO_PROCESS;
      if (named && (await isGone(holder, own))) await remove(path);
    }
  }
}

async function release(directory: string, { token }: LockHolder): Promise<void> {
  const path = join(directory, LOCK_FILE);
  const holder = await readHolder(path).catch(() => undefined);
  // Somebody may have removed the file, and another one have made it since.
  if (holder?.token === token) await remove(path);
}

const NEXT = ".next";

function nextOf(token: string): string {
  return `${LOCK_FILE}.${token}${NEXT}`;
}

/** The lock and its successors, in order. Only its last one can be alive. */
async function readChain(directory: string): Promise<LockHolder[]> {
  const chain: LockHolder[] = [];
  for (let path = join(directory, LOCK_FILE); ; path = join(directory, nextOf((chain.at(-1) as LockHolder).token))) {
    const holder = await readHolder(path);
    if (holder === undefined || chain.some(({ token }) => token === holder.token)) return chain;
    chain.push(holder);
  }
}

/** Who a file names: nobody when there is none. What a power failure has made of one names a process that cannot be. */
async function readHolder(path: string): Promise<LockHolder | undefined> {
  const text = await unlessMissing(readFile(path, "utf8"));
  if (text === undefined) return undefined;
  try {
    const holder = JSON.parse(text) as LockHolder;
    const { token, pid, started, boot, pidSpace, host } = holder;
    const words = [token, started, boot, pidSpace, host];
    if (Number.isInteger(pid) && pid > 0 && words.every((word) => typeof word === "string") && TOKEN.test(token))
      return holder;
  } catch {
    // not JSON: as below
  }
  const token = crc32(text).toString(16);
  return { token, pid: NO_PROCESS, started: "", boot: "", pidSpace: "", host: hostname() };
}

const TOKEN = /^[0-9a-f]{1,64}$/;
const NO_PROCESS = 0;

/** Whether a holder is certainly not there any more. */
async function isGone(holder: LockHolder, own: LockHolder): Promise<boolean> {
  if (holder.pid === NO_PROCESS) return true;
  const isSameStart = holder.boot !== "" && holder.boot === own.boot;
  if (!isSameStart && holder.host !== own.host) return false;
  if (differ(holder.boot, own.boot)) return true;
  if (differ(holder.pidSpace, own.pidSpace)) return false;
  if (!isRunning(holder.pid)) return true;
  const { state, started } = await processStat(holder.pid);
  return state === "Z" || state === "X" || differ(holder.started, started);
}

function differ(one: string, other: string): boolean {
  return one !== "" && other !== "" && one !== other;
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH"; // it may be another user's
  }
}

async function ownHolder(random: Random): Promise<LockHolder> {
  const { pid } = process;
  return {
    token: Array.from({ length: 4 }, () => random.u32().toString(16).padStart(8, "0")).join(""),
    pid,
    started: (await processStat(pid)).started,
    boot: (await ifThere(readFile("/proc/sys/kernel/random/boot_id", "utf8"))).trim(),
    pidSpace: await ifThere(readlink("/proc/self/ns/pid")),
    host: hostname(),
  };
}

/** State and start time of a process; empty where the system has no such file. */
async function processStat(pid: number): Promise<{ readonly state: string; readonly started: string }> {
  const text = await ifThere(readFile(`/proc/${pid}/stat`, "utf8"));
  // The second field is the program's name in brackets, and may have spaces and brackets in it.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { state: fields[0] ?? "", started: fields[19] ?? "" };
}

async function writeWhole(path: string, holder: LockHolder): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(`${JSON.stringify(holder)}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Gives a file one more name. @returns false when that name is taken */
async function linkNew(file: string, name: string): Promise<boolean> {
  try {
    await link(file, name);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

async function remove(path: string): Promise<void> {
  await unlessMissing(unlink(path));
}

async function unlessMissing<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** What a system may not tell. */
async function ifThere(text: Promise<string>): Promise<string> {
  return text.catch(() => "");
}

function inUse(path: string, { pid, host }: LockHolder): ShardloomError {
  const where = host === hostname() ? "" : ` on host ${host}`;
  return new ShardloomError(
    "ERR_DIRECTORY_IN_USE",
    `Cannot open ${path} as it must not be open elsewhere: process ${pid}${where} has it open, as its file ${LOCK_FILE} says`,
    { details: { path, pid, host, file: join(path, LOCK_FILE) } },
  );
}

async function attempt<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (ShardloomError.is(error)) throw error;
    const { code } = error as { code?: unknown };
    throw diskError("lock directory", path, typeof code === "string" ? code : "EIO", error);
  }
}
