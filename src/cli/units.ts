/**
 * Numbers for people: counts, bytes and durations with a unit, three digits where it matters.
 *
 * Invariant: the same number gives the same text whatever the machine's locale.
 */

const NUMBER = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

/** `12345` → `12,345`. */
export function formatCount(value: number): string {
  return NUMBER.format(value);
}

/** `1536` → `1.5 KB`, in steps of 1024. */
export function formatBytes(bytes: number): string {
  return scaled(bytes, ["B", "KB", "MB", "GB", "TB"], 1024);
}

/** `1234` → `1.23 µs`. */
export function formatNanoseconds(nanoseconds: number): string {
  return scaled(nanoseconds, ["ns", "µs", "ms", "s"], 1000);
}

/** `0.0123` → `12.3 ms`. */
export function formatSeconds(seconds: number): string {
  return formatNanoseconds(seconds * 1e9);
}

function scaled(value: number, units: readonly string[], step: number): string {
  let scale = 0;
  let rest = value;
  // 999.5 would be rounded to four digits.
  while (Math.abs(rest) >= step - 0.5 && scale < units.length - 1) {
    rest /= step;
    scale += 1;
  }
  const digits = Math.abs(rest) >= 99.95 || Number.isInteger(rest) ? 0 : Math.abs(rest) >= 9.995 ? 1 : 2;
  return `${rest.toFixed(digits)} ${units[scale]}`;
}
