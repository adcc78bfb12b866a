/** Tells worker threads that have loaded failing-files.worker.ts how their files fail, and where. */
import { rmSync, writeFileSync } from "node:fs";

/** Compiled; for the option `actors`. */
export const FAILING_FILES_URL: URL = new URL("./failing-files.worker.js", import.meta.url);

/** What threads read; set before they are started. */
export const SWITCH = "SHARDLOOM_TEST_FAILING_FILES";

/** How files fail, and below which path. */
export interface FileTrouble {
  readonly kind: "sync" | "read-only";
  readonly below: string;
}

/** The switch of one test. */
export class FailingFiles {
  readonly #path: string;

  /** @param path Of a file that is not there, outside of what fails. */
  constructor(path: string) {
    this.#path = path;
    process.env[SWITCH] = path;
  }

  /** Undefined: nothing fails any more. */
  set(trouble: FileTrouble | undefined): void {
    if (trouble === undefined) rmSync(this.#path);
    else writeFileSync(this.#path, JSON.stringify(trouble));
  }

  close(): void {
    delete process.env[SWITCH];
    rmSync(this.#path, { force: true });
  }
}
