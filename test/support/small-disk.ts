/**
 * Disks of a few megabytes, in memory, that can be filled and made read-only: where the system lets this process mount.
 *
 * Invariant: what was mounted is unmounted by `close`, whatever was going on there.
 */
import { spawnSync } from "node:child_process";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Name of the file that fills it. */
const BALLAST = "ballast";
const PIECE_BYTES = 4096;

/** Why nothing can be mounted here; undefined: it can. */
export const noMounts: string | undefined = whyNot();

export class SmallDisk {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Puts a disk in the place of a directory that exists, with its content. */
  static async over(path: string, sizeBytes: number): Promise<SmallDisk> {
    const kept = await mkdtemp(join(tmpdir(), "shardloom-kept-"));
    await cp(path, kept, { recursive: true });
    mount("-t", "tmpfs", "-o", `size=${sizeBytes}`, "tmpfs", path);
    await cp(kept, path, { recursive: true });
    await rm(kept, { recursive: true });
    return new SmallDisk(path);
  }

  /** Takes all room that is left. */
  async fill(): Promise<void> {
    const path = join(this.path, BALLAST);
    for (let bytes = 1024 * 1024; bytes >= PIECE_BYTES; bytes /= 2)
      for (let full = false; !full; )
        full = await writeFile(path, new Uint8Array(bytes), { flag: "a" }).then(
          () => false,
          () => true,
        );
  }

  /** Gives back what {@link fill} took. */
  free(): Promise<void> {
    return rm(join(this.path, BALLAST));
  }

  setReadOnly(isReadOnly: boolean): void {
    mount("-o", `remount,${isReadOnly ? "ro" : "rw"}`, this.path);
  }

  close(): void {
    const { status, stderr } = spawnSync("umount", ["-l", this.path], { encoding: "utf8" });
    if (status !== 0) throw new Error(`Cannot unmount ${this.path}: ${stderr}`);
  }
}

function mount(...words: string[]): void {
  const { status, stderr, error } = spawnSync("mount", words, { encoding: "utf8" });
  if (status !== 0) throw new Error(`Cannot mount ${words.join(" ")}: ${error?.message ?? stderr}`);
}

function whyNot(): string | undefined {
  const { status, stdout, stderr, error } = spawnSync(
    "sh",
    ["-c", 'd=$(mktemp -d) && mount -t tmpfs -o size=64k tmpfs "$d" && umount "$d"; s=$?; rmdir "$d"; exit $s'],
    { encoding: "utf8" },
  );
  return status === 0
    ? undefined
    : `no disk can be mounted here: ${error?.message ?? (stderr.trim() || stdout.trim())}`;
}
