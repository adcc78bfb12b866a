/**
 * Compiles the AssemblyScript kernels to `build/native-bridge/kernels/distance.wasm`, and once more, with relaxed SIMD, to
 * `distance-relaxed.wasm`, of which this Node may not know the instructions.
 *
 * Fails loudly (exit code 1) when the compiler reports anything, when the module imports anything besides `env.memory`, or
 * when it has a data segment: all instances share one memory, so a segment would overwrite somebody's bytes at start.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const root = fileURLToPath(new URL("../..", import.meta.url));
const source = relative(root, fileURLToPath(new URL("./distance.as.ts", import.meta.url))).replaceAll("\\", "/");
const folder = fileURLToPath(new URL("../../build/native-bridge/kernels/", import.meta.url));

const DATA_SECTION = 11;
const DATA_COUNT_SECTION = 12;

/** Ids of the sections of a WebAssembly module, in order. */
function sectionIds(bytes) {
  const ids = [];
  let at = 8;
  while (at < bytes.length) {
    ids.push(bytes[at++]);
    let size = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      size += (byte & 127) * 2 ** shift;
      if (byte < 128) break;
    }
    at += size;
  }
  return ids;
}

function fail(message) {
  process.stderr.write(`Cannot build kernels as ${message}\n`);
  process.exit(1);
}

/** @param features What asc enables besides SIMD and threads. @returns The bytes of the module. */
async function compile(features) {
  const output = new Map();
  const { error, stderr } = await asc.main(
    [
      source,
      "--outFile",
      "module.wasm",
      "--optimizeLevel",
      "3",
      "--shrinkLevel",
      "0",
      "--converge",
      "--noAssert",
      "--runtime",
      "stub",
      "--use",
      "abort=",
      "--importMemory",
      "--sharedMemory",
      "--initialMemory",
      "1",
      "--maximumMemory",
      "65536",
      ...["simd", "threads", ...features].flatMap((feature) => ["--enable", feature]),
    ],
    {
      readFile: (name) => readFile(resolve(root, name), "utf8").catch(() => null),
      writeFile: (name, contents) => void output.set(name, contents),
      listFiles: () => [],
    },
  );
  if (error) fail(`the compiler failed: ${error.message}\n${stderr.toString()}`);
  const bytes = output.get("module.wasm");
  if (!bytes) fail("the compiler wrote no module");
  const sections = sectionIds(bytes);
  if (sections.includes(DATA_SECTION) || sections.includes(DATA_COUNT_SECTION))
    fail("the module must have no data segment");
  return bytes;
}

function checkImports(bytes) {
  const imports = WebAssembly.Module.imports(new WebAssembly.Module(bytes)).map(
    (entry) => `${entry.module}.${entry.name}`,
  );
  if (imports.join() !== "env.memory")
    fail(`the module must import env.memory only: current imports are ${imports.join(", ")}`);
}

const portable = await compile([]);
if (!WebAssembly.validate(portable)) fail("the module is not valid");
checkImports(portable);
const relaxed = await compile(["relaxed-simd"]);
if (WebAssembly.validate(relaxed)) checkImports(relaxed);
await mkdir(folder, { recursive: true });
await writeFile(join(folder, "distance.wasm"), portable);
await writeFile(join(folder, "distance-relaxed.wasm"), relaxed);
