/**
 * Closes a test run: reads vitest's JSON report and prints `N passed, N failed` as a line of its own.
 *
 * Invariant: it exits 0 only when at least one test passed and nothing failed, neither a test nor a whole file.
 */
import { readFileSync } from "node:fs";

const [file] = process.argv.slice(2);
const { passed, failed } = count(file);
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exit(passed > 0 && failed === 0 ? 0 : 1);

function count(path) {
  let report;
  try {
    report = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    process.stdout.write(`no test report: ${error instanceof Error ? error.message : String(error)}\n`);
    return { passed: 0, failed: 1 };
  }
  // A file that cannot be loaded has no failed tests of its own; it counts as one failure.
  const brokenFiles = report.testResults.filter(
    (result) => result.status === "failed" && result.assertionResults.every((test) => test.status !== "failed"),
  ).length;
  return { passed: report.numPassedTests, failed: report.numFailedTests + brokenFiles };
}
