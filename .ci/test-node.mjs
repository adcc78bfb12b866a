/**
 * `npm run test:node -- 24 [vitest arguments]`: runs the whole suite under another Node.
 *
 * The other Node comes from the npm package `node`, kept in `node_modules/.cache/node-<major>`, so that nothing but
 * the npm registry is asked. Its preinstall script (it picks the platform's binary package) is allowed by name.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const [major, ...rest] = process.argv.slice(2);
if (major === undefined || !/^\d+(\.\d+){0,2}$/.test(major)) {
  process.stderr.write("Usage: npm run test:node -- <20|22|24|26> [vitest arguments]\n");
  process.exit(2);
}
const binary = installNode(major);
const version = spawnSync(binary, ["--version"], { encoding: "utf8" }).stdout?.trim();
if (!version?.startsWith(`v${major}`)) throw new Error(`Node ${major} was asked for, ${binary} is ${version}`);
process.stdout.write(`running the suite under Node ${version}\n`);
run(join(root, ".ci/build.mjs"), []);
run(join(root, "node_modules/vitest/vitest.mjs"), ["run", ...rest]);

function installNode(wanted) {
  const folder = join(root, "node_modules/.cache", `node-${wanted}`);
  const installed = join(folder, "node_modules/node/bin", process.platform === "win32" ? "node.exe" : "node");
  if (existsSync(installed)) return installed;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "package.json"), `${JSON.stringify({ private: true, allowScripts: { node: true } })}\n`);
  const npm = process.env["npm_execpath"];
  const args = ["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts=false", `node@${wanted}`];
  const { status } = npm
    ? spawnSync(process.execPath, [npm, ...args], { cwd: folder, stdio: "inherit", env: ownEnvironment() })
    : spawnSync("npm", args, { cwd: folder, stdio: "inherit" });
  if (status !== 0 || !existsSync(installed)) throw new Error(`npm could not install node@${wanted}`);
  return installed;
}

/** The outer `npm run` describes our package in `npm_*` variables; the inner npm must not take them for its own. */
function ownEnvironment() {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(package|lifecycle|command|config_local_prefix)/.test(name)),
  );
}

function run(script, args) {
  const env = { ...process.env, PATH: `${dirname(binary)}${delimiter}${process.env["PATH"] ?? ""}` };
  const { status } = spawnSync(binary, [script, ...args], { cwd: root, stdio: "inherit", env });
  if (status !== 0) process.exit(status ?? 1);
}
