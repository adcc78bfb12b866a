/** A host in a small arena, clustered vectors and plain-TypeScript truth for the tests of routing. */

import { emptyColumns, type LeafColumns } from "../../../../actors/vector/routing/centroid-table.ts";
import {
  type Code,
  type CodeArena,
  type CodeHost,
  type CodeSpace,
  packedSource,
  type VectorSource,
} from "../../../../actors/vector/routing/code-table.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import {
  compileKernels,
  ELEMENT,
  type ElementCode,
  Kernels,
  METRIC,
  type MetricCode,
} from "../../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { createSeededRandom, type Random } from "../../../../src/runtime/random.ts";
import { plainDistance } from "../../../native-bridge/kernels-support.ts";

/** Of this run; `SEED=…` repeats it. */
export const SEED = Number(process.env["SEED"] ?? 1);

export function makeHost(capacityBytes = 64 * 1024 * 1024): CodeHost & { readonly arena: Arena } {
  const arena = new Arena(createArena({ capacityBytes }));
  return { arena, kernels: new Kernels(compileKernels(), arena) };
}

/** A host that counts the distances that it computes, but for those of graph searches. */
export function countingHost(host: CodeHost): CodeHost & { readonly computed: number } {
  let computed = 0;
  const kernels = new Proxy(host.kernels, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...args: number[]): unknown => {
        if (key === "scoreCell" || key === "distance") computed++;
        if (key === "scanCells") computed += (args[3] as number) - (args[2] as number);
        return value.apply(target, args);
      };
    },
  });
  return {
    arena: host.arena,
    kernels,
    get computed() {
      return computed;
    },
  };
}

/** A host whose allocations fail as a test likes, and which knows what was not given back. */
export class FailingHost implements CodeHost {
  readonly arena: CodeArena;
  readonly kernels: Kernels;
  /** Which allocations fail, counted from 1. */
  fails: (allocation: number) => boolean = () => false;
  /** Blocks that are taken. */
  held = 0;
  #asked = 0;

  constructor({ arena, kernels }: CodeHost) {
    const { bytes, f32, i32 } = arena;
    this.kernels = kernels;
    this.arena = {
      ...{ bytes, f32, i32 },
      allocate: (byteLength) => {
        if (this.fails(++this.#asked))
          throw new ShardloomError("ERR_OUT_OF_MEMORY", `Cannot allocate ${byteLength} bytes as a test lets it fail`);
        this.held++;
        return arena.allocate(byteLength);
      },
      free: (byteOffset, byteLength) => {
        this.held--;
        arena.free(byteOffset, byteLength);
      },
    };
  }
}

export interface SyntheticOptions {
  readonly count: number;
  readonly dimensions?: number;
  readonly clusters?: number;
  readonly metric?: MetricCode;
  readonly element?: ElementCode;
  readonly random: Random;
}

/** Vectors around centres that lie near each other in turn, so that clusters have neighbours. */
export function synthetic(options: SyntheticOptions): VectorSource {
  const { count, dimensions = 24, clusters = 20, random } = options;
  const space: CodeSpace = { dimensions, metric: options.metric ?? METRIC.L2, element: options.element ?? ELEMENT.U8 };
  const centres = Array.from({ length: clusters }, () =>
    Array.from({ length: dimensions }, () => 40 + random.float() * 170),
  );
  const codes: Code =
    space.element === ELEMENT.U8 ? new Uint8Array(count * dimensions) : new Float32Array(count * dimensions);
  for (let i = 0; i < count; i++) {
    const a = centres[random.u32() % clusters] as number[];
    const b = centres[random.u32() % clusters] as number[];
    const part = random.float() * 0.5;
    for (let d = 0; d < dimensions; d++) {
      const value = (a[d] as number) * (1 - part) + (b[d] as number) * part + (random.float() - 0.5) * 70;
      codes[i * dimensions + d] = space.element === ELEMENT.U8 ? Math.max(0, Math.min(255, value)) : value - 125;
    }
  }
  return packedSource(space, codes);
}

/** The k nearest by brute force, ties to the lowest number. */
export function nearest(source: VectorSource, query: Code, k: number): number[] {
  return Array.from({ length: source.count }, (_, i): [number, number] => [
    plainDistance(source.metric, source.vector(i), query),
    i,
  ])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .slice(0, k)
    .map(([, i]) => i);
}

export function seeded(offset: number): Random {
  return createSeededRandom(SEED + offset);
}

export const SPACE: CodeSpace = { dimensions: 6, metric: METRIC.L2, element: ELEMENT.U8 };

/** Columns of leaves that nobody clustered, possible all the same. */
export function columnsOf(leaves: number, random: Random, space: CodeSpace = SPACE): LeafColumns {
  const columns = emptyColumns(space, leaves);
  columns.codes.forEach((_, i) => {
    columns.codes[i] = random.u32() % 256;
  });
  for (let leaf = 0; leaf < leaves; leaf++) {
    columns.counts[leaf] = 1 + (random.u32() % 100);
    columns.radii[leaf] = 100 + random.float();
    columns.radii90[leaf] = 99 + random.float();
    columns.medoids[leaf] = random.u32() % 1000;
    columns.partitions[leaf] = random.u32() % 4;
  }
  return columns;
}

/** Least recall that some hundred queries reach whose target is this: chance takes more where the target is low. */
export function nearTarget(recallTarget: number): number {
  return recallTarget - 0.03 - 0.3 * (1 - recallTarget);
}
