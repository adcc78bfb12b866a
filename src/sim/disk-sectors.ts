/**
 * One simulated file: what reads see (the page cache), what is on the medium, and how the second follows the first.
 *
 * Invariant: the medium holds each sector as some write left it in the cache, whole; never bytes of two moments mixed. What was
 * written is pending until {@link CachedFile.settle} decides, for each write and sector, whether it reached the medium.
 * Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014; Rebello et al., "Can Applications Recover from fsync
 * Failures?", ATC 2020. Divergence: damage on the medium is read at once where the cache has nothing unwritten of the sector, as
 * if that had just been evicted.
 */
import { createSeededRandom } from "../runtime/random.ts";

/** What a disk writes as a whole. */
export const SECTOR_BYTES = 512;

/** A change of a file that the medium does not have yet. */
export interface PendingWrite {
  readonly ordinal: number;
  readonly kind: "write" | "truncate";
  /** First sector that it changed, and how many. */
  readonly first: number;
  readonly count: number;
  /** A write: where it ends. A truncation: the size after it. */
  readonly end: number;
}

/** What becomes of a pending write. */
export interface WriteFate {
  /** Whether its `index`-th sector reaches the medium. */
  keeps(index: number): boolean;
  /** Whether the medium learns of the file's size after it. */
  readonly keepsSize: boolean;
}

export const KEPT: WriteFate = { keeps: () => true, keepsSize: true };

/** A lost write: no sector; the size may have been journalled all the same, then the file ends in zeros. @param size in `[0, 1)` */
export function lostFate(write: PendingWrite, size: number): WriteFate {
  return { keeps: () => false, keepsSize: write.kind === "write" && size >= 0.5 };
}

/** A torn write: some sectors of it, at least one and not all where it has several. @param size in `[0, 1)`, which ones */
export function tornFate(write: PendingWrite, size: number): WriteFate {
  const random = createSeededRandom(Math.floor(size * 2 ** 32));
  const keepsSize = random.float() < 0.5;
  if (write.kind === "truncate") return { keeps: () => keepsSize, keepsSize };
  const kept = Array.from({ length: write.count }, () => random.float() < 0.5);
  if (write.count > 1 && kept.every((is) => is === kept[0])) {
    kept[Math.floor(random.float() * write.count)] = kept[0] !== true;
  }
  return { keeps: (index) => kept[index] === true, keepsSize };
}

interface DirtySector {
  /** What the medium has. */
  readonly base: Uint8Array;
  /** The sector after each pending write to it, oldest first. */
  readonly versions: { readonly write: PendingWrite; readonly bytes: Uint8Array }[];
}

/** Content of a file, cached and on the medium. */
export class CachedFile {
  readonly kind = "file";
  /** What reads see; zeros behind the size. Whole sectors. */
  #seen: Uint8Array = new Uint8Array(SECTOR_BYTES);
  #size = 0;
  #mediumSize = 0;
  readonly #dirty: Map<number, DirtySector> = new Map();
  /** Sectors that the cache holds as clean though the medium has something else: what a failed sync leaves. */
  readonly #stale: Map<number, Uint8Array> = new Map();
  #pending: PendingWrite[] = [];
  #ordinal = 0;

  get size(): number {
    return this.#size;
  }

  /** Bytes that a crash cannot take: those that damage can hit. */
  get mediumSize(): number {
    return this.#mediumSize;
  }

  get pending(): readonly PendingWrite[] {
    return this.#pending;
  }

  read(offset: number, length: number): Uint8Array {
    return this.#seen.slice(Math.min(offset, this.#size), Math.min(offset + length, this.#size));
  }

  write(offset: number, bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const end = offset + bytes.length;
    this.#reserve(end);
    this.#change("write", offset, end, end, () => this.#seen.set(bytes, offset));
    this.#size = Math.max(this.#size, end);
  }

