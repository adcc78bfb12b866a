/**
 * The names of a disk whose files are kept as blocks elsewhere: directories, files, and how a file's blocks are named.
 *
 * Invariant: every directory but the root is in one, and no name is of two things. A block is written once, under a name of its own; changing a
 * file gives the changed block a new name, so that whoever has the old table reads the old content.
 */
import { ShardloomError } from "../errors.ts";
import { diskError } from "../runtime/disk.ts";

/** Bytes of a block. The last of a file may be shorter; what is missing of any reads as zeros. */
export const BLOCK_BYTES: number = 1024 * 1024;

/** A file as its table has it. */
export interface StoredFile {
  readonly id: string;
  readonly size: number;
  /** Version of each block; 0: it was never written, and reads as zeros. */
  readonly blocks: readonly number[];
}

/** A table as it is kept. */
export interface StoredNames {
  readonly directories: readonly string[];
  readonly files: Readonly<Record<string, StoredFile>>;
}

export function blockName(id: string, index: number, version: number): string {
  return `${id}.${index}.${version}`;
}

/** Names of the blocks that a file has. */
export function blocksOf({ id, blocks }: StoredFile): string[] {
  return blocks.flatMap((version, index) => (version === 0 ? [] : [blockName(id, index, version)]));
}

/** Names and the files behind them. Throws as disks do, and then has changed nothing. */
export class ObjectNames<File extends object> {
  readonly #directories: Set<string>;
  readonly #files: Map<string, File>;

  constructor(directories: Iterable<string> = [], files: Iterable<readonly [string, File]> = []) {
    this.#directories = new Set(directories);
    this.#files = new Map(files);
  }

  get directories(): readonly string[] {
    return [...this.#directories].sort();
  }

  get files(): ReadonlyMap<string, File> {
    return this.#files;
  }

  /** The file of a path; undefined when there is none. */
  find(operation: string, path: string): File | undefined {
    this.#checkParent(operation, path);
    if (this.#directories.has(path)) throw diskError(operation, path, "EISDIR");
    return this.#files.get(path);
  }

  get(operation: string, path: string): File {
    const file = this.find(operation, path);
    if (file === undefined) throw diskError(operation, path, "ENOENT");
    return file;
  }

  add(path: string, file: File): void {
    this.#files.set(path, file);
  }

  remove(path: string): File {
    const file = this.get("remove file", path);
    this.#files.delete(path);
    return file;
  }

  /** @returns the file that had the name before */
  rename(from: string, to: string): File | undefined {
    const file = this.get("rename file", from);
    const replaced = this.find("rename file", to);
    this.#files.delete(from);
    this.#files.set(to, file);
    return replaced === file ? undefined : replaced;
  }

  /** @returns false when it is there already */
  makeDirectory(path: string): boolean {
    if (path === "" || this.#directories.has(path)) return false;
    this.#checkParent("make directory", path);
    if (this.#files.has(path)) throw diskError("make directory", path, "EEXIST");
    this.#directories.add(path);
    return true;
  }

  unmakeDirectory(path: string): void {
    this.#directories.delete(path);
  }

  checkDirectory(operation: string, path: string): void {
    if (path === "" || this.#directories.has(path)) return;
    this.#checkParent(operation, path);
    throw diskError(operation, path, this.#files.has(path) ? "ENOTDIR" : "ENOENT");
  }

  list(directory: string): readonly string[] {
    this.checkDirectory("list directory", directory);
    return [...this.#directories, ...this.#files.keys()]
      .filter((path) => parentOf(path) === directory)
      .map((path) => path.slice(path.lastIndexOf("/") + 1))
      .sort();
  }

  #checkParent(operation: string, path: string): void {
    const parent = parentOf(path);
    if (parent !== "") this.checkDirectory(operation, parent);
  }
}

/** @throws {ShardloomError} `ERR_CORRUPT` when a table is none */
export function checkStoredNames(content: unknown, where: string): StoredNames {
  const { directories, files } = content as Partial<StoredNames>;
  const isFile = (file: unknown): boolean => {
    const { id, size, blocks } = file as Partial<StoredFile>;
    return typeof id === "string" && Number.isSafeInteger(size) && Array.isArray(blocks);
  };
  if (Array.isArray(directories) && typeof files === "object" && Object.values(files).every(isFile))
    return { directories, files };
  throw new ShardloomError("ERR_CORRUPT", `Cannot open ${where} as it must be a table of files: it is none`);
}

function parentOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}
