/**
 * Closes a test run: reads vitest's JSON report and prints `N passed, N failed` as a line of its own.
 *
 * Invariant: it exits 0 only when at least one test passed and nothing failed, neither a test nor a whole file.
 * What failed is named just before that line, since a long log is often seen by its end alone.
 */
import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { stripVTControlCharacters } from "node:util";

const SHOWN_LINES = 12;
const SHOWN_COLUMNS = 300;

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
  for (const { file, name, message } of failuresOf(report))
    process.stdout.write(`failed: ${file} > ${name}\n${message}\n`);
  // A file that cannot be loaded has no failed tests of its own; it counts as one failure.
  const brokenFiles = report.testResults.filter(
    (result) => result.status === "failed" && result.assertionResults.every((test) => test.status !== "failed"),
  ).length;
  return { passed: report.numPassedTests, failed: report.numFailedTests + brokenFiles };
}

/** @returns every failed test and every file that could not be loaded, each with the first lines of its reason */
function* failuresOf(report) {
  for (const { name: path, message, status, assertionResults } of report.testResults) {
    const file = relative(process.cwd(), path);
    const failed = assertionResults.filter((test) => test.status === "failed");
    for (const { fullName, failureMessages } of failed)
      yield { file, name: fullName, message: head(failureMessages.join("\n")) };
    if (status === "failed" && failed.length === 0)
      yield { file, name: "the file itself", message: head(message ?? "") };
  }
}

/** The first lines of a text, each cut to what a terminal shows. */
function head(text) {
  const lines = stripVTControlCharacters(text).split("\n").slice(0, SHOWN_LINES);
  return lines.map((line) => `  ${line.slice(0, SHOWN_COLUMNS)}`).join("\n");
}
