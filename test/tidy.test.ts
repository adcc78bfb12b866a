/**
 * The house rules of DESIGN.md and STYLE.md as a test: every file under src, actors and native-bridge, every rule.
 *
 * Each rule is a function from texts to violations, and each has a test that it can fail: a clean file that passes and
 * one seeded violation that is named.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ADAPTERS, BANNED, checkIdentifiers, checkModules } from "./tidy/banned.ts";
import { checkCycles, checkEngines, checkLayers, checkPlanes, LAYERS, layerOf } from "./tidy/layers.ts";
import { type Files, parse } from "./tidy/source.ts";
import { checkBarrels, checkHeader, checkLength, checkLock, checkNotes, MAX_LINES } from "./tidy/text-rules.ts";

const RULES: Readonly<Record<string, (files: Files) => string[]>> = {
  layers: checkLayers,
  engines: checkEngines,
  planes: checkPlanes,
  cycles: checkCycles,
  identifiers: checkIdentifiers,
  modules: checkModules,
  length: checkLength,
  header: checkHeader,
  notes: checkNotes,
  barrels: checkBarrels,
};

function readTree(): Files {
  const files = new Map<string, string>();
  for (const folder of ["src", "actors", "native-bridge"].filter((name) => existsSync(name))) {
    for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
      // AssemblyScript is another language; it has its own compiler.
      if (!name.endsWith(".ts") || name.endsWith(".as.ts")) continue;
      const path = join(folder, name).replaceAll("\\", "/");
      files.set(path, readFileSync(path, "utf8"));
    }
  }
  return files;
}

describe("the tree", () => {
  const tree = readTree();

  test("is read: more than 20 files, with imports that resolve to files", () => {
    expect(tree.size).toBeGreaterThan(20);
    const edges = [...tree].flatMap(([path, text]) => parse(path, text).imports);
    expect(edges.filter(({ target }) => target !== undefined && tree.has(target)).length).toBeGreaterThan(20);
  });

  test.for(Object.keys(RULES))("keeps the rule: %s", (rule) => {
    expect(RULES[rule]?.(tree)).toEqual([]);
  });

  test("has a lock file without addresses", () => {
    expect(checkLock(readFileSync("package-lock.json", "utf8"))).toEqual([]);
  });
});

const HEADER = "/** What this file is, and the invariant that it keeps at all times. */\n";

/** The rule says nothing about `clean`, and exactly one thing, matching `message`, about `dirty`. */
function proves(rule: (files: Files) => string[], clean: Files, dirty: Files, message: RegExp): void {
  expect(rule(clean)).toEqual([]);
  const violations = rule(dirty);
  expect(violations).toHaveLength(1);
  expect(violations[0]).toMatch(message);
}

function files(texts: Record<string, string>): Files {
  return new Map(Object.entries(texts));
}

describe("layers can fail", () => {
  const base = { "src/errors.ts": "export const a = 1;", "src/wire/a.ts": "export const a = 1;" };

  test.for([
    ["static", `import { a } from "../wire/a.ts";`],
    ["type-only", `import type { A } from "../wire/a.ts";`],
    ["inline type", `import { type A } from "../wire/a.ts";`],
    ["re-export", `export { a } from "../wire/a.ts";`],
    ["export all", `export * from "../wire/a.ts";`],
    ["dynamic", `const a = await import("../wire/a.ts");`],
    ["import type", `type A = import("../wire/a.ts").A;`],
    ["side effect", `import "../wire/a.ts";`],
    ["URL", `const a = new URL("../wire/a.js", import.meta.url);`],
  ])("an upward import in the form: %s", ([, text]) => {
    const clean = files({ ...base, "src/actor/a.ts": text ?? "" });
    const dirty = files({ ...base, "src/runtime/a.ts": text ?? "" });
    proves(checkLayers, clean, dirty, /src\/runtime\/a\.ts:1 .*lower numbers only/);
  });

  test("a sideways import", () => {
    const text = `import { a } from "../runtime/a.ts";`;
    const dirty = files({
      "src/runtime/a.ts": "export const a = 1;",
      "native-bridge/b.ts": text.replace("../", "../src/"),
    });
    const clean = files({ "src/runtime/a.ts": "export const a = 1;", "src/wire/b.ts": text });
    proves(checkLayers, clean, dirty, /same number/);
  });

  test("an import of nothing, and a file without a layer", () => {
    const clean = files({ ...base, "src/wire/b.ts": `import "./a.ts";` });
    proves(checkLayers, clean, files({ ...base, "src/wire/b.ts": `import "./c.ts";` }), /does not exist/);
    proves(checkLayers, clean, files({ ...base, "src/helpers/b.ts": "" }), /has no layer/);
  });

  test("the longest row of the table wins", () => {
    expect(layerOf("actors/vector/engine.ts")).toBe(LAYERS["actors/"]);
    expect(layerOf("src/cli/formats/idx.ts")).toBe(12);
    expect(layerOf("src/helpers.ts")).toBeUndefined();
  });

  test("a file that cannot be parsed", () => {
    expect(() => checkLayers(files({ "src/errors.ts": "import {" }))).toThrow(SyntaxError);
  });
});

