/** Pearson's chi-square test, for the uniformity of choices. */

/** Standard deviations beyond which counts are not uniform: once in about 3 million by chance. */
const Z = 5;

/** The statistic over its critical value: above 1, the counts are not what `expected` says. Takes at least two counts. */
export function chiSquareRatio(counts: readonly number[], expected: readonly number[]): number {
  const statistic = counts.reduce(
    (sum, count, at) => sum + (count - (expected[at] ?? 0)) ** 2 / (expected[at] ?? 0),
    0,
  );
  return statistic / criticalValue(counts.length - 1);
}

/** The same against equal counts. */
export function uniformityRatio(counts: readonly number[]): number {
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return chiSquareRatio(
    counts,
    counts.map(() => mean),
  );
}

/** Source: Wilson and Hilferty, "The Distribution of Chi-Square", PNAS 17 (1931). */
function criticalValue(degrees: number): number {
  return degrees * (1 - 2 / (9 * degrees) + Z * Math.sqrt(2 / (9 * degrees))) ** 3;
}
