/** The lock of a directory against real processes: one at a time, whoever died, and however many start at once. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { LOCK_FILE, type LockHolder, lockDirectory } from "../../src/runtime/directory-lock.ts";

const CHILD = fileURLToPath(new URL("./lock-racer.child.js", import.meta.url));
const isLinux = process.platform === "linux";

let directory = "";
let children: Racer[] = [];

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "shardloom-lock-"));
});

afterEach(async () => {
  await Promise.all(children.map((child) => child.kill()));
  children = [];
  await rm(directory, { recursive: true });
});

/** A process that tries to lock the directory when it is told to. */
class Racer {
  readonly process: ChildProcess;
  readonly #lines: string[] = [];
  readonly #exited: Promise<void>;
  #wake: (() => void) | undefined;
  #rest = "";

  constructor() {
    this.process = spawn(process.execPath, [CHILD, directory], { stdio: ["pipe", "pipe", "inherit"] });
    this.#exited = new Promise((resolve) => this.process.once("exit", () => resolve()));
    this.process.stdout?.on("data", (chunk: Buffer) => {
      const parts = (this.#rest + chunk.toString()).split("\n");
      this.#rest = parts.pop() ?? "";
      this.#lines.push(...parts);
      this.#wake?.();
    });
    children.push(this);
  }

  async line(): Promise<string> {
    while (this.#lines.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve));
    return this.#lines.shift() as string;
  }

  async ready(): Promise<this> {
    expect(await this.line()).toBe("ready");
    return this;
  }

  /** Tells it to lock. @returns what it says */
  go(): Promise<string> {
    this.process.stdin?.write("go\n");
    return this.line();
  }

  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    await this.#exited;
  }
}

async function holder(): Promise<LockHolder> {
  return JSON.parse(await readFile(join(directory, LOCK_FILE), "utf8")) as LockHolder;
}

async function write(holder: Partial<LockHolder>, real: LockHolder): Promise<void> {
  await writeFile(join(directory, LOCK_FILE), JSON.stringify({ ...real, token: "abc", ...holder }));
}

/** What a lock of this process says. */
async function ownHolder(): Promise<LockHolder> {
  const lock = await lockDirectory(directory);
  const own = await holder();
  await lock.close();
  return own;
}

const inUse = (pid: number): unknown =>
  expect.objectContaining({ code: "ERR_DIRECTORY_IN_USE", retryable: true, details: expect.objectContaining({ pid }) });

describe("a lock", () => {
  test("is held once in this process, and free again when it is closed, with nothing left", async () => {
    const first = await lockDirectory(directory);
    await expect(lockDirectory(directory)).rejects.toThrow(inUse(process.pid));
    expect(await readdir(directory)).toEqual([LOCK_FILE]);
    await first.close();
    await first.close();
    expect(await readdir(directory)).toEqual([]);
    await (await lockDirectory(directory)).close();
  });

  test("is given to one of many in this process that ask at once", async () => {
    const settled = await Promise.allSettled(Array.from({ length: 20 }, () => lockDirectory(directory)));
    const got = settled.filter(({ status }) => status === "fulfilled");
    expect(got).toHaveLength(1);
    expect(await readdir(directory)).toEqual([LOCK_FILE]);
  });

  test("is refused while another process holds it, named by its number, and taken when that was killed", async () => {
    const other = await new Racer().ready();
    expect(await other.go()).toBe("locked");
    const before = await readFile(join(directory, LOCK_FILE), "utf8");
    await expect(lockDirectory(directory)).rejects.toThrow(inUse(other.process.pid as number));
    expect(await readFile(join(directory, LOCK_FILE), "utf8")).toBe(before);
    expect(await readdir(directory)).toEqual([LOCK_FILE]);
    await other.kill();
    const lock = await lockDirectory(directory);
    expect((await holder()).pid).toBe(process.pid);
    await lock.close();
    expect(await readdir(directory)).toEqual([]);
  });

  test("that a killed process left goes to exactly one of eight that race for it, round after round", async () => {
    let last = await new Racer().ready();
    expect(await last.go()).toBe("locked");
    for (let round = 0; round < 6; round++) {
      const racers = await Promise.all(Array.from({ length: 8 }, () => new Racer().ready()));
      await last.kill();
      const said = await Promise.all(racers.map((racer) => racer.go()));
      const winners = racers.filter((_, at) => said[at] === "locked");
      expect(winners, said.join(", ")).toHaveLength(1);
      const [winner] = winners as [Racer];
      for (const line of said) if (line !== "locked") expect(line).toBe(`ERR_DIRECTORY_IN_USE ${winner.process.pid}`);
      expect((await holder()).pid).toBe(winner.process.pid);
      expect(await readdir(directory)).toEqual([LOCK_FILE]);
      await Promise.all(racers.filter((racer) => racer !== winner).map((racer) => racer.kill()));
      last = winner;
    }
  }, 60_000);

  test("goes to one of many also when successors die at every step of taking it over", async () => {
    const own = await ownHolder();
    const dead = { ...own, pid: 2 ** 22 + 1 };
    // A chain of the dead: the lock, and two successors who never came to put theirs in its place.
    await writeFile(join(directory, LOCK_FILE), JSON.stringify({ ...dead, token: "aa" }));
    await writeFile(join(directory, "lock.aa.next"), JSON.stringify({ ...dead, token: "bb" }));
    await writeFile(join(directory, "lock.bb"), JSON.stringify({ ...dead, token: "bb" }));
    await writeFile(join(directory, "lock.bb.next"), JSON.stringify({ ...dead, token: "cc" }));
    await writeFile(join(directory, "lock.0123.next"), JSON.stringify({ ...dead, token: "dd" }));
    const settled = await Promise.allSettled(Array.from({ length: 16 }, () => lockDirectory(directory)));
    expect(settled.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(await readdir(directory)).toEqual([LOCK_FILE]);
  });

  test("of a successor that has not put its own in place yet is respected", async () => {
    const own = await ownHolder();
    await writeFile(join(directory, LOCK_FILE), JSON.stringify({ ...own, token: "aa", pid: 2 ** 22 + 1 }));
    await writeFile(
      join(directory, "lock.aa.next"),
      JSON.stringify({ ...own, token: "bb", pid: process.ppid, started: "" }),
    );
    await expect(lockDirectory(directory)).rejects.toThrow(inUse(process.ppid));
    expect(await readdir(directory)).toEqual([LOCK_FILE, "lock.aa.next"]);
  });

  test.runIf(isLinux)(
    "of a process whose number another one has by now, or of an earlier start of the machine, is taken",
    async () => {
      const own = await ownHolder();
      for (const stale of [{ started: "1" }, { boot: "another" }, { pid: 2 ** 22 + 1 }]) {
        await write(stale, own);
        const lock = await lockDirectory(directory);
        expect(await holder()).toEqual({ ...own, token: (await holder()).token });
        await lock.close();
      }
    },
  );

  test("of a holder that cannot be looked at is respected", async () => {
    const own = await ownHolder();
    const strangers: Partial<LockHolder>[] = [
      { host: "elsewhere", boot: "", pid: 2 ** 22 + 1 },
      { host: "elsewhere", boot: "another", pid: 2 ** 22 + 1 },
      ...(isLinux ? [{ pidSpace: "pid:[1]", pid: 2 ** 22 + 1 }] : []),
    ];
    for (const stranger of strangers) {
      await write(stranger, own);
      await expect(lockDirectory(directory)).rejects.toThrow(inUse(2 ** 22 + 1));
      expect(await holder()).toMatchObject(stranger);
    }
  });

  test("that a power failure has made unreadable is taken", async () => {
    for (const text of ["", "\0\0\0\0", "{", "[]", '{"pid":-1,"token":"a"}']) {
      await writeFile(join(directory, LOCK_FILE), text);
      await (await lockDirectory(directory)).close();
      expect(await readdir(directory)).toEqual([]);
    }
  });

  test("that is no longer one's own is left alone", async () => {
    const lock = await lockDirectory(directory);
    await rm(join(directory, LOCK_FILE));
    const next = await lockDirectory(directory);
    await lock.close();
    expect(await readdir(directory)).toEqual([LOCK_FILE]);
    await next.close();
  });

  test("fails typed where it cannot be made", async () => {
    await expect(lockDirectory(join(directory, "missing"))).rejects.toThrow(
      expect.objectContaining({ code: "ERR_NO_FILE" }),
    );
    if (isLinux)
      await expect(lockDirectory("/proc")).rejects.toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^ERR_(NO_FILE|READ_ONLY|IO)$/) }),
      );
  });
});
