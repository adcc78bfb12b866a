/**
 * Text tables: aligned columns for people, in a terminal or a log.
 *
 * Invariant: every line is at most `columns` wide when the flexible (last left-aligned) column can give way; widths
 * count what a terminal shows (wide characters twice, marks and escapes not at all). No trailing spaces.
 */
import { stripVTControlCharacters } from "node:util";

export interface TableColumn {
  readonly title: string;
  /** @default left */
  readonly align?: "left" | "right";
}

export type TableCell = string | number | undefined;

export interface TableOptions {
  /** Width to keep to. @default 100 */
  readonly columns?: number;
}

const GAP = "  ";
const MIN_FLEXIBLE_WIDTH = 8;

/**
 * Lays out a table with a line under its titles; no line feed at the end.
 *
 * @example
 * formatTable([{ title: "what" }, { title: "median", align: "right" }], [["one-sided read", "73 ns"]])
 */
export function formatTable(
  columns: readonly TableColumn[],
  rows: readonly (readonly TableCell[])[],
  options: TableOptions = {},
): string {
  const texts = rows.map((row) => columns.map((_, index) => cellText(row[index])));
  const widths = columns.map(({ title }, index) =>
    Math.max(displayWidth(title), ...texts.map((row) => displayWidth(row[index] ?? ""))),
  );
  shrink(columns, widths, options.columns || 100);
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => pad(cell, widths[index] ?? 0, columns[index]?.align ?? "left"))
      .join(GAP)
      .trimEnd();
  return [
    line(columns.map(({ title }) => title)),
    line(widths.map((width) => "─".repeat(width))),
    ...texts.map(line),
  ].join("\n");
}

/** Cells a terminal uses for a text on one line. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of stripVTControlCharacters(text)) {
    if (/\p{M}|\p{Cf}/u.test(character)) continue;
    width +=
      /\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uff60]/u.test(
        character,
      )
        ? 2
        : 1;
  }
  return width;
}

/** Cuts a text to a display width, with an ellipsis where something is missing. */
export function truncate(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let kept = "";
  for (const character of stripVTControlCharacters(text)) {
    if (displayWidth(kept) + displayWidth(character) > width - 1) break;
    kept += character;
  }
  return `${kept}…`;
}

function cellText(cell: TableCell): string {
  return cell === undefined ? "" : String(cell).replaceAll(/\s+/g, " ");
}

function shrink(columns: readonly TableColumn[], widths: number[], limit: number): void {
  const flexible = columns.findLastIndex(({ align }) => align !== "right");
  const total = widths.reduce((sum, width) => sum + width, 0) + GAP.length * (widths.length - 1);
  const width = widths[flexible];
  if (width === undefined || total <= limit) return;
  widths[flexible] = Math.min(width, Math.max(MIN_FLEXIBLE_WIDTH, width - (total - limit)));
}

function pad(text: string, width: number, align: "left" | "right"): string {
  const cut = truncate(text, width);
  const padding = " ".repeat(width - displayWidth(cut));
  return align === "right" ? padding + cut : cut + padding;
}
