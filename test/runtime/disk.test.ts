/** The disk of this machine: the suite of all disks, and what only a real file system has. */
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createSystemDisk, diskError } from "../../src/runtime/disk.ts";
import { diskConformance, fails } from "../conformance/disk.ts";

describe("the system disk, as every disk", () => {
  diskConformance(async () => {
    const root = await mkdtemp(join(tmpdir(), "shardloom-disk-"));
    return {
      disk: await createSystemDisk(root),
      run: (work) => work,
      restart: () => createSystemDisk(root),
      close: () => rm(root, { recursive: true }),
    };
  });
});

describe("the system disk", () => {
  let root = "";
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "shardloom-disk-"));
  });
  afterEach(() => rm(root, { recursive: true }));

  test("makes its root, with the directories above it", async () => {
    const disk = await createSystemDisk(join(root, "a/b/c"));
    await (await disk.open("file", "create")).close();
    expect(await readFile(join(root, "a/b/c/file"))).toHaveLength(0);
    await fails(createSystemDisk(join(root, "a/b/c/file")), "ERR_FILE_EXISTS");
  });

  test("follows no symbolic link out of its root", async () => {
    await mkdir(join(root, "inside"));
    await mkdir(join(root, "outside"));
    await writeFile(join(root, "outside/secret"), "secret");
    await symlink(join(root, "outside"), join(root, "inside/way"));
    await symlink(join(root, "outside/secret"), join(root, "inside/link"));
    const disk = await createSystemDisk(join(root, "inside"));
    await fails(disk.open("way/secret", "read"), "ERR_INVALID_ARGUMENT");
    await fails(disk.open("way/new", "create"), "ERR_INVALID_ARGUMENT");
    await fails(disk.remove("way/secret"), "ERR_INVALID_ARGUMENT");
    await fails(disk.list("way"), "ERR_INVALID_ARGUMENT");
    await fails(disk.syncDirectory("way"), "ERR_INVALID_ARGUMENT");
    await fails(disk.open("link", "write"), "ERR_IO");
    await (await disk.open("mine", "create")).close();
    await fails(disk.rename("mine", "way/mine"), "ERR_INVALID_ARGUMENT");
    expect(await readFile(join(root, "outside/secret"), "utf8")).toBe("secret");
    // what a link inside points to inside is served
    await symlink(join(root, "inside"), join(root, "inside/self"));
    expect(await disk.list("self")).toContain("mine");
  });

  test("says typed that a device is full", async () => {
    const disk = await createSystemDisk("/dev");
    const full = await disk.open("full", "write");
    await fails(full.write(0, Uint8Array.of(1)), "ERR_DISK_FULL");
    await full.close();
  });

  test.for([
    ["ENOSPC", "ERR_DISK_FULL"],
    ["EDQUOT", "ERR_DISK_FULL"],
    ["EROFS", "ERR_READ_ONLY"],
    ["EACCES", "ERR_READ_ONLY"],
    ["EPERM", "ERR_READ_ONLY"],
    ["ENOENT", "ERR_NO_FILE"],
    ["EEXIST", "ERR_FILE_EXISTS"],
    ["EIO", "ERR_IO"],
    ["EMFILE", "ERR_IO"],
  ] as const)("has %s as %s, with operation, path and cause", ([errno, code]) => {
    const cause = new Error("no");
    const error = diskError("write file", "log/1", errno, cause);
    expect(error).toMatchObject({ code, cause, details: { operation: "write file", path: "log/1", errno } });
    expect(error.message).toMatch(/^Cannot write file as log\/1 .+: E[A-Z]+$/);
  });
});
