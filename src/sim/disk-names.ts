/**
 * The names of a simulated disk: directories as reads see them, and as the medium has them.
 *
 * Invariant: a change of names (made, renamed, removed) happens at once for reads, and on the medium as a whole or not at all: when one
 * of its directories is synced, or at a crash as the caller decides. Changes reach the medium in their order.
 * Divergence: a file system with one journal keeps a prefix of the changes; here any subset may be kept, as POSIX allows, as long as
 * the changes of one file are a prefix.
 */
import { diskError } from "../runtime/disk.ts";
import { CachedFile } from "./disk-sectors.ts";

interface Directory {
  readonly kind: "directory";
  seen: Map<string, Entry>;
  readonly medium: Map<string, Entry>;
}

type Entry = Directory | CachedFile;

interface Place {
  readonly directory: Directory;
  readonly name: string;
}

/** A change that the medium does not have yet: a name of the entry goes, one comes, or both. */
interface PendingChange {
  readonly entry: Entry;
  readonly removes?: Place;
  readonly adds?: Place;
}

/** Names and the files behind them. Throws errors as disks do. */
export class NameTable {
  readonly #root: Directory = { kind: "directory", seen: new Map(), medium: new Map() };
  #pending: PendingChange[] = [];

  /** The file of a path. */
  file(operation: string, path: string): CachedFile {
    const { directory, name } = this.#place(operation, path);
    const entry = directory.seen.get(name);
    if (entry === undefined) throw diskError(operation, path, "ENOENT");
    if (entry.kind === "directory") throw diskError(operation, path, "EISDIR");
    return entry;
  }

  has(operation: string, path: string): boolean {
    const { directory, name } = this.#place(operation, path);
    return directory.seen.has(name);
  }

  create(operation: string, path: string): CachedFile {
    const file = new CachedFile();
    const place = this.#place(operation, path);
    if (place.directory.seen.has(place.name)) throw diskError(operation, path, "EEXIST");
    this.#change({ entry: file, adds: place });
    return file;
  }

  makeDirectory(path: string): void {
    if (path === "") return;
    const place = this.#place("make directory", path);
    const found = place.directory.seen.get(place.name);
    if (found?.kind === "directory") return;
    if (found !== undefined) throw diskError("make directory", path, "EEXIST");
    this.#change({ entry: { kind: "directory", seen: new Map(), medium: new Map() }, adds: place });
  }

  remove(path: string): void {
    const entry = this.file("remove file", path);
    this.#change({ entry, removes: this.#place("remove file", path) });
  }

  rename(from: string, to: string): void {
    const entry = this.file("rename file", from);
    const target = this.#place("rename file", to);
    if (target.directory.seen.get(target.name)?.kind === "directory") throw diskError("rename file", to, "EISDIR");
    if (from !== to) this.#change({ entry, removes: this.#place("rename file", from), adds: target });
  }

  list(path: string): readonly string[] {
    return [...this.#directory("list directory", path).seen.keys()].sort();
  }

  sync(path: string): void {
    const directory = this.#directory("sync directory", path);
    this.#flush(({ removes, adds }) => removes?.directory === directory || adds?.directory === directory);
  }

  /** Reads see the medium. @param keeps Called once for each change that is not there yet, oldest first */
  crash(keeps: () => boolean): void {
    this.#flush(keeps);
    this.#pending = [];
    forget(this.#root);
  }

  /** Every file that has a name, by path in code unit order. */
  files(): readonly (readonly [path: string, file: CachedFile])[] {
    const found: [string, CachedFile][] = [];
    const visit = (directory: Directory, prefix: string): void => {
      for (const [name, entry] of directory.seen) {
        if (entry.kind === "file") found.push([prefix + name, entry]);
        else visit(entry, `${prefix}${name}/`);
      }
    };
    visit(this.#root, "");
    return found.sort(([a], [b]) => (a < b ? -1 : 1));
  }

  /** Writes chosen changes to the medium, with those before them of the same file: a file never gets two names. */
  #flush(isMeant: (change: PendingChange) => boolean): void {
    const meant = new Set(this.#pending.filter(isMeant));
    const entries = new Set<Entry>();
    for (const change of this.#pending.toReversed()) {
      if (meant.has(change)) entries.add(change.entry);
      else if (entries.has(change.entry)) meant.add(change);
    }
    for (const change of this.#pending) if (meant.has(change)) apply(change, "medium");
    this.#pending = this.#pending.filter((change) => !meant.has(change));
  }

  #change(change: PendingChange): void {
    this.#pending.push(change);
    apply(change, "seen");
  }

  #directory(operation: string, path: string): Directory {
    let at: Entry | undefined = this.#root;
    for (const name of path === "" ? [] : path.split("/")) {
      if (at?.kind !== "directory") break;
      at = at.seen.get(name);
    }
    if (at === undefined) throw diskError(operation, path, "ENOENT");
    if (at.kind !== "directory") throw diskError(operation, path, "ENOTDIR");
    return at;
  }

  #place(operation: string, path: string): Place {
    const slash = path.lastIndexOf("/");
    return { directory: this.#directory(operation, path.slice(0, Math.max(0, slash))), name: path.slice(slash + 1) };
  }
}

function apply({ entry, removes, adds }: PendingChange, side: "seen" | "medium"): void {
  removes?.directory[side].delete(removes.name);
  adds?.directory[side].set(adds.name, entry);
}

function forget(directory: Directory): void {
  directory.seen = new Map(directory.medium);
  for (const entry of directory.seen.values()) if (entry.kind === "directory") forget(entry);
}
