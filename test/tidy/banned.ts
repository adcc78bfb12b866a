/**
 * What code below layer 10 may not touch directly, and what to use instead.
 *
 * Invariant: clock, randomness, timers, output, files and network come in as parameters, so that the same actors run on
 * threads, over a wire and inside a simulated world. `*.worker.ts` files are the composition roots of their threads and
 * are free; every other exception is a single file or folder named here. Modules are denied unless listed.
 */
import type { Node } from "oxc-parser";
import { layerOf, ROOT_LAYER } from "./layers.ts";
import { type Files, lineAt, parseAll, type Source, walk } from "./source.ts";

interface Ban {
  /** A global, or a member of one: `Math.random`. */
  readonly name: string;
  readonly instead: string;
  /** Files, or folders with a closing slash, that are the adapter. */
  readonly except: readonly string[];
}

/** Constants of the machine: reading them is no input. */
const MACHINE_CONSTANTS: readonly string[] = ["arch", "platform", "version", "versions", "features"];

const CLOCK = "a clock given as parameter (src/runtime/clock.ts)";
const RANDOM = "a seeded source given as parameter (src/runtime/random.ts)";
const TIMERS = "a scheduler given as parameter (src/runtime/scheduler.ts)";

export const BANNED: readonly Ban[] = [
  // Dates are values; only the forms that read the clock are banned.
  { name: "Date.now", instead: CLOCK, except: ["src/runtime/clock.ts"] },
  { name: "new Date()", instead: CLOCK, except: ["src/runtime/clock.ts"] },
  { name: "Date()", instead: CLOCK, except: ["src/runtime/clock.ts"] },
  { name: "performance", instead: CLOCK, except: ["src/runtime/clock.ts", "src/sim/real-loop.ts"] },
  { name: "Math.random", instead: RANDOM, except: ["src/runtime/random.ts"] },
  { name: "crypto", instead: RANDOM, except: ["src/runtime/random.ts"] },
  { name: "setTimeout", instead: TIMERS, except: ["src/runtime/scheduler.ts"] },
  { name: "setInterval", instead: TIMERS, except: ["src/runtime/scheduler.ts"] },
  { name: "setImmediate", instead: TIMERS, except: ["src/runtime/scheduler.ts", "src/sim/real-loop.ts"] },
  { name: "Atomics.wait", instead: "a Doorbell", except: ["native-bridge/doorbell.ts", "src/runtime/write-gate.ts"] },
  { name: "Atomics.waitAsync", instead: "a Doorbell", except: ["native-bridge/doorbell.ts"] },
  { name: "Atomics.notify", instead: "a Doorbell", except: ["native-bridge/doorbell.ts", "src/runtime/write-gate.ts"] },
  {
    name: "console",
    instead: "an event or a diagnostics channel",
    except: ["src/transport/webtransport-package.ts"],
  },
  {
    name: "process",
    instead: "an option that src/cluster.ts fills in",
    except: ["src/plane/", "src/runtime/clock.ts", "src/runtime/directory-lock.ts", "src/sim/vitest.ts"],
  },
  { name: "fetch", instead: "a transport given as parameter (src/transport/transport.ts)", except: ["src/transport/"] },
  { name: "eval", instead: "a function", except: [] },
];

/** Modules that anything may import. */
const PURE_MODULES: readonly string[] = [
  "node:assert",
  "node:async_hooks",
  "node:buffer",
  "node:diagnostics_channel",
  "node:events",
  "node:path",
  "node:string_decoder",
  "node:url",
  "node:util",
];

/** Every other module and package → the only files or folders below layer 10 that may import it. */
export const ADAPTERS: Readonly<Record<string, readonly string[]>> = {
  "@fails-components/webtransport": ["src/transport/webtransport-package.ts"],
  "@nats-io/jetstream": ["src/runtime/nats.ts", "src/runtime/nats-objects.ts"],
  "@nats-io/kv": ["src/runtime/nats-bucket.ts"],
  "@nats-io/obj": ["src/runtime/nats-objects.ts"],
  "@nats-io/transport-node": ["src/runtime/nats.ts"],
  "@orama/stemmers": ["actors/text/stemmers.ts"],
  "@peculiar/x509": ["src/transport/x509-builder.ts"],
  "node:child_process": ["src/plane/scrub-process.ts"],
  "node:crypto": [
    "src/runtime/random.ts",
    "src/runtime/digest.ts",
    "src/transport/x509.ts",
    "src/transport/x509-builder.ts",
  ],
  "node:fs": ["native-bridge/kernels.ts", "src/runtime/disk.ts"],
  "node:fs/promises": [
    "src/runtime/directory-lock.ts",
    "src/runtime/disk.ts",
    "src/store/object-store.ts",
    "src/transport/certificate-files.ts",
  ],
  "node:http2": ["src/transport/webtransport.ts", "src/transport/webtransport-package.ts"],
  "node:module": ["src/sim/traps.ts", "src/transport/webtransport-package.ts"],
  "node:os": ["src/runtime/directory-lock.ts"],
  "node:net": [
    "src/transport/join-tls.ts",
    "src/transport/tls.ts",
    "src/transport/webtransport.ts",
    "src/transport/x509.ts",
  ],
  "node:perf_hooks": ["src/runtime/clock.ts"],
  "node:timers": ["src/runtime/scheduler.ts"],
  "node:timers/promises": ["src/runtime/scheduler.ts"],
  "node:tls": [
    "src/runtime/nats.ts",
    "src/transport/join-tls.ts",
    "src/transport/tls.ts",
    "src/transport/webtransport.ts",
    "src/transport/webtransport-package.ts",
  ],
  "node:worker_threads": ["src/plane/", "src/sim/create-world.ts"],
  "node:zlib": ["src/runtime/checksum.ts"],
  comlink: ["src/plane/"],
  lmdb: ["src/store/documents.ts"],
  msgpackr: ["src/wire/value-codec.ts", "src/store/metadata-codec.ts"],
  piscina: ["src/plane/"],
  "reflect-metadata": ["src/transport/x509-builder.ts"],
  usearch: ["actors/vector/"],
};

