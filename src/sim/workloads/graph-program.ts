/**
 * A vertex program whose answer shows when a run has lost something: who was awake, what the reductions came to, or a message.
 *
 * A vertex stays awake for as many supersteps as its key says and then tells its neighbours the key, once; who hears something computes for it
 * although it sleeps. Every vertex adds up how many were awake after the superstep before, as the reductions have it.
 * Invariant: whole numbers all of them, so that the answer is exact on any number of shards and whatever is combined first.
 */

import type { VertexKey } from "../../../actors/graph/vertex-key.ts";
import { defineVertexProgram, type VertexContext, type VertexProgram } from "../../../actors/graph/vertex-program.ts";
import type { ReferenceGraph } from "./graph-reference.ts";

/** Most supersteps that a vertex stays awake for, and one more. */
const SPREAD = 13;

/** What a vertex has come to. */
export interface AlarmState {
  /** Supersteps in which it computed, but the first. */
  readonly steps: number;
  /** Sum of what it was told. */
  readonly heard: number;
  /** Sum of those that were awake, over its steps. */
  readonly seen: number;
}

const alarmOf = (key: VertexKey): number => (key as number) % SPREAD;
const toldBy = (key: VertexKey): number => 1 + (key as number);

/** Keys are numbers. */
export const alarm: VertexProgram = defineVertexProgram({
  name: "simulated-alarm",
  state: { steps: "u32", heard: "f64", seen: "f64" },
  combine: "sum",
  aggregate: { awake: "sum" },
  init: (vertex) => ring(vertex, 0),
  compute(vertex, message = 0) {
    const steps = vertex.get("steps") + 1;
    vertex.set("steps", steps);
    vertex.set("heard", vertex.get("heard") + message);
    vertex.set("seen", vertex.get("seen") + vertex.aggregates["awake"]);
    ring(vertex, steps);
  },
});

function ring(vertex: VertexContext, steps: number): void {
  const time = alarmOf(vertex.key);
  if (steps < time) {
    vertex.aggregate("awake", 1);
    return;
  }
  vertex.sleep();
  if (steps === time) vertex.send(toldBy(vertex.key));
}

/** What the program gives, plainly. */
export function referenceAlarm({ keys, out }: ReferenceGraph): AlarmState[] {
  const states = keys.map(() => ({ steps: 0, heard: 0, seen: 0 }));
  const isAwake = (vertex: number): boolean => (states[vertex]?.steps as number) < alarmOf(keys[vertex] as VertexKey);
  let computed = [...keys.keys()];
  while (computed.length > 0) {
    const told = new Map<number, number>();
    for (const vertex of computed) {
      const key = keys[vertex] as VertexKey;
      if (states[vertex]?.steps !== alarmOf(key)) continue;
      for (const other of out[vertex] as readonly number[]) told.set(other, (told.get(other) ?? 0) + toldBy(key));
    }
    const awake = computed.filter(isAwake);
    computed = [...new Set([...awake, ...told.keys()])];
    for (const vertex of computed) {
      const state = states[vertex] as (typeof states)[number];
      state.steps++;
      state.heard += told.get(vertex) ?? 0;
      state.seen += awake.length;
    }
  }
  return states;
}

/** One number for all that a vertex has come to; of graphs of the workload it is a safe integer. */
export function alarmNumber({ steps, heard, seen }: AlarmState): number {
  return steps + 2 ** 12 * seen + 2 ** 28 * heard;
}
