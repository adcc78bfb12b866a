/**
 * What a run has saved on one shard: copies of its state in two blocks of the root, in turns.
 *
 * Invariant: a superstep is named as saved only while its block holds all of it, so that a successor finds the newest or the one before. What a run
 * has saved beyond the superstep that it goes on from gives way first: the one before is what shards have in common that were not so far.
 */
import { ShardloomError } from "../../src/errors.ts";
import { type Block, type GraphRoot, RUN_WORD } from "./graph-root.ts";

/** Supersteps of a run that are saved. */
export function savedSteps(root: GraphRoot, run: number): number[] {
  const word = root.run(run, false);
  if (word === undefined) return [];
  return RUN_WORD.step.map((at) => root.get(word + at) - 1).filter((step) => step >= 0);
}

/** Copies the state into the block of this superstep or of a later one, which no other shard may have, or else of the older one. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`. */
export function saveState(root: GraphRoot, run: number, state: Block, superstep: number): void {
  const word = root.run(run, true) as number;
  const steps = RUN_WORD.step.map((at) => root.get(word + at)) as [number, number];
  const ahead = steps.findIndex((step) => step > superstep);
  const turn = ahead >= 0 ? ahead : steps[0] <= steps[1] ? 0 : 1;
  const stepWord = word + (RUN_WORD.step[turn] as number);
  const blockWord = word + (RUN_WORD.block[turn] as number);
  let block = root.block(blockWord);
  root.set(stepWord, 0);
  if (block === undefined) {
    block = root.allocate(state.byteLength);
    root.name(blockWord, block);
  }
  root.arena.bytes.copyWithin(block.address, state.address, state.address + state.byteLength);
  root.set(stepWord, superstep + 1); // publishes
}

/** @throws {ShardloomError} `ERR_UNAVAILABLE` when it is not saved, or of other vertices. */
export function restoreState(root: GraphRoot, run: number, state: Block, superstep: number): void {
  const word = root.run(run, false);
  const turn = word === undefined ? -1 : RUN_WORD.step.findIndex((at) => root.get(word + at) === superstep + 1);
  const block = turn < 0 ? undefined : root.block((word as number) + (RUN_WORD.block[turn] as number));
  if (block === undefined || block.byteLength !== state.byteLength)
    throw new ShardloomError("ERR_UNAVAILABLE", `Cannot go on after superstep ${superstep} as it is not saved here`);
  root.arena.bytes.copyWithin(state.address, block.address, block.address + block.byteLength);
}
