/**
 * The packages that npm has installed, as a graph: an edge leads from a package to each that it depends on, as npm's lock file tells.
 *
 * Invariant: a package is looked for as Node does, in the `node_modules` of the dependent's folder and of those above it. What is not installed
 * (optional, for another platform) is not in the graph. Two copies of one version are one vertex.
 */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ShardloomError } from "../errors.ts";

/** Of versions 2 and 3: by folder, `""` for the project itself. */
interface LockedPackage {
  readonly version?: string;
  readonly link?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

/** Packages as `name@version`, and who depends on whom. */
export interface DependencyGraph {
  /** The lock file. */
  readonly path: string;
  readonly packages: readonly string[];
  readonly dependencies: readonly { readonly source: string; readonly target: string }[];
}

/**
 * Reads the lock file of a `node_modules`: the project's `package-lock.json`, else the one that npm keeps inside.
 *
 * @throws {ShardloomError} `ERR_NO_FILE` when there is neither, `ERR_CORRUPT` for one that lists no packages.
 */
export async function readDependencyGraph(nodeModules: string): Promise<DependencyGraph> {
  const [path, text] = await readLockFile(nodeModules);
  const locked = packagesIn(path, text);
  const names = new Map(Object.entries(locked).map(([folder, { version = "" }]) => [folder, nameOf(folder, version)]));
  const edges = new Map<string, { source: string; target: string }>();
  for (const [folder, known] of Object.entries(locked)) {
    const { dependencies, optionalDependencies, peerDependencies, devDependencies } = known;
    const wanted = { ...devDependencies, ...peerDependencies, ...optionalDependencies, ...dependencies };
    for (const name of Object.keys(wanted)) {
      const found = resolveFrom(folder, name, locked);
      if (found === undefined) continue;
      const [source, target] = [names.get(folder), names.get(found)] as [string, string];
      edges.set(`${source} ${target}`, { source, target });
    }
  }
  return { path, packages: [...new Set(names.values())], dependencies: [...edges.values()] };
}

async function readLockFile(nodeModules: string): Promise<[path: string, text: string]> {
  const paths = [join(dirname(nodeModules), "package-lock.json"), join(nodeModules, ".package-lock.json")];
  for (const path of paths) {
    const text = await readFile(path, "utf8").catch(() => undefined);
    if (text !== undefined) return [path, text];
  }
  throw new ShardloomError(
    "ERR_NO_FILE",
    `Cannot read dependencies as there must be a lock file: none is at ${paths.join(" or ")}`,
    {
      details: { path: paths[0] },
    },
  );
}

function packagesIn(path: string, text: string): Readonly<Record<string, LockedPackage>> {
  let packages: unknown;
  try {
    packages = (JSON.parse(text) as { packages?: unknown } | null)?.packages;
  } catch {
    packages = undefined;
  }
  if (typeof packages === "object" && packages !== null) return packages as Record<string, LockedPackage>;
  throw new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read dependencies as a lock file of version 2 or 3 must list packages: current value is ${path}`,
    {
      details: { path },
    },
  );
}

/** The folder in which Node would find a package. */
function resolveFrom(
  folder: string,
  name: string,
  locked: Readonly<Record<string, LockedPackage>>,
): string | undefined {
  for (let from = folder; ; from = from.slice(0, Math.max(0, from.lastIndexOf("node_modules/") - 1))) {
    const candidate = `${from === "" ? "" : `${from}/`}node_modules/${name}`;
    if (Object.hasOwn(locked, candidate)) return candidate;
    if (from === "") return undefined;
  }
}

function nameOf(folder: string, version: string): string {
  if (folder === "") return "this project";
  return `${folder.slice(folder.lastIndexOf("node_modules/") + "node_modules/".length)}@${version}`;
}
