/**
 * A simulated disk as one process has it: arguments checked, files open and closed.
 *
 * Invariant: it holds nothing of the disk but which files are open and how; everything else is the kernel's, which outlives it.
 */
import { invalidArgument } from "../errors.ts";
import {
  checkDiskPath,
  checkDiskRange,
  closedFile,
  type Disk,
  type DiskFile,
  diskError,
  type OpenMode,
} from "../runtime/disk.ts";
import type { NameTable } from "./disk-names.ts";
import type { CachedFile } from "./disk-sectors.ts";

/** What an operation costs: one of the cache, or one that waits for the medium. */
export type DiskCost = "cache" | "medium";

/** What the disk does for its process. */
export interface DiskKernel {
  readonly names: NameTable;
  /** Runs the effect at some later time, and settles after it; never once the process is gone. */
  perform<T>(operation: string, path: string, cost: DiskCost, effect: () => T): Promise<T>;
  checkWritable(operation: string, path: string): void;
  read(file: CachedFile, path: string, offset: number, length: number): Uint8Array;
  write(file: CachedFile, path: string, offset: number, bytes: Uint8Array): void;
  sync(file: CachedFile, path: string): void;
}

export function createProcessDisk(kernel: DiskKernel): Disk {
  const { names } = kernel;
  const change = async (operation: string, path: string, effect: () => void): Promise<void> => {
    checkDiskPath(operation, path, operation === "make directory" ? "directory" : "file");
    return kernel.perform(operation, path, "cache", () => {
      // As on a real one, making what is there changes nothing, wherever it is.
      if (operation !== "make directory" || (path !== "" && !names.has(operation, path)))
        kernel.checkWritable(operation, path);
      effect();
    });
  };
  return {
    open: async (path, mode) => {
      checkDiskPath("open file", path, "file");
      return kernel.perform("open file", path, "cache", () => openFile(kernel, path, mode));
    },
    list: async (path) => {
      checkDiskPath("list directory", path, "directory");
      return kernel.perform("list directory", path, "cache", () => names.list(path));
    },
    remove: (path) => change("remove file", path, () => names.remove(path)),
    rename: async (from, to) => {
      checkDiskPath("rename file", to, "file");
      return change("rename file", from, () => names.rename(from, to));
    },
    makeDirectory: (path) => change("make directory", path, () => names.makeDirectory(path)),
    syncDirectory: async (path) => {
      checkDiskPath("sync directory", path, "directory");
      return kernel.perform("sync directory", path, "medium", () => names.sync(path));
    },
  };
}

function openFile(kernel: DiskKernel, path: string, mode: OpenMode): DiskFile {
  const { names } = kernel;
  const exists = names.has("open file", path);
  if (mode === "create" && exists) throw diskError("open file", path, "EEXIST");
  if (mode !== "read") kernel.checkWritable(exists ? "open file" : "create file", path);
  const file = mode === "read" || exists ? names.file("open file", path) : names.create("open file", path);
  return createProcessFile(kernel, path, file, mode !== "read");
}

function createProcessFile(kernel: DiskKernel, path: string, file: CachedFile, writable: boolean): DiskFile {
  let closed = false;
  const checkOpen = (operation: string, changes: boolean): void => {
    if (closed) throw closedFile(operation, path);
    if (changes && !writable) throw diskError(operation, path, "EACCES");
  };
  return {
    read: async (offset, length) => {
      checkOpen("read file", false);
      checkDiskRange("read file", "offset", offset);
      checkDiskRange("read file", "length", length);
      return kernel.perform("read file", path, "cache", () => kernel.read(file, path, offset, length));
    },
    write: async (offset, bytes) => {
      checkOpen("write file", true);
      checkDiskRange("write file", "offset", offset);
      if (!(bytes instanceof Uint8Array)) throw invalidArgument("write file", "bytes", "a Uint8Array", bytes);
      return kernel.perform("write file", path, "cache", () => {
        kernel.checkWritable("write file", path);
        kernel.write(file, path, offset, bytes);
      });
    },
    sync: async () => {
      checkOpen("sync file", false);
      return kernel.perform("sync file", path, "medium", () => kernel.sync(file, path));
    },
    truncate: async (size) => {
      checkOpen("truncate file", true);
      checkDiskRange("truncate file", "size", size);
      return kernel.perform("truncate file", path, "cache", () => {
        kernel.checkWritable("truncate file", path);
        file.truncate(size);
      });
    },
    size: async () => {
      checkOpen("read size of file", false);
      return kernel.perform("read size of file", path, "cache", () => file.size);
    },
    close: async () => {
      if (closed) return;
      closed = true;
      await kernel.perform("close file", path, "cache", () => undefined);
    },
  };
}
