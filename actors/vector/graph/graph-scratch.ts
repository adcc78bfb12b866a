/**
 * The ranges in which a writer's thread links, searches and scans: kept in the writer's entry of the root, so that whoever has the entry next takes
 * them over instead of leaking them.
 *
 * Invariant: a range belongs to one graph and one entry; two collections of a thread never share one. Only the thread that has the
 * entry changes its words, and after everybody is gone, who frees the root.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import type { KernelArena } from "../../../native-bridge/kernels.ts";
import { WRITER_SCRATCH } from "../../../src/store/graph-layout.ts";

/** What is needed of a root. */
interface ScratchRoot {
  readonly arena: Arena;
  get(index: number): number;
  set(index: number, value: number): void;
}

/** An arena whose scratch is that of a writer's entry. @param use Which of its ranges. */
export function writerArena(root: ScratchRoot, entry: number, use: keyof typeof WRITER_SCRATCH): KernelArena {
  const { arena } = root;
  const word = entry + WRITER_SCRATCH[use];
  return {
    memory: arena.memory,
    allocate: (byteLength) => arena.allocate(byteLength),
    free: (byteOffset, byteLength) => arena.free(byteOffset, byteLength),
    allocateScratch(_, byteLength) {
      const [old, oldBytes] = [root.get(word) >>> 0, root.get(word + 1) >>> 0];
      if (oldBytes >= byteLength) {
        arena.bytes.fill(0, old, old + byteLength);
        return old;
      }
      const byteOffset = arena.allocate(byteLength);
      arena.bytes.fill(0, byteOffset, byteOffset + byteLength);
      root.set(word + 1, 0); // who dies here leaks one range, and no range is ever held twice
      root.set(word, byteOffset);
      root.set(word + 1, byteLength);
      if (oldBytes > 0) arena.free(old, oldBytes);
      return byteOffset;
    },
    freeScratch: () => freeRange(root, word),
  };
}

/** Frees the ranges of an entry. */
export function freeScratch(root: ScratchRoot, entry: number): void {
  for (const word of Object.values(WRITER_SCRATCH)) freeRange(root, entry + word);
}

function freeRange(root: ScratchRoot, word: number): boolean {
  const [byteOffset, byteLength] = [root.get(word) >>> 0, root.get(word + 1) >>> 0];
  root.set(word + 1, 0);
  root.set(word, 0);
  if (byteLength > 0) root.arena.free(byteOffset, byteLength);
  return byteLength > 0;
}
