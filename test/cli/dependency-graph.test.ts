/** The lock file as a graph. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readDependencyGraph } from "../../src/cli/dependency-graph.ts";

let root = "";
let nodeModules = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "shardloom-lock-"));
  nodeModules = join(root, "node_modules");
  mkdirSync(nodeModules);
});
afterEach(() => rmSync(root, { recursive: true }));

const LOCK = {
  lockfileVersion: 3,
  packages: {
    "": { dependencies: { a: "^1" }, devDependencies: { b: "^2" } },
    "node_modules/a": { version: "1.0.0", dependencies: { b: "^1", "@s/c": "*" } },
    "node_modules/a/node_modules/b": { version: "1.5.0", dependencies: { "@s/c": "*" } },
    "node_modules/b": {
      version: "2.0.0",
      optionalDependencies: { "not-installed": "*" },
      peerDependencies: { a: "*" },
    },
    "node_modules/@s/c": { version: "3.0.0" },
  },
};

describe("the dependency graph", () => {
  it("finds packages as Node does: the nearest folder first", async () => {
    writeFileSync(join(root, "package-lock.json"), JSON.stringify(LOCK));
    const { packages, dependencies } = await readDependencyGraph(nodeModules);
    expect([...packages].sort()).toEqual(["@s/c@3.0.0", "a@1.0.0", "b@1.5.0", "b@2.0.0", "this project"]);
    expect(dependencies.map(({ source, target }) => `${source} > ${target}`).sort()).toEqual([
      "a@1.0.0 > @s/c@3.0.0",
      "a@1.0.0 > b@1.5.0",
      "b@1.5.0 > @s/c@3.0.0",
      "b@2.0.0 > a@1.0.0",
      "this project > a@1.0.0",
      "this project > b@2.0.0",
    ]);
  });

  it("takes what npm keeps inside where the project has none", async () => {
    writeFileSync(join(nodeModules, ".package-lock.json"), JSON.stringify(LOCK));
    const { path } = await readDependencyGraph(nodeModules);
    expect(path).toBe(join(nodeModules, ".package-lock.json"));
  });

  it("says what is missing or broken", async () => {
    await expect(readDependencyGraph(nodeModules)).rejects.toMatchObject({ code: "ERR_NO_FILE" });
    for (const text of ["{", "null", '{"lockfileVersion":1,"dependencies":{}}']) {
      writeFileSync(join(root, "package-lock.json"), text);
      await expect(readDependencyGraph(nodeModules), text).rejects.toMatchObject({ code: "ERR_CORRUPT" });
    }
  });
});
