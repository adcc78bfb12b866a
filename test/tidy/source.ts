/**
 * A source file as the house rules see it: its text, syntax tree, comments and everything it imports.
 *
 * Invariant: an import is found whatever its form (static, type-only, re-export, dynamic, `import("…")` type, or a
 * module named by `new URL("…", import.meta.url)`), and a file that cannot be parsed is an error, never an empty file.
 */
import { posix } from "node:path";
import { type Comment, type Node, parseSync, visitorKeys } from "oxc-parser";

/** Files by path, relative to the repository, with `/`. */
export type Files = ReadonlyMap<string, string>;

export interface Import {
  readonly specifier: string;
  /** Path inside the repository, or undefined for a package. A `.js` URL names the `.ts` it is compiled from. */
  readonly target: string | undefined;
  /** `value` is loaded with the file, `type` is erased, `url` is only named (the entry of another thread). */
  readonly kind: "value" | "type" | "url";
  readonly line: number;
}

export interface Source {
  readonly path: string;
  readonly text: string;
  readonly body: readonly Node[];
  readonly program: Node;
  readonly comments: readonly Comment[];
  readonly imports: readonly Import[];
}

const parsed = new Map<string, Source>();

/** Parses one file; the same path and text are parsed once. */
export function parse(path: string, text: string): Source {
  const key = `${path}\0${text}`;
  const known = parsed.get(key);
  if (known !== undefined) return known;
  const result = parseSync(path, text);
  if (result.errors.length > 0) throw new SyntaxError(`${path}: ${result.errors[0]?.message}`);
  const program: Node = result.program;
  const imports: Import[] = [];
  walk(program, (node) => {
    const found = importOf(node);
    if (found === undefined) return;
    const target = found.specifier.startsWith(".") ? resolve(path, found.specifier) : undefined;
    imports.push({ ...found, target, line: lineAt(text, node.start) });
  });
  const source: Source = { path, text, body: result.program.body, program, comments: result.comments, imports };
  parsed.set(key, source);
  return source;
}

export function parseAll(files: Files): Source[] {
  return [...files].map(([path, text]) => parse(path, text));
}

/** Calls `visit` for a node and everything below it, parents first. */
export function walk(node: Node, visit: (node: Node, parent: Node | undefined, key: string) => void): void {
  const step = (current: Node, parent: Node | undefined, parentKey: string): void => {
    visit(current, parent, parentKey);
    for (const key of visitorKeys[current.type] ?? []) {
      const child: unknown = (current as unknown as Record<string, unknown>)[key];
      for (const item of Array.isArray(child) ? (child as unknown[]) : [child])
        if (isNode(item)) step(item, current, key);
    }
  };
  step(node, undefined, "");
}

export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && typeof (value as { type?: unknown }).type === "string";
}

function importOf(node: Node): { specifier: string; kind: Import["kind"] } | undefined {
  switch (node.type) {
    case "ImportDeclaration": {
      const named = node.specifiers.filter((specifier) => specifier.type === "ImportSpecifier");
      const erased = named.length > 0 && named.length === node.specifiers.length;
      const onlyTypes = erased && named.every((specifier) => specifier.importKind === "type");
      return { specifier: node.source.value, kind: node.importKind === "type" || onlyTypes ? "type" : "value" };
    }
    case "ExportAllDeclaration":
      return { specifier: node.source.value, kind: node.exportKind === "type" ? "type" : "value" };
    case "ExportNamedDeclaration":
      if (node.source === null) return undefined;
      return { specifier: node.source.value, kind: node.exportKind === "type" ? "type" : "value" };
    case "ImportExpression":
      return isText(node.source) ? { specifier: node.source.value, kind: "value" } : undefined;
    case "TSImportType":
      return { specifier: node.source.value, kind: "type" };
    case "NewExpression": {
      if (node.callee.type !== "Identifier" || node.callee.name !== "URL") return undefined;
      const [first, base] = node.arguments;
      const nearby = first !== undefined && base !== undefined && isText(first) && base.type === "MemberExpression";
      return nearby && first.value.startsWith(".") ? { specifier: first.value, kind: "url" } : undefined;
    }
    default:
      return undefined;
  }
}

function isText(node: Node): node is Node & { value: string } {
  return node.type === "Literal" && typeof node.value === "string";
}

function resolve(from: string, specifier: string): string {
  return posix.join(posix.dirname(from), specifier).replace(/\.js$/, ".ts");
}
