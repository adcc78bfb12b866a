/**
 * Compiles the AssemblyScript kernels to `dist/native-bridge/kernels/distance.wasm`.
 *
 * Fails loudly (exit code 1) when the compiler reports anything, when the module imports anything besides `env.memory`, or
 * when it has a data segment: all instances share one memory, so a segment would overwrite somebody's bytes at start.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const root = fileURLToPath(new URL("../..", import.meta.url));
const source = relative(root, fileURLToPath(new URL("./distance.as.ts", import.meta.url))).replaceAll("\\", "/");
const target = new URL("../../dist/native-bridge/kernels/distance.wasm", import.meta.url);

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

const output = new Map();
const { error, stderr } = await asc.main(
  [
    source,
    "--outFile",
    "distance.wasm",
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
    "--enable",
    "simd",
    "--enable",
    "threads",
  ],
  {
    readFile: (name) => readFile(resolve(root, name), "utf8").catch(() => null),
    writeFile: (name, contents) => void output.set(name, contents),
    listFiles: () => [],
  },
);
if (error) fail(`the compiler failed: ${error.message}\n${stderr.toString()}`);
const bytes = output.get("distance.wasm");
if (!bytes) fail("the compiler wrote no module");
if (!WebAssembly.validate(bytes)) fail("the module is not valid");
const imports = WebAssembly.Module.imports(new WebAssembly.Module(bytes)).map(
  (entry) => `${entry.module}.${entry.name}`,
);
if (imports.join() !== "env.memory")
  fail(`the module must import env.memory only: current imports are ${imports.join(", ")}`);
const sections = sectionIds(bytes);
if (sections.includes(DATA_SECTION) || sections.includes(DATA_COUNT_SECTION))
  fail("the module must have no data segment");
await mkdir(dirname(fileURLToPath(target)), { recursive: true });
await writeFile(target, bytes);
