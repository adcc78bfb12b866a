/** `shardloom backup` of a node that runs: it does it itself, while it serves; and what comes of it when it cannot, or ends meanwhile. */
import { mkdir, mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { backupNode } from "../../src/cli/node-control.ts";
import { shardloom } from "../support/command.ts";
import { freePort, NodeProcess } from "../support/node-process.ts";
import { DOCUMENTS_PER_NODE } from "../support/node-program.ts";

let root = "";
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-live-"));
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** The code of the error that a command ends with. */
async function refusal(...args: string[]): Promise<unknown> {
  const { code, objects } = await shardloom(...args, "--json");
  expect(code, args.join(" ")).toBe(1);
  return (objects.at(-1) as { error: { code: string } }).error.code;
}

describe("a node that runs", () => {
  test("is backed up by itself, named by either of its directories, serves on, and is not without it", {
    timeout: 60_000,
  }, async () => {
    const ports = [await freePort(), await freePort()];
    const members = ports.map((port, at) => `${"ab"[at]}=tls://127.0.0.1:${port}`).join(",");
    const node = new NodeProcess(root, "a", ["--found", "two", "--name", "a", "--members", members, "--vshards", "16"]);
    const { invitation } = await node.next("invitation");
    const other = new NodeProcess(root, "b", ["--join", invitation as string]);
    const home = join(root, "a");
    try {
      await node.next("serving");
      await other.next("serving");
      await Promise.all([node, other].map((each) => each.ask("open")));
      expect(await node.ask("store")).toMatchObject({ stored: DOCUMENTS_PER_NODE });
      const first = await shardloom("backup", home, join(root, "first"), "--json");
      expect(first).toMatchObject({
        code: 0,
        objects: [{ node: "a", others: ["b"], shards: 1, hashedVshards: expect.any(Number) }],
      });
      const second = await shardloom("backup", join(home, "shards"), join(root, "second"));
      expect([second.code, second.stderr]).toEqual([0, expect.stringMatching(/backing up done: [\d,]+ bytes/)]);
      expect(second.stdout).toContain("Node a serves, and has done it itself.");
      expect(second.stdout).toContain("what the other nodes keep (b)");
      for (const name of ["first", "second"])
        expect(await shardloom("verify", join(root, name), "--json")).toMatchObject({
          code: 0,
          objects: [{ backup: join(root, name), shards: 1, collections: 1 }],
        });
      expect(await refusal("backup", home, join(root, "first"))).toBe("ERR_FILE_EXISTS");
      await symlink(home, join(root, "link"));
      for (const inside of ["a/backup", "link/shards/backup"])
        expect(await refusal("backup", home, join(root, inside)), inside).toBe("ERR_INVALID_ARGUMENT");
      expect((await readdir(home)).filter((name) => name === "backup")).toEqual([]);
      expect(await node.ask("find")).toMatchObject({ complete: true, count: DOCUMENTS_PER_NODE });
    } finally {
      for (const process of [node, other]) await process.end("SIGKILL");
    }
    // Nobody is to be asked: it is copied by the command.
    const last = await shardloom("backup", home, join(root, "last"), "--json");
    expect(last).toMatchObject({ code: 0, objects: [{ shards: 1 }] });
    expect(last.objects[0]).not.toHaveProperty("node");
    const restored = await shardloom("restore", join(root, "first"), join(root, "again"), "--files-only", "--json");
    expect(restored).toMatchObject({ code: 0, objects: [{ shards: 1 }] });
  });
});

describe("asking a node for a backup", () => {
  /** Listens where a node would. @param act What it does when it was asked */
  async function asked(act: (say: (line: object) => void, end: () => void) => void): Promise<{ close(): void }> {
    await mkdir(join(root, "node"));
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on("error", () => undefined);
      socket.once("data", (line: Buffer) => {
        expect(JSON.parse(String(line))).toEqual({ action: "backup", target: "/there" });
        act(
          (said) => void socket.write(`${JSON.stringify(said)}\n`),
          () => socket.destroy(),
        );
      });
      socket.once("end", () => socket.end(`${JSON.stringify({ error: { code: "ERR_ABORTED", message: "" } })}\n`));
    });
    await new Promise<void>((resolve) => server.listen(join(root, "node", "control.sock"), resolve));
    return { close: () => server.close() };
  }

  test("ends typed when the node does, however far it was, and when there is none", async () => {
    await expect(backupNode(join(root, "node"), "/there")).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    const progress = { phase: "copying", bytes: 5, totalBytes: 10 };
    const server = await asked((say, end) => {
      say({ progress });
      setTimeout(end, 20);
    });
    const seen: unknown[] = [];
    const broken = backupNode(join(root, "node"), "/there", { onProgress: (at) => seen.push(at) });
    await expect(broken).rejects.toMatchObject({
      code: "ERR_UNAVAILABLE",
      message: expect.stringContaining("it has ended meanwhile") as unknown,
    });
    expect(seen).toEqual([progress]);
    server.close();
  });

  test("is given up when its caller gives up, and tells what the node has refused", async () => {
    const controller = new AbortController();
    const refused = { code: "ERR_DISK_FULL", message: "Cannot write", details: { path: "x" } };
    let times = 0;
    const server = await asked((say) => (times++ === 0 ? controller.abort() : say({ error: refused })));
    const ended = backupNode(join(root, "node"), "/there", { signal: controller.signal });
    await expect(ended).rejects.toMatchObject({ code: "ERR_ABORTED" });
    await expect(backupNode(join(root, "node"), "/there")).rejects.toMatchObject(refused);
    expect(times).toBe(2);
    server.close();
  });
});
