/**
 * Compiles everything into `build`: TypeScript (incremental), the WASM kernels, then (without `--no-tests`) the tests. What runs is `dist`, made of it.
 *
 * Invariant: after it returns, `dist` holds exactly what the sources say. Compiled files whose source is gone are
 * deleted, or a removed test would go on running; kernels are compiled again only when a source of theirs is newer.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundle } from "./bundle.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const kernels = join(root, "native-bridge/kernels");
const compiledKernels = join(root, "build/native-bridge/kernels");

removeOrphans("build");
compile("tsconfig.json");
if (existsSync(join(kernels, "build.mjs")) && kernelsAreStale()) run(join(kernels, "build.mjs"), []);
if (!process.argv.includes("--no-tests")) compile("test/tsconfig.json");
await bundle(join(root, "build"), join(root, "dist"));

function compile(project) {
  run(join(root, "node_modules/typescript/bin/tsc"), ["-p", project]);
}

function run(script, args) {
  const { status, signal, error } = spawnSync(process.execPath, [script, ...args], { cwd: root, stdio: "inherit" });
  if (error !== undefined) throw error;
  if (status !== 0) process.exit(status ?? (signal === null ? 1 : 130));
}

/** Deletes what tsc wrote for a source file that no longer exists. */
function removeOrphans(folder) {
  const absolute = join(root, folder);
  if (!existsSync(absolute)) return;
  for (const entry of readdirSync(absolute, { recursive: true })) {
    const output = /^(.*)\.(?:js|d\.ts)(?:\.map)?$/.exec(entry);
    if (output === null || existsSync(join(root, `${output[1]}.ts`))) continue;
    rmSync(join(absolute, entry), { force: true });
  }
}

function kernelsAreStale() {
  const outputs = newest(compiledKernels, /\.wasm$/, Math.min);
  return outputs === undefined || outputs < (newest(kernels, /\.(?:as\.ts|mjs)$/, Math.max) ?? 0);
}

function newest(folder, pattern, choose) {
  if (!existsSync(folder)) return undefined;
  const times = readdirSync(folder, { recursive: true })
    .filter((name) => pattern.test(name))
    .map((name) => statSync(join(folder, name)).mtimeMs);
  return times.length === 0 ? undefined : choose(...times);
}
