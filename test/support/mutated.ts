/**
 * A temporary copy of the compiled program in which pieces of its text are replaced: a planted defect.
 *
 * Invariant: a copy differs from production by its patches alone, each of whose texts occurred exactly once, so that a mutant
 * whose place has changed is noticed and not quietly without effect.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
