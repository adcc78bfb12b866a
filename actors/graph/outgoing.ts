/**
 * What one shard pushes in one superstep: per destination combined into an array, and sent in messages of bounded size.
 *
 * Invariant: a receiver gets every value once, and with the last of them how many there were, also when there was none. Between two messages to
 * a peer that is behind the shard does other things: nothing is queued without bound.
 */
import type { Requester } from "../../src/routing/requester.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { GRAPH_CONTRIBUTIONS } from "../../src/wire/message-types.ts";
import type { ShardAlgorithm } from "./algorithm.ts";
import type { Csr, PeerEdges } from "./csr.ts";
import { type ContributionsHead, encodeContributions, maxContributions, payloadOf } from "./graph-messages.ts";
import { mirroredEdges } from "./mirrored-rows.ts";
import { gather, scatter } from "./propagate.ts";
import { nothingOf } from "./vertex-program.ts";

const MAX_VALUES = 4096;
const ROWS_A_SLICE = 32_768;

/** Where values go. */
export interface Outlet {
  readonly shard: number;
  readonly rowsOf: readonly number[];
  /** The way to a peer's worker; undefined while there is none. */
  readonly requester: (shard: number) => Requester | undefined;
  /** Takes what is sent to this shard itself. @param total As in a message */
  readonly own: (values: Float64Array, vertices: Uint32Array, count: number, total: number) => void;
}

/** What is pushed. */
export interface Outgoing {
  readonly algorithm: ShardAlgorithm;
  readonly directed: boolean;
  readonly ways: readonly Csr[];
  /** What each vertex has sent. */
  readonly values: Float64Array;
  /** Combined values for one peer at a time: as long as the most vertices of a shard, and nothing everywhere. */
  readonly scratch: () => Float64Array;
}

/** What was pushed. */
export interface Pushed {
  /** Values, by destination. */
  readonly sent: readonly number[];
  /** Of the messages to other shards. */
  readonly pushedBytes: number;
}

/** Writes the next values and their vertices to the front of both arrays. @returns how many; fewer than they have room for: the last */
type Fill = (values: Float64Array, vertices: Uint32Array) => number;

type Head = Omit<ContributionsHead, "count" | "source" | "total">;

/** Pushes to all shards. */
export function* push(outlet: Outlet, head: Head, outgoing: Outgoing): Generator<boolean, Pushed> {
  const sent: number[] = [];
  let pushedBytes = 0;
  for (let peer = 0; peer < outlet.rowsOf.length; peer++) {
    const edges = outgoing.ways.map(({ peers }) => peers[peer] as PeerEdges);
    const idle = edges.every((list) => list.edges === 0);
    const fill = idle ? () => 0 : yield* fillFor(outgoing, edges, peer, outlet.rowsOf[peer] as number);
    const { count, bytes } = yield* send(outlet, head, peer, fill);
    sent.push(count);
    pushedBytes += bytes;
  }
  return { sent, pushedBytes };
}

function* fillFor(
  { algorithm, directed, ways, values, scratch }: Outgoing,
  edges: readonly PeerEdges[],
  peer: number,
  rows: number,
): Generator<boolean, Fill> {
  switch (algorithm.kind) {
    case "combined":
      return fromDense(
        yield* combinedFor(edges, values, algorithm, scratch().subarray(0, rows)),
        nothingOf(algorithm.combine),
      );
    case "labels":
      return fromDense(yield* labelsFor(edges, values), Number.NaN);
    case "neighbourhoods": {
      let batches: Iterator<number, undefined> | undefined;
      return (into, vertices) => {
        batches ??= mirroredEdges(directed ? ways.slice(0, 1) : ways, ways, peer, into, vertices);
        const next = batches.next();
        return next.done === true ? 0 : next.value;
      };
    }
  }
}

function fromDense(dense: Float64Array, nothing: number): Fill {
  const found = { next: 0, count: 0 };
  return (values, vertices) => {
    if (Number.isNaN(nothing)) gatherNumbers(dense, found.next, values, vertices, found);
    else gather(dense, nothing, found.next, values, vertices, found);
    return found.count;
  };
}

function* combinedFor(
  edges: readonly PeerEdges[],
  values: Float64Array,
  { combine, way }: ShardAlgorithm,
  dense: Float64Array,
): Generator<boolean, Float64Array> {
  for (const list of edges) {
    for (let row = 0; row < values.length; row += ROWS_A_SLICE) {
      scatter(combine, way, dense, list, values, row, Math.min(values.length, row + ROWS_A_SLICE));
      yield true;
    }
  }
  return dense;
}

/** The values of all vertices that have an edge to the peer, once each; NaN of the others. */
function* labelsFor(edges: readonly PeerEdges[], values: Float64Array): Generator<boolean, Float64Array> {
  const dense = new Float64Array(values.length).fill(Number.NaN);
  for (const { offsets } of edges)
    for (let row = 0; row < values.length; row++)
      if (offsets[row + 1] !== offsets[row]) dense[row] = values[row] as number;
  yield true;
  return dense;
}

function* send(
  outlet: Outlet,
  head: Head,
  peer: number,
  fill: Fill,
): Generator<boolean, { readonly count: number; readonly bytes: number }> {
  const requester = peer === outlet.shard ? undefined : outlet.requester(peer);
  const room = Math.min(MAX_VALUES, requester === undefined ? MAX_VALUES : maxContributions(requester.maxPayloadBytes));
  const values = new Float64Array(room);
  const vertices = new Uint32Array(room);
  let sent = 0;
  let bytes = 0;
  for (let last = false; !last; ) {
    const count = fill(values, vertices);
    sent += count;
    last = count < room;
    const total = last ? sent : -1;
    if (peer === outlet.shard) outlet.own(values, vertices, count, total);
    else {
      const body = encodeContributions({ ...head, source: outlet.shard, count, total }, values, vertices);
      bytes += body.length;
      // A peer without a worker gets nothing: its superstep fails, and the run goes on from what was saved.
      if (requester?.lost === false)
        requester.tell(GRAPH_CONTRIBUTIONS, VSHARD_LISTED, PRIORITY.NORMAL, payloadOf(body))?.catch(() => undefined);
      while (requester?.congested === true && !requester.lost) yield true;
    }
    yield true;
  }
  return { count: sent, bytes };
}

function gatherNumbers(
  dense: Float64Array,
  from: number,
  values: Float64Array,
  vertices: Uint32Array,
  result: { next: number; count: number },
): void {
  let count = 0;
  let at = from;
  for (; at < dense.length && count < values.length; at++) {
    const value = dense[at] as number;
    if (Number.isNaN(value)) continue;
    values[count] = value;
    vertices[count++] = at;
  }
  result.next = at;
  result.count = count;
}
