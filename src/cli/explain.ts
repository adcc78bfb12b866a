/**
 * What `--explain` shows people: per shard, and for runs per superstep, what was asked and what that took.
 *
 * Invariant: under `--json` the same accounts are part of the command's objects, as the API gives them.
 */
import type { GraphExplanation } from "../../actors/graph/graph-account.ts";
import type { RunExplanation } from "../../actors/graph/run-account.ts";
import type { Explanation } from "../../actors/planned-read.ts";
import type { AskedShard } from "../../actors/shard-account.ts";
import type { OptionSpecs } from "./command.ts";
import { formatTable, type TableCell, type TableColumn } from "./table.ts";
import { formatBytes, formatCount, formatNanoseconds } from "./units.ts";

/** Of every command that asks something. */
export const EXPLAIN_OPTION: OptionSpecs = {
  explain: { type: "boolean", summary: "Show what was asked of which shard, and what that took" },
};

const us = (value: number): string => formatNanoseconds(value * 1000);
const columnsOf = (...titles: readonly string[]): TableColumn[] =>
  titles.map((title) => ({ title, align: "right" as const }));

/** The account of a search or read. */
export function explanationLines({ plan, fallback, planUs, totalUs, outcomes, hedges }: Explanation): string[] {
  const { kind, strategy, copies, consistency } = plan;
  const instead = fallback === undefined ? undefined : `in place of another strategy (${fallback})`;
  const said = [kind, strategy, instead, copies, consistency].filter((word) => word !== undefined);
  return [
    `Plan: ${said.join(", ")}; made in ${us(planUs)}, carried out in ${us(totalUs)}, ${hedges} hedges.`,
    shardTable(outcomes),
  ];
}

/** The account of a question about a graph. */
export function graphLines({ plan, totalUs, rounds, repeats, outcomes }: GraphExplanation): string[] {
  return [
    `Plan: ${plan.shards} shards, each for its own vertices; ${formatCount(rounds)} questions, ${repeats} of them again, in ${us(totalUs)}.`,
    shardTable(outcomes),
  ];
}

/** The account of a run. */
export function runLines({ plan, totalUs, supersteps, outcomes, pushedBytes }: RunExplanation): string[] {
  const rows = supersteps.map(({ superstep, exchange, totalUs: took, shards }): TableCell[] => {
    const sum = (of: (shard: (typeof shards)[number]) => number): number =>
      shards.reduce((total, shard) => total + of(shard), 0);
    return [
      superstep,
      exchange,
      formatCount(sum(({ active }) => active)),
      formatCount(sum(({ sent }) => sent)),
      formatBytes(sum((shard) => shard.pushedBytes)),
      us(Math.max(...shards.map(({ queueUs }) => queueUs))),
      us(Math.max(...shards.map(({ serviceUs }) => serviceUs))),
      us(took),
    ];
  });
  return [
    `Plan: ${plan.algorithm} over ${plan.shards} shards, values travel by ${plan.exchange}; ${us(totalUs)}, ${formatBytes(pushedBytes)} pushed.`,
    formatTable(columnsOf("superstep", "exchange", "active", "sent", "pushed", "queued", "computed", "took"), rows),
    shardTable(outcomes),
  ];
}

function shardTable(
  outcomes: readonly Pick<AskedShard, "shard" | "attempts" | "queueUs" | "serviceUs" | "bytes">[],
): string {
  return formatTable(
    columnsOf("shard", "attempts", "queued", "served", "bytes"),
    outcomes.map(({ shard, attempts, queueUs, serviceUs, bytes }) => [
      shard,
      formatCount(attempts),
      us(queueUs),
      us(serviceUs),
      formatBytes(bytes),
    ]),
  );
}