/** Globals used below layer 10 outside their adapter. */
export function checkIdentifiers(files: Files): string[] {
  return lowSources(files).flatMap((source) => {
    const local = namesDeclaredIn(source);
    return globalsOf(source, local).flatMap(({ name, line }) => {
      const ban = BANNED.find((candidate) => candidate.name === name);
      if (ban === undefined || isListed(source.path, ban.except)) return [];
      return [`${source.path}:${line} uses ${name}: use ${ban.instead}`];
    });
  });
}

/** Modules imported below layer 10 outside their adapter. */
export function checkModules(files: Files): string[] {
  return lowSources(files).flatMap((source) =>
    source.imports.flatMap(({ specifier, target, line }) => {
      if (target !== undefined || PURE_MODULES.includes(specifier)) return [];
      const allowed = ADAPTERS[specifier] ?? ADAPTERS[packageOf(specifier)] ?? [];
      if (isListed(source.path, allowed)) return [];
      const instead =
        allowed.length === 0 ? "name its adapter in test/tidy/banned.ts" : `only ${allowed.join(", ")} may`;
      return [`${source.path}:${line} imports ${specifier}: ${instead}`];
    }),
  );
}

/** `@a/b` of `@a/b/c`, `a` of `a/b`. */
function packageOf(specifier: string): string {
  return specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
}

function lowSources(files: Files): Source[] {
  // Simulated worlds stand above the composition root and are bound by the same rules.
  const isBound = (path: string): boolean => (layerOf(path) ?? 0) < ROOT_LAYER || path.startsWith("src/sim/");
  return parseAll(files).filter(({ path }) => isBound(path) && !path.endsWith(".worker.ts"));
}

function isListed(path: string, list: readonly string[]): boolean {
  return list.some((entry) => (entry.endsWith("/") ? path.startsWith(entry) : path === entry));
}

/** Uses of globals as `name` and `name.member`; `globalThis.name` counts as `name`. */
function globalsOf(source: Source, local: ReadonlySet<string>): { name: string; line: number }[] {
  const uses: { name: string; line: number }[] = [];
  const add = (name: string, node: Node): void => {
    uses.push({ name, line: lineAt(source.text, node.start) });
  };
  walk(source.program, (node, parent, key) => {
    if (node.type === "Identifier" && isReference(parent, key) && !local.has(node.name)) {
      const member = parent?.type === "MemberExpression" && key === "object" ? memberName(parent) : undefined;
      if (node.name !== "process" || !MACHINE_CONSTANTS.includes(member ?? "")) add(node.name, node);
      if (node.name === "Date" && key === "callee") addDate(parent, add);
    }
    if (node.type !== "MemberExpression" || node.object.type !== "Identifier" || local.has(node.object.name)) return;
    const member = memberName(node);
    if (member !== undefined) add(node.object.name === "globalThis" ? member : `${node.object.name}.${member}`, node);
  });
  return uses;
}

function addDate(call: Node | undefined, add: (name: string, node: Node) => void): void {
  if (call?.type === "CallExpression") add("Date()", call);
  if (call?.type === "NewExpression" && call.arguments.length === 0) add("new Date()", call);
}

function memberName(node: Node & { type: "MemberExpression" }): string | undefined {
  const { property } = node;
  if (!node.computed) return property.type === "Identifier" ? property.name : undefined;
  return property.type === "Literal" && typeof property.value === "string" ? property.value : undefined;
}

/** Whether an identifier in that place reads a variable, rather than naming a key, a member, a label or a type. */
function isReference(parent: Node | undefined, key: string): boolean {
  if (parent === undefined) return false;
  switch (parent.type) {
    case "MemberExpression":
      return key === "object" || parent.computed;
    case "Property":
      return key === "value" || parent.computed;
    case "MethodDefinition":
    case "PropertyDefinition":
    case "AccessorProperty":
      return key !== "key" || parent.computed;
    case "TSClassImplements":
    case "TSInterfaceHeritage":
      return false;
    default:
      return !parent.type.startsWith("TS") || key === "expression";
  }
}

/** Names that the file binds itself: imports, declarations, parameters. They hide the global of that name. */
function namesDeclaredIn(source: Source): Set<string> {
  const names = new Set<string>();
  const bind = (pattern: Node | null): void => {
    if (pattern !== null) {
      walk(pattern, (node, parent, key) => {
        const isDefault = parent?.type === "AssignmentPattern" && key === "right";
        if (node.type === "Identifier" && !isDefault) names.add(node.name);
      });
    }
  };
  walk(source.program, (node) => {
    if (/^Import(Default|Namespace)?Specifier$/.test(node.type)) bind((node as unknown as { local: Node }).local);
    if (node.type === "VariableDeclarator") bind(patternOnly(node.id));
    if (node.type === "ClassDeclaration") bind(node.id);
    if (/Function/.test(node.type)) {
      const { id, params } = node as unknown as { id: Node | null; params: Node[] };
      bind(id ?? null);
      for (const parameter of params ?? []) bind(patternOnly(parameter));
    }
  });
  return names;
}

/** A parameter without its default value, whose identifiers are uses. */
function patternOnly(node: Node): Node {
  return node.type === "AssignmentPattern" ? node.left : node;
}