  truncate(size: number): void {
    this.#reserve(size);
    this.#change("truncate", Math.min(size, this.#size), this.#size, size, () => this.#seen.fill(0, size));
    this.#size = size;
  }

  /**
   * Everything pending ends: on the medium, or nowhere.
   *
   * @param fateOf Called once for each pending write, oldest first.
   * @param cache Whether reads go on seeing what was written, whatever the medium has.
   */
  settle(fateOf: (write: PendingWrite) => WriteFate, cache: "keep" | "evict"): void {
    const fates = new Map(this.#pending.map((write) => [write, fateOf(write)]));
    for (const [write, fate] of fates) {
      if (!fate.keepsSize) continue;
      this.#mediumSize = write.kind === "truncate" ? write.end : Math.max(this.#mediumSize, write.end);
    }
    for (const [sector, { base, versions }] of this.#dirty) {
      const last = versions.findLast(({ write }) => fates.get(write)?.keeps(sector - write.first));
      if (last === versions.at(-1)) continue;
      if (cache === "keep") this.#stale.set(sector, last?.bytes ?? base);
      else this.#seen.set(last?.bytes ?? base, sector * SECTOR_BYTES);
    }
    this.#dirty.clear();
    this.#pending = [];
  }

  /** The cache is gone: what was pending ends as `fateOf` says, and reads see the medium. */
  crash(fateOf: (write: PendingWrite) => WriteFate): void {
    this.settle(fateOf, "evict");
    for (const [sector, bytes] of this.#stale) this.#seen.set(bytes, sector * SECTOR_BYTES);
    this.#stale.clear();
    this.#size = this.#mediumSize;
    this.#reserve(this.#size);
    this.#seen.fill(0, this.#size);
  }

  /** The sectors of a pending write as it left them. */
  contentOf(write: PendingWrite): readonly Uint8Array[] {
    return Array.from({ length: write.count }, (_, index) => {
      const version = this.#dirty.get(write.first + index)?.versions.find((one) => one.write === write);
      return (version as { bytes: Uint8Array }).bytes;
    });
  }

  /** Damages a sector of the medium, up to the file's end there. */
  damage(sector: number, change: (bytes: Uint8Array) => void): void {
    const start = sector * SECTOR_BYTES;
    if (start >= this.#mediumSize) return; // behind the end there is nothing to damage
    const medium =
      this.#dirty.get(sector)?.base ?? this.#stale.get(sector) ?? this.#seen.subarray(start, start + SECTOR_BYTES);
    const rest = medium.slice(Math.max(0, this.#mediumSize - start));
    change(medium);
    medium.set(rest, SECTOR_BYTES - rest.length); // nor is there in the last sector
  }

  #change(kind: PendingWrite["kind"], from: number, to: number, end: number, apply: () => void): void {
    const first = Math.floor(from / SECTOR_BYTES);
    const count = to <= from ? 0 : Math.ceil(to / SECTOR_BYTES) - first;
    const write: PendingWrite = { ordinal: this.#ordinal++, kind, first, count, end };
    const sectors = Array.from({ length: count }, (_, index) => this.#dirtySector(first + index));
    apply();
    for (const [index, sector] of sectors.entries()) sector.versions.push({ write, bytes: this.#copy(first + index) });
    this.#pending.push(write);
  }

  #dirtySector(sector: number): DirtySector {
    const known = this.#dirty.get(sector);
    if (known !== undefined) return known;
    const made: DirtySector = { base: this.#stale.get(sector) ?? this.#copy(sector), versions: [] };
    this.#stale.delete(sector);
    this.#dirty.set(sector, made);
    return made;
  }

  #copy(sector: number): Uint8Array {
    return this.#seen.slice(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
  }

  #reserve(size: number): void {
    if (size <= this.#seen.length) return;
    const grown = new Uint8Array(Math.ceil(Math.max(size, this.#seen.length * 2) / SECTOR_BYTES) * SECTOR_BYTES);
    grown.set(this.#seen);
    this.#seen = grown;
  }
}
