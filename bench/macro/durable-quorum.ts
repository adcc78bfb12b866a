/**
 * L4, a part of bench `durable`: how long one write takes until it is acknowledged, with copies of which a quorum of two must have it, and without.
 *
 * Invariant: one writer, which awaits each write; the clusters take turns in one process, each with as many workers, each write
 * replaces a document, and no shard has enough of them for an index. Threads spin as they do by default. The goal compares two copies, of which
 * both must have the write, with one; three copies on three workers, and two of which one must have it, are told.
 */
import type { ClusterOptions } from "../../src/index.ts";
import { judge } from "../harness/goals.ts";
import { type BenchCase, type BenchContext, type BenchReport, interleave, ratioOf, sized } from "../harness/harness.ts";
import { type DurableStage, must, openDurable, vectorSource, withFolder } from "./durable-stage.ts";

const IDS = 500;
const MEMORY_BYTES: number = 256 * 1024 * 1024;
/** The default of clusters: here latency counts, and cores are free. */
const SPIN_LIMIT_US = 50;
const PLAIN = "one copy";

interface Side {
  readonly name: string;
  readonly side: string;
  readonly options: ClusterOptions;
}

function sidesOf(copies: number): Side[] {
  const name = `write latency, ${copies} workers`;
  return [
    { name, side: PLAIN, options: { workers: copies } },
    { name, side: `${copies} copies, acks 2`, options: { workers: copies, replicationFactor: copies, acks: "quorum" } },
    { name, side: `${copies} copies, acks 1`, options: { workers: copies, replicationFactor: copies, acks: "one" } },
  ];
}

function caseOf({ name, side, options }: Side, directory: string, writes: number, seed: number): BenchCase {
  let stage: DurableStage | undefined;
  const next = vectorSource(seed);
  let id = 0;
  return {
    name,
    side,
    unit: "ms",
    setup: async () => {
      stage = await openDurable(directory, { memoryBytes: MEMORY_BYTES, spinLimitUs: SPIN_LIMIT_US, ...options });
      await stage.collection.upsert(Array.from({ length: IDS }, (_, at) => ({ id: at, vector: next() })));
    },
    run: async () => {
      const samples: number[] = [];
      for (let write = 0; write < writes; write++) {
        const document = { id: id++ % IDS, vector: next() };
        const startedMs = performance.now();
        await stage?.collection.upsert(document);
        samples.push(performance.now() - startedMs);
      }
      return samples;
    },
    validate: () => must(id > 0 && id % writes === 0, "writes were not acknowledged"),
    close: async () => {
      const audit = await stage?.cluster.audit({ timeoutMs: 10_000 });
      must(audit?.equal === true, "copies differ");
      await stage?.cluster.close();
    },
  };
}

/** Rows and the verdict on L4. */
export async function measureQuorum(context: BenchContext): Promise<BenchReport> {
  const { mode, seed } = context;
  context.log("durable: writes acknowledged by a quorum");
  const rows = await withFolder(async (directory) => {
    const found = [];
    for (const copies of [2, 3]) {
      const sides = sidesOf(copies);
      const cases = sides.map((side, at) => caseOf(side, directory(`${copies}-${at}`), sized(mode, 20, 50, 100), seed));
      found.push(...(await interleave(cases, sized(mode, 2, 8, 12))));
    }
    return found;
  });
  const added = [2, 3].map((copies) => {
    const [plain, quorum, one] = sidesOf(copies) as [Side, Side, Side];
    const over = ({ name, side }: Side): number => ratioOf(rows, name, side, plain.side) - 1;
    return { quorum: over(quorum), one: over(one) };
  });
  const [two, three] = added as [(typeof added)[number], (typeof added)[number]];
  const note = `acks 1: ${two.one.toFixed(3)}; three copies: acks 2 ${three.quorum.toFixed(3)}, acks 1 ${three.one.toFixed(3)}`;
  return {
    rows,
    goals: [judge(context.goals, "L4", two.quorum, note)],
    notes: [`quorum: spinLimitUs ${SPIN_LIMIT_US}`],
  };
}
