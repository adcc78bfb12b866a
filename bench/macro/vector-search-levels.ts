/**
 * G11 and G18 of bench `vector-search`: the multi-level index over 16 nodes, told by counters alone.
 *
 * A round is what one dependent exchange with the nodes takes; vectors read are those of all levels, the top's too. With a node down every
 * search must end, say which node did not answer, and give the rest.
 */
import { calibrateMultiLevel, neighbourQueries } from "../../actors/vector/routing/multi-level-calibration.ts";
import { buildMultiLevel, closeIndex, type MultiLevelIndex } from "../../actors/vector/routing/multi-level-index.ts";
import { serveRound } from "../../actors/vector/routing/multi-level-node.ts";
import { type MultiLevelCalibration, MultiLevelSearch } from "../../actors/vector/routing/multi-level-search.ts";
import { runSteps } from "../../actors/vector/routing/steps.ts";
import { judge } from "../harness/goals.ts";
import { type BenchContext, type BenchReport, median, sized, toRow } from "../harness/harness.ts";
import { costAt, countFound, must, RECALL } from "./vector-search-curve.ts";
import { K, type VectorSet } from "./vector-search-data.ts";
import type { Placement } from "./vector-search-placement.ts";

const NODES = 16;
const TARGETS: readonly number[] = [0.9, 0.95, 0.98, 0.99, 0.995];
const MOST_ROUNDS = 100;
/** Every so many queries are asked with each node down. */
const DOWN_STEP = 4;

interface Level {
  readonly target: number;
  readonly recall: number;
  readonly read: number;
  /** Most rounds of a query. */
  readonly rounds: number;
  readonly requests: number;
  /** Share of the answers that were not whole. */
  readonly partial: number;
}

class Levels {
  readonly #index: MultiLevelIndex;
  readonly #place: Placement;
  readonly #set: VectorSet;
  readonly #calibration: MultiLevelCalibration;

  constructor(index: MultiLevelIndex, place: Placement, set: VectorSet, calibration: MultiLevelCalibration) {
    this.#index = index;
    this.#place = place;
    this.#set = set;
    this.#calibration = calibration;
  }

  /** @param step Every so many queries. @param down Nodes that are known to be down */
  run(target: number, step: number, down: readonly number[]): Level {
    const sums = { queries: 0, found: 0, read: 0, rounds: 0, requests: 0, partial: 0 };
    for (let query = 0; query < this.#set.queries.count; query += step) {
      const options = { k: K, recallTarget: target, calibration: this.#calibration, down };
      const search = new MultiLevelSearch(this.#index, this.#place.queries.vector(query), options);
      let requests = search.start();
      for (let round = 0; requests.length > 0; round++) {
        must(round < MOST_ROUNDS, "a search of levels does not end");
        must(
          requests.every(({ node }) => !down.includes(node)),
          "a node that is down was asked",
        );
        requests = requests.flatMap((request) => search.answer(serveRound(this.#index, this.#place.table, request)));
      }
      const result = search.result();
      must(
        result.missing.nodes.every((node) => down.includes(node)),
        "a node is missing that is up",
      );
      sums.queries++;
      sums.found += countFound(this.#set.truth, query, result.ids);
      sums.read += result.read;
      sums.rounds = Math.max(sums.rounds, result.rounds);
      sums.requests += result.requests;
      if (result.missing.nodes.length > 0) sums.partial++;
    }
    const { queries, rounds } = sums;
    return {
      target,
      recall: sums.found / (queries * K),
      read: sums.read / queries,
      rounds,
      requests: sums.requests / queries,
      partial: sums.partial / queries,
    };
  }
}

/** Rows and the verdicts on G11 and G18. */
export function measureMultiLevel(context: BenchContext, set: VectorSet, place: Placement): BenchReport {
  const { mode, seed, goals, log } = context;
  const index = runSteps(buildMultiLevel(place.host, place.base, { nodes: NODES, seed }));
  const wanted = sized(mode, 100, 1_000, 1_000);
  const step = Math.max(1, Math.floor(index.unseen.length / wanted));
  const numbers = index.unseen.filter((_, at) => at % step === 0);
  const calibration = runSteps(calibrateMultiLevel(index, runSteps(neighbourQueries(place.table, numbers, K))));
  log("vector-search: levels calibrated");
  const levels = new Levels(index, place, set, calibration);
  const reached = TARGETS.map((target) => levels.run(target, 1, []));
  const whole = levels.run(RECALL, DOWN_STEP, []);
  const downs = Array.from({ length: NODES }, (_, node) => levels.run(RECALL, DOWN_STEP, [node]));
  closeIndex(index);
  must(
    downs.some(({ partial }) => partial > 0),
    "with a node down no answer said so",
  );
  const losses = downs.map(({ recall }) => 100 * (whole.recall - recall));
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / NODES;
  const percent = (read: number): number => (100 * read) / place.base.count;
  const rounds = Math.max(...reached.map((level) => level.rounds));
  const read = costAt(reached, RECALL, (level) => percent(level.read));
  return {
    rows: [
      ...reached.map((level) =>
        toRow(
          `target ${level.target}`,
          "levels",
          "% of vectors read",
          [percent(level.read)],
          `recall ${level.recall.toFixed(4)}, ${level.rounds} rounds, ${level.requests.toFixed(1)} requests`,
        ),
      ),
      toRow(
        "one node down",
        "levels",
        "points of recall",
        losses,
        `${(100 * median(downs.map(({ partial }) => partial))).toFixed(0)} % of answers say what is missing`,
      ),
    ],
    goals: [
      judge(goals, "G11", rounds <= 2 ? read : Number.NaN, `${rounds} dependent rounds at most`),
      judge(goals, "G18", mean, `worst node ${Math.max(...losses).toFixed(2)}`),
    ],
    notes: [
      `levels: clusters ${index.levels.map(({ starts }) => starts.length - 1).join(", ")}; calibrated on ${numbers.length} vectors of the base; vectors read include all levels`,
    ],
  };
}
