/**
 * A directory of a simulated disk, as the root of a disk of its own; and who has it open.
 *
 * Invariant: a process opens a directory once at a time; when it ends, however that is, its directories are free. Paths that leave the directory by
 * their own text are refused, as by every disk.
 */
import { ShardloomError } from "../errors.ts";
import type { OpenDirectory, OpenDirectoryOptions } from "../plane/platform.ts";
import type { Disk } from "../runtime/disk.ts";

/** Names that a path of a machine has, from its root. */
function namesOf(path: string): string[] {
  return path.split("/").filter((name) => name !== "");
}

/** What is below a directory of a disk. */
export function directoryOf(disk: Disk, path: string): Disk {
  const root = namesOf(path).join("/");
  if (root === "") return disk;
  const file = (name: string): string => `${root}/${name}`;
  const directory = (name: string): string => (name === "" ? root : file(name));
  return {
    open: (name, mode) => disk.open(file(name), mode),
    list: (name) => disk.list(directory(name)),
    remove: (name) => disk.remove(file(name)),
    rename: (from, to) => disk.rename(file(from), file(to)),
    makeDirectory: (name) => disk.makeDirectory(directory(name)),
    syncDirectory: (name) => disk.syncDirectory(directory(name)),
  };
}

/** Directories that one process has open. */
export class OpenDirectories {
  readonly #disk: Disk;
  readonly #open: Set<string> = new Set();

  /** @param disk The process's, from the root of its machine. */
  constructor(disk: Disk) {
    this.#disk = disk;
  }

  /** As {@link Platform.openDirectory}: makes the directory, durably, where it is missing. */
  async open(path: string, options: OpenDirectoryOptions = {}): Promise<OpenDirectory> {
    const { check, existing = false, shared = false } = options;
    const key = namesOf(path).join("/");
    const disk = directoryOf(this.#disk, path);
    if (!shared && this.#open.has(key))
      throw new ShardloomError(
        "ERR_DIRECTORY_IN_USE",
        `Cannot open directory as ${path} must be free: current value is open in this process`,
        { details: { path } },
      );
    if (!shared) this.#open.add(key);
    try {
      if (existing || shared) await this.#disk.list(key);
      else await this.#make(path);
      await check?.(disk);
    } catch (error) {
      if (!shared) this.#open.delete(key);
      throw error;
    }
    return { disk, close: async () => void (shared || this.#open.delete(key)) };
  }

  async #make(path: string): Promise<void> {
    let parent = "";
    for (const name of namesOf(path)) {
      const made = parent === "" ? name : `${parent}/${name}`;
      await this.#disk.makeDirectory(made);
      await this.#disk.syncDirectory(parent);
      parent = made;
    }
  }
}
