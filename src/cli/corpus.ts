/**
 * Real text that every machine has after `npm ci`: the Markdown documentation of the packages under `node_modules`.
 *
 * Invariant: the same tree gives the same passages in the same order (names compared by code unit). What is read is
 * bounded: files by size, passages by number, each package getting an equal share when there are too many. Licences,
 * change logs, translations and texts seen before are left out; links are not followed.
 */
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { invalidArgument, ShardloomError } from "../errors.ts";
import { splitMarkdown } from "./markdown.ts";

export interface Passage {
  /** `package/file#number`: unique, and the same on every run over the same tree. */
  readonly id: string;
  readonly package: string;
  /** Path inside the package. */
  readonly file: string;
  /** Headings above the passage, outermost first, joined by ` › `; may be empty. */
  readonly heading: string;
  readonly text: string;
}

export interface CorpusOptions {
  /** The `node_modules` folder. @default the one that this package is installed in or has */
  readonly folder?: string;
  /** Passages at most, in `[1, 1_000_000]`. @default 4000 */
  readonly limit?: number;
}

const DEFAULT_LIMIT = 4000;
const MAX_FILE_BYTES = 512 * 1024;
const MAX_DEPTH = 8;

/** Files that are not documentation of what the package does. */
const LEFT_OUT =
  /^(?:licen[cs]e|copying|notice|change-?log|changes|history|release-notes|contributing|code[-_]of[-_]conduct|security|authors|contributors|third-?party.*)\b/i;
/** `README.fr.md`, `README-zh_CN.md`: translations. */
const TRANSLATION = /[._-](?!md)(?:[a-z]{2}|[a-z]{2}[-_][a-z]{2,4})\.md$/i;

/**
 * Reads the corpus.
 *
 * Cost: reads a few MB, and holds the passages (about 0.6 KB each).
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` no such folder, or a limit out of range; `ERR_UNAVAILABLE` when the
 *   folder has no documentation.
 */
export async function readCorpus(options: CorpusOptions = {}): Promise<Passage[]> {
  const limit = options.limit ?? DEFAULT_LIMIT;
  if (!Number.isInteger(limit) || limit < 1 || limit > 1_000_000) {
    throw invalidArgument("read corpus", "limit", "an integer in [1, 1000000]", limit);
  }
  const folder = options.folder ?? (await findNodeModules());
  const byPackage = new Map<string, Passage[]>();
  const seen = new Set<string>();
  for await (const path of markdownFiles(folder)) {
    const { packageName, file } = placeOf(path);
    const passages = byPackage.get(packageName) ?? [];
    byPackage.set(packageName, passages);
    for (const { heading, text } of splitMarkdown(await readFile(join(folder, path), "utf8"))) {
      if (seen.has(text)) continue;
      seen.add(text);
      passages.push({ id: `${packageName}/${file}#${passages.length}`, package: packageName, file, heading, text });
    }
  }
  if (seen.size === 0) {
    const message = `Cannot read corpus as folder must have Markdown documentation: current value is ${folder}`;
    throw new ShardloomError("ERR_UNAVAILABLE", message, { details: { folder }, retryable: false });
  }
  return share([...byPackage.values()], limit);
}

/** What a passage is embedded from: its text under the names it is found by. */
export function passageText({ package: name, heading, text }: Passage): string {
  return `${name} ${heading}\n${text}`;
}

/** The `node_modules` that this package lies in, else the nearest one above it that it could have installed. */
export async function findNodeModules(from: string = dirname(fileURLToPath(import.meta.url))): Promise<string> {
  for (let folder = from; folder !== dirname(folder); folder = dirname(folder)) {
    if (basename(folder) === "node_modules") return folder;
    const inside = join(folder, "node_modules");
    const found = await stat(inside).catch(() => undefined);
    if (found?.isDirectory() === true) return inside;
  }
  throw invalidArgument("read corpus", "folder", "given where no node_modules is above", from);
}

/** Paths of Markdown files below a folder, relative to it, in code-unit order. */
async function* markdownFiles(root: string, below = "", depth = 0): AsyncGenerator<string, void, undefined> {
  const entries = await readdir(join(root, below), { withFileTypes: true }).catch((cause: unknown) => {
    const message = `Cannot read corpus as folder must be readable: current value is ${join(root, below)}`;
    throw new ShardloomError("ERR_INVALID_ARGUMENT", message, { details: { folder: join(root, below) }, cause });
  });
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const path = below === "" ? entry.name : `${below}/${entry.name}`;
    if (entry.isDirectory()) {
      if (!entry.name.startsWith(".") && depth < MAX_DEPTH) yield* markdownFiles(root, path, depth + 1);
    } else if (entry.isFile() && isDocumentation(entry.name)) {
      const { size } = await stat(join(root, path));
      if (size <= MAX_FILE_BYTES) yield path;
    }
  }
}

function isDocumentation(name: string): boolean {
  return /\.(?:md|markdown)$/i.test(name) && !LEFT_OUT.test(name) && !TRANSLATION.test(name);
}

/** The innermost package of a path: `a/node_modules/@b/c/docs/d.md` is `docs/d.md` of `@b/c`. */
function placeOf(path: string): { packageName: string; file: string } {
  const parts = path.split("/");
  const start = parts.lastIndexOf("node_modules") + 1;
  const end = start + (parts[start]?.startsWith("@") === true ? 2 : 1);
  return { packageName: parts.slice(start, end).join("/"), file: parts.slice(end).join("/") };
}

/** Takes at most `limit` passages, from every package the same number while it has any, spread over its files. */
function share(groups: readonly Passage[][], limit: number): Passage[] {
  let quota = 0;
  let total = 0;
  const bySize = groups.map((group) => group.length).sort((a, b) => a - b);
  for (const [index, size] of bySize.entries()) {
    quota = Math.floor((limit - total) / (bySize.length - index));
    if (size > quota) break;
    total += size;
    quota = size;
  }
  const chosen = groups.flatMap((group) => (group.length <= quota ? group : spread(group, quota)));
  return chosen.length > 0 ? chosen : groups.flat().slice(0, limit);
}

function spread(group: readonly Passage[], count: number): Passage[] {
  return group.filter(
    (_, index) => Math.floor(((index + 1) * count) / group.length) > Math.floor((index * count) / group.length),
  );
}