describe("engines, planes and cycles can fail", () => {
  test("an engine that knows another", () => {
    const base = { "actors/engine.ts": "export {};", "actors/text/a.ts": "export {};" };
    const clean = files({ ...base, "actors/vector/a.ts": `import "../engine.ts";` });
    proves(checkEngines, clean, files({ ...base, "actors/vector/a.ts": `import "../text/a.ts";` }), /do not know each/);
  });

  test.for(["src/plane/control-plane.ts", "src/topology/membership.ts", "src/transport/tls.ts"])(
    "a worker that reaches %s through another file",
    (target) => {
      const host = `import type { A } from "../src/actor/b.ts";`;
      const base = { "actors/a.worker.ts": host, [target]: "export {};", "src/transport/frame.ts": "export {};" };
      const clean = files({ ...base, "src/actor/b.ts": `import "../transport/frame.ts";` });
      const dirty = files({ ...base, "src/actor/b.ts": `import "${target.replace("src/", "../")}";` });
      proves(checkPlanes, clean, dirty, /actors\/a\.worker\.ts reaches .* → src\/actor\/b\.ts → /);
    },
  );

  test("a control plane that reaches an engine", () => {
    const engine = { "actors/vector/a.ts": "export {};", "actors/engine.ts": "export {};" };
    const clean = files({ ...engine, "src/plane/control-plane.ts": `import "../../actors/engine.ts";` });
    const dirty = files({ ...engine, "src/plane/control-plane.ts": `import "../../actors/vector/a.ts";` });
    proves(checkPlanes, clean, dirty, /reaches actors\/vector\/a\.ts/);
  });

  test("a circle of value imports, not of types", () => {
    const back = (kind: string): Files =>
      files({ "src/wire/a.ts": `import { b } from "./b.ts";`, "src/wire/b.ts": `import ${kind}{ a } from "./a.ts";` });
    proves(checkCycles, back("type "), back(""), /src\/wire\/a\.ts → src\/wire\/b\.ts → src\/wire\/a\.ts/);
  });
});

describe("bans can fail", () => {
  test.for(BANNED.map(({ name, instead }) => [name, instead] as const))(
    "%s is banned below layer 10",
    ([name, instead]) => {
      const use = files({ "src/wire/a.ts": `export const a = ${name};` });
      expect(checkIdentifiers(use)).toEqual([`src/wire/a.ts:1 uses ${name}: use ${instead}`]);
      expect(checkIdentifiers(files({ "src/cli/a.ts": `export const a = ${name};` }))).toEqual([]);
      expect(checkIdentifiers(files({ "actors/a.worker.ts": `export const a = ${name};` }))).toEqual([]);
    },
  );

  test.for([
    "globalThis.console.log(1)",
    'Math["random"]()',
    "f(Date.now())",
    "({ a: process })",
    "x = performance",
    "process!.exit()",
    "process.env",
    "new Date()",
    "performance as any",
  ])("the use is seen: %s", (text) => {
    expect(checkIdentifiers(files({ "src/wire/a.ts": text })).length).toBeGreaterThan(0);
  });

  test("defaults of parameters are uses", () => {
    expect(checkIdentifiers(files({ "src/wire/a.ts": "function f(now = Date.now) { return now(); }" }))).toHaveLength(
      1,
    );
  });

  test.for([
    "this.performance.now()",
    "({ console: 1 })",
    "clock.Date",
    "new Date(nowMs)",
    "a instanceof Date",
    "process.arch",
    "let a: Date",
    "class A implements Date {}",
    "function f(process) { return process; }",
  ])("a key, a member or a name of one's own is not a use: %s", (text) => {
    expect(checkIdentifiers(files({ "src/wire/a.ts": text }))).toEqual([]);
  });

  test.for(Object.entries(ADAPTERS))("only its adapter imports %s", ([module, allowed]) => {
    const text = `import * as a from "${module}";`;
    const adapter = allowed[0] ?? "";
    const clean = files({ [adapter.endsWith("/") ? `${adapter}a.ts` : adapter]: text, "src/cli/a.ts": text });
    proves(checkModules, clean, files({ "src/routing/a.ts": text }), /src\/routing\/a\.ts:1 imports .*: only /);
  });

  test("a package without an adapter", () => {
    const text = (module: string): Files => files({ "src/wire/a.ts": `import type { A } from "${module}";` });
    proves(checkModules, text("node:events"), text("left-pad"), /name its adapter/);
  });
});

describe("text rules can fail", () => {
  const file = (text: string): Files => files({ "src/wire/a.ts": text });

  test("length", () => {
    proves(checkLength, file("\n".repeat(MAX_LINES)), file("\n".repeat(MAX_LINES + 1)), /has 401 lines/);
  });

  test("header", () => {
    proves(checkHeader, file(`${HEADER}export {};`), file(`import "./b.ts";\n${HEADER}`), /does not open/);
    proves(checkHeader, file(`#!/usr/bin/env node\n${HEADER}`), file("/** A ring. */\n"), /which invariant/);
    proves(checkHeader, file(HEADER), file(HEADER.replace(" */", `${"\n * more".repeat(40)} */`)), /lines: at most/);
    proves(checkHeader, file(HEADER), file(HEADER.replace("/**", "//").replace(" */", "")), /does not open/);
  });

  test("notes", () => {
    const reason = file("// TODO drop this until Node 22 is the oldest");
    proves(checkNotes, reason, file("// TODO drop this"), /src\/wire\/a\.ts:1 has a TODO/);
    proves(checkNotes, file('const a = "TODO";'), file("/* FIXME */"), /has a FIXME/);
  });

  test("barrels", () => {
    const text = `export { a } from "./b.ts";\nexport type { B } from "./c.ts";`;
    proves(
      checkBarrels,
      files({ "src/index.ts": text, "src/wire/b.ts": "export const a = 1;" }),
      file(text),
      /only re-exports/,
    );
  });

  test("lock", () => {
    const lock = (entry: object): string => JSON.stringify({ packages: { "node_modules/a": entry } });
    expect(checkLock(lock({ version: "1.0.0" }))).toEqual([]);
    expect(checkLock(lock({ resolved: "https://example.org/a.tgz" }))).toHaveLength(1);
  });
});
