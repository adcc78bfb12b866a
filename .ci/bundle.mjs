/**
 * Makes `dist`, which runs, from `build`, which was compiled: the same files at the same places, but the modules that every worker thread and
 * every client load are in three files: `dist/bundle/thread.js`, `client.js`, and `common.js` for both. A thread loads a few files then and not 350,
 * which it does in a third of the time. Simulated worlds have `sim.js` and `world.js` besides.
 *
 * Invariant: every module keeps its address. What stands there hands on the exports of the bundle, so that all who import a module, in whatever
 * way, have the same classes, symbols and registries, and `import.meta.url` says what it said before.
 * What a simulated world loads before its traps are set is in files of its own, and `src/errors.js` in a bundle that all load.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { dirname, join, normalize, relative, resolve } from "node:path";
import { rolldown } from "rolldown";

/** What is loaded first, by whom; it is bundled with all that it imports. What is imported on demand stays on its own. */
const ROOTS = {
  errors: "src/errors.js",
  thread: "actors/shard.worker.js",
  client: "src/index.js",
  sim: "src/sim.js",
  world: "src/sim/world-host.js",
};
/** In whose bundle a module is that several load: the first of these, or that of both, thread and client. */
const OWNERS = ["errors", "thread", "client", "sim", "world"];
/** What a simulated world loads before its traps are set, besides the errors. */
const ALONE = ["src/sim/traps.js", "src/sim/trap-table.js", "src/sim/real-loop.js"];
const BUNDLES = "bundle";

/** @param from Absolute path of the compiled files. @param to Absolute path of what runs. */
export async function bundle(from, to) {
  const written = new Set(await writeBundles(from, to));
  const isCopied = (path) => !written.has(path.replace(/\.map$/, "")) && !path.endsWith(".tsbuildinfo");
  const copied = new Set(readdirSync(from, { recursive: true }).filter(isCopied));
  for (const path of readdirSync(to, { recursive: true }))
    if (!copied.has(path) && !written.has(path)) rmSync(join(to, path), { recursive: true, force: true });
  for (const path of copied) copyIfChanged(join(from, path), join(to, path));
}

/** @returns Paths of the files that were written, below the folder, and of the folder that is new. */
async function writeBundles(from, to) {
  const roots = Object.values(ROOTS).map((path) => join(from, path));
  const build = await rolldown({
    input: roots,
    platform: "node",
    treeshake: false,
    preserveEntrySignatures: "allow-extension",
    external: /^[a-z@]/,
    plugins: [keepAddresses(from, roots)],
  });
  const { output } = await build.write({
    dir: to,
    entryFileNames: ({ facadeModuleId }) => relative(from, facadeModuleId),
    chunkFileNames: `${BUNDLES}/[name].js`,
    sourcemap: true,
    comments: false,
    codeSplitting: {
      includeDependenciesRecursively: false,
      groups: [{ name: bundleOf(from), debugName: "bundles" }],
    },
  });
  await build.close();
  return [BUNDLES, ...output.map(({ fileName }) => normalize(fileName))];
}

/**
 * Names a module's bundle: what clients never need stays out of theirs, as not every thread can load usearch, and so the other way round.
 */
function bundleOf(from) {
  const reached = new Map();
  const reach = (root, graph) => {
    const found = reached.get(root) ?? new Set([join(from, ROOTS[root])]);
    if (!reached.has(root))
      for (const id of found) for (const next of graph.getModuleInfo(id)?.importedIds ?? []) found.add(next);
    reached.set(root, found);
    return found;
  };
  return (id, graph) => {
    if (ALONE.includes(relative(from, id))) return null;
    const [owner, other] = OWNERS.filter((root) => reach(root, graph).has(id));
    return owner === "thread" && other === "client" ? "common" : owner;
  };
}

/** Every module remains one that can be imported, and knows its own address. */
function keepAddresses(from, roots) {
  const addressOf = (path) => `../${relative(from, path).replaceAll("\\", "/")}`;
  return {
    name: "keep-addresses",
    resolveId(source, importer, { kind }) {
      if (kind !== "dynamic-import" || !source.startsWith(".")) return undefined;
      return { id: addressOf(resolve(dirname(importer), source)), external: true };
    },
    load(path) {
      if (!path.startsWith(from)) return undefined;
      if (!roots.includes(path)) this.emitFile({ type: "chunk", id: path, fileName: relative(from, path) });
      const code = readFileSync(path, "utf8");
      if (ALONE.includes(relative(from, path))) return { code, map: readFileSync(`${path}.map`, "utf8") };
      // On one line as before, so that the map stays true.
      const address = `new URL("${addressOf(path)}", import.meta.url).href`;
      return { code: code.replaceAll("import.meta.url", address), map: readFileSync(`${path}.map`, "utf8") };
    },
  };
}

function copyIfChanged(source, target) {
  const from = statSync(source);
  const to = statSync(target, { throwIfNoEntry: false });
  if (from.isDirectory()) mkdirSync(target, { recursive: true });
  else if (from.mtimeMs !== to?.mtimeMs || from.size !== to.size) cpSync(source, target, { preserveTimestamps: true });
}
