/** The worked example of src/sim/README.md: a planted defect is found, cut down to a fault or a few, and mended. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import {
  createWorldRunner,
  type RunResult,
  repeatCommand,
  shrinkRun,
  simulate,
  type WorldOptions,
} from "../../src/sim.ts";
import { folderForTests, runVitest } from "../support/run-vitest.ts";

const WORLD: WorldOptions = { nodes: 3, minutes: 0.25, faults: { drop: 0.02, partition: 6 } };
const MODULE = new URL("./bank.js", import.meta.url).href;
const HASTY = { module: MODULE, export: "bank", options: { teller: "hasty" } };
const CAREFUL = { module: MODULE, export: "bank", options: { teller: "careful" } };
const SEEDS = [2, 3, 4, 5];

const folder = folderForTests();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("finds the money that hasty tellers lose, and says why in a fault or two", { timeout: 180_000 }, async () => {
  await using runner = createWorldRunner();
  let failed: RunResult | undefined;
  for (const seed of SEEDS) {
    const result = await runner.run({ ...WORLD, seed }, HASTY, {});
    failed ??= result.violations.length > 0 ? result : undefined;
    if (failed !== undefined) break;
  }
  if (failed === undefined) throw new Error(`none of the seeds ${SEEDS.join(", ")} lost any money`);
  expect(failed.violations[0]).toMatchObject({
    rule: "no money is lost",
    message: expect.stringMatching(/hold \d+ of 400/),
  });

  const small = await shrinkRun(WORLD, HASTY, failed, { run: runner.run, wallLimitMs: 60_000 });
  expect(small.violation.rule).toBe("no money is lost");
  expect(small.faults.length).toBeLessThanOrEqual(10);
  expect(small.faults.length + small.operations.length).toBeLessThan(failed.faults.length + failed.operations.length);
  expect(small.test).toContain(`createWorld({ seed: ${failed.seed}, nodes: 3, minutes: 0.25 })`);

  // The same faults at the same operations: careful tellers lose nothing.
  const { nodes, faults, operations } = small;
  const again = await runner.run({ ...WORLD, nodes, seed: failed.seed }, HASTY, { replay: { faults, operations } });
  expect(again.violations.map(({ rule }) => rule)).toContain("no money is lost");
  const mended = await runner.run({ ...WORLD, nodes, seed: failed.seed }, CAREFUL, { replay: { faults, operations } });
  expect(mended.violations).toEqual([]);

  // And as the test that was written: it fails until the tellers are mended.
  const path = join(folder, "lost-money.test.mjs");
  writeFileSync(path, small.test);
  expect(runVitest(path)).toMatchObject({
    status: 1,
    text: expect.stringContaining("no money is lost: the accounts hold"),
  });
  writeFileSync(path, small.test.replace('"hasty"', '"careful"'));
  expect(runVitest(path)).toMatchObject({ status: 0, text: expect.stringContaining("1 passed") });
});

it("gives the command that repeats a run", () => {
  expect(repeatCommand({ ...WORLD, seed: 7 }, { ...HASTY, module: "file:///bank.js" })).toBe(
    `npx shardloom sim --seed 7 --nodes 3 --minutes 0.25 --faults drop:0.02,partition:6 --workload file:///bank.js#bank --workload-options '{"teller":"hasty"}'`,
  );
  // A world without faults is not the command's default.
  expect(repeatCommand({ seed: 7 }, HASTY)).toContain("--faults none ");
});

// As in a project of one's own, where `SEED` says which seeds; here every run of the tests has fresh ones.
simulate("careful tellers lose no money", { ...WORLD, seeds: 3, test: it }, CAREFUL);
