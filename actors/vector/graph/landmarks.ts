/**
 * Landmarks of a graph: vertices that were far from all that was found when they were linked, so the first of a cluster that lies apart.
 *
 * Searches begin at them among others. In a tight cluster all lists and all candidates are full of its own members, so a search of bounded width
 * does not leave it: what begins in the wrong one, or links there, stays there. A vertex that begins at all landmarks and still finds nothing near is in
 * none of their clusters, so it is worth a place among them; no other distance needs to be computed to know that.
 * Invariant: the table holds those of the greatest distances, as far as they were offered; what counts is only what is many times farther than a
 * vertex is usually linked (GRAPH_USUAL), which in data without such clusters is nearly nothing, so that it costs nothing there.
 * Words change one by one, by any writer: a landmark may be gone, and its distance another's for a moment. They are hints.
 * Inner products have none, as they are no distances.
 */
import { METRIC } from "../../../native-bridge/kernels.ts";
import {
  GRAPH_LANDMARK_CHANGES,
  GRAPH_LANDMARKS,
  GRAPH_USUAL,
  LANDMARK_DISTANCE,
  LANDMARK_WORDS,
  MAX_LANDMARKS,
} from "../../../src/store/graph-layout.ts";
import type { GraphRoot } from "./graph-root.ts";

/** Distances of the last vertices that are remembered, and told of whenever so many are new. */
const RECENT = 32;
const TOLD_EVERY = 8;
/** Tries to get a place in the table: others take them too. */
const ATTEMPTS = 16;
/** How many times farther than usual a landmark is; distances are squares, or like them. */
const RATIO = 36;

/** One writer's hand on the landmarks of a graph. */
export class Landmarks {
  readonly #root: GraphRoot;
  readonly #recent: Float32Array = new Float32Array(RECENT);
  #linked = 0;
  /** Of the table after so many changes, the least distance; 0 while there is room. */
  #least = 0;
  #changes = -1;

  constructor(root: GraphRoot) {
    this.#root = root;
  }

  /** After a vertex was linked. @param distance Of the nearest that was found; infinite: there was none */
  linked(vertex: number, distance: number): void {
    const root = this.#root;
    if (root.geometry.metric === METRIC.INNER_PRODUCT) return;
    if (Number.isFinite(distance)) this.#remember(distance);
    if (!(distance > 0) || (root.get(GRAPH_LANDMARK_CHANGES) === this.#changes && distance <= this.#least)) return;
    for (let attempt = 0; attempt < ATTEMPTS && !this.#offer(vertex, distance); attempt++);
  }

  /** @returns false when another writer took the place meanwhile */
  #offer(vertex: number, distance: number): boolean {
    const root = this.#root;
    const changes = root.get(GRAPH_LANDMARK_CHANGES);
    let [slot, holder, least] = [0, 0, Number.POSITIVE_INFINITY];
    for (let at = 0; at < MAX_LANDMARKS; at++) {
      const named = vertexAt(root, at);
      if (named === vertex + 1) return true;
      const farness = named === 0 ? 0 : distanceOf(root, at);
      if (farness < least) [slot, holder, least] = [at, named, farness];
    }
    this.#least = least;
    this.#changes = changes;
    if (distance <= least) return true;
    setDistance(root, slot, distance); // first, or others think little of the vertex
    return change(root, slot, holder, vertex + 1);
  }

  #remember(distance: number): void {
    this.#recent[this.#linked++ % RECENT] = distance;
    if (this.#linked % TOLD_EVERY !== 0) return;
    const known = this.#recent.slice(0, Math.min(this.#linked, RECENT)).sort();
    this.#root.arena.f32[this.#root.wordOf(GRAPH_USUAL)] = known[known.length >>> 1] as number;
  }
}

/** Before a vertex is deleted, or after. @param successor The vertex that is to be a landmark if that was one, or −1 */
export function replaceLandmark(root: GraphRoot, vertex: number, successor: () => number): void {
  const at = slotOf(root, vertex);
  if (at < 0) return;
  const next = successor();
  const known = next < 0 ? -1 : slotOf(root, next);
  // One that did not count may do so now.
  if (known >= 0 && distanceOf(root, known) < distanceOf(root, at)) setDistance(root, known, distanceOf(root, at));
  change(root, at, vertex + 1, known < 0 ? next + 1 : 0);
}

/** Takes the vertices of a partition that goes out of the landmarks. */
export function dropLandmarks(root: GraphRoot, isOwn: (vertex: number) => boolean): void {
  for (let at = 0; at < MAX_LANDMARKS; at++) {
    const named = vertexAt(root, at);
    if (named > 0 && isOwn(named - 1)) change(root, at, named, 0);
  }
}

/** Place of a vertex in the table, or −1. */
function slotOf(root: GraphRoot, vertex: number): number {
  for (let at = 0; at < MAX_LANDMARKS; at++) if (vertexAt(root, at) === vertex + 1) return at;
  return -1;
}

function wordOf(root: GraphRoot, at: number): number {
  return root.wordOf(GRAPH_LANDMARKS + at * LANDMARK_WORDS);
}

/** Vertex + 1, 0 = none. */
function vertexAt(root: GraphRoot, at: number): number {
  return Atomics.load(root.arena.i32, wordOf(root, at));
}

function distanceOf(root: GraphRoot, at: number): number {
  return root.arena.f32[wordOf(root, at) + LANDMARK_DISTANCE] as number;
}

function setDistance(root: GraphRoot, at: number, distance: number): void {
  root.arena.f32[wordOf(root, at) + LANDMARK_DISTANCE] = distance;
}

function change(root: GraphRoot, at: number, from: number, to: number): boolean {
  if (Atomics.compareExchange(root.arena.i32, wordOf(root, at), from, to) !== from) return false;
  root.add(GRAPH_LANDMARK_CHANGES, 1); // publishes
  return true;
}

/**
 * The landmarks that count, farthest first.
 *
 * @param words The table. @param usual GRAPH_USUAL
 */
export function landmarksIn(words: Int32Array, usual: number): number[] {
  const distances = new Float32Array(words.buffer, words.byteOffset, words.length);
  const found: { vertex: number; distance: number }[] = [];
  for (let word = 0; word < words.length; word += LANDMARK_WORDS) {
    const distance = distances[word + LANDMARK_DISTANCE] as number;
    const vertex = (words[word] as number) - 1;
    if (vertex >= 0 && distance > RATIO * usual) found.push({ vertex, distance });
  }
  // Not by their difference: that of two infinite ones is no number.
  found.sort((a, b) => (a.distance === b.distance ? a.vertex - b.vertex : a.distance < b.distance ? 1 : -1));
  return found.map(({ vertex }) => vertex);
}
