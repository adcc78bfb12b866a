/**
 * What collaborative searches of real shards take, for part `cotra` of bench `vector-search`: a cluster's workers search together, asked through
 * the collection, and their own accounts tell the computations and the bytes.
 *
 * Computations are all distances: of the navigation, of owners for whomever, of vertices that were read one-sidedly, of stealing workers. Bytes are
 * messages, one-sided reads of codes and lists, the documents that are ranked at the end, the request and its reply; without packet headers.
 * Against it: one thread over the same graph.
 */
import { type BenchContext, type BenchRow, sized, toRow } from "../harness/harness.ts";
import type { VectorSet } from "./vector-search-data.ts";
import { queriesOf, searchAll, searchAlone, shardsOf, type Taken } from "./vector-search-shards.ts";

/** One number of shards: their searches, and those of one thread over the same graph. */
export interface Together {
  readonly shards: number;
  /** Of the cluster: fewer in a smoke run. */
  readonly there: number;
  readonly cotra: readonly Taken[];
  readonly single: readonly Taken[];
}

/** Searches for all queries, with every setting. */
export async function searchTogether(context: BenchContext, set: VectorSet, shards: number): Promise<Together> {
  const efs = sized(context.mode, [10, 24], [10, 14, 20, 30, 44], [10, 13, 17, 23, 31, 40, 56]);
  const site = await shardsOf(context, set, shards);
  const asked = queriesOf(set);
  const cotra: Taken[] = [];
  for (const ef of efs) cotra.push(await searchAll(site, asked, { by: "cotra", ef }));
  const single = searchAlone(site, asked, efs);
  context.log(`vector-search: ${shards} shards searched together`);
  return { shards, there: site.shards, cotra, single };
}

/** Rows of searches that were measured through the collection. */
export function rowsOf(shards: number, taken: readonly Taken[]): BenchRow[] {
  return taken.map(({ setting, recall, distances, bytes, messages, shards: asked, rounds, stolen, qps, others }) => {
    const { by, ef, recall: target } = setting;
    const name = [by, ef === undefined ? "" : `ef ${ef}`, target === undefined ? "" : `target ${target}`];
    const note =
      `recall ${recall.toFixed(4)}; ${asked.toFixed(2)} shards, ${messages.toFixed(1)} messages, ${rounds} rounds, ` +
      `${bytes.toFixed(0)} B${stolen > 0 ? `, ${stolen.toFixed(1)} vertices stolen` : ""}; ${qps.toFixed(0)} queries per CPU second; ${(100 * others).toFixed(1)} % by others`;
    return toRow(
      name.filter((part) => part !== "").join(" "),
      `${shards} shards`,
      "distances/query",
      [distances],
      note,
    );
  });
}
