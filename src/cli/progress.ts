/**
 * Progress of a long step: a bar on a terminal, one line per 10 % elsewhere, nothing under `--json`.
 *
 * Invariant: it writes at most every 50 ms on a terminal and at most a dozen lines elsewhere, however often it is
 * told, and always a last line that says how it ended. Everything goes to the stream of notes (standard error).
 */
import type { Output } from "./command.ts";
import { truncate } from "./table.ts";
import { formatCount, formatSeconds } from "./units.ts";

export interface ProgressOptions {
  /** What is being done: `indexing`. */
  readonly label: string;
  /** Steps in all; undefined when only the end can tell. */
  readonly total: number | undefined;
  /** What is counted: `passages`. */
  readonly unit: string;
  readonly output: Pick<Output, "json" | "notes">;
  /** Milliseconds of a monotonic clock. @default performance.now */
  readonly nowMs?: () => number;
}

export interface Progress {
  /** Says how many steps are done. Never goes back. @param note what else there is to say of this moment: shown by a bar only */
  update(done: number, note?: string): void;
  /** Ends it with a last line. Later calls do nothing. */
  finish(): void;
  /** Ends it, saying that it was not completed. */
  fail(): void;
}

const BAR_CHARACTERS = 24;
const REDRAW_MS = 50;
const DEFAULT_COLUMNS = 100;
/** Without a total, a line is written whenever the count has doubled since this many. */
const FIRST_COUNT = 1000;
const CLEAR_LINE = "\r\u001b[2K";

export function createProgress(options: ProgressOptions): Progress {
  const { label, total, unit, output } = options;
  const nowMs = options.nowMs ?? ((): number => performance.now());
  const isBar = output.notes.isTTY === true && process.env["TERM"] !== "dumb";
  const startMs = nowMs();
  let done = 0;
  let noted = "";
  let drawnMs = Number.NEGATIVE_INFINITY;
  let nextLine = total === undefined ? FIRST_COUNT : total / 10;
  let ended = output.json;

  const count = (): string => `${formatCount(done)}${total === undefined ? "" : ` of ${formatCount(total)}`} ${unit}`;
  const draw = (): void => {
    const now = nowMs();
    if (now - drawnMs < REDRAW_MS) return;
    drawnMs = now;
    const line = `${label} ${total === undefined ? "" : `${bar(done / total)} `}${count()}${noted}`;
    output.notes.write(`${CLEAR_LINE}${truncate(line, (output.notes.columns || DEFAULT_COLUMNS) - 1)}`);
  };
  const writeLine = (): void => {
    const percent = total === undefined ? "" : `${Math.floor((10 * done) / total) * 10} % `;
    output.notes.write(`${label} ${percent}(${count()})\n`);
    while (nextLine <= done) nextLine = total === undefined ? nextLine * 2 : nextLine + total / 10;
  };
  const end = (word: string): void => {
    if (ended) return;
    ended = true;
    const seconds = (nowMs() - startMs) / 1000;
    const rate = seconds > 0 ? `, ${formatCount(Math.round(done / seconds))}/s` : "";
    output.notes.write(`${isBar ? CLEAR_LINE : ""}${label} ${word}: ${count()} in ${formatSeconds(seconds)}${rate}\n`);
  };

  return {
    update(value, note) {
      noted = note === undefined ? "" : `, ${note}`;
      const isFurther = value > done;
      if (ended || (!isFurther && note === undefined)) return;
      if (isFurther) done = total === undefined ? value : Math.min(value, total);
      if (isBar) draw();
      else if (done >= nextLine && done !== total) writeLine();
    },
    finish: () => end("done"),
    fail: () => end("stopped"),
  };
}

function bar(share: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * BAR_CHARACTERS);
  return `[${"█".repeat(full)}${"·".repeat(BAR_CHARACTERS - full)}] ${Math.floor(share * 100)} %`;
}
