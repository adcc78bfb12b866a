/** Runs a test file that a test has written, by a vitest of its own. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../", import.meta.url));

/** A folder within the package, so that its name and its dependencies resolve from there. The caller removes it. */
export function folderForTests(): string {
  return mkdtempSync(join(root, "dist/test/written-"));
}

/** @param path A file of a folder for tests. */
export function runVitest(path: string): { readonly status: number | null; readonly text: string } {
  const folder = dirname(path);
  const config = join(folder, "vitest.config.mjs");
  const server = { deps: { external: ["/dist/src/"] } };
  writeFileSync(
    config,
    `export default { test: ${JSON.stringify({ include: ["*.test.mjs"], root: folder, server })} };\n`,
  );
  const vitest = join(root, "node_modules/vitest/vitest.mjs");
  const { status, stdout, stderr } = spawnSync(process.execPath, [vitest, "run", "--config", config, path], {
    cwd: folder,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
  return { status, text: stdout + stderr };
}
