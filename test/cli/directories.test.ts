/** `backup`, `restore`, `verify` and `log` as a user runs them: their streams and exit codes. */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { backup } from "../../src/cli/backup.ts";
import { log } from "../../src/cli/log.ts";
import { restore } from "../../src/cli/restore.ts";
import { verify } from "../../src/cli/verify.ts";
import { Cluster } from "../../src/index.ts";
import { type BackupManifest, MANIFEST_FILE } from "../../src/store/backup-manifest.ts";
import { shardPaths } from "../../src/store/backup-shard.ts";
import { formatCheckedJson } from "../../src/store/checked-json.ts";
import { segmentName } from "../../src/store/segment-format.ts";
import { type Finished, shardloom, shardloomHere } from "../support/command.ts";
import { codeOf } from "../support/copies.ts";
import { makeDirectory } from "../support/directories.ts";

const HOLDER = fileURLToPath(new URL("../cluster/directory-holder.child.js", import.meta.url));

let root = "";
let data = "";
let target = "";
let into = "";

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-cli-"));
  [data, target, into] = ["data", "backup", "restored"].map((name) => join(root, name)) as [string, string, string];
});
afterEach(() => rm(root, { recursive: true }));

/** Without a process for each. */
const here = (...args: string[]): Promise<Finished> => shardloomHere([backup, restore, verify, log], ...args);

async function damage(): Promise<void> {
  const path = join(data, shardPaths(1).log, segmentName(1));
  const bytes = await readFile(path);
  bytes[600] = (bytes[600] as number) ^ 1;
  await writeFile(path, bytes);
}

describe("the commands over directories", () => {
  test("back up, verify, restore and show logs, for people and as JSON", async () => {
    await makeDirectory(data, 30);
    const shown = await shardloom("backup", data, target);
    expect(shown.code, shown.stderr).toBe(0);
    expect(shown.stdout).toContain(`Backed up ${data} to ${target}`);
    expect(shown.stderr).toMatch(/backing up done: [\d,]+ bytes/);
    const verified = await here("verify", target, "--json");
    expect(verified).toMatchObject({ code: 0, objects: [{ backup: target, shards: 2, collections: 1 }] });
    const restored = await here("restore", target, into, "--files-only", "--json");
    expect(restored).toMatchObject({
      code: 0,
      stderr: "",
      objects: [{ backup: target, directory: into, shards: 2, verifiedVshards: 0 }],
    });
    const whole = await here("verify", into, "--json");
    expect(whole).toMatchObject({
      code: 0,
      objects: [{ node: "local", starts: 1, damaged: 0, collections: [{ name: "docs" }] }],
    });
    const logs = await here("log", into, "--json");
    expect(logs).toMatchObject({
      code: 0,
      objects: [
        { shard: 0, first: 1, last: 30, frames: 30 },
        { shard: 1, last: 30 },
      ],
    });
    expect(logs.objects[0]?.["vshards"]).toHaveLength(7);
    const table = await here("log", into, "--shard", "1", "--vshards");
    expect(table.code).toBe(0);
    expect(table.stdout).toMatch(/Shard 1: positions 1 to 30/);
    expect(table.stdout).toMatch(/first LSN/);
    expect(table.stdout).not.toContain("Shard 0");
  });

  test("restore what a cluster wrote while it served, compare it by its hashes, and refuse what they do not fit", async () => {
    const cluster = await Cluster.start({ workers: 2, vshards: 8, memoryBytes: 64 * 1024 * 1024, directory: data });
    try {
      const docs = await cluster.vectors("docs", { dimensions: 2 });
      await docs.upsert(Array.from({ length: 40 }, (_, id) => ({ id, vector: [id, 1] })));
      await cluster.snapshot(target);
    } finally {
      await cluster.close();
    }
    const restored = await shardloom("restore", target, into);
    expect(restored.code, restored.stderr).toBe(0);
    expect(restored.stdout).toMatch(/Compared the contents of 8 vshards/);
    expect(restored.stderr).toMatch(/restoring done: [\d,]+ bytes/);

    const manifest = join(target, MANIFEST_FILE);
    const { content } = JSON.parse(await readFile(manifest, "utf8")) as { content: BackupManifest };
    const changed = content.parts[0]?.vshards[0] as { hash: string; readonly vshard: number };
    changed.hash = "0".repeat(16);
    await writeFile(manifest, formatCheckedJson(1, content));
    const other = join(root, "other");
    expect(await here("restore", target, other, "--json")).toMatchObject({
      code: 1,
      objects: [{ error: { code: "ERR_CORRUPT", details: { vshard: changed.vshard, expected: "0".repeat(16) } } }],
    });
    // What does not hold what it must is nothing that a node starts on.
    const opened = await Cluster.start({ workers: 2, vshards: 8, directory: other }).catch(codeOf);
    expect(opened).toBe("ERR_DIRECTORY_MISMATCH");
  }, 60_000);

  test("tell damage by position, LSN and vshard, and back nothing up of it", async () => {
    await makeDirectory(data, 30);
    await damage();
    const verified = await here("verify", data);
    expect(verified.code).toBe(1);
    expect(verified.stdout).toMatch(/damaged at position \d+, LSN \d+ of vshard \d/);
    const logs = await here("log", data, "--json");
    expect(logs).toMatchObject({
      code: 1,
      objects: [{ shard: 0 }, { shard: 1, corrupt: { position: expect.any(Number) } }],
    });
    const failed = await here("backup", data, target, "--json");
    expect(failed).toMatchObject({ code: 1, objects: [{ error: { code: "ERR_CORRUPT", details: { shard: 1 } } }] });
    const nothing = await here("verify", target, "--json");
    expect(nothing).toMatchObject({ code: 1, objects: [{ error: { code: "ERR_DIRECTORY_MISMATCH" } }] });
  });

  test("refuse a directory in use, one that is missing, a target that is not empty, and wrong usage", async () => {
    const child = spawn(process.execPath, [HOLDER, data], { stdio: ["ignore", "pipe", "inherit"] });
    const exited = new Promise((resolve) => child.once("exit", resolve));
    try {
      await new Promise((resolve) => child.stdout.once("data", resolve));
      for (const command of [
        ["backup", data, target],
        ["verify", data],
        ["log", data],
      ]) {
        const refused = await here(...command, "--json");
        expect(refused).toMatchObject({
          code: 1,
          objects: [{ error: { code: "ERR_DIRECTORY_IN_USE", details: { pid: child.pid } } }],
        });
      }
    } finally {
      child.kill("SIGKILL");
      await exited;
    }
    const missing = await here("backup", join(root, "nowhere"), target);
    expect(missing.code).toBe(1);
    expect(missing.stderr).toContain("ERR_NO_FILE");
    await writeFile(join(root, "mine"), "");
    expect((await here("backup", data, root, "--json")).objects).toMatchObject([
      { error: { code: "ERR_FILE_EXISTS" } },
    ]);
    for (const args of [["backup", data], ["restore"], ["log", data, "--shard", "9"], ["verify", "a", "b"]])
      expect((await here(...args)).code, args.join(" ")).toBe(2);
  });
});
