/**
 * The layer table of DESIGN.md ("The house") and the rules over resolved imports.
 *
 * Invariant: a file imports its own folder and folders of lower number. Type-only imports count: a type from above is
 * knowledge of what is above. Engines do not know each other, and the two planes never meet.
 */
import { type Files, type Import, parseAll, type Source } from "./source.ts";

/** Folder (with a closing slash) or single file → its number. The longest match wins. */
export const LAYERS: Readonly<Record<string, number>> = {
  "src/errors.ts": 0,
  "native-bridge/": 1,
  "src/runtime/": 1,
  "src/wire/": 2,
  "src/actor/": 3,
  "src/transport/": 3,
  "src/store/": 4,
  "src/topology/": 5,
  "src/routing/": 6,
  "src/plane/": 7,
  "actors/": 8,
  "src/cluster.ts": 10,
  "src/cluster-options.ts": 10,
  "src/cluster-nodes.ts": 10,
  "src/cluster-workers.ts": 10,
  "src/cluster-environment.ts": 10,
  "src/cluster-wire.ts": 10,
  "src/node-directory.ts": 10,
  "src/cluster-audit.ts": 10,
  "src/cluster-backup.ts": 10,
  "src/cluster-collections.ts": 10,
  "src/cluster-leases.ts": 10,
  "src/cluster-members.ts": 10,
  "src/cluster-node-removal.ts": 10,
  "src/cluster-memory.ts": 10,
  "src/cluster-nats.ts": 10,
  "src/cluster-nats-options.ts": 10,
  "src/cluster-restore.ts": 10,
  "src/cluster-storage.ts": 10,
  "src/cluster-client.ts": 10,
  "src/cluster-ports.ts": 10,
  "src/cluster-documents.ts": 10,
  "src/cluster-stats.ts": 10,
  "src/cluster-types.ts": 10,
  "src/files/": 10,
  "src/hybrid-search.ts": 10,
  "src/client-thread.ts": 10,
  "src/sim/": 11,
  "src/cli/": 12,
  "src/index.ts": 12,
  "src/testing.ts": 12,
  "src/sim.ts": 12,
  "src/node.ts": 12,
};

/** The one number under which nothing touches the outside world directly. */
export const ROOT_LAYER = 10;

/** Parts of `src/transport/` that are not an implementation. */
const TRANSPORT_CORE: readonly string[] = [
  "src/transport/transport.ts",
  "src/transport/frame.ts",
  "src/transport/credits.ts",
];

/** The row of the table that a path belongs to. */
export function rowOf(path: string): string | undefined {
  const rows = Object.keys(LAYERS).filter((row) => (row.endsWith("/") ? path.startsWith(row) : path === row));
  return rows.sort((a, b) => b.length - a.length)[0];
}

export function layerOf(path: string): number | undefined {
  const row = rowOf(path);
  return row === undefined ? undefined : LAYERS[row];
}

/** Every file has a layer, every relative import exists, and no import goes up or sideways. */
export function checkLayers(files: Files): string[] {
  return parseAll(files).flatMap((source) => {
    const row = rowOf(source.path);
    if (row === undefined) return [`${source.path} has no layer: move it into a folder that test/tidy/layers.ts names`];
    return source.imports.flatMap((edge) => checkEdge(source, row, edge, files));
  });
}

function checkEdge(source: Source, row: string, edge: Import, files: Files): string[] {
  const { target } = edge;
  if (target === undefined) return [];
  const place = `${source.path}:${edge.line}`;
  if (!files.has(target)) {
    // A URL may name what the build makes (a .wasm file) and a worker given to tests; an import may not.
    return edge.kind === "url"
      ? []
      : [`${place} imports ${target}, which does not exist under src, actors or native-bridge`];
  }
  const targetRow = rowOf(target);
  if (targetRow === undefined || targetRow === row) return [];
  const from = LAYERS[row] ?? 0;
  const to = LAYERS[targetRow] ?? 0;
  if (to < from || (to === ROOT_LAYER && from === ROOT_LAYER)) return [];
  const rule = to === from ? "folders of the same number do not know each other" : "imports go to lower numbers only";
  return [`${place} (${row} is ${from}) imports ${target} (${targetRow} is ${to}): ${rule}`];
}

/** `actors/<engine>/` folders never import each other. */
export function checkEngines(files: Files): string[] {
  return parseAll(files).flatMap((source) => {
    const engine = engineOf(source.path);
    if (engine === undefined) return [];
    return source.imports
      .filter((edge) => edge.target !== undefined && (engineOf(edge.target) ?? engine) !== engine)
      .map((edge) => `${source.path}:${edge.line} imports ${edge.target}: engines do not know each other`);
  });
}

/** The data plane reaches no control-plane file, and the control plane reaches no engine. */
export function checkPlanes(files: Files): string[] {
  const sources = new Map(parseAll(files).map((source) => [source.path, source]));
  const violations: string[] = [];
  for (const path of sources.keys()) {
    // A simulated world has whole nodes in its one thread.
    const isDataPlane = path.endsWith(".worker.ts") && !path.startsWith("src/sim/");
    const forbidden = isDataPlane ? isControlPlane : path === CONTROL_PLANE ? isEngine : undefined;
    if (forbidden === undefined) continue;
    for (const [reached, way] of reachable(path, sources)) {
      if (forbidden(reached)) violations.push(`${path} reaches ${reached}: ${way.join(" → ")}; the planes never meet`);
    }
  }
  return violations;
}

const CONTROL_PLANE = "src/plane/control-plane.ts";

function isControlPlane(path: string): boolean {
  if (path === CONTROL_PLANE || path === "src/topology/membership.ts") return true;
  return path.startsWith("src/transport/") && !TRANSPORT_CORE.includes(path);
}

function isEngine(path: string): boolean {
  return engineOf(path) !== undefined;
}

function engineOf(path: string): string | undefined {
  return /^actors\/([^/]+)\//.exec(path)?.[1];
}

/** Every file that `start` loads or takes a type from, with the way there. A URL starts another thread: not followed. */
function reachable(start: string, sources: ReadonlyMap<string, Source>): Map<string, string[]> {
  const ways = new Map<string, string[]>([[start, [start]]]);
  for (const [path, way] of ways) {
    for (const { target, kind } of sources.get(path)?.imports ?? []) {
      if (target !== undefined && kind !== "url" && !ways.has(target)) ways.set(target, [...way, target]);
    }
  }
  ways.delete(start);
  return ways;
}

/**
 * No circular imports. Type-only imports do not count here: they are erased, so that no load order depends on them.
 */
export function checkCycles(files: Files): string[] {
  const sources = new Map(parseAll(files).map((source) => [source.path, source]));
  const done = new Set<string>();
  const violations: string[] = [];
  const visit = (path: string, way: readonly string[]): void => {
    const start = way.indexOf(path);
    if (start >= 0) violations.push(`circular import: ${[...way.slice(start), path].join(" → ")}`);
    if (start >= 0 || done.has(path)) return;
    for (const { target, kind } of sources.get(path)?.imports ?? []) {
      if (target !== undefined && kind === "value") visit(target, [...way, path]);
    }
    done.add(path);
  };
  for (const path of sources.keys()) visit(path, []);
  return violations;
}
