/**
 * A module that workers load as one with actors, and that makes the file system of their threads fail where and how a file says: the calls of
 * `node:fs` themselves, so that everything above them is what a real disk would meet.
 *
 * - `sync`: what is written below the place never comes to the disk, and the sync of it fails with `EIO`, once for what was lost so, as Linux does: a
 *   sync that is tried again succeeds, and the bytes are not there.
 * - `read-only`: as when the system mounts a disk read-only after an error: open files, too, refuse to be changed, with `EROFS`.
 *
 * Invariant: without the file everything is as it was. Threads that have not loaded this module see nothing of it.
 */
import { constants, readFileSync, readlinkSync } from "node:fs";
import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import { defineActor } from "../../src/index.ts";
import { type FileTrouble, SWITCH } from "./failing-files.ts";

/** A module of actors has one. */
export const bystander = defineActor({ name: "bystander", init: () => ({}), handlers: { idle: () => undefined } });

function troubleAt(path: string, kind: FileTrouble["kind"]): boolean {
  try {
    const trouble = JSON.parse(readFileSync(process.env[SWITCH] ?? "", "utf8")) as FileTrouble;
    return trouble.kind === kind && path.startsWith(trouble.below);
  } catch {
    return false; // there is none, or it is about to change
  }
}

function failure(code: "EIO" | "EROFS", syscall: string): Error {
  return Object.assign(new Error(`${code}: made to fail, ${syscall}`), { code, syscall });
}

type Handle = fs.FileHandle;
type Method = (this: Handle, ...args: unknown[]) => Promise<unknown>;

const pathOf = ({ fd }: Handle): string => readlinkSync(`/proc/self/fd/${fd}`);

function isDurable({ fd }: Handle): boolean {
  const flags = /^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "0";
  return (Number.parseInt(flags, 8) & constants.O_DSYNC) !== 0;
}

/** Files of which something was lost that no sync has told of. */
const lost = new WeakSet<Handle>();

function patchHandles(methods: Record<string, Method>): void {
  const instead = (name: string, make: (real: Method) => Method): void => {
    methods[name] = make(methods[name] as Method);
  };
  const writing =
    (syscall: string) =>
    (real: Method): Method =>
      async function (this: Handle, ...args) {
        if (troubleAt(pathOf(this), "read-only")) throw failure("EROFS", syscall);
        return real.apply(this, args);
      };
  for (const name of ["truncate", "sync", "datasync"]) instead(name, writing(name));
  instead("write", (real) => {
    const refused = writing("write")(real);
    return async function (this: Handle, ...args) {
      if (!troubleAt(pathOf(this), "sync")) return refused.apply(this, args);
      if (isDurable(this)) throw failure("EIO", "write");
      lost.add(this);
      const [bytes, offset, length] = args as [Uint8Array, number?, number?];
      return { bytesWritten: length ?? bytes.length - (offset ?? 0), buffer: bytes };
    };
  });
  for (const name of ["sync", "datasync"])
    instead(name, (real) => {
      return async function (this: Handle, ...args) {
        if (lost.delete(this)) throw failure("EIO", name);
        return real.apply(this, args);
      };
    });
}

function patchNames(names: Record<string, (...args: never[]) => Promise<unknown>>): void {
  for (const name of ["unlink", "rename", "mkdir", "open"]) {
    const real = names[name] as (...args: unknown[]) => Promise<unknown>;
    const changes = constants.O_WRONLY | constants.O_RDWR | constants.O_CREAT;
    names[name] = async (...args: unknown[]) => {
      const isChange = name !== "open" || (Number(args[1]) & changes) !== 0;
      if (isChange && troubleAt(String(args[0]), "read-only")) throw failure("EROFS", name);
      return real(...args);
    };
  }
  syncBuiltinESMExports();
}

const probe = await fs.open("/dev/null");
patchHandles(Object.getPrototypeOf(probe) as Record<string, Method>);
await probe.close();
patchNames(fs as unknown as Record<string, (...args: never[]) => Promise<unknown>>);
