/**
 * A temporary copy of the compiled program in which pieces of its text are replaced: a planted defect.
 *
 * Invariant: a copy differs from production by its patches alone, each of whose texts occurred exactly once, so that a mutant
 * whose place has changed is noticed and not quietly without effect.
 */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** A piece of the compiled text of a file, and what stands there instead. */
export interface Patch {
  /** Below the compiled program, without extension: "actors/shard". */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** A copy on disk. */
export interface MutatedCopy {
  /** URL of a compiled file of the copy, named as in a {@link Patch}. */
  url(file: string): string;
  remove(): void;
}

const DIST: string = fileURLToPath(new URL("../../", import.meta.url));
/** Of which `dist` was made: every module in a file of its own, the text of which can be patched. */
const COMPILED: string = fileURLToPath(new URL("../../../build/", import.meta.url));
const PACKAGES: string = fileURLToPath(new URL("../../../node_modules", import.meta.url));

/**
 * Copies what is named, and patches it.
 *
 * @param parts Files and folders of the compiled program that the copy needs. @default all but tests and benches
 * @throws {Error} unless the text of every patch occurs exactly once
 */
export function mutatedCopy(
  patches: readonly Patch[],
  parts: readonly string[] = ["native-bridge", "src", "actors"],
): MutatedCopy {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-mutant-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  try {
    const isCode = (source: string): boolean => !source.endsWith(".d.ts") && !source.endsWith(".map");
    for (const part of parts) cpSync(join(COMPILED, part), join(folder, part), { recursive: true, filter: isCode });
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    symlinkSync(PACKAGES, join(folder, "node_modules"), "dir");
    for (const patch of patches) {
      const path = join(folder, `${patch.file}.js`);
      writeFileSync(path, replaceOnce(readFileSync(path, "utf8"), patch));
    }
  } catch (error) {
    remove();
    throw error;
  }
  return { url: (file) => pathToFileURL(join(folder, `${file}.js`)).href, remove };
}

/**
 * Copies what is patched and all that leads to it by imports; the rest is production's, of which a thread needs one copy for all mutants. So a
 * thread that has production loaded, and has run it often, loads a few small files more for a mutant.
 *
 * @throws {Error} unless the text of every patch occurs exactly once
 */
export function mutatedPart(patches: readonly Patch[]): MutatedCopy {
  const folder = mkdtempSync(join(tmpdir(), "shardloom-mutant-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const copied = leadingTo(patches.map(({ file }) => `${file}.js`));
  try {
    const texts = new Map(Array.from(copied, (path) => [path, textOf(path)]));
    for (const patch of patches) texts.set(`${patch.file}.js`, replaceOnce(texts.get(`${patch.file}.js`) ?? "", patch));
    for (const [path, text] of texts) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), elsewhere(path, text, copied));
    }
    writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
    symlinkSync(PACKAGES, join(folder, "node_modules"), "dir");
  } catch (error) {
    remove();
    throw error;
  }
  const url = (file: string): string =>
    copied.has(`${file}.js`) ? join(folder, `${file}.js`) : join(DIST, `${file}.js`);
  return { url: (file) => pathToFileURL(url(file)).href, remove };
}

/** What a compiled file imports of ours, by whatever form: before, between and behind the quotes. */
const REFERENCE = /(\bfrom |\bimport |\bimport\(|\bnew URL\()"(\.{1,2}\/[^"]+\.js)"(, import\.meta\.url)?/g;

/** Compiled files that import a file, by its path. */
let importers: ReadonlyMap<string, readonly string[]> | undefined;

function importersOf(path: string): readonly string[] {
  importers ??= readImporters();
  return importers.get(path) ?? [];
}

function readImporters(): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, string[]>();
  for (const part of ["native-bridge", "src", "actors"])
    for (const name of readdirSync(join(COMPILED, part), { recursive: true, encoding: "utf8" })) {
      const path = join(part, name);
      if (!path.endsWith(".js")) continue;
      for (const [, , reference = ""] of textOf(path).matchAll(REFERENCE)) {
        const target = normalize(join(dirname(path), reference));
        found.set(target, [...(found.get(target) ?? []), path]);
      }
    }
  return found;
}

/** These files and all that import them, directly or not. */
function leadingTo(paths: readonly string[]): ReadonlySet<string> {
  const found = new Set(paths);
  for (const path of found) for (const importer of importersOf(path)) found.add(importer);
  return found;
}

/** A file's text, for another place: what is not there with it is imported from production. */
function elsewhere(path: string, text: string, there: ReadonlySet<string>): string {
  return text.replace(REFERENCE, (whole, form: string, reference: string, base = "") => {
    const target = normalize(join(dirname(path), reference));
    if (there.has(target)) return whole;
    return `${form}${JSON.stringify(pathToFileURL(join(DIST, target)).href)}${base}`;
  });
}

function textOf(path: string): string {
  return readFileSync(join(COMPILED, path), "utf8");
}

/** The compiled program as it is, named as a copy is. */
export function unmutated(): Pick<MutatedCopy, "url"> {
  return { url: (file) => pathToFileURL(join(DIST, `${file}.js`)).href };
}

/** @throws {Error} unless the text occurs exactly once */
export function replaceOnce(text: string, { file, from, to }: Patch): string {
  const count = text.split(from).length - 1;
  if (count !== 1) throw new Error(`${file}.js must hold the text once, not ${count} times: ${JSON.stringify(from)}`);
  return text.replace(from, () => to);
}
