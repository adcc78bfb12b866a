/**
 * House rules that need no resolution: length, header comment, leftover notes, barrels, addresses in the lock file.
 */
import { type Files, lineAt, parseAll } from "./source.ts";

/** STYLE.md: look again at 400. */
export const MAX_LINES = 400;

/** STYLE.md asks for 3–10 lines; a divergence and a list of bits may need some more. */
const MAX_HEADER_LINES = 30;

export function checkLength(files: Files): string[] {
  return [...files].flatMap(([path, text]) => {
    const lines = text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
    return lines <= MAX_LINES ? [] : [`${path} has ${lines} lines: split it along its nouns, at most ${MAX_LINES}`];
  });
}

/** A file opens with a doc comment of its own: what it is, the invariant it keeps, source, divergence. */
export function checkHeader(files: Files): string[] {
  return parseAll(files).flatMap(({ path, text, comments }) => {
    const first = comments[0];
    const start = text.startsWith("#!") ? text.indexOf("\n") + 1 : 0;
    if (first === undefined || first.type !== "Block" || first.start !== start || !first.value.startsWith("*")) {
      return [`${path} does not open with a /** … */ comment: say what it is and which invariant it keeps`];
    }
    const words = first.value.replaceAll(/[\s*]+/g, " ").trim();
    const lines = first.value.split("\n").length;
    if (words.length < 40) return [`${path} opens with ${JSON.stringify(words)}: say which invariant it keeps`];
    return lines <= MAX_HEADER_LINES ? [] : [`${path} has a header of ${lines} lines: at most ${MAX_HEADER_LINES}`];
  });
}

/** A note for later says why it was left; FIXME and friends are mended, not committed. */
export function checkNotes(files: Files): string[] {
  return parseAll(files).flatMap(({ path, text, comments }) =>
    comments.flatMap(({ value, start }) => {
      const place = `${path}:${lineAt(text, start)}`;
      if (/\b(?:FIXME|XXX|HACK)\b/.test(value)) return [`${place} has a FIXME: mend it, or write TODO with a reason`];
      if (!/\bTODO\b/.test(value) || /\bTODO\b[\s\S]*\b(?:because|until|since)\b/.test(value)) return [];
      return [`${place} has a TODO without a reason: say "because …" or "until …", or do it`];
    }),
  );
}

/** `src/index.ts` is the only barrel; the others are the other public entries. */
const BARRELS: readonly string[] = ["src/index.ts", "src/testing.ts", "src/sim.ts", "src/node.ts"];

export function checkBarrels(files: Files): string[] {
  return parseAll(files)
    .filter(({ path }) => !BARRELS.includes(path))
    .filter(({ body }) => body.length > 0 && body.every((node) => "source" in node && node.type.startsWith("Export")))
    .filter(({ body }) => body.every((node) => "source" in node && node.source !== null))
    .map(({ path }) => `${path} only re-exports: import from where the thing is; src/index.ts is the only barrel`);
}

/** The lock file names versions and hashes, never the address that a package happened to come from. */
export function checkLock(lock: string): string[] {
  const { packages } = JSON.parse(lock) as { packages: Record<string, { resolved?: string }> };
  return Object.entries(packages)
    .filter(([, entry]) => entry.resolved !== undefined)
    .map(
      ([name, entry]) => `package-lock.json: ${name} has the address ${entry.resolved}: install with the .npmrc here`,
    );
}
