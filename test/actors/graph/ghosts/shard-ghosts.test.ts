/** The ghosts of one shard, over another's table of vertices: what goes over all of them goes in slices, and a table that is full is no error. */
import { beforeEach, expect, test } from "vitest";
import type { EngineContext } from "../../../../actors/engine.ts";
import type { Csr, PeerEdges } from "../../../../actors/graph/csr.ts";
import { ShardGhosts } from "../../../../actors/graph/ghosts/shard-ghosts.ts";
import { GraphRoot, ROOT_WORD } from "../../../../actors/graph/graph-root.ts";
import { VertexTable } from "../../../../actors/graph/vertex-table.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { RegionTable } from "../../../../native-bridge/region-table.ts";

const VERTICES = 10_000;
const EDGES = 3;
/** Vertices that one slice may touch. */
const SLICE = 4096;

let root: GraphRoot;
beforeEach(() => {
  const arena = new Arena(createArena({ capacityBytes: 16 * 1024 * 1024 }));
  let rkey = 1;
  root = GraphRoot.create(arena, new RegionTable(arena, 1, () => rkey++), 1);
  new VertexTable(root).add(
    Array.from({ length: VERTICES }, (_, at) => `v${at}`),
    false,
  );
  root.set(ROOT_WORD.epoch, 1);
});

interface Scene {
  readonly ghosts: ShardGhosts;
  /** What the owner was told, in messages. */
  readonly told: { readonly messages: number; readonly changes: number };
  turns(): Promise<number>;
}

function scene(capacity: number): Scene {
  const told = { messages: 0, changes: 0 };
  let nowMs = 0;
  const ghosts = new ShardGhosts({
    context: { arena: root.arena, nowMs: () => nowMs } as unknown as EngineContext,
    peers: {
      incarnation: 1,
      maxPayloadBytes: () => 65_536,
      ask(_shard, _type, { byteLength, write }, decode) {
        const words = new ArrayBuffer(byteLength + 8);
        const i32 = new Int32Array(words);
        write({ bytes: new Uint8Array(words), i32, f32: new Float32Array(words), f64: new Float64Array(words) }, 0);
        told.messages++;
        told.changes += i32[1] as number;
        return Promise.resolve(decode(undefined as never));
      },
    },
    collection: 1,
    members: [0, 1],
    shard: 0,
    options: { capacity, ttlMs: 60_000, checksPerSecond: 1 },
  });
  const turns = async (): Promise<number> => {
    let count = 0;
    while (ghosts.dueAtMs <= nowMs) {
      ghosts.turn(nowMs++);
      await new Promise((resolve) => setImmediate(resolve));
      count++;
    }
    return count;
  };
  return { ghosts, told, turns };
}

/** So many vertices of the other shard with three edges each. */
function adjacency(vertices: number): Csr {
  const edges = (targets: Uint32Array): PeerEdges => ({
    offsets: Uint32Array.of(0, targets.length),
    targets,
    weights: undefined,
    columns: [],
    edges: targets.length,
  });
  const far = edges(Uint32Array.from({ length: vertices * EDGES }, (_, at) => at % vertices));
  const peers = [edges(new Uint32Array()), far];
  return { rows: 1, weighted: false, columns: 0, generation: 1, decays: 0, peers, edges: far.edges };
}

/** @returns most ghosts that one slice has made or dropped */
function derived({ ghosts }: Scene, csr: Csr): number {
  let most = 0;
  let before = ghosts.status();
  const work = ghosts.derive(csr, [0, root.ref.address]);
  for (let done: boolean | undefined = false; done !== true; ) {
    done = work.next().done;
    const { ghosts: known, unheld } = ghosts.status();
    most = Math.max(most, Math.abs(known - before.ghosts) + Math.max(0, unheld - before.unheld));
    before = { ...before, ghosts: known, unheld };
  }
  return most;
}

test("are counted, made and dropped in slices", async () => {
  const one = scene(VERTICES);
  expect(derived(one, adjacency(VERTICES))).toBeLessThanOrEqual(SLICE);
  expect(one.ghosts.status()).toMatchObject({ ghosts: VERTICES, references: VERTICES * EDGES, unheld: 0 });
  await one.turns();
  expect(one.told.changes).toBe(VERTICES);
  expect(derived(one, adjacency(100))).toBeLessThanOrEqual(SLICE);
  expect(one.ghosts.status()).toMatchObject({ ghosts: 100, references: 100 * EDGES, cached: VERTICES - 100 });
  one.ghosts.close();
});

test("beyond what there is room for are counted, in slices as well", () => {
  const one = scene(10);
  expect(derived(one, adjacency(VERTICES))).toBeLessThanOrEqual(SLICE);
  expect(one.ghosts.status()).toMatchObject({ ghosts: 10, references: 10 * EDGES, unheld: VERTICES - 10 });
  one.ghosts.close();
});

test("are gone on with when a count has ended in the middle", () => {
  const one = scene(VERTICES);
  const csr = adjacency(VERTICES);
  const work = one.ghosts.derive(csr, [0, root.ref.address]);
  while (one.ghosts.status().ghosts === 0) work.next();
  work.return(undefined);
  expect(one.ghosts.status().ghosts).toBeLessThan(VERTICES);
  derived(one, csr);
  expect(one.ghosts.status()).toMatchObject({ ghosts: VERTICES, references: VERTICES * EDGES });
  one.ghosts.close();
});

test("take it that an owner has a new worker while they are counted, and tell it all, in slices", async () => {
  const one = scene(VERTICES);
  const work = one.ghosts.derive(adjacency(VERTICES), [0, root.ref.address]);
  while (one.ghosts.status().ghosts === 0) work.next();
  root.set(ROOT_WORD.epoch, 2);
  expect(one.ghosts.look("v0", 1, one.ghosts.epochAt(root.ref.address))).toBeUndefined();
  while (work.next().done !== true);
  expect(one.ghosts.status().ghosts).toBe(VERTICES);
  await one.turns();
  const before = one.told.changes;
  one.ghosts.peerBack(1);
  one.ghosts.turn(0);
  expect(one.ghosts.status().untold).toBeLessThanOrEqual(SLICE);
  await one.turns();
  expect(one.told.changes - before).toBe(VERTICES);
  one.ghosts.close();
});
