/** Tests that are written out: they run, they fail, they pass once mended; and whatever the data, they are the module that was meant. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { type EmitTestOptions, emitTest } from "../../src/sim/emit-test.ts";
import { folderForTests, runVitest } from "../support/run-vitest.ts";

const folder = folderForTests();
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const EXAMPLE: EmitTestOptions = {
  world: { seed: 42, nodes: 3, faults: "all", minutes: 1, keepTrace: true, wallLimitMs: 9 },
  workload: { module: "file:///somewhere/bank.js", export: "bank", options: { accounts: 3 } },
  faults: [{ kind: "worker-crash", atMs: 120, durationMs: 0, targets: ["n0/w0"], size: 0 }],
  operations: [{ process: 0, f: "transfer", value: { from: "a", to: "b", amount: 5 }, afterMs: 0 }],
  violation: { rule: "no money is lost", message: "accounts hold 95 of 100", entries: [] },
};

/** What a test asks of a world, by running its text with imports that only listen. */
async function asked(
  text: string,
): Promise<{ world: unknown; workload: unknown; run: unknown; name: unknown; expected: unknown }> {
  const seen: Record<string, unknown> = {};
  const script = text.replaceAll(/^import .*$/gm, "").replaceAll("import.meta.url", '"file:///tests/found.test.mjs"');
  let body: (() => Promise<void>) | undefined;
  runInNewContext(script, {
    URL,
    createWorld: (world: unknown) => ({
      run: async (workload: unknown, run: unknown) => {
        Object.assign(seen, { world, workload, run });
        return { violations: [{ rule: "r", message: "m" }] };
      },
    }),
    expect: (found: unknown) => ({ toEqual: () => Object.assign(seen, { expected: found }) }),
    test: (name: string, _options: unknown, given: () => Promise<void>) => {
      seen["name"] = name;
      body = given;
    },
  });
  await body?.();
  // Objects of another context have other prototypes.
  return JSON.parse(JSON.stringify(seen)) as Awaited<ReturnType<typeof asked>>;
}

describe("emitTest", () => {
  it("asks for exactly the run that it was given", async () => {
    expect(await asked(emitTest(EXAMPLE))).toEqual({
      name: "seed 42: no money is lost",
      world: { seed: 42, nodes: 3, minutes: 1 },
      workload: EXAMPLE.workload,
      run: { replay: { faults: EXAMPLE.faults, operations: EXAMPLE.operations } },
      expected: ["r: m"],
    });
  });

  it("names files by their place relative to the test", async () => {
    const text = emitTest({ ...EXAMPLE, path: "/somewhere/test/found.test.mjs" });
    expect(text).toContain('new URL("../bank.js", import.meta.url).href');
    const module = "@bank/workload";
    expect(emitTest({ ...EXAMPLE, workload: { ...EXAMPLE.workload, module }, path: "/x/y.mjs" })).toContain(
      `module: "${module}"`,
    );
  });

  it("is the same data again, whatever the data, and never another program", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.jsonValue(),
        fc.string({ unit: "binary" }),
        fc.record({ rule: fc.string(), message: fc.string({ unit: "binary" }) }),
        async (value, name, violation) => {
          const operations = [{ process: 0, f: name, value, afterMs: 0.1 }];
          const options = { ...EXAMPLE, operations, violation: { ...violation, entries: [] } };
          const found = await asked(emitTest(options));
          expect(found.run).toEqual(JSON.parse(JSON.stringify({ replay: { faults: EXAMPLE.faults, operations } })));
          expect(found.name).toBe(`seed 42: ${violation.rule}`);
        },
      ),
    );
    const nasty = { rule: "*/ throw 1 /*", message: "`$" + "{x}` */\n*/ \u2028 __proto__", entries: [] };
    const value = JSON.parse('{"__proto__": {"a": 1}, "a-b": null, "constructor": [], "1": "</script>"}') as unknown;
    const operations = [{ process: 0, f: "x", value, afterMs: 0 }];
    const found = await asked(emitTest({ ...EXAMPLE, violation: nasty, operations }));
    expect(JSON.stringify(found.run)).toBe(JSON.stringify({ replay: { faults: EXAMPLE.faults, operations } }));
  });

  it("runs under vitest: fails while the defect is there, passes when it is mended", () => {
    const path = join(folder, "found.test.mjs");
    // A world whose defect is a file: what the test asks for must reach it whole.
    const sim = join(folder, "sim.mjs");
    const write = (defect: boolean): void =>
      writeFileSync(
        sim,
        `export const createWorld = (world) => ({ run: async (workload, { replay }) => {
          if (world.seed !== 42 || replay.faults[0].targets[0] !== "n0/w0" || !workload.module.endsWith("/bank.mjs")) throw new Error("another run");
          return { violations: ${defect} ? [{ rule: "no money is lost", message: replay.operations[0].f }] : [] };
        } });\n`,
      );
    const workload = { ...EXAMPLE.workload, module: pathToFileURL(join(folder, "bank.mjs")).href };
    writeFileSync(path, emitTest({ ...EXAMPLE, workload, path, simModule: "./sim.mjs" }));
    write(true);
    const failed = runVitest(path);
    expect(failed.status).toBe(1);
    expect(failed.text).toContain("no money is lost: transfer");
    write(false);
    expect(runVitest(path)).toMatchObject({ status: 0, text: expect.stringContaining("1 passed") });
  }, 60_000);
});
