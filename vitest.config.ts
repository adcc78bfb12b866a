/**
 * Runs the compiled tests. Workers cannot load `.ts`, so tsc compiles everything first and vitest runs `dist`.
 *
 * Invariant: nothing under `dist` is rewritten by vitest (`server.deps.external`), so that hot loops run at the
 * speed that users get. Tests run in forks, since worker threads of our own are what is tested.
 */
import { defineConfig } from "vitest/config";

const long = process.env["SHARDLOOM_LONG"] === "1";

export default defineConfig({
  test: {
    include: ["dist/test/**/*.test.js"],
    exclude: ["node_modules/**"],
    pool: "forks",
    maxWorkers: 2,
    execArgv: ["--expose-gc"],
    server: { deps: { external: [/\/dist\//] } },
    globalSetup: ["./test/tools/seed.mjs"],
    setupFiles: ["./test/tools/setup.mjs"],
    testTimeout: long ? 1_800_000 : 30_000,
    hookTimeout: 30_000,
    teardownTimeout: 10_000,
    passWithNoTests: false,
    allowOnly: false,
  },
});
