/**
 * Markdown → plain passages with their heading, for a corpus to search in.
 *
 * Invariant: a passage is whole paragraphs of one place in the file, about 250–700 characters, free of markup, badges,
 * images, addresses and HTML; a longer paragraph is cut between sentences. Code blocks keep their first lines.
 * Divergence: this is no Markdown parser. It knows line forms only, since a search corpus forgives the rest.
 */

/** A piece of one file. */
export interface MarkdownPassage {
  /** Headings above it, outermost first, joined by ` › `; empty at the top of a file. */
  readonly heading: string;
  readonly text: string;
}

/** A passage grows until the next paragraph would take it past this. */
const MAX_CHARACTERS = 700;
/** Under a new heading a passage ends only when it has this many. */
const ENOUGH_CHARACTERS = 250;
/** A remainder shorter than this says nothing by itself. */
const MIN_CHARACTERS = 80;
const MAX_CODE_LINES = 8;
/** Tables of numbers and ASCII art have fewer letters. */
const MIN_LETTER_SHARE = 0.55;

/** Sections that are about the people and the terms, not about the thing. */
const LEFT_OUT =
  /(?:^|› )(?:licen[cs]e|copyright|contributors?|sponsors?|backers|authors?|table of contents|contents)$/i;

interface Block {
  readonly heading: string;
  readonly text: string;
}

export function splitMarkdown(markdown: string): MarkdownPassage[] {
  const passages: MarkdownPassage[] = [];
  let heading = "";
  let text = "";
  const flush = (): void => {
    if (isWorthwhile(text)) passages.push({ heading, text });
    text = "";
  };
  for (const block of blocksOf(markdown)) {
    const isNewSection = block.heading !== heading && text.length >= ENOUGH_CHARACTERS;
    for (const piece of cutLong(block.text)) {
      if (text !== "" && (isNewSection || text.length + piece.length > MAX_CHARACTERS)) flush();
      if (text === "") heading = block.heading;
      text = text === "" ? piece : `${text}\n${piece}`;
    }
  }
  flush();
  return passages;
}

function isWorthwhile(text: string): boolean {
  if (text.length < MIN_CHARACTERS) return false;
  const letters = text.match(/\p{L}|\s/gu)?.length ?? 0;
  return letters / text.length >= MIN_LETTER_SHARE;
}

/** Paragraphs, list items and shortened code blocks, each under its heading. */
function blocksOf(markdown: string): Block[] {
  const blocks: Block[] = [];
  const headings: string[] = [];
  let lines: string[] = [];
  let fence: string | undefined;
  const flush = (): void => {
    const text = lines.map(plainLine).filter(Boolean).join(" ").trim();
    const heading = headings.filter(Boolean).join(" › ");
    if (text !== "" && !LEFT_OUT.test(heading)) blocks.push({ heading, text });
    lines = [];
  };
  const setHeading = (level: number, title: string): void => {
    headings.length = level - 1;
    headings[level - 1] = plainLine(title);
  };
  for (const line of withoutHtml(markdown).split("\n")) {
    const mark = /^\s*(?:[-*+]\s+|\d+[.)]\s+)?(```+|~~~+)/.exec(line)?.[1]?.slice(0, 3);
    const atx = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$/.exec(line);
    if (fence !== undefined) {
      if (mark === fence) fence = undefined;
      else if (lines.length < MAX_CODE_LINES) lines.push(line);
      if (fence === undefined) flush();
    } else if (mark !== undefined) {
      flush();
      fence = mark;
    } else if (atx !== null) {
      flush();
      setHeading(atx[1]?.length ?? 1, atx[2] ?? "");
    } else if (/^\s{0,3}(?:=+|-{2,})\s*$/.test(line) && lines.length === 1) {
      setHeading(line.includes("=") ? 1 : 2, lines[0] ?? "");
      lines = [];
    } else if (line.trim() === "") {
      flush();
    } else {
      if (/^\s*(?:[-*+]|\d+[.)])\s/.test(line) && lines.join(" ").length > ENOUGH_CHARACTERS) flush();
      lines.push(line);
    }
  }
  flush();
  return blocks;
}

/** Front matter, comments and tags; what stands between tags stays. Code between backticks keeps its angle brackets. */
function withoutHtml(markdown: string): string {
  return markdown
    .replaceAll("\r\n", "\n")
    .replace(/^\uFEFF?---\n[\s\S]*?\n---\n/, "")
    .replaceAll(/<!--[\s\S]*?-->/g, "")
    .replaceAll(/<(?:script|style|svg)\b[\s\S]*?<\/(?:script|style|svg)>/gi, "")
    .replaceAll(/(`[^`\n]*`)|<\/?[a-z][a-z0-9-]*(?:\s[^<>]*)?\/?>/gi, (_, code?: string) => code ?? "");
}

/** One line without its inline markup. */
function plainLine(line: string): string {
  if (/^\s*\[[^\]]+\]:\s/.test(line) || /^[\s|:+=-]+$/.test(line)) return "";
  return line
    .replaceAll(/!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])/g, "")
    .replaceAll(/\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])/g, "$1")
    .replaceAll(/\[!(?:NOTE|TIP|WARNING|IMPORTANT|CAUTION)\]/g, "")
    .replaceAll(/<?\bhttps?:\/\/[^\s)>\]]+>?/g, "")
    .replaceAll(/^\s*(?:>\s*)+|^\s*[-*+]\s+|\|/g, " ")
    .replaceAll(/\*\*|__|`|(?<!\w)[*_]|[*_](?!\w)/g, "")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&nbsp;", " ")
    .replaceAll("&amp;", "&")
    .replaceAll(/\s+/g, " ")
    .trim();
}

/** Cuts a text longer than a passage after sentences, or after words where a sentence has no end. */
function cutLong(text: string): string[] {
  const pieces: string[] = [];
  let rest = text;
  while (rest.length > MAX_CHARACTERS) {
    const window = rest.slice(0, MAX_CHARACTERS);
    const sentence = Math.max(window.lastIndexOf(". "), window.lastIndexOf("; "), window.lastIndexOf("? ")) + 1;
    const end = sentence > ENOUGH_CHARACTERS ? sentence : window.lastIndexOf(" ");
    const cut = end > ENOUGH_CHARACTERS ? end : MAX_CHARACTERS;
    pieces.push(rest.slice(0, cut).trim());
    rest = rest.slice(cut).trim();
  }
  if (rest !== "") pieces.push(rest);
  return pieces;
}
